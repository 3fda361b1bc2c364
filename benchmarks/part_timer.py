"""Seconds of each part of a run, and its peak memory."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Seconds:
    """Wall time, and the time that all threads of this process and of its children spent on processors."""

    wall: float
    cpu: float


def clock(device: str) -> Seconds:
    """Now, once the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Seconds(time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages))


class PartTimer:
    """
    Adds up the time of named parts, which must not contain each other.

    On a GPU the kernels run behind the program, so that parts are measured by events in their stream, without waiting; their
    processor time is then that of launching them.
    """

    def __init__(self, device: str):
        self.device = device
        self.phase = ""
        self._wall: dict[str, float] = defaultdict(float)
        self._cpu: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what runs inside as `name`."""
        begin = self._begin()
        yield
        self._end(name, begin)

    @contextmanager
    def watching(self, parts: dict[nn.Module, str | Callable[[dict[str, Any]], str]]) -> Iterator[None]:
        """Counts every call of the modules; a function makes the name from the keyword arguments of the call."""
        handles = []
        for module, name in parts.items():
            stack: list[Any] = []

            def before(_module: nn.Module, _args: Any, kwargs: dict, name: Any = name, stack: list = stack) -> None:
                stack.append((name if isinstance(name, str) else name(kwargs), self._begin()))

            def after(_module: nn.Module, _args: Any, _output: Any, stack: list = stack) -> None:
                self._end(*stack.pop())

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self) -> Any:
        if self.device == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event
        return clock(self.device)

    def _end(self, name: str, begin: Any) -> None:
        if self.device == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append((name, begin, event))
            return
        end = clock(self.device)
        self._wall[name] += end.wall - begin.wall
        self._cpu[name] += end.cpu - begin.cpu

    def parts(self) -> dict[str, Seconds]:
        """Time of every part so far."""
        if self._events:
            torch.cuda.synchronize()
            for name, begin, end in self._events:
                self._wall[name] += begin.elapsed_time(end) / 1000
            self._events.clear()
        return {name: Seconds(wall, self._cpu[name]) for name, wall in self._wall.items()}


def reset_peak_memory(device: str) -> None:
    """Makes [`peak_memory`] start from what is in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark of resident memory


def peak_memory(device: str) -> int:
    """Most bytes in use since [`reset_peak_memory`]: of the GPU's allocator, or resident (elsewhere than on Linux: ever)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


__all__ = ["PartTimer", "Seconds", "clock", "peak_memory", "reset_peak_memory"]
