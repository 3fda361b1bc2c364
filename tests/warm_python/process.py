"""The warm Python as tests use it: a program that stands for `python`, and servers that have imported what is slow."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")


class WarmPython:
    """
    Most of what a short command costs is the import of torch, transformers and datasets. A server does that once, and forks for
    every command: the program `python` hands it arguments, folder, environment and open files, and waits for the exit status. The
    command's own code is imported anew each time, as ever; but for the time it takes, nothing tells the two apart.

    Commands whose environments differ in what libraries read when they are imported have servers of their own, each started by
    the first such command. A command with options of Python itself gets a new interpreter; so do all where the system cannot
    tell of a process's end (not Linux).

    Args:
        folder (`Path`): Empty; for the program, sockets and logs.

    Attributes:
        python (`Path`): The program. Its folder may come first in a `PATH`.
    """

    def __init__(self, folder: Path) -> None:
        self.python = Path(sys.executable)
        self._alive: int | None = None
        if not hasattr(os, "pidfd_open"):
            return
        self.python = folder / "python"
        code = CLIENT.read_text(encoding="utf-8").replace("{python}", sys.executable).replace("{root}", str(ROOT))
        self.python.write_text(f"#!{sys.executable} -IS\n{code}", encoding="utf-8")
        self.python.chmod(0o755)
        os.mkfifo(folder / "alive")
        self._alive = os.open(folder / "alive", os.O_RDWR)  # also for reading, so that nobody has to be there yet

    def stop(self) -> None:
        """Ends the servers, and whatever they run."""
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None


__all__ = ["WarmPython"]
