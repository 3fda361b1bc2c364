"""Predictions on disk while a model runs: what is written stays, what is torn goes, and nobody else's is taken."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.record import to_record
from eval.prediction_files import Outcome, PredictionFiles
from modeling_grove.grounded_caption import GroundedCaption
from tests.records import make_caption

SETTINGS: dict[str, Any] = {
    "benchmark": "iground",
    "seed": 0,
    "windows": "covering",
    "data": {"name": "x", "limit": None},
}
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


def write(files: PredictionFiles) -> tuple[list[GroundedCaption], dict[str, str], float]:
    """Ends a run; returns what it ended with."""
    with files.claimed(SETTINGS):
        merged = files.merge(caption.key for caption in CAPTIONS)
        files.write(map(to_record, CAPTIONS), merged[0], merged[2])
    return merged


def test_lines_of_all_processes_become_one_file_in_the_order_of_the_clips(tmp_path):
    first = [Outcome(CAPTIONS[2].key, 0.5, CAPTIONS[2]), Outcome(CAPTIONS[3].key, 0.0, problem="no video")]
    files = run_files(tmp_path, {0: first, 7: [Outcome(CAPTIONS[0].key, 0.25, CAPTIONS[0])]})
    assert files.finished() == {CAPTIONS[0].key, CAPTIONS[2].key}
    assert files.annotations() is None
    assert write(files) == ([CAPTIONS[0], CAPTIONS[2]], {CAPTIONS[3].key: "no video"}, 0.75)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "references.jsonl", "run.json"]
    assert files.annotations() == [to_record(caption) for caption in CAPTIONS]
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


class Killed(BaseException):
    """Ends a run where it is raised."""


@pytest.mark.parametrize("place", range(7))
def test_a_run_that_is_killed_while_it_ends_can_end_once_more(place, tmp_path, monkeypatch):
    """Whatever file was the last to be replaced or removed, nothing is lost and no second counts twice."""
    files = run_files(tmp_path, {0: [Outcome(CAPTIONS[0].key, 0.5, CAPTIONS[0])]})
    assert write(files)[2] == 0.5
    run_files(tmp_path, {n: [Outcome(CAPTIONS[n].key, 0.25, CAPTIONS[n])] for n in (1, 2, 3)})
    with monkeypatch.context() as patched, files.claimed(SETTINGS):
        steps = itertools.count()
        for name in ("replace", "unlink"):
            patched.setattr(os, name, dying(getattr(os, name), steps, place))
        predictions, _, seconds = files.merge(caption.key for caption in CAPTIONS)
        with pytest.raises(Killed):
            files.write(map(to_record, CAPTIONS), predictions, seconds)
        patched.undo()
    assert write(files) == (CAPTIONS, {}, 1.25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "references.jsonl", "run.json"]


def dying(function: Callable[..., None], steps: Iterator[int], place: int) -> Callable[..., None]:
    """The function, which raises at step number `place`; a step changes a file that is not temporary."""

    def step(*paths: str | Path, **options: int) -> None:
        if not Path(paths[-1]).name.startswith(".") and next(steps) == place:
            raise Killed
        function(*paths, **options)

    return step


def test_files_that_are_not_of_the_run_are_not_taken_for_its_own(tmp_path):
    """Those of another origin, such as `score --output` with the same folder."""
    files = run_files(tmp_path, {0: [Outcome(caption.key, 0.5, caption) for caption in CAPTIONS]})
    write(files)
    references, predictions = files.references.read_bytes(), files.predictions.read_bytes()
    files.references.write_bytes(b"".join(references.splitlines(keepends=True)[:2]))
    with files.claimed(SETTINGS):
        assert files.annotations() is None  # which are read anew
    files.predictions.write_bytes(predictions.replace(b"zwei", b"drei"))
    with pytest.raises(ValueError, match="predictions.jsonl is not what the run wrote"), files.claimed(SETTINGS):
        pass
    files.predictions.write_bytes(predictions)
    assert write(files)[0] == CAPTIONS


def test_a_run_that_did_nothing_leaves_nothing(tmp_path):
    folder = tmp_path / "results" / "run"
    with PredictionFiles(folder).claimed(SETTINGS), PredictionFiles(folder).part(0):
        assert (folder / "run.json").exists()
    assert not folder.exists() and folder.parent.exists()
    folder.mkdir()
    with PredictionFiles(folder).claimed(SETTINGS):
        pass
    assert [*folder.iterdir()] == []


def test_settings_must_be_those_of_the_folder(tmp_path):
    files = run_files(tmp_path, {0: [Outcome(CAPTIONS[0].key, 0.5, CAPTIONS[0])]})
    other = {**SETTINGS, "data": {"name": "x", "limit": 2}}
    message = r": windows was 'covering' and is 'sliding'; data.limit was None and is 2; choose another folder$"
    with pytest.raises(ValueError, match=message), files.claimed({**other, "windows": "sliding"}):
        pass
    with files.claimed(SETTINGS):
        pass
    assert files.finished() == {CAPTIONS[0].key}
    (tmp_path / "run.json").write_text("[]")
    with (
        pytest.raises(ValueError, match="expected an object with settings, seconds and checksums"),
        files.claimed(SETTINGS),
    ):
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
    assert line.count(b"\n") == 1 and line.endswith(b"\n") and json.loads(line)["seconds"] == 0.3333
