"""The files of a world: the same whoever made them and however often they were interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dataset_builders.__main__ import main
from dataset_builders.record import from_record, processed
from dataset_builders.shapes import ShapesConfig, iter_clips, write_shapes
from dataset_builders.shapes.writing import frames_path, records_path
from dataset_builders.validation import Validator
from modeling_grove.video_grove import read_video

TINY = ShapesConfig(32, 32, fps=5, seconds=2)
OPTIONS = ["--size", "32x32", "--fps", "5", "--seconds", "2"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Written by one process without a stop."""
    folder = tmp_path_factory.mktemp("world")
    assert write_shapes(folder, {"train": 40, "test": 3}, TINY) == {"train": 40, "test": 3}
    return folder


def test_files_hold_the_clips_of_the_stream(world):
    names = {path.name for path in world.iterdir()}
    assert names == {
        "shapes.json",
        "videos",
        *(f"{split}{end}" for split in ("train", "test") for end in (".jsonl", ".frames.jsonl")),
    }
    records = [json.loads(line) for line in records_path(world, "test").read_text().splitlines()]
    frames = [json.loads(line) for line in frames_path(world, "test").read_text().splitlines()]
    validator = Validator()
    for record, frame, clip in zip(records, frames, iter_clips("test", 3, config=TINY), strict=True):
        assert not [problem for problem in validator.check(record) if problem.is_error]
        assert from_record(record) == clip.caption and from_record(processed(record)) == clip.caption.merged()
        assert frame == json.loads(json.dumps(clip.frames_record()))
        video = read_video(world / "videos" / record["video_fname"])
        assert video.frame_indices.tolist() == record["frame_indices"] and video.frames.shape[1:3] == (32, 32)


def test_more_clips_are_added_and_lost_videos_made_again(world, tmp_path):
    write_shapes(tmp_path, {"train": 21}, TINY)
    write_shapes(tmp_path, {"test": 3}, TINY)
    (tmp_path / "videos" / "shapes-train-000004.mp4").unlink()
    (tmp_path / "videos" / ".shapes-train-000030.0badcafe.tmp.mp4").write_bytes(b"half")
    assert write_shapes(tmp_path, {"train": 40}, TINY) == {"train": 20}
    assert files(tmp_path) == files(world)
    assert write_shapes(tmp_path, {"train": 40, "test": 3}, TINY) == {"train": 0, "test": 0}


def test_a_folder_has_clips_of_one_kind(world):
    before = files(world)
    for arguments, message in (
        (({"train": 40}, ShapesConfig(32, 32, fps=5, seconds=3)), "has clips with seconds 2.0, not 3.0"),
        (({"train": 40}, TINY, 1), "has clips with seed 0, not 1"),
        (({"train": 10}, TINY), "has 40 clips already, more than 10"),
        (({"train": 0}, TINY), "at least 1 clip"),
        (({"dev": 1}, TINY), "split: expected one of train"),
        (({"train": 40}, TINY, 0, 0), "at least 1 process"),
    ):
        with pytest.raises(ValueError, match=message):
            write_shapes(world, *arguments)
    assert files(world) == before


def test_a_killed_run_of_two_processes_ends_whole_and_goes_on_where_it_was(world, tmp_path):
    command = [sys.executable, "-m", "dataset_builders", "shapes", "--output", str(tmp_path), *OPTIONS]
    command += ["--split", "train=40", "--split", "test=3", "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(".parts/train*.jsonl")) and time.monotonic() < deadline:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(family) >= 3  # two that make clips, and the one that started them
    assert not psutil.wait_procs(family, timeout=60)[1]
    kept = {path.name: path.read_bytes() for path in tmp_path.glob(".parts/train*.jsonl")}
    assert kept and not records_path(tmp_path, "train").exists()
    # What one process makes now is what two would have made.
    assert write_shapes(tmp_path, {"train": 40, "test": 3}, TINY)["train"] == 40 - sum(map(_clips, kept))
    assert files(tmp_path) == files(world)


def _clips(part: str) -> int:
    first, end = re.findall(r"\d+", part)
    return int(end) - int(first)


def test_the_command_prints_statistics(tmp_path, capsys):
    command = ["shapes", "--output", str(tmp_path / "world"), "--split", "train=3", "--split", "test=2", *OPTIONS]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "avg tube length" in printed and "3 clips made now" in printed
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["train"]["clips"] == 3 and result["train"]["made_now"] == 0
    assert result["test"]["statistics"]["clips"] == 2
    assert Path(result["test"]["records"]).exists() and Path(result["test"]["frame_captions"]).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "dev=3"], "expected NAME=CLIPS"),
        (["--split", "train=0"], "expected NAME=CLIPS"),
        (["--split", "train=2", "--size", "32"], "expected WIDTHxHEIGHT"),
        (["--split", "train=2", "--size", "33x32"], "width: expected an even number"),
        (["--split", "train=2", "--split", "train=3"], "given twice"),
        (["--split", "train=2", "--seed", "-1"], "seed: expected a number from 0"),
        (["--split", "train=2", "--workers", "0"], "at least 1 process"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, capsys, options, message):
    try:
        status = main(["shapes", "--output", str(tmp_path), *options])
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr()
    assert status == 2 and message in printed.err and printed.err.count("\n") == 1 and not printed.out
