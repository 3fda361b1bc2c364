"""Predictions on disk while a model runs: what is written stays, what is torn goes, and nobody else's is taken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.prediction_files import Outcome, PredictionFiles
from tests.records import make_caption

SETTINGS = {"benchmark": "iground", "seed": 0, "windows": "covering"}
CAPTIONS = [
    make_caption(clip_id=n, seed=n, tagged_caption="<p>A man</p> cuts <p>zwei Bl\u00e4tter\u2028</p>.")
    for n in range(4)
]


def run_files(folder: Path, processes: dict[int, list[Outcome]]) -> PredictionFiles:
    """A folder in which processes wrote these."""
    files = PredictionFiles(folder)
    with files.claimed(SETTINGS):
        for process, outcomes in processes.items():
            with files.part(process) as part:
                for outcome in outcomes:
                    part.append(outcome)
    return files


def test_lines_of_all_processes_become_one_file_in_the_order_of_the_clips(tmp_path):
    first = [Outcome(CAPTIONS[2].key, 0.5, CAPTIONS[2]), Outcome(CAPTIONS[3].key, 0.0, problem="no video")]
    files = run_files(tmp_path, {0: first, 7: [Outcome(CAPTIONS[0].key, 0.25, CAPTIONS[0])]})
    assert files.finished() == {CAPTIONS[0].key, CAPTIONS[2].key}
    predictions, problems, seconds = files.merge(caption.key for caption in CAPTIONS)
    assert (predictions, problems, seconds) == ([CAPTIONS[0], CAPTIONS[2]], {CAPTIONS[3].key: "no video"}, 0.75)
    files.write(predictions, seconds)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "run.json"]
    # And once more, from the file alone; the seconds are those of both runs.
    files = run_files(tmp_path, {1: [Outcome(CAPTIONS[3].key, 1.0, CAPTIONS[3])]})
    assert files.merge(caption.key for caption in CAPTIONS) == ([CAPTIONS[0], *CAPTIONS[2:]], {}, 1.75)


def test_a_torn_line_is_no_prediction_and_is_cut_off_before_the_next_one(tmp_path):
    files = run_files(tmp_path, {0: [Outcome(CAPTIONS[n].key, 0.5, CAPTIONS[n]) for n in (0, 1)]})
    part = tmp_path / ".parts" / "00000.jsonl"
    whole = part.read_bytes()
    second = whole.index(b"\n") + 1
    for end in (second - 1, second, second + 1, whole.index("\u00e4".encode(), second) + 1, len(whole) - 1):
        part.write_bytes(whole[:end])
        expected = {CAPTIONS[0].key} if end >= second else set()
        assert files.finished() == expected
        with files.part(0) as again:
            again.append(Outcome(CAPTIONS[1].key, 0.5, CAPTIONS[1]))
        assert files.finished() == expected | {CAPTIONS[1].key}
    assert part.read_bytes() == whole


def test_settings_must_be_those_of_the_folder(tmp_path):
    files = run_files(tmp_path, {})
    other = {**SETTINGS, "windows": "sliding"}
    with pytest.raises(ValueError, match=r"windows was 'covering' and is 'sliding'; cho[^\n]*$"), files.claimed(other):
        pass
    with files.claimed(SETTINGS):
        pass
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="expected an object with settings and seconds"), files.claimed(SETTINGS):
        pass
    (tmp_path / "run.json").unlink()
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="of another origin"), files.claimed(SETTINGS):
        pass


def test_one_run_at_a_time_and_a_killed_one_is_none(tmp_path):
    script = (
        "import sys, pathlib, time; from eval.prediction_files import PredictionFiles\n"
        f"with PredictionFiles(pathlib.Path(sys.argv[1])).claimed({SETTINGS!r}):\n"
        "    print('claimed', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "claimed\n"
        files = PredictionFiles(tmp_path)
        with pytest.raises(ValueError, match="another run is writing there"), files.claimed(SETTINGS):
            pass
        other.kill()
        other.wait()
        with files.claimed(SETTINGS):
            pass
    finally:
        other.kill()
        other.wait()


def test_a_line_is_one_line_of_json():
    line = Outcome(CAPTIONS[0].key, 1 / 3, CAPTIONS[0]).line()
    assert "\n" not in line and json.loads(line)["seconds"] == 0.3333
