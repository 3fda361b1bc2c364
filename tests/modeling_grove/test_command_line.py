"""`python -m modeling_grove`: what it writes, and that whatever it is given it never ends in a traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from modeling_grove import GroundedCaption
from modeling_grove.__main__ import main
from tests.synthetic_clips import corrupt, encode, encode_audio, truncate

ROOT = Path(__file__).parents[2]
CAPTION = ["--caption", "A <p>dog</p> runs."]

# name: arguments of `encode` for an odd but sound video
ODD = {
    "two_frames.mp4": {"num_frames": 2},
    "one_frame.mkv": {"num_frames": 1},
    "one_fps.mp4": {"fps": 1, "num_frames": 4},
    "fast.mp4": {"fps": 120, "num_frames": 60},
    "turned.mp4": {"rotation": 90, "num_frames": 20},
    "tiny.mp4": {"width": 2, "height": 2, "num_frames": 10},
    "odd_size.mp4": {"width": 33, "height": 17, "pix_fmt": "yuv444p", "num_frames": 10},
    "wide.mp4": {"width": 512, "height": 4, "num_frames": 10},
    "variable.mkv": {"milliseconds": [0, 40, 400, 440, 480, 1500, 1540]},
}


@pytest.fixture
def run(demo_checkpoint, tmp_path, capsys):
    """Runs the command in this process: exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        where = ["--model", str(demo_checkpoint), "--output", str(tmp_path / "out"), "--device", "cpu"]
        try:
            status = main([*where, *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def broken_videos(folder: Path) -> list[Path]:
    """Files that are no videos, and videos without anything to see."""
    whole = folder / "whole.mp4"
    encode(whole)
    made = {
        name: folder / name for name in ("empty.mp4", "text.mp4", "noise.mkv", "sound.mp4", "cover.mp4", "list.m3u8")
    }
    made["empty.mp4"].touch()
    made["text.mp4"].write_text("not a video\n" * 50)
    made["noise.mkv"].write_bytes(np.random.default_rng(0).bytes(4000))
    encode_audio(made["sound.mp4"])
    encode_audio(made["cover.mp4"], cover=True)
    made["list.m3u8"].write_text("#EXTM3U\nwhole.mp4\n")
    cut = [truncate(whole, folder / f"cut_{percent}.mp4", percent / 100) for percent in (1, 10, 50, 90)]
    (folder / "folder.mp4").mkdir()
    whole.unlink()
    return [*made.values(), *cut, folder / "folder.mp4", folder / "missing.mp4"]


def test_writes_json_video_and_picture(run, example_clip, tmp_path):
    status, out, err = run(example_clip, *CAPTION, "--end-time", 2, "--json")
    assert status == 0, err
    result = GroundedCaption.load(tmp_path / "out" / "clip.json")
    assert json.loads(out) == result.to_dict()
    assert result.caption == "A dog runs." and result.timestamps[-1] < 2.0
    with av.open(str(tmp_path / "out" / "clip.mp4")) as rendered:
        stream = rendered.streams.video[0]
        shown = sum(1 for _ in rendered.decode(stream))
        assert shown == result.clip_end_frame - result.clip_start_frame + 1
        assert stream.width % 2 == 0 and stream.height > result.height
    with Image.open(tmp_path / "out" / "clip.png") as sheet:
        assert sheet.width > result.width


def test_generates_without_a_caption(run, example_clip, tmp_path):
    status, out, _ = run(example_clip, "--end-time", 1, "--no-render", "--max-new-tokens", 8)
    assert status == 0 and out.startswith("clip, frames 0-")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.json"]


def test_clips_of_a_long_video(run, example_clip, tmp_path):
    status, out, _ = run(example_clip, "--clip-seconds", 2, "--no-render", "--json", "--max-new-tokens", 4)
    assert status == 0
    keys = [f"{clip['video_id']}_{clip['clip_id']}" for clip in map(json.loads, out.splitlines())]
    assert len(keys) > 2 and sorted(f"{key}.json" for key in keys) == sorted(os.listdir(tmp_path / "out"))


def test_odd_videos(run, tmp_path):
    paths = [tmp_path / name for name in ODD]
    for path in paths:
        encode(path, **ODD[path.name])
    encode(tmp_path / "whole.mkv")
    paths.append(corrupt(tmp_path / "whole.mkv", tmp_path / "damaged.mkv", 0.5, 0.6))
    status, out, err = run(*paths, *CAPTION, "--no-render")
    assert status == 0, err
    assert out.count("frames 0-") == len(paths)
    turned = GroundedCaption.load(tmp_path / "out" / "turned.json")
    assert (turned.width, turned.height) == (48, 64)
    assert np.diff(GroundedCaption.load(tmp_path / "out" / "one_fps.json").timestamps).tolist() == [1.0] * 3


def test_broken_videos_give_one_line_each(run, example_clip, tmp_path):
    broken = broken_videos(tmp_path)
    started = time.monotonic()
    status, out, err = run(*broken, example_clip, *CAPTION, "--end-time", 1, "--no-render")
    assert status == 2
    assert time.monotonic() - started < 60
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(broken), err
    for path, line in zip(broken, errors, strict=True):
        assert line.startswith(f"error: {path}: ")
    assert "Traceback" not in err
    assert out.startswith("clip, frames 0-"), "the sound video still gets its result"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fps", "0"], "--fps is 0.0; expected a positive number"),
        (["--fps", "fast"], "invalid float value"),
        (["--window-batch-size", "-1"], "--window-batch-size is -1"),
        (["--phrase", "dog"], "--phrase needs --caption"),
        (["--caption", "a cat", "--phrase", "dog"], "dog"),
        ([*CAPTION, "--clip-seconds", "2"], "cannot be combined"),
        (["--objectness-threshold", "2"], "expected a probability"),
        (["--start-time", "900"], "900"),
        (["--end-time", "nan"], "nan"),
        (["--start-time", "2", "--end-time", "1"], "start"),
        (["--unknown"], "unrecognized arguments"),
        (["--device", "nonsense"], "--device is 'nonsense'; expected cpu, cuda"),
    ],
)
def test_bad_arguments(run, example_clip, arguments, message):
    status, out, err = run(example_clip, *arguments, "--no-render")
    assert status == 2 and out == ""
    (line,) = [line for line in err.splitlines() if not line.startswith("[1/1]")]
    assert line.startswith("error: ") and message in line


