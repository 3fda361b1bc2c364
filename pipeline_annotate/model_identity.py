"""What made a record, for its provenance: which model a name stands for, and the versions of what ran it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from eval.provenance import files_fingerprint

_FILES = (".safetensors", ".json", ".model", ".txt", ".jinja")


def model_identity(model: str | Path, config: PretrainedConfig, revision: str | None = None) -> dict[str, Any]:
    """
    Of a Hub model its name as `model`, and the commit that was loaded as `revision`; of a folder the folder's name and a
    `fingerprint` of its files, as paths are nobody's business.

    Args:
        model (`str` or `Path`): folder or Hub id.
        config (`PretrainedConfig`): of the model as it was loaded.
        revision (`str`, *optional*): that was asked for; taken if the configuration does not know the commit.
    """
    folder = Path(model)
    if not folder.is_dir():
        return {"model": str(model), "revision": getattr(config, "_commit_hash", None) or revision, "fingerprint": None}
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


__all__ = ["model_identity", "versions"]
