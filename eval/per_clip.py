"""Rows with the scores of every clip: a number of one, and a JSONL file of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from modeling_grove.grounded_caption import atomic_path


def value_at(row: Mapping[str, Any], path: Sequence[str]) -> float:
    """The number at a path of names in a row; NaN where there is none."""
    value: Any = row
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return math.nan
        value = value[name]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


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


__all__ = ["value_at", "write_per_clip"]
