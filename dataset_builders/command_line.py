"""What the commands of this folder share: a parser whose errors are one line, output, and progress.

A command is a module with `add_arguments(parser)` and `run(args) -> int`. Results go to standard output, as JSON lines with
`--json`; progress and warnings to standard error; an error is a `ValueError`, which ends the command with one line there and
exit status 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")
_LOG_SECONDS = 10.0  # between two lines of progress where there is no terminal for a bar


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(complain(f"{message} (see --help)"))


def complain(message: str) -> int:
    """Prints an error as one line on standard error; returns the exit status for it."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def emit(result: Any, text: str | None = None, as_json: bool = False) -> None:
    """Prints a result on standard output: as one JSON line, or as `text` for a person (default: indented JSON)."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        print(json.dumps(result, ensure_ascii=False, indent=2) if text is None else text, flush=True)


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "clip") -> Iterator[T]:
    """
    Passes items through, with a bar on a terminal, and elsewhere a log line with rate and remaining time every ten seconds.
    Both are measured from the first finished item on, as workers that have to start say nothing about the rest.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, unit=unit, leave=False)
        return
    first = logged = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        first = now if done == 1 else first
        if now - logged >= _LOG_SECONDS:
            logged = now
            line = f"{description}: {done}" if total is None else f"{description}: {done} of {total}"
            if now > first:
                rate = (done - 1) / (now - first)
                rest = "" if total is None else f", {(total - done) / rate:.0f} s left"
                line += f"{rest} ({rate:.1f} {unit}s/s)"
            logger.info("%s", line)


__all__ = ["Parser", "complain", "emit", "progress"]
