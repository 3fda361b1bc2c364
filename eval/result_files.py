"""The files of a result folder: their names, how they are written, and what scoring leaves.

results.json       headline, metrics, statistics, coverage, warnings, and what they came from
clips.jsonl        the scores of every clip
references.jsonl   what was scored against, where it is records
predictions.jsonl  what was scored, with the objectness of all frames, where it is grounded captions
model_index.yml    of a run: entries for the model's card; with data of the Hub also .eval_results/BENCHMARK.yaml
run.json           of a run: the settings of its predictions
worst/             pictures of the clips with the lowest scores
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from dataset_builders.record import Record
from modeling_grove.grounded_caption import GroundedCaption, atomic_path

from .per_clip import write_per_clip
from .results import BenchmarkResult

RESULTS, CLIPS, REFERENCES, PREDICTIONS = "results.json", "clips.jsonl", "references.jsonl", "predictions.jsonl"
SETTINGS, MODEL_INDEX, HUB_RESULTS, WORST = "run.json", "model_index.yml", ".eval_results", "worst"
_SCORES = (RESULTS, CLIPS, f"{WORST}/[0-9][0-9]*_*.png", f"{WORST}/index.html")


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

    Raises:
        `ValueError`: if the folder has the predictions of a run, which would be lost.
    """
    folder = Path(output)
    check_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_scores(folder)
    _replace(folder / REFERENCES, references)
    _replace(folder / PREDICTIONS, (caption.to_dict() for caption in predictions))
    write_per_clip(result.per_clip, folder / CLIPS)
    write_json(folder / RESULTS, {**result.to_dict(), **(about or {})})
    return folder / RESULTS


def check_output(folder: Path) -> None:
    """
    Raises:
        `ValueError`: if scores cannot be written there: it is a file, or has the predictions of a run.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output: {folder} is a file; expected a folder")
    if (folder / SETTINGS).exists():
        raise ValueError(f"--output: {folder} has the predictions of a run ({SETTINGS}); choose another folder")


def remove_scores(folder: Path) -> None:
    """Removes scores and the pictures of the worst clips, which would be stale beside other predictions."""
    for pattern in _SCORES:
        for path in folder.glob(pattern):
            path.unlink()


def _replace(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON Lines; without any value there is no file."""
    lines = iter(values)
    first = next(lines, None)
    if first is None:
        path.unlink(missing_ok=True)
    else:
        write_lines(path, chain([first], lines))


def write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON Lines, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(map(json_line, values))


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line of JSON Lines in UTF-8; NaN, which JSON does not have, is null."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object for people too, atomically; NaN, which JSON does not have, is null."""
    with atomic_path(path) as temporary:
        text = json.dumps(json_ready(value), ensure_ascii=False, allow_nan=False, indent=2)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def json_ready(value: Any) -> Any:
    """A value of JSON types and tuples with `None` in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: json_ready(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = [
    "CLIPS",
    "HUB_RESULTS",
    "MODEL_INDEX",
    "PREDICTIONS",
    "REFERENCES",
    "RESULTS",
    "SETTINGS",
    "WORST",
    "check_output",
    "json_line",
    "json_ready",
    "remove_scores",
    "write_json",
    "write_lines",
    "write_results",
]
