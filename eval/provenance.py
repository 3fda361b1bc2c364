"""What a result came from: hardware, versions, commit and time, and which model and data they were.

Nothing here has a path of this machine, so that results can be published as they are.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("transformers", "numpy", "av", "datasets", "accelerate", "pycocoevalcap", "scipy", "spacy")
_WEIGHTS = {".safetensors", ".bin"}
_MODEL_FILES = {".json", ".safetensors", ".bin", ".jinja", ".model"}
# Of a training run, beside the model: they change, while the model stays the same.
_RUN_FILES = {"run.json", "results.json", "trainer_state.json", "all_results.json", "train_results.json"}


def describe_machine(device: str, folders: Sequence[str] = ("modeling_grove", "benchmarks")) -> dict[str, Any]:
    """
    Hardware, versions, commit and time, for a result file.

    Args:
        device (`str`):
            That was used: "cpu", "cuda", "cuda:1".
        folders (sequence of `str`):
            Of the repository, whose uncommitted changes would make the commit say too little.

    Returns:
        `dict`: JSON types: `hardware`, `versions`, `platform`, `commit` and `uncommitted_changes` (`None` and `False` outside
        of a checkout) and `time`, UTC in ISO 8601.
    """
    import torch

    hardware: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
    kind = torch.device(device)
    if kind.type == "cuda":
        properties = torch.cuda.get_device_properties(kind)
        hardware["gpu"] = properties.name
        hardware["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
    return {
        "hardware": hardware,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **_versions(),
        },
        "platform": platform.platform(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", *folders)),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_model(model: str, revision: str | None = None) -> dict[str, Any]:
    """
    Which model it is: of a Hub model its `name` and the commit as `revision`; of a folder the folder's `name` and a
    `fingerprint` of its files (see [`files_fingerprint`]).

    Args:
        model (`str`): folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub model; the main branch, if not given.

    Raises:
        `ValueError`: if there is no such model, or the folder has no GROVE model in it.
    """
    commit = model_revision(model, revision)
    if commit is not None:
        return {"name": model, "revision": commit, "fingerprint": None}
    files = sorted(
        path
        for path in Path(model).iterdir()
        if path.suffix in _MODEL_FILES and path.name not in _RUN_FILES and path.is_file()
    )
    return {"name": Path(model).resolve().name, "revision": None, "fingerprint": files_fingerprint(files)}


def model_revision(model: str, revision: str | None = None) -> str | None:
    """
    The commit that a branch or tag of a Hub model is at now; `None` for a folder.

    Raises:
        `ValueError`: as [`describe_model`].
    """
    if Path(model).exists():
        _check_folder(Path(model))
        return None
    from huggingface_hub import resolve_revision
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionResolutionError,
    )

    unknown = HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError
    try:
        return resolve_revision(model, repo_type="model", revision=revision).resolved
    except RevisionResolutionError as error:  # says in brackets what it tried
        reason = str(error).split(" (")[0]
    except unknown as error:
        reason = " ".join(str(error).split())
    raise ValueError(f"--model: neither a folder nor a model of the Hub: {model!r} ({reason})")


def _check_folder(folder: Path) -> None:
    """
    Raises:
        `ValueError`: if it is no folder of a GROVE model with weights.
    """
    where, expected = f"--model: {folder.name!r}", "expected the folder of a converted checkpoint"
    if not folder.is_dir():
        raise ValueError(f"{where} is a file; {expected}")
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{where}: no config.json in the folder; {expected}")
    try:
        kind = json.loads(config.read_bytes()).get("model_type")
    except (ValueError, AttributeError):
        raise ValueError(f"{where}: config.json: expected an object in JSON; is it the model's?") from None
    if kind != "grove":
        raise ValueError(f"{where}: config.json: model_type: expected 'grove', got {kind!r}; {expected}")
    if not any(path.suffix in _WEIGHTS for path in folder.iterdir()):
        raise ValueError(f"{where}: no weights (*.safetensors) in the folder; {expected}")


def files_fingerprint(files: Iterable[Path]) -> str:
    """32 hexadecimal digits that change with the names and the content of files."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()[:32]


def _versions() -> dict[str, str]:
    """Versions of what a result may depend on, as far as it is installed."""
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    """Output of a git command, `None` outside a checkout."""
    try:
        result = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


__all__ = ["describe_machine", "describe_model", "files_fingerprint", "model_revision"]
