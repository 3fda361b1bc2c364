"""What a person sees of a run: a table line with losses, speed, waiting for data, memory and remaining time."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

_KIBIBYTES_PER_GIB = 2**20


@dataclass(frozen=True)
class Measured:
    """
    What happened between two log lines.

    Attributes:
        steps (`int`): optimizer steps.
        clips (`int`): clips of all processes.
        seconds (`float`): without evaluations and checkpoints.
        data_seconds (`float`): of these, those that this process waited for batches.
        memory_gib (`float`): peak of this process since its start: of the GPU, or resident without one.
    """

    steps: int
    clips: int
    seconds: float
    data_seconds: float
    memory_gib: float

    def logs(self) -> dict[str, float]:
        """As values of a log."""
        seconds = max(self.seconds, 1e-9)
        return {
            "clips_per_second": self.clips / seconds,
            "data_share": self.data_seconds / seconds,
            "memory_gib": self.memory_gib,
        }


class StepMeter:
    """
    Measures training between two log lines.

    Attributes:
        clips (`int`): clips of all processes since the last line; the trainer counts them.
    """

    def __init__(self) -> None:
        self.clips = 0
        self._steps = 0
        self._begin: float | None = None
        self._data = self._paused = 0.0
        self._pauses = 0

    @contextmanager
    def data(self) -> Iterator[None]:
        """Time in which a batch is waited for."""
        started = time.monotonic()
        self._begin = started if self._begin is None else self._begin
        yield
        self._data += time.monotonic() - started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training: evaluations, checkpoints."""
        started = time.monotonic()
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:  # an evaluation inside of another pause counts once
                self._paused += time.monotonic() - started

    def take(self, step: int, device: torch.device) -> Measured:
        """What was measured since the last call, up to an optimizer step."""
        now = time.monotonic()
        seconds = 0.0 if self._begin is None else now - self._begin - self._paused
        measured = Measured(step - self._steps, self.clips, seconds, self._data, peak_memory_gib(device))
        self._steps, self.clips, self._begin, self._data, self._paused = step, 0, now, 0.0, 0.0
        return measured

    def start_at(self, step: int) -> None:
        """Counts steps from a checkpoint's on."""
        self._steps = step


def peak_memory_gib(device: torch.device) -> float:
    """Most memory that this process has had: allocated on the GPU, or resident without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIBIBYTES_PER_GIB


# Heading, width, key of the log, how it is written.
_COLUMNS = (
    ("loss", 8, "loss", "{:.3f}"),
    ("caption", 8, "caption_loss", "{:.3f}"),
    ("giou", 7, "giou_loss", "{:.3f}"),
    ("l1", 7, "l1_loss", "{:.3f}"),
    ("object.", 8, "objectness_loss", "{:.3f}"),
    ("grad", 7, "grad_norm", "{:.2f}"),
    ("lr", 8, "learning_rate", "{:.1e}"),
    ("clips/s", 8, "clips_per_second", "{:.1f}"),
    ("data", 6, "data_share", "{:.0%}"),
    ("GiB", 6, "memory_gib", "{:.1f}"),
)
_STEP_WIDTH, _HEADING_EVERY = 15, 25


class TableCallback(TrainerCallback):
    """Logs a line of a table at every training log, its heading now and then, and a line for every evaluation."""

    def __init__(self) -> None:
        self._lines = 0
        self._begin = self._first_step = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._begin, self._first_step = time.monotonic(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            if self._lines % _HEADING_EVERY == 0:
                heading = "".join(f"{name:>{width}}" for name, width, _, _ in _COLUMNS)
                logger.info("%s%s%9s", "step".rjust(_STEP_WIDTH), heading, "left")
            self._lines += 1
            logger.info("%s", self._line(state, logs))
        elif "eval_loss" in logs:
            shown = [f"{name.removeprefix('eval_')} {value:.3f}" for name, value in logs.items() if _is_score(name)]
            logger.info("%s   evaluation: %s", f"{state.global_step}".rjust(_STEP_WIDTH), ", ".join(shown))

    def _line(self, state: TrainerState, logs: dict[str, float]) -> str:
        cells = [f"{state.global_step}/{state.max_steps}".rjust(_STEP_WIDTH)]
        for _, width, key, form in _COLUMNS:
            cells.append((form.format(logs[key]) if key in logs else "-").rjust(width))
        done = state.global_step - self._first_step
        left = (time.monotonic() - self._begin) / max(done, 1) * (state.max_steps - state.global_step)
        return "".join(cells) + duration(left).rjust(9)


def _is_score(name: str) -> bool:
    return name.startswith("eval_") and not name.endswith(("_runtime", "_per_second"))


def duration(seconds: float) -> str:
    """ "1:02:03", "4:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


__all__ = ["Measured", "StepMeter", "TableCallback", "duration", "peak_memory_gib"]
