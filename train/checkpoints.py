"""
Checkpoints of a run: which are complete, where in the data each was taken, and whether a run may go on from them.

A checkpoint is `checkpoint-STEP` in the run's folder: a model folder as `from_pretrained` takes it (with LoRA: as `train merge`
does), and beside the weights the state of optimizer, schedule, random numbers and Trainer, and for every process its place in the
data. `trainer_state.json` is written last: a checkpoint without it is what a killed run left, and is removed when the run goes on.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from dataset_builders.stream_loader import StreamLoader
from modeling_grove.grounded_caption import atomic_path

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def stream_state_name(process: int) -> str:
    """File of a process's place in the data."""
    return f"stream_state_{process}.json"


def save_stream_state(loader: StreamLoader, folder: Path, process: int) -> None:
    """Writes where in the data a process is."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / stream_state_name(process)) as temporary:
        temporary.write_text(json.dumps(loader.state_dict()) + "\n", encoding="utf-8")


def load_stream_state(loader: StreamLoader, folder: Path, process: int) -> None:
    """
    Goes on where a process was.

    Raises:
        `ValueError`: if the checkpoint has no such state, or it is of other data, processes, workers or batches.
    """
    path = folder / stream_state_name(process)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); resume with as many processes as before, or from another checkpoint"
        ) from None
    try:
        loader.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def checkpoints(output: Path) -> dict[int, Path]:
    """The checkpoints of a run by step, in their order, broken ones too."""
    found = {
        int(match[1]): path
        for path in (output.iterdir() if output.is_dir() else ())
        if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def is_complete(checkpoint: Path) -> bool:
    """Whether everything of a checkpoint was written."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint of a run; `None` if there is none."""
    complete = [path for path in checkpoints(output).values() if is_complete(path)]
    return complete[-1] if complete else None


def remove_incomplete(output: Path) -> None:
    """Removes what a killed run has left of a checkpoint that it was writing."""
    for path in checkpoints(output).values():
        if not is_complete(path):
            logger.info("%s was not finished when the run ended; removed", path.name)
            shutil.rmtree(path)


def claim_run(output: Path, settings: Mapping[str, Any], option: str = "--output_dir") -> bool:
    """
    Makes the folder of a run, or finds the run of the same settings in it.

    Args:
        output (`Path`):
            The folder.
        settings (`Mapping`):
            Of JSON types: everything that the weights depend on.
        option (`str`, *optional*, defaults to `"--output_dir"`):
            That gives another folder, for messages.

    Returns:
        `bool`: whether there is such a run.

    Raises:
        `ValueError`: if the folder has a run of other settings; it names those that differ.
    """
    path = output / RUN_FILE
    if not path.exists():
        if last_checkpoint(output) is not None:
            raise ValueError(f"{output}: has checkpoints but no {RUN_FILE}; give another {option}")
        output.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return False
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); give another {option}") from None
    ours = json.loads(json.dumps(settings))
    different = [name for name in sorted({*ours, *there}) if ours.get(name) != there.get(name)]
    if different:
        changes = "; ".join(
            f"{name} was {_short(there.get(name))} and is {_short(ours.get(name))}" for name in different
        )
        raise ValueError(
            f"{output}: has a run of other settings: {changes}; give another {option}, or the same settings"
        )
    return True


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


__all__ = [
    "RUN_FILE",
    "checkpoints",
    "claim_run",
    "is_complete",
    "last_checkpoint",
    "load_stream_state",
    "remove_incomplete",
    "save_stream_state",
    "stream_state_name",
]
