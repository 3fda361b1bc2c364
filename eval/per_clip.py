"""The scores of every clip: a JSONL file of them, and which clips are the worst."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from dataset_builders.reading import read_jsonl
from modeling_grove.grounded_caption import atomic_path


def value_at(row: Mapping[str, Any], path: Sequence[str]) -> float:
    """The number at a path of names in a row; NaN where there is none."""
    value: Any = row
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return math.nan
        value = value[name]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def worst(per_clip: Iterable[Mapping[str, Any]], path: Sequence[str], count: int) -> list[tuple[str, float]]:
    """
    The clips with the lowest scores, the lowest first, equal ones in the order of their keys.

    Args:
        per_clip (`Iterable[Mapping]`): Rows of a [`BenchmarkResult`].
        path (`Sequence[str]`): Where the score is in a row: `("corrected", "AP50")`.
        count (`int`): How many, at most.

    Returns:
        `list[tuple[str, float]]`: key and score. Clips without the score, or with NaN, are not among them.

    Raises:
        `ValueError`: if `count` is negative, or no clip has such a score.
    """
    if count < 0:
        raise ValueError(f"count: expected at least 0 clips, got {count}")
    rows = list(per_clip)
    scores = [(value_at(row, path), str(row["key"])) for row in rows]
    known = sorted((value, key) for value, key in scores if not math.isnan(value))
    if rows and not known:
        raise ValueError(f"no clip has a score {'/'.join(path)!r}; the rows have {', '.join(score_paths(rows))}")
    return [(key, value) for value, key in known[:count]]


def score_paths(per_clip: Iterable[Mapping[str, Any]]) -> list[str]:
    """All paths of numbers in the rows, as `corrected/AP50`."""
    found: dict[str, None] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(inner, f"{path}/{name}" if path else str(name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = None

    for row in per_clip:
        walk(row, "")
    return list(found)


def write_per_clip(per_clip: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> int:
    """
    Writes rows as JSONL, atomically, with every digit of the numbers; NaN, which JSON does not have, becomes null.

    Returns:
        `int`: the number of rows.
    """
    count = 0
    with atomic_path(path) as temporary, Path(temporary).open("wb") as file:
        for row in per_clip:
            file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def read_per_clip(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """
    Reads what [`write_per_clip`] wrote.

    Raises:
        `ValueError`: naming file and line of what is no row with a key.
    """
    rows = []
    for number, row in read_jsonl(path):
        if not isinstance(row.get("key"), str):
            raise ValueError(f"{os.fspath(path)}: line {number}: key: expected the clip's key, got {row.get('key')!r}")
        rows.append(row)
    return rows


__all__ = ["read_per_clip", "score_paths", "value_at", "worst", "write_per_clip"]