def test_two_videos_of_one_name(run, example_clip, tmp_path):
    status, _, err = run(example_clip, tmp_path / "clip.mp4")
    assert status == 2 and "would overwrite each other" in err


def test_the_video_itself_is_never_overwritten(run, example_clip, tmp_path):
    (tmp_path / "out").mkdir()
    video = tmp_path / "out" / "clip.mp4"
    shutil.copyfile(example_clip, video)
    status, out, err = run(video, *CAPTION, "--end-time", 1)
    assert status == 2 and out == "" and "would overwrite" in err
    status, _, err = run(video, *CAPTION, "--end-time", 1, "--no-render")
    assert status == 0, err
    assert video.read_bytes() == Path(example_clip).read_bytes()


@pytest.mark.parametrize("model", ["no/such-model", "empty_folder"])
def test_model_that_cannot_be_loaded(model, example_clip, tmp_path, capsys):
    folder = tmp_path / "empty_folder"
    folder.mkdir()
    name = str(folder) if model == "empty_folder" else model
    assert main([str(example_clip), "--model", name]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: Cannot load a GROVE model from {name!r}") and "\n" not in error


def test_in_a_process_of_its_own(demo_checkpoint, example_clip, tmp_path):
    command = [sys.executable, "-m", "modeling_grove", "--model", str(demo_checkpoint), "--output", str(tmp_path)]
    shown = subprocess.run([*command[:3], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0 and "example:" in shown.stdout
    missing = subprocess.run([*command, "missing.mp4"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr and missing.stdout == ""
    # Killed at any moment it leaves finished files or none.
    child = subprocess.Popen([*command, str(example_clip)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (tmp_path / "clip.json").exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    GroundedCaption.load(tmp_path / "clip.json")
    assert not (tmp_path / "clip.mp4").exists() and not (tmp_path / "clip.png").exists()


def test_real_clips(run, real_videos, tmp_path):
    status, out, err = run(*real_videos, *CAPTION, "--json", "--no-render")
    assert status == 0, err
    for line, path in zip(out.splitlines(), real_videos, strict=True):
        result = GroundedCaption.from_dict(json.loads(line))
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (result.width, result.height) == (stream.width, stream.height)
            times = [frame.time for frame in container.decode(stream)]
        assert result.clip_end_frame == len(times) - 1
        seconds = np.array(times)[result.frame_indices] - times[0]
        np.testing.assert_allclose(result.timestamps, seconds, atol=1e-3)
        steps = np.diff(result.frame_indices)
        assert set(steps) == {int(result.fps / 5)}
