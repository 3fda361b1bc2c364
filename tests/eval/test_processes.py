"""Processes of one run: what the first one finds out is known to all, and one that fails speaks for all."""

import subprocess
import sys
from typing import Any

import pytest

from eval.processes import Processes, started_processes
from tests.conftest import ROOT

SCRIPT = """
import sys
from eval.processes import FailedElsewhere, started_processes

def say(message):
    # In one piece: torchrun's processes are unbuffered and share one output.
    sys.stdout.write(f"{processes.index} {message}\\n")

def work():
    if sys.argv[1] == "fails":
        raise ValueError("no such model")
    return {"revision": "abc", "by": processes.index}

with started_processes("cpu") as processes:
    try:
        say(processes.share(work))
        processes.wait()
    except FailedElsewhere:
        say("silent")
    except ValueError as error:
        say(error)
    if sys.argv[1] == "ends" and processes.is_first:
        raise SystemExit
    if sys.argv[1] == "ends":
        try:
            processes.wait()
        except ValueError as error:
            say(error)
"""


def run_two(argument: str, tmp_path) -> list[str]:
    """What two processes print, in order."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment: dict[str, Any] = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    command = [*torchrun, str(script), argument]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_one_process_shares_with_itself():
    with started_processes(None) as processes:
        assert (processes.is_first, processes.count, processes.device) == (True, 1, None)
        assert processes.share(lambda: 7) == 7
        processes.wait()
        with pytest.raises(ValueError, match="no such model"):
            Processes(0, 1, None).share(lambda: int("no such model"))


def test_all_have_what_the_first_one_found(tmp_path):
    assert run_two("works", tmp_path) == [f"{n} {{'revision': 'abc', 'by': 0}}" for n in range(2)]


def test_one_speaks_and_the_others_are_silent(tmp_path):
    assert run_two("fails", tmp_path) == ["0 no such model", "1 silent"]


def test_a_process_that_is_gone_is_told_in_one_line(tmp_path):
    message = "1 another process of this run ended before this one; its error is above, run it again"
    assert message in run_two("ends", tmp_path)


def test_several_processes_have_devices_of_their_own(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^--device: got 'cuda:1' for several processes"), started_processes("cuda:1"):
        pass
