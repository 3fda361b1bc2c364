import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.__main__ import main
from dataset_builders.reading import read_records
from dataset_builders.record import from_record, record_key, record_metadata
from tests.dataset_builders import released_files
from tests.dataset_builders.test_importers import shared
from tests.records import make_record


def _import(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    """The counts that the command prints."""
    assert main(["import", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _error(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line of a command that fails."""
    assert main(["import", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert not captured.out and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def test_all_real_vidstg_validation_entries_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = shared("data", "annotations", "vidstg_val_annotations.json"), tmp_path / "vidstg.jsonl"
    counts = _import(capsys, "vidstg", path, "--output", output)
    print(counts)
    assert counts == {
        "format": "vidstg",
        "output": str(output),
        "records": 8956,
        "videos": 602,
        "with_boxes": 0,
        "without_boxes": 8956,
        "boxes": 0,
        "entries": 3996,
        "declarative": 3996,
        "interrogative": 4960,
        "num_problems": 0,
        "problems": {},
    }
    records = list(read_records(output))
    metadata = [record_metadata(record) for record in records]
    assert {item["entry"] for item in metadata} == set(range(1, 3997))
    assert len({record_key(record) for record in records}) == len(records) == 8956
    entries = json.loads(path.read_text(encoding="utf-8"))
    for record, item in zip(records, metadata, strict=True):
        entry = entries[item["entry"] - 1]
        sentences = entry["captions" if item["qtype"] == "declarative" else "questions"]
        assert (record["caption"], item["target_id"]) in [(s["description"].strip(), s["target_id"]) for s in sentences]
        assert (record["video_id"], record["phrases"]) == (entry["vid"], [record["caption"]])
        # The frames that the official evaluation scores.
        first, last = entry["temporal_gt"]["begin_fid"], entry["temporal_gt"]["end_fid"] - 1
        assert item["temporal_gt"] == entry["temporal_gt"]
        official = [*range(first, last, int(entry["fps"] / 5))]
        assert [frame for frame in record["frame_indices"] if first <= frame < last] == official
    assert all(from_record(record).key == record_key(record) for record in records[::50])


@pytest.mark.parametrize(
    ("name", "document", "options", "counts"),
    [
        ("howtoground1m", released_files.released(), [], (3, 3, 0)),
        ("iground", released_files.released(instances=3), ["--processed"], (3, 3, 0)),
        ("vidstg", released_files.vidstg(), [], (9, 2, 9)),
        ("vidstg", released_files.prepared_vidstg(), [], (3, 3, 0)),
        ("activitynet-entities", released_files.activitynet_entities(), [], (3, 3, 0)),
        ("youcook-interactions", released_files.pointing(), [], (3, 3, 0)),
        ("groundingyoutube", released_files.pointing(), [], (3, 3, 0)),
    ],
)
def test_every_format_makes_records(
    name: str,
    document: Any,
    options: list[str],
    counts: tuple[int, int, int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, output = released_files.write(tmp_path / "in.json", document), tmp_path / "new" / "out.jsonl"
    result = _import(capsys, name, path, "--output", output, *options)
    assert tuple(result[key] for key in ("records", "videos", "without_boxes")) == counts
    records = list(read_records(output))
    assert len(records) == counts[0]
    assert result["boxes"] == sum(len(boxes) for record in records for boxes in record["bboxes"])
    for record in records:
        from_record(record)
    if "--processed" in options:
        assert all(len(set(labels)) == len(labels) for record in records for labels in record["labels"])


def test_problems_are_counted_shown_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = released_files.released(20)
    for record in records[1:8]:
        del record["width"]
    records[8]["fps"] = "fast"
    path, output, log = (
        released_files.write(tmp_path / "in.jsonl", records),
        tmp_path / "out.jsonl",
        tmp_path / "log.jsonl",
    )
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(records[0]) + "\n" + json.dumps(records[0])[:-40])
    counts = _import(capsys, "iground", path, "--output", output, "--problems", log)
    assert (counts["records"], counts["num_problems"]) == (12, 10)
    assert counts["problems"] == {"missing_field": 7, "wrong_type": 1, "duplicate_key": 1, "truncated_line": 1}
    problems = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [problem["line"] for problem in problems[:8]] == [*range(2, 10)]
    assert {problem["field"] for problem in problems[:7]} == {"width"}
    before = output.read_bytes()
    error = _error(capsys, "iground", path, "--output", output, "--problems", log, "--max-problems", 7)
    assert "more than 7 problems, nothing is written; the last: " in error and "line 9: fps: expected a number" in error
    assert output.read_bytes() == before and len(log.read_text(encoding="utf-8").splitlines()) == 8
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "log.jsonl", "out.jsonl"]
    assert _import(capsys, "iground", path, "--output", output, "--max-problems", 10)["records"] == 12


def test_a_split_selects_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", tmp_path / "out.jsonl"]
    splits = released_files.write(
        tmp_path / "splits.json", {"training": ["v_0"], "validation": ["v_1", "v_2"], "none": []}
    )
    path = released_files.write(tmp_path / "in.json", released_files.activitynet_entities())
    arguments = ["activitynet-entities", path, *output, "--split-file", splits]
    assert _import(capsys, *arguments, "--split", "validation")["videos"] == 2
    assert "choose one with --split: training, validation, none" in _error(capsys, *arguments)
    assert "has no split 'test'" in _error(capsys, *arguments, "--split", "test")
    assert "nothing could be imported" in _error(capsys, *arguments, "--split", "none")
    assert "needs a --split-file" in _error(capsys, "activitynet-entities", path, *output, "--split", "training")
    keys = released_files.write(tmp_path / "keys.json", ["video0", "video2_2"])
    path = released_files.write(tmp_path / "in.jsonl", released_files.released())
    assert _import(capsys, "iground", path, *output, "--split-file", keys)["records"] == 2
    assert "leave --split out" in _error(capsys, "iground", path, *output, "--split-file", keys, "--split", "train")
    wrong = released_files.write(tmp_path / "wrong.json", [1])
    assert "expected a list of video ids" in _error(capsys, "iground", path, *output, "--split-file", wrong)


def test_clip_keys_select_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = released_files.activitynet_entities()
    segments = document["annotations"]["v_1"]["segments"]
    segments.update({"2": segments["1"], "3": {}, "x": {}})  # the last two cannot be imported, and are not asked for
    path = released_files.write(tmp_path / "in.json", document)
    output = ["--output", tmp_path / "out.jsonl"]
    keys = released_files.write(tmp_path / "keys.json", ["v_1_2", "v_2", "v_0_7", "v_9_1"])
    counts = _import(capsys, "activitynet-entities", path, *output, "--split-file", keys)
    assert [record_key(record) for record in read_records(tmp_path / "out.jsonl")] == ["v_1_2", "v_2_2"]
    assert counts["problems"] == {}
    assert counts["not_found"] == {"count": 2, "ids": ["v_0_7", "v_9_1"]}


def test_ids_that_are_not_there_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = released_files.write(tmp_path / "in.jsonl", released_files.released())
    arguments = ["iground", path, "--output", tmp_path / "out.jsonl", "--split-file", tmp_path / "ids.json"]
    released_files.write(tmp_path / "ids.json", ["video0", "video1_1", *(f"gone{i}" for i in range(7))])
    assert main(["import", *map(str, arguments)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["not_found"] == {"count": 7, "ids": [f"gone{i}" for i in range(5)]}
    released_files.write(tmp_path / "ids.json", ["video0", "video1_1"])
    assert _import(capsys, *arguments)["not_found"] == {"count": 0, "ids": []}
    released_files.write(tmp_path / "ids.json", ["gone"])
    assert "no entry of the 1 ids that" in _error(capsys, *arguments)


def test_entries_of_several_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = released_files.vidstg(4)
    paths = [released_files.write(tmp_path / f"{n}.json", entries[2 * n : 2 * n + 2]) for n in range(2)]
    together = released_files.write(tmp_path / "all.json", entries)
    counts = _import(capsys, "vidstg", *paths, "--output", tmp_path / "out.jsonl")
    assert (counts["entries"], counts["declarative"], counts["interrogative"]) == (4, 4, 8)
    assert counts == _import(capsys, "vidstg", together, "--output", tmp_path / "out.jsonl")
    log = tmp_path / "log.jsonl"
    again = _import(capsys, "vidstg", *paths, paths[1], "--output", tmp_path / "out.jsonl", "--problems", log)
    assert (again["entries"], again["problems"]) == (4, {"duplicate_key": 6})
    problems = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [(item["path"], item["line"]) for item in problems] == [(str(paths[1]), n) for n in range(1, 7)]


def test_released_fields_may_be_named_as_those_of_vidstg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [record | {"qtype": "x", "entry": "y"} for record in released_files.released()]
    del records[1]["entry"]
    path = released_files.write(tmp_path / "in.jsonl", records)
    counts = _import(capsys, "iground", path, "--output", tmp_path / "out.jsonl")
    assert counts["records"] == 3 and "entries" not in counts and "x" not in counts
    metadata = [record_metadata(record) for record in read_records(tmp_path / "out.jsonl")]
    assert metadata[:2] == [{"entry": "y", "qtype": "x"}, {"qtype": "x"}]


def test_our_own_records_import_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = [make_record("own", n, seed=n, instances=2, metadata={"source": n}) for n in range(2)]
    path = released_files.write(tmp_path / "in.jsonl", [released_files.released(1)[0], *own])
    assert _import(capsys, "iground", path, "--output", tmp_path / "out.jsonl")["records"] == 3
    assert list(read_records(tmp_path / "out.jsonl"))[1:] == own


def test_the_file_of_problems_is_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = released_files.write(tmp_path / "in.jsonl", released_files.released())
    splits = released_files.write(tmp_path / "ids.json", ["video0"])
    before = path.read_bytes(), splits.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(path)
    (tmp_path / "hard.jsonl").hardlink_to(path)
    for given in (path, path.as_uri()):
        arguments = ["iground", given, "--output", "out.jsonl", "--split-file", "ids.json"]
        for log in (path, "in.jsonl", "new/../in.jsonl", "link.jsonl", "hard.jsonl", "out.jsonl", splits):
            (tmp_path / "new").mkdir(exist_ok=True)
            assert "which is read or written too" in _error(capsys, *arguments, "--problems", log)
            assert (path.read_bytes(), splits.read_bytes()) == before and not Path("out.jsonl").exists()
    assert "a folder; expected a file" in _error(capsys, *arguments, "--problems", "new")


def test_an_import_that_cannot_begin_keeps_the_last_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "new" / "log.jsonl"
    arguments = ["--output", tmp_path / "out.jsonl", "--problems", log]
    bad, good = released_files.released(2)
    path = released_files.write(tmp_path / "in.jsonl", [{**bad, "fps": "fast"}, good])
    assert _import(capsys, "iground", path, *arguments)["num_problems"] == 1
    kept = log.read_bytes()
    assert b"fast" in kept
    assert "No such file" in _error(capsys, "iground", tmp_path / "none.jsonl", *arguments)
    assert log.read_bytes() == kept
    assert _import(capsys, "iground", released_files.write(path, [good]), *arguments)["num_problems"] == 0
    assert log.read_bytes() == b""


def test_trajectories_give_vidstg_its_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = released_files.write(tmp_path / "in.json", released_files.vidstg(4))
    folder = released_files.vidor(tmp_path / "vidor", ["1000"])
    counts = _import(capsys, "vidstg", path, "--output", tmp_path / "out.jsonl", "--trajectories", folder)
    assert (counts["records"], counts["with_boxes"], counts["entries"]) == (6, 6, 2)
    assert counts["problems"] == {"trajectory_missing": 6}


def test_what_cannot_be_done_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", tmp_path / "out.jsonl"]
    path = released_files.write(tmp_path / "in.jsonl", released_files.released())
    assert "nothing is unpickled" in _error(capsys, "iground", tmp_path / "iGround_val_set_raw.pkl", *output)
    assert "No such file" in _error(capsys, "iground", tmp_path / "none.jsonl", *output)
    assert "--videos is for activitynet-entities only" in _error(capsys, "iground", path, *output, "--videos", tmp_path)
    assert "--trajectories is for vidstg only" in _error(capsys, "iground", path, *output, "--trajectories", tmp_path)
    assert "no entry" in _error(capsys, "iground", released_files.write(tmp_path / "empty.jsonl", []), *output)
    other = released_files.write(tmp_path / "other.json", {"a": 1})
    assert "expected an object with `annotations`" in _error(capsys, "activitynet-entities", other, *output)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_of_another_format_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = released_files.write(tmp_path / "in.json", released_files.vidstg())
    assert main(["import", "iground", str(path), "--output", str(tmp_path / "out.jsonl")]) == 2
    error = capsys.readouterr().err
    assert "nothing could be imported as iground; the first of 3 problems" in error
    assert "missing; there is vid, fps, frame_count" in error
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_runs_as_a_process(tmp_path: Path) -> None:
    path = released_files.write(tmp_path / "in.jsonl", released_files.released())
    command = [
        sys.executable,
        "-m",
        "dataset_builders",
        "import",
        "iground",
        str(path),
        "--output",
        str(tmp_path / "out.jsonl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert json.loads(done.stdout)["records"] == 3 and not done.stderr
