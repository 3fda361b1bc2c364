"""What scoring leaves in a folder, and results as JSON.

results.json       headline, metrics, statistics, coverage, warnings, and what they came from
clips.jsonl        the scores of every clip
references.jsonl   what was scored against, where it is records
predictions.jsonl  what was scored, with the objectness of all frames, where it is grounded captions
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from dataset_builders.record import Record
from modeling_grove.grounded_caption import GroundedCaption, atomic_path

from .per_clip import write_per_clip
from .results import BenchmarkResult

RESULTS, CLIPS, REFERENCES, PREDICTIONS = "results.json", "clips.jsonl", "references.jsonl", "predictions.jsonl"


def write_results(
    output: str | os.PathLike[str],
    result: BenchmarkResult,
    about: Mapping[str, Any] | None = None,
    *,
    references: Sequence[Record] = (),
    predictions: Sequence[GroundedCaption] = (),
) -> Path:
    """
    Writes a result folder; every file atomically, `results.json` last.

    Args:
        output (path):
            The folder, made if it is not there. What an earlier result left is replaced.
        result ([`BenchmarkResult`]):
            The scores.
        about (`Mapping`, *optional*):
            JSON types, added to `results.json`: model, data, settings, versions.
        references (sequence of records, *optional*), predictions (sequence of [`GroundedCaption`], *optional*):
            Written where there are any.

    Returns:
        `Path`: of `results.json`.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).unlink(missing_ok=True)
    write_per_clip(result.per_clip, folder / CLIPS)
    _write_lines(folder / REFERENCES, references)
    _write_lines(folder / PREDICTIONS, (caption.to_dict() for caption in predictions))
    with atomic_path(folder / RESULTS) as temporary:
        text = json.dumps(json_ready({**result.to_dict(), **(about or {})}), ensure_ascii=False, indent=2)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    return folder / RESULTS


def json_ready(value: Any) -> Any:
    """A value of JSON types and tuples with `None` in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: json_ready(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSONL; without an object there is no file."""
    path.unlink(missing_ok=True)
    lines = iter(objects)
    first = next(lines, None)
    if first is None:
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(orjson.dumps(first) + b"\n")
        for line in lines:
            file.write(orjson.dumps(line) + b"\n")


__all__ = ["CLIPS", "PREDICTIONS", "REFERENCES", "RESULTS", "json_ready", "write_results"]
