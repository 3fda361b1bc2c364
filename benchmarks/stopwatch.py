"""Seconds of the parts of a run, where parts may contain each other."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stopwatch:
    """Adds up the wall time of named parts; what runs inside an inner part is not in the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what runs inside as `name`."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    @contextmanager
    def watching(self, parts: list[tuple[Any, str, str | Callable[..., str]]]) -> Iterator[None]:
        """
        Counts every call of functions, which are put back afterwards.

        Args:
            parts (`list[tuple]`): the module or class, the function's name in it, and the part; or what makes the part of the
                function's arguments.
        """
        replaced = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
        for (owner, name, function), (_, _, part) in zip(replaced, parts, strict=True):
            setattr(owner, name, self._watched(function, part))
        try:
            yield
        finally:
            for owner, name, function in replaced:
                setattr(owner, name, function)

    def _watched(self, function: Callable[..., Any], part: str | Callable[..., str]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.part(part if isinstance(part, str) else part(*args, **kwargs)):
                return function(*args, **kwargs)

        return watched

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


__all__ = ["Stopwatch"]
