"""The processes that `torchrun` or `accelerate launch` started for one run, and how they agree on what happens.

What all of them need and only one can find out (which commit a branch is at, whether the folder is free) is done by the first,
which shares what came of it. If it fails, it alone says why, and the others end in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

Shared = TypeVar("Shared")

# Processes wait for the slowest one, whose share of the clips may take much longer than the others'.
_PATIENCE = timedelta(days=7)


class FailedElsewhere(Exception):
    """Another process failed, and says why."""


@dataclass(frozen=True)
class Processes:
    """
    Who is at work.

    Attributes:
        index (`int`), count (`int`): this process is number `index`, from 0, of `count`.
        device (`str` or `None`): of this process; `None` for the model's choice.
        state (`accelerate.PartialState` or `None`): of several processes.
    """

    index: int
    count: int
    device: str | None
    state: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks for all of them."""
        return self.index == 0

    def share(self, work: Callable[[], Shared]) -> Shared:
        """
        What comes of work that the first process does, in all processes.

        Raises:
            `ValueError`, `OSError`: in the first process, as the work does.
            [`FailedElsewhere`]: in the others, if it failed.
        """
        if self.state is None:
            return work()
        result: list[Any] = [None, None]  # whether it succeeded, and what came of it
        failure: ValueError | OSError | None = None
        if self.is_first:
            try:
                result = [True, work()]
            except (ValueError, OSError) as error:
                failure = error
        with _others_alive():
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(result)
        if failure is not None:
            raise failure
        if not result[0]:
            raise FailedElsewhere
        return result[1]

    def wait(self) -> None:
        """
        Until all processes are here.

        Raises:
            `ValueError`: if one of them ended before.
        """
        if self.state is not None:
            with _others_alive():
                self.state.wait_for_everyone()


@contextmanager
def started_processes(device: str | None) -> Iterator[Processes]:
    """
    All processes of the run, each with a device of its own; or just this one.

    Raises:
        `ValueError`: if one device is asked for and there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(0, 1, device)
        return
    import torch
    from accelerate import PartialState

    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"--device: got {device!r} for several processes; each takes its own, leave it out or say cpu")
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)
    try:
        yield Processes(state.process_index, state.num_processes, str(state.device), state)
    finally:
        state.destroy_process_group()


@contextmanager
def _others_alive() -> Iterator[None]:
    """Says in one line that another process ended, which the backends do each in a way of its own."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            "another process of this run ended before this one; its error is above, run it again"
        ) from error


__all__ = ["FailedElsewhere", "Processes", "started_processes"]
