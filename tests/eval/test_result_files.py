"""Result folders: written whole or not at all, never over the predictions of a run, and with nothing stale."""

import json
import math
from pathlib import Path

import pytest

from dataset_builders.record import to_record
from eval.result_files import json_ready, remove_scores, write_json, write_lines, write_results
from eval.results import BenchmarkResult
from tests.records import make_caption

RESULT = BenchmarkResult(
    "iground", {"official": {"AP50": math.nan}}, {}, {"clips": 1, "predicted": 1}, per_clip=[{"key": "a_0"}]
)
CAPTION = make_caption(tagged_caption="<p>A man</p> cuts <p>zwei Bl\u00e4tter\u2028</p>.")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_has_what_was_scored_and_nothing_of_before(tmp_path):
    folder = tmp_path / "results" / "first"
    references, predictions = [to_record(CAPTION)], [CAPTION]
    path = write_results(folder, RESULT, {"seed": 0}, references=references, predictions=predictions)
    results = json.loads(path.read_text(encoding="utf-8"))
    assert (results["seed"], results["metrics"]) == (0, {"official": {"AP50": None}})
    assert names(folder) == ["clips.jsonl", "predictions.jsonl", "references.jsonl", "results.json"]
    for name in ("predictions.jsonl", "references.jsonl"):
        content = (folder / name).read_bytes()
        assert content.count(b"\n") == 1 and json.loads(content)["video_id"] == CAPTION.video_id
    (folder / "worst").mkdir()
    for name in ("01_a_0.png", "12_b_1.png", "index.html", "mine.png"):
        (folder / "worst" / name).write_text("x")
    (folder / "notes.txt").write_text("x")
    write_results(folder, RESULT)
    assert names(folder) == ["clips.jsonl", "notes.txt", "results.json", "worst/mine.png"]
    remove_scores(folder)
    assert names(folder) == ["notes.txt", "worst/mine.png"]


def test_the_predictions_of_a_run_stay(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "predictions.jsonl").write_text("kept")
    with pytest.raises(
        ValueError, match=r"^--output: .* has the predictions of a run \(run.json\); choose another folder$"
    ):
        write_results(tmp_path, RESULT, predictions=[CAPTION])
    assert names(tmp_path) == ["predictions.jsonl", "run.json"]
    assert (tmp_path / "predictions.jsonl").read_text() == "kept"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match=r"^--output: [^\n]*file is a file; expected a folder$"):
        write_results(tmp_path / "file", RESULT)


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_lines(path, [{"key": 1}])
    with pytest.raises(TypeError):
        write_lines(path, [{"key": 2}, {"key": object()}])
    with pytest.raises(TypeError):
        write_json(path, {"key": object()})
    assert path.read_text() == '{"key":1}\n' and names(tmp_path) == ["predictions.jsonl"]


def test_nan_is_null():
    assert json_ready({"a": [math.nan, (1.5, math.inf)], "b": "x"}) == {"a": [None, [1.5, None]], "b": "x"}
