"""
The folder that a Space runs: the app, what it imports, its requirements and an example.

The packages of this repository go into the Space as they are here, so that it runs the code that it was published from and
needs nothing but what is on PyPI.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from modeling_grove.grounded_caption import atomic_path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("modeling_grove", "dataset_builders")
_FILES = ("LICENSE", "NOTICE", "examples/shapes.mp4", "hub_cards/__init__.py", "hub_cards/space/__init__.py")
_DEFAULT = re.compile(rb'^DEFAULT_MODEL = ".*"$', re.MULTILINE)
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")


def space_files(model: str) -> dict[str, bytes]:
    """
    What goes into a Space, but for its README.md, which is its card.

    Args:
        model (`str`): Hub id of the model that the Space shows; its variable `MODEL_ID` can name another one later.

    Returns:
        `dict[str, bytes]`: content by path in the repository, `app.py` and `requirements.txt` among them.

    Raises:
        ValueError: `model` is no Hub id.
    """
    if not _MODEL_ID.fullmatch(model):
        raise ValueError(f"model: expected a Hub id like org/grove, which the Space can load, got {model!r}")
    here = ROOT / "hub_cards" / "space"
    app, count = _DEFAULT.subn(f'DEFAULT_MODEL = "{model}"'.encode(), (here / "app.py").read_bytes())
    assert count == 1
    files = {"app.py": app, "requirements.txt": (here / "requirements.txt").read_bytes()}
    files["hub_cards/space/captioning.py"] = (here / "captioning.py").read_bytes()
    files |= {name: (ROOT / name).read_bytes() for name in _FILES}
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    return files


def write_space(directory: str | os.PathLike[str], model: str) -> Path:
    """
    Writes [`space_files`] into a folder, to be looked at or uploaded; files of other names that are there stay.

    Args:
        directory (`str` or `os.PathLike`): Created if it does not exist.
        model (`str`): See [`space_files`].

    Returns:
        `Path`: `directory`.
    """
    directory = Path(directory)
    for name, content in space_files(model).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return directory


__all__ = ["space_files", "write_space"]
