"""The commands of a page of documentation, and running them as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def command_blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of what a page has a reader run, but for the installation, which a test machine has."""
    blocks = re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL)
    assert blocks
    return [(language, text) for language, text in blocks if not text.startswith("pip install")]


def run_block(language: str, text: str, folder: Path, python: Path) -> None:
    """As a reader would in the root of a clone, but in a folder that is not ours to litter, and with this `python`."""
    path = f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-ec", text] if language == "bash" else [str(python), "-c", text]
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 0, f"{text}\n{run.stderr}"
