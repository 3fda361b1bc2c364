"""The warm Python as tests start it: a server that has imported what is slow, and a program that stands for `python`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")


class WarmPython:
    """
    Most of what a short command costs is the import of torch, transformers and datasets. A server does that once, and forks for
    every command: the program `python` hands it arguments, folder, environment and open files, and waits for the exit status. The
    command's own code is imported anew each time, as ever; but for the time it takes, nothing tells the two apart.

    A command that the server cannot run as a new interpreter would, because it has options of Python itself or another
    environment of the libraries, gets a new interpreter. So do all where the system cannot tell of a process's end (not Linux).

    Args:
        folder (`Path`): Empty; for the program, the socket and the server's log.

    Attributes:
        python (`Path`): The program. Its folder may come first in a `PATH`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, and returns when it is ready, some seconds later."""
        if not hasattr(os, "pidfd_open"):
            self.python = Path(sys.executable)
            return
        lines = CLIENT.read_text(encoding="utf-8").replace("{python}", sys.executable)
        self.python.write_text(f"#!{sys.executable} -IS\n{lines}", encoding="utf-8")
        self.python.chmod(0o755)
        with (self.folder / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_python.server", str(self.folder / "socket")],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()  # nothing, if it ended
        if said != b"ready\n":
            raise RuntimeError(f"the warm Python does not start: {(self.folder / 'log.txt').read_text()[-500:]}")

    def stop(self) -> None:
        """Ends the server, and whatever it runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=10)


__all__ = ["WarmPython"]
