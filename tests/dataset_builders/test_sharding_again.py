"""The `shard` command where something is there already: going on with it, refusing to touch it, replacing it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from dataset_builders import sharding
from dataset_builders.shard_jobs import ShardJob, make_shard
from tests.dataset_builders.shard_runs import Records, files, make_records, shard, write_jsonl
from tests.records import make_record, make_videos
from tests.synthetic_clips import truncate


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good videos and a broken one."""
    folder = make_videos(tmp_path_factory.mktemp("videos"), ["a", "b", "c"])
    truncate(folder / "a.mp4", folder / "broken.mp4", 0.3)
    return folder


@pytest.fixture(scope="module")
def records() -> Records:
    return make_records()


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory, records: Records) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("annotations") / "train.jsonl", records)


def test_something_else_in_the_same_place_is_refused(
    tmp_path: Path, records: Records, annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert shard(annotations, output, "--samples-per-shard", 4) == 0
    before = files(output)
    other = write_jsonl(tmp_path / "other.jsonl", records[3:])
    for path, options in ((other, ("--samples-per-shard", 4)), (annotations, ("--samples-per-shard", 5))):
        assert shard(path, output, *options) == 2
        error = capsys.readouterr().err
        assert "has default/train from other annotations or settings" in error
        assert "--overwrite" in error
        assert error.count("\n") == 1
    assert {name: digest for name, digest in files(output).items() if not name.startswith(".")} == before
    assert shard(other, output, "--samples-per-shard", 4, "--overwrite") == 0
    assert shard(other, tmp_path / "fresh", "--samples-per-shard", 4, "--name", "out") == 0
    assert files(output) == files(tmp_path / "fresh")


def test_files_that_nobody_knows_are_refused(
    tmp_path: Path, annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    (output / "default").mkdir(parents=True)
    (output / "default" / "train-00000-of-00001.tar").write_bytes(b"precious")
    assert shard(annotations, output) == 2
    assert "no manifest says from where" in capsys.readouterr().err
    (output / "manifest.json").write_text('{"version": 99}')
    assert shard(annotations, output) == 2
    assert "expected a manifest of version 1" in capsys.readouterr().err
    assert (output / "default" / "train-00000-of-00001.tar").read_bytes() == b"precious"


def test_a_refused_run_leaves_an_unfinished_one_as_it_is(
    tmp_path: Path,
    annotations: Path,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, options = tmp_path / "set", ("--samples-per-shard", 4)

    def killed(jobs: list[ShardJob], workers: int) -> None:
        """After a shard, and before the note that it is done."""
        make_shard(jobs[0])
        jobs[0].result.unlink()
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "make_shards", killed)
        assert shard(annotations, output, *options) == 2
    before = files(output)
    assert "default/train-00000-of-00004.tar" in before
    capsys.readouterr()
    other = write_jsonl(tmp_path / "other.jsonl", records[3:])
    for source, settings in ((annotations, ("--samples-per-shard", 5)), (other, options)):
        assert shard(source, output, *settings) == 2
        assert "has an unfinished default/train from other annotations or settings" in capsys.readouterr().err
        assert files(output) == before
    assert shard(annotations, output, *options) == 0
    assert shard(annotations, tmp_path / "fresh" / "set", *options) == 0
    assert files(output) == files(tmp_path / "fresh" / "set")


def test_a_lost_shard_is_noticed(tmp_path: Path, annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shard(annotations, tmp_path / "out", "--samples-per-shard", 4) == 0
    before = files(tmp_path / "out")
    (tmp_path / "out" / "default" / "train-00002-of-00004.tar").unlink()
    assert shard(annotations, tmp_path / "out", "--samples-per-shard", 4) == 2
    assert "train-00002-of-00004.tar of the manifest is not there" in capsys.readouterr().err
    assert shard(annotations, tmp_path / "out", "--samples-per-shard", 4, "--overwrite") == 0
    assert files(tmp_path / "out") == before


def test_a_shard_of_a_finished_split_that_was_cut_is_noticed(
    tmp_path: Path, annotations: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, whole = tmp_path / "set", tmp_path / "whole"
    assert shard(annotations, output, "--videos", videos, "--samples-per-shard", 4) == 0
    shutil.copytree(output, whole)
    for config in ("default", "default_video"):
        name = f"{config}/train-00001-of-00004.tar"
        os.truncate(output / name, 1000)
        assert shard(annotations, output, "--videos", videos, "--samples-per-shard", 4) == 2
        size = (whole / name).stat().st_size
        assert f"{name} of the manifest is not there with its {size} bytes" in capsys.readouterr().err
        shutil.copy(whole / name, output / name)
    assert shard(annotations, output, "--videos", videos, "--samples-per-shard", 4) == 0


def test_videos_that_come_later_are_tried_again_on_demand(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = write_jsonl(tmp_path / "a.jsonl", [make_record("a"), make_record("b")]), tmp_path / "videos"
    folder.mkdir()
    shutil.copy(videos / "a.mp4", folder)
    for overwrite, clips in (([], 1), ([], 1), (["--overwrite"], 2)):
        capsys.readouterr()
        assert shard(path, tmp_path / "out", "--videos", folder, *overwrite) == 0
        printed = capsys.readouterr().out
        assert f"{clips} clips" in printed
        assert ("--overwrite tries again" in printed) == (clips == 1)
        shutil.copy(videos / "b.mp4", folder)


@pytest.mark.parametrize("problem", ["no usable record", "not readable"])
def test_overwriting_with_nothing_keeps_what_is_there(
    tmp_path: Path, annotations: Path, records: Records, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "set"
    assert shard(annotations, output, "--samples-per-shard", 4) == 0
    before = files(output)
    bad = write_jsonl(tmp_path / "bad.jsonl", [{**records[0], "fps": -1}])
    if problem == "not readable":
        bad = tmp_path / "bad.jsonl.gz"
        bad.write_bytes(b"no gzip")
    assert shard(bad, output, "--overwrite", "--rejected", tmp_path / "rejected.jsonl") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "rejected.jsonl").exists() == (problem == "no usable record")
    assert {name: digest for name, digest in files(output).items() if not name.startswith(".")} == before
    assert shard(annotations, output, "--samples-per-shard", 4) == 0
    assert files(output) == before  # and nothing of the refused run
    assert shard(annotations, output, "--samples-per-shard", 4, "--overwrite") == 0
    assert files(output) == before


def test_killed_in_mid_run_and_resumed(
    tmp_path: Path, annotations: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both the command and its workers end; the next run makes what is missing, and no byte differs."""
    options = ["--videos", str(videos), "--samples-per-shard", "1"]
    assert shard(annotations, tmp_path / "calm", *options, "--name", "set") == 0
    output = tmp_path / "storm"
    command = [sys.executable, "-m", "dataset_builders", "shard", "--annotations", str(annotations), "--workers", "2"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "USER": "somebody", "LC_ALL": "C"}
    process = subprocess.Popen(
        [*command, "--output", str(output), "--name", "set", *options], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(output.glob(".sharding/*/shard-*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    done = {path: path.stat().st_mtime_ns for path in output.glob(".sharding/*/shard-*.json")}
    assert 0 < len(done) < 15
    assert not (output / "manifest.json").exists()
    made_before = {path: path.stat().st_mtime_ns for path in output.glob("default/*.tar")}
    (output / "default_video" / ".train-00009-of-00015.0123456789ab.tmp.tar").write_bytes(b"half a shard")
    capsys.readouterr()
    assert shard(annotations, output, *options, "--name", "set", "--json") == 0
    assert json.loads(capsys.readouterr().out)["made"] == 15 - len(done)
    assert files(output) == files(tmp_path / "calm")
    for number in (int(path.stem.split("-")[1]) for path in done):
        path = output / "default" / f"train-{number:05d}-of-00015.tar"
        assert path.stat().st_mtime_ns == made_before[path]


def test_two_runs_for_one_split_do_not_meet(
    tmp_path: Path, annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / ".sharding" / "default.train"
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        assert shard(annotations, tmp_path / "out") == 2
    assert "another run is making this split" in capsys.readouterr().err
    assert shard(annotations, tmp_path / "out") == 0
    assert not (tmp_path / "out" / ".sharding").exists()
