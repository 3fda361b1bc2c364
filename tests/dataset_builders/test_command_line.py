"""What all commands share: errors of a Hub in one line, readers that go away, and how progress is told."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders import command_line
from tests.conftest import ROOT
from tests.records import make_record


def test_a_failing_source_on_the_hub_is_one_line(local_hub):
    """Not also a line for every request, which the Hub's client logs."""
    command = [sys.executable, "-m", "dataset_builders", "stats", "hf://datasets/org/none"]
    result = subprocess.run(command, cwd=ROOT, env=local_hub.env, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path):
    source = tmp_path / "records.jsonl"
    source.write_text(json.dumps(make_record()) + "\n")
    end, output = os.pipe()
    os.close(end)
    command = [sys.executable, "-m", "dataset_builders", "stats", str(source)]
    result = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(output)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.parametrize(
    ("moments", "lines"),
    [
        # Workers start for 100 seconds; then an item takes four.
        ([100, 104, 108, 112], ["clips: 1 of 4", "clips: 4 of 4, 0 s left (0.2 clips/s)"]),
        ([1, 6, 11, 16], ["clips: 3 of 4, 5 s left (0.2 clips/s)"]),
    ],
)
def test_the_start_of_workers_is_not_in_the_rate(moments: list[int], lines: list[str], monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr(command_line.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(command_line.sys.stderr, "isatty", lambda: False, raising=False)

    def items() -> Iterator[int]:
        for moment in moments:
            clock[0] = moment
            yield moment

    with caplog.at_level(logging.INFO, logger=command_line.__name__):
        assert list(command_line.progress(items(), "clips", total=len(moments))) == moments
    assert caplog.messages == lines
