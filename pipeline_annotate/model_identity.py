"""What made a record, for its provenance: which model a name stands for, and the versions of what ran it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers.utils.hub import resolve_revision

from eval.provenance import files_fingerprint

_FILES = (".safetensors", ".json", ".model", ".txt", ".jinja")


def pinned_revision(model: str | Path, revision: str | None = None) -> str | None:
    """
    The revision of a model to load all its files from: for a Hub model one that knows the commit at which `revision` (by default
    the main branch) is now; for a folder, or where the Hub has no such thing, `revision` itself.

    Args:
        model (`str` or `Path`): folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit.
    """
    return resolve_revision(str(model), revision)


def model_identity(model: str | Path, revision: str | None = None) -> dict[str, Any]:
    """
    Of a Hub model its name as `model`, and the commit that was loaded as `revision`; of a folder the folder's name and a
    `fingerprint` of its files, as paths are nobody's business.

    Args:
        model (`str` or `Path`): folder or Hub id.
        revision (`str`, *optional*): that it was loaded from, of [`pinned_revision`].
    """
    folder = Path(model)
    if not folder.is_dir():
        return {"model": str(model), "revision": getattr(revision, "resolved", revision), "fingerprint": None}
    return {"model": folder.resolve().name, "revision": None, "fingerprint": _fingerprint(folder.resolve())}


@cache
def versions() -> dict[str, str]:
    """Versions of this project and of what its models run on."""
    found = {}
    for name in ("grove-video", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found


@cache
def _fingerprint(folder: Path) -> str:
    return files_fingerprint(sorted(path for path in folder.iterdir() if path.suffix in _FILES and path.is_file()))


__all__ = ["model_identity", "pinned_revision", "versions"]
