"""The warm Python runs a command as a new interpreter does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = {
    "code": ["-c", "import sys; print(sys.argv, sys.path[0], __name__)", "a", "-b"],
    "module": ["-m", "told", "a"],
    "script": ["told.py", "a"],
    "no script": ["missing.py"],
    "no module": ["-m", "tests.missing"],
    "an exit": ["-c", "import sys; sys.exit(3)"],
    "a reason": ["-c", "raise SystemExit('why')"],
    "an exception": ["-c", "import atexit; atexit.register(print, 'at exit'); 1 / 0"],
    "input": ["-c", "import sys; print(sys.stdin.read().upper())"],
    "killed": ["-c", "import os; os.kill(os.getpid(), 9)"],
    "options": ["-W", "error", "-c", "import warnings; warnings.warn('so')"],
    "in two": ["-c", "import os, sys; print('out', flush=True); os.fork() or print('child')"],
}


def run(python: Path | str, arguments: list[str], folder: Path, **environment: str) -> tuple[int, str, str]:
    env = {**os.environ, **environment}
    done = subprocess.run([python, *arguments], cwd=folder, env=env, input="given", capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2].replace(sys.executable, "python")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_as_with_a_new_interpreter(name, warm_python, tmp_path):
    (tmp_path / "told.py").write_text("import sys\nprint(sys.argv, sys.path[0], __name__, __file__)\n")
    warm, cold = (run(python, COMMANDS[name], tmp_path) for python in (warm_python, sys.executable))
    if name == "no module":  # runpy is asked otherwise
        assert warm[0] == cold[0] and "tests.missing" in warm[2]
    else:
        assert warm == cold


def test_it_has_the_command_s_environment_and_what_is_slow(warm_python, tmp_path):
    code = "import os, sys; print(os.environ['TOLD'], sys.path[1], 'torch' in sys.modules, 'eval' in sys.modules)"
    told = {"TOLD": "so", "PYTHONPATH": str(tmp_path)}
    assert run(warm_python, ["-c", code], tmp_path, **told)[1] == f"so {tmp_path} True False\n"
    code = "from huggingface_hub.constants import HF_HUB_OFFLINE; print(HF_HUB_OFFLINE)"
    assert [run(warm_python, ["-c", code], tmp_path, HF_HUB_OFFLINE=value)[1] for value in "101"] == [
        "True\n",
        "False\n",
        "True\n",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_the_one_who_asked_for_it(number, warm_python, tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    asked = subprocess.Popen([warm_python, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    running = int(asked.stdout.readline())
    assert Path(f"/proc/{running}").exists() and running != asked.pid
    asked.send_signal(number)
    assert asked.wait(timeout=10) == -number
    deadline = time.monotonic() + 10
    while Path(f"/proc/{running}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
