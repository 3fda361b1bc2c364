"""
What a stage leaves: a JSONL file with one clip a line, one beside it with the clips that it could not do, and counts by reason.

A stage writes `NAME.part.jsonl` line by line and gives it its name at the end, so that a finished file is a whole one. Started
again, it goes on behind the last whole line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import orjson

from dataset_builders.record import record_key
from modeling_grove.grounded_caption import atomic_path

T = TypeVar("T")


class Dropped(NamedTuple):
    """
    A clip that a stage could not do.

    Args:
        key (`str`): of the clip.
        reason (`str`): its kind in snake_case, for counting.
        message (`str`): what was got and what was expected.
    """

    key: str
    reason: str
    message: str


def dropped_path(path: Path) -> Path:
    """The file of the clips that a stage could not do."""
    return path.with_name(f"{path.stem}.dropped.jsonl")


class StageWriter:
    """
    Writes a stage's output; a context manager. Only one at a time can have a file.

    Args:
        path (`Path`): the JSONL file. It may not exist.
        settings (`Mapping`): how clips are made, and of what; what is half made by other settings is not gone on with.

    Raises:
        `ValueError`: if the file exists or is no `.jsonl`, another process writes it, or a part of it was made by other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        check_output(path)
        self.path, self.part = path, path.with_name(f"{path.stem}.part.jsonl")
        self.dropped_part = dropped_path(self.part)
        self.settings = json.loads(json.dumps(settings))
        self.done: set[str] = set()
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self.part.with_suffix(".lock").open("w")
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _open(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{self.path}: another process is writing it; wait for it, or end it") from None
        finished, stamp = dropped_path(self.path), self.part.with_suffix(".settings.json")
        if finished.exists() and not self.dropped_part.exists():  # killed between the two renames
            os.replace(finished, self.dropped_part)
        lines = _whole_lines(self.part), _whole_lines(self.dropped_part)
        made = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
        if made != self.settings:
            if any(lines):
                changed = sorted(name for name in self.settings if made.get(name) != self.settings[name])
                said = f"was made with other {', '.join(changed)}"
                raise ValueError(f"{self.part}: {said}; remove it, or give another --output")
            with atomic_path(stamp) as temporary:
                temporary.write_text(json.dumps(self.settings), encoding="utf-8")
        self.done |= {record_key(line) for line in lines[0]} | {line["key"] for line in lines[1]}
        self.counts["written"] = len(lines[0])
        self.counts.update(line["reason"] for line in lines[1])
        self._file, self._dropped = (path.open("ab") for path in (self.part, self.dropped_part))

    def add(self, results: Iterable[Any]) -> None:
        """Writes clips (anything with `to_dict`) and [`Dropped`] ones."""
        for result in results:
            if isinstance(result, Dropped):
                self._dropped.write(orjson.dumps(result._asdict()) + b"\n")
                self.counts[result.reason] += 1
            else:
                self._file.write(orjson.dumps(result.to_dict()) + b"\n")
                self.counts["written"] += 1
        self._file.flush()
        self._dropped.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._dropped.close()
        if error is None:
            os.replace(self.dropped_part, dropped_path(self.path))
            os.replace(self.part, self.path)
            self.part.with_suffix(".settings.json").unlink()
            self.part.with_suffix(".lock").unlink()
        self._lock.close()


def check_output(path: Path) -> None:
    """
    Raises:
        `ValueError`: if a stage cannot write to a file: it exists, or has another suffix than `.jsonl`.
    """
    if path.suffix != ".jsonl":
        raise ValueError(f"{path}: expected a file that ends with .jsonl")
    if path.exists():
        raise ValueError(f"{path}: is there already; remove it, or give another --output")


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of `size`, the last one of what is left."""
    items = iter(items)
    while some := list(islice(items, size)):
        yield some


def summary(counts: Mapping[str, int]) -> str:
    """Counts for people: "12 clips; 1 undecodable_video"."""
    others = [f"{count:,} {reason}" for reason, count in sorted(counts.items()) if reason != "written" and count]
    return "; ".join([f"{counts.get('written', 0):,} clips", *others])


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a part; what a killed process left of a line is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [orjson.loads(line) for line in whole.splitlines()]


__all__ = ["Dropped", "StageWriter", "check_output", "dropped_path", "in_batches", "summary"]
