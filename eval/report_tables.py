"""The table that a person sees after scoring: official and corrected values side by side, with intervals and coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .results import BenchmarkResult


def result_table(result: BenchmarkResult) -> str:
    """
    The headline of a result as text: a row a metric, a column a protocol, in percent, with 95 % intervals where there are some;
    then what is known beyond the paper's metrics, coverage, and what was tolerated.
    """
    notes = dict.fromkeys(note for metrics in result.metrics.values() for note in metrics.get("caption_notes", ()))
    parts = [
        _headline(result),
        _statistics(result.statistics),
        coverage_line(result),
        _warnings(result.warnings),
        *notes,
    ]
    return "\n\n".join(part for part in parts if part)


def coverage_line(result: BenchmarkResult) -> str:
    """How many of the clips were predicted, and which were not."""
    coverage = result.coverage
    missing = coverage["clips"] - coverage["predicted"]
    line = (
        f"{coverage['predicted']:,} of {coverage['clips']:,} clips are predicted ({100 * coverage['coverage']:.1f} %)"
    )
    if not missing:
        return line
    named = ", ".join(coverage["missing"])
    more = ", ..." if missing > len(coverage["missing"]) else ""
    return f"{line}; missing: {named}{more}"


def _headline(result: BenchmarkResult) -> str:
    protocols = [*result.headline]
    names = list(dict.fromkeys(name for row in result.headline.values() for name in row))
    intervals = result.statistics.get("intervals", {})
    cells = [[result.benchmark, *protocols]]
    for name in names:
        row = [name]
        for protocol in protocols:
            row.append(_value(result.headline[protocol].get(name), intervals.get(protocol, {}).get(name)))
        cells.append(row)
    return aligned(cells)


def _value(value: float | None, interval: Mapping[str, float] | None) -> str:
    """A number in percent, with its interval, whose ends are fractions."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:.2f}"
    if interval is None or math.isnan(interval["low"]):
        return text
    return f"{text} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _statistics(statistics: Mapping[str, Any]) -> str:
    """The numbers of presence, tracks, flicker, boxes and calibration, a line each."""
    lines = []
    if presence := statistics.get("presence"):
        scores = ", ".join(
            f"{label} {_number(presence[name])}"
            for name, label in (
                ("accuracy", "accuracy"),
                ("precision", "precision"),
                ("recall", "recall"),
                ("f1", "F1"),
            )
        )
        absent = (
            f"{presence['phrase_frames']:,} phrases x frames, {_number(100 * presence['absent_share'], 1)} % absent"
        )
        lines.append(["presence", f"{scores} ({absent}); paired phrases: F1 {_number(presence['paired']['f1'])}"])
    if tracks := statistics.get("tracks"):
        mean, paired = _number(tracks["mean_iou"]), _number(tracks["mean_iou_paired"])
        sizes = tracks["visible_phrases"], tracks["visible_pairs"]
        lines.append(
            ["tracks", f"mean IoU {mean} of {sizes[0]:,} phrases, {paired} of the {sizes[1]:,} that are paired"]
        )
    for name, label in (("flicker", "appearing and going, a phrase"), ("boxes_per_frame", "boxes a frame")):
        if block := statistics.get(name):
            lines.append(
                [label, f"{_number(block['truth'], 2)} annotated, {_number(block['prediction'], 2)} predicted"]
            )
    if calibration := statistics.get("calibration"):
        lines.append(["objectness", f"ECE {_number(calibration['ECE'])}, Brier {_number(calibration['Brier'])}"])
    width = max((len(label) for label, _ in lines), default=0)
    return "\n".join(f"{label.ljust(width)}  {text}" for label, text in lines)


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _warnings(warnings: Mapping[str, int]) -> str:
    if not warnings:
        return ""
    return "noticed: " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in warnings.items())


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """A text table: the first column to the left, the others with their numbers under one another."""
    columns = [[row[n] for row in cells] for n in range(len(cells[0]))]
    laid = [_column(column, left=n == 0) for n, column in enumerate(columns)]
    lines = ["  ".join(parts).rstrip() for parts in zip(*laid, strict=True)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _column(texts: Sequence[str], *, left: bool) -> list[str]:
    """The cells of a column, equally wide; numbers end where the interval begins."""
    if left:
        width = max(map(len, texts))
        return [text.ljust(width) for text in texts]
    heads, tails = zip(*(text.partition(" ")[::2] for text in texts), strict=True)
    width = max(map(len, heads))
    joined = [f"{head.rjust(width)} {tail}".rstrip() for head, tail in zip(heads, tails, strict=True)]
    whole = max(map(len, joined))
    return [text.ljust(whole) for text in joined]


__all__ = ["aligned", "coverage_line", "result_table"]
