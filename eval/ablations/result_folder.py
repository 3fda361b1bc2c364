"""A folder that `python -m eval run` or `python -m eval score --output` wrote, as the studies read it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.reading import read_entries, read_json
from eval.iground_files import read_caption
from eval.result_files import PREDICTIONS, REFERENCES, RESULTS
from modeling_grove.grounded_caption import GroundedCaption

_PROVENANCE = ("model", "data", "settings", "seed", "commit", "uncommitted_changes", "versions", "hardware", "time")


@dataclass(frozen=True)
class ResultFolder:
    """
    What a run or scoring left.

    Args:
        path (`Path`): the folder.
        results (`Mapping[str, Any]`): its `results.json`.
    """

    path: Path
    results: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | Path, benchmark: str | None = "iground") -> ResultFolder:
        """
        Reads `results.json`.

        Args:
            path (`str` or `Path`):
                The folder.
            benchmark (`str`, *optional*, defaults to `"iground"`):
                What the results have to be of; `None` for any.

        Raises:
            `ValueError`: if it is not there, has no headline, or is of another benchmark.
        """
        folder, file = Path(path), Path(path) / RESULTS
        if not file.is_file():
            raise ValueError(
                f"{folder}: has no {RESULTS}; expected a folder that `eval run` or `eval score --output` wrote"
            )
        results = read_json(file)
        headline = results.get("headline") if isinstance(results, dict) else None
        if (
            not isinstance(headline, dict)
            or not all(isinstance(row, dict) for row in headline.values())
            or not headline
        ):
            raise ValueError(f"{file}: headline: expected the scores by protocol; expected what `eval score` writes")
        if benchmark is not None and results.get("benchmark") != benchmark:
            raise ValueError(f"{file}: benchmark: got {results.get('benchmark')!r}, expected {benchmark!r}")
        return cls(folder, results)

    @property
    def protocols(self) -> list[str]:
        """Those that it was scored under."""
        return [*self.results["headline"]]

    def value(self, protocol: str, metric: str) -> float | None:
        """A number of the headline, in percent; `None` where it was not computed (METEOR without Java) or is not a number."""
        value = self.results["headline"].get(protocol, {}).get(metric)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

    def interval(self, protocol: str, metric: str) -> tuple[float, float] | None:
        """The bounds in percent between which the mean over clips lies with 95 % confidence, where they were computed."""
        intervals = (self.results.get("statistics") or {}).get("intervals") or {}
        entry = (intervals.get(protocol) or {}).get(metric)
        low, high = (entry or {}).get("low"), (entry or {}).get("high")
        return None if low is None or high is None else (100 * low, 100 * high)

    @property
    def measured_on(self) -> str:
        """The data in words: their name, where `eval run` knew it, and how many clips."""
        data = self.results.get("data") or {}
        clips = (self.results.get("coverage") or {}).get("clips")
        name = data.get("name") if isinstance(data, dict) else None
        count = f"{clips:,} clips" if clips else None
        parts = [str(name) if name else None, None if name and count and count in str(name) else count]
        return ", ".join(part for part in parts if part) or "unnamed data"

    @property
    def provenance(self) -> dict[str, Any]:
        """Which model and data, settings, seed, code, versions and hardware the numbers are of, as far as the folder says it."""
        return {name: self.results[name] for name in _PROVENANCE if name in self.results}

    def predictions(self) -> list[GroundedCaption]:
        """
        The predictions, with the objectness of every frame.

        Raises:
            `ValueError`: naming file, line and field of what is wrong.
        """
        return read_captions(self.path / PREDICTIONS)

    def references(self, annotations: str | Path | None = None) -> list[GroundedCaption]:
        """
        What was scored against: `references.jsonl`, or another file of records.

        Raises:
            `ValueError`: naming file, line and field of what is wrong.
        """
        file = Path(annotations) if annotations is not None else self.path / REFERENCES
        if not file.is_file():
            raise ValueError(f"{file}: no such file; pass the records that were predicted with --annotations")
        return read_captions(file)


def read_captions(path: str | Path) -> list[GroundedCaption]:
    """
    The grounded captions of a file: records, or what [`GroundedCaption.to_dict`] gives, in any mixture.

    Raises:
        `ValueError`: naming file, line and field of what is wrong, or if there is nothing in it.
    """
    captions = [read_caption(entry, f"{path}: entry {entry.number}") for entry in read_entries(path)]
    if not captions:
        raise ValueError(f"{path}: empty; expected a grounded caption on every line")
    return captions


def named_folders(values: Sequence[str]) -> dict[str, Path]:
    """
    The arguments `NAME=DIR` of a command line. Names are lower-cased.

    Raises:
        `ValueError`: if one has another form, or a name is given twice.
    """
    folders: dict[str, Path] = {}
    for value in values:
        match = re.fullmatch(r"([^=]+)=(.+)", value)
        if match is None:
            raise ValueError(f"{value!r}: expected NAME=DIR with the folder of a result")
        name = match[1].strip().lower()
        if name in folders:
            raise ValueError(f"{name!r} is given twice; every result needs its own name")
        folders[name] = Path(match[2])
    return folders


__all__ = ["ResultFolder", "named_folders", "read_captions"]
