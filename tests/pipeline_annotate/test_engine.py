"""The engine: all stages over parts, in processes that are killed, and what comes out of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from datasets import load_dataset

from dataset_builders.__main__ import main as dataset_command
from dataset_builders.reading import read_records
from dataset_builders.record import record_key
from pipeline_annotate.__main__ import main
from pipeline_annotate.engine import ResilientExecutor
from tests.workers import workers_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def videos(shapes, tmp_path_factory):
    """The world's videos, one of them damaged and one of them missing."""
    folder = tmp_path_factory.mktemp("engine") / "videos"
    folder.mkdir()
    for number, path in enumerate(sorted((shapes / "videos").iterdir())):
        if number != 4:
            (folder / path.name).write_bytes(b"no video" if number == 7 else path.read_bytes())
    return folder


def command(shapes, videos, spacy_folder, output, *options):
    return [
        "run", str(videos), "--clips", str(shapes / "train.jsonl"), "--captioner", f"shapes:{shapes / 'train.frames.jsonl'}",
        "--spacy", str(spacy_folder), "--clips-per-part", "2", "--output", str(output), *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(shapes, videos, spacy_folder, tmp_path_factory):
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("run") / "whole"
    assert main(command(shapes, videos, spacy_folder, output)) == 0
    return output


def test_every_clip_is_annotated_or_counted(whole, shapes):
    stats = json.loads((whole / "stats.json").read_text(encoding="utf-8"))
    records = list(read_records(str(whole / "records.jsonl")))
    dropped = [json.loads(line) for line in (whole / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    order = [record_key(record) for record in read_records(str(shapes / "train.jsonl"))]

    assert stats["clips"]["undecodable_video"] == stats["clips"]["missing_video"] == 1
    assert sum(stats["clips"].values()) == 12 and stats["clips"]["annotated"] == len(records)
    assert [record_key(record) for record in records] == [
        key for key in order if key not in {line["key"] for line in dropped}
    ]
    assert stats["boxes"]["no_label"] > 0 and stats["settings"]["fps"] == 5.0 and "commit" in stats
    assert len(list((whole / "logs" / "completions").iterdir())) == 6 == len(list((whole / "parts").iterdir()))


def test_the_shards_stream(whole):
    records = {record_key(record) for record in read_records(str(whole / "records.jsonl"))}
    rows = list(load_dataset(str(whole / "shards"), "default", split="train", streaming=True))
    assert {record_key(row["json"]) for row in rows} == records
    assert dataset_command(["validate", str(whole / "shards"), "--config", "default"]) == 0


def test_a_finished_run_is_not_done_again_and_another_is_refused(whole, shapes, videos, spacy_folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in (whole / "parts").rglob("*.jsonl")}
    assert main(command(shapes, videos, spacy_folder, whole, "--json")) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["clips"]["undecodable_video"] == 1
    assert before == {path: path.stat().st_mtime_ns for path in (whole / "parts").rglob("*.jsonl")}
    assert main(command(shapes, videos, spacy_folder, whole, "--fill-gaps", "2")) == 2
    assert "is a run with other tracks; give another --output" in capsys.readouterr().err


def lines(output):
    """Lines that stage 1 has written; a part may get its final name meanwhile."""
    count = 0
    for path in (output / "parts").rglob("frames*.jsonl"):
        if "dropped" not in path.name:
            with contextlib.suppress(FileNotFoundError):
                count += path.read_bytes().count(b"\n")
    return count


def wait_for(process, condition):
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_workers_and_a_killed_run_change_nothing(whole, shapes, videos, spacy_folder, tmp_path):
    output = tmp_path / "killed"
    line = [sys.executable, "-m", "pipeline_annotate", *command(shapes, videos, spacy_folder, output, "--workers", "2")]

    def start():
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (tmp_path / "said").open("a") as said:
            return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=said, stderr=said)

    def said():
        return (tmp_path / "said").read_text(encoding="utf-8")

    first = start()
    wait_for(first, lambda: lines(output) >= 1)
    workers_of(first.pid)[-1].kill()
    wait_for(first, lambda: "a process died; what it was at is done again" in said())
    seen = lines(output)
    wait_for(first, lambda: lines(output) > seen and workers_of(first.pid))
    workers = workers_of(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (output / "records.jsonl").exists()
    assert not psutil.wait_procs(workers, timeout=30)[1], "they end when the process that they work for was killed"

    second = start()
    assert second.wait(timeout=300) == 0, said()
    for name in ("records.jsonl", "dropped.jsonl", "clips.jsonl"):
        assert (output / name).read_bytes() == (whole / name).read_bytes()
    names = sorted(path.relative_to(whole) for path in (whole / "shards").rglob("*.tar"))
    assert names and all((output / name).read_bytes() == (whole / name).read_bytes() for name in names)
    assert not list(output.rglob("*.part.*"))


class Deadly:
    """A step that kills the process that runs it."""

    def __call__(self, data=None, rank=0, world_size=1):
        os.kill(os.getpid(), signal.SIGKILL)

    def __repr__(self):
        return "deadly"


class Failing(Deadly):
    """A step that cannot be done."""

    def __call__(self, data=None, rank=0, world_size=1):
        raise ValueError("the disk is full")


@pytest.mark.slow
def test_processes_that_die_again_and_again_end_the_run(tmp_path):
    executor = ResilientExecutor([Deadly()], tasks=2, workers=2, logging_dir=str(tmp_path / "logs"))
    with pytest.raises(ValueError, match="died 3 times in a row with no part finished; left are the parts"):
        executor.run()


@pytest.mark.slow
def test_what_a_part_raises_ends_the_run_with_its_number(tmp_path):
    executor = ResilientExecutor([Failing()], tasks=1, workers=1, logging_dir=str(tmp_path / "logs"))
    with pytest.raises(ValueError, match="part 0: the disk is full"):
        executor.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0, --clips-per-part 2; expected at least 1"),
        (["--language-model", "gpt"], "--language-model: got 'gpt'; expected rules"),
        (["--executor", "slurm"], "--executor slurm: expected --partition NAME"),
        (["--fps", "-1"], "--fps -1.0"),
    ],
)
def test_bad_arguments_are_one_line(options, message, shapes, videos, spacy_folder, tmp_path, capsys):
    assert main(command(shapes, videos, spacy_folder, tmp_path / "run", *options)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
