"""The server in a process of its own, as the tests start it. Imports nothing that reads the environment."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


class LocalHub:
    """
    A local Hub on a free port. The port is taken when this object is made, so that its address can go into the environment before
    anything is imported, and nobody else can get it; clients that come before the server is up wait for it.

    Args:
        folder (`Path`, *optional*): For its storage and its log. Defaults to a new one.

    Attributes:
        endpoint (`str`): Its address, for `HF_ENDPOINT`.
        storage (`Path`): Its folder.
        token (`str`): A token that may write.
        env (`dict[str, str]`): The environment for processes that are to use it: a copy of this one's.
    """

    token = "hf_test"

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="grove-hub-"))
        self.storage = self.folder / "storage"
        self._log = self.folder / "log.txt"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def env(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def log(self) -> str:
        """What the server has logged so far: a line for every request."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        fd = self._socket.fileno()
        command = [sys.executable, "-m", "tests.local_hub", "--listening-socket", str(fd), "--stop-with-stdin"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--storage", str(self.storage)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[fd],
            )
        # Only the server holds it now: when it is gone, clients are refused instead of waiting.
        self._socket.close()

    def stop(self) -> None:
        """Ends the server; what it has stored and logged stays."""
        self._socket.close()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
