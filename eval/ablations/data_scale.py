"""Quality against the number of clips for pre-training, before and after fine-tuning (the paper's Figure 5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from eval.ablation_tables import INTERVALS_NOTE, OURS, PAPER, Line
from eval.paper import IGROUND_COLUMNS, SCALE, SCALE_CLIPS

from .result_folder import ResultFolder

# The curves that the paper has; any other name makes a curve of its own.
CURVES = {"pt": "pre-trained", "pt+ft": "pre-trained, fine-tuned"}
COLUMNS = IGROUND_COLUMNS
_MULTIPLES = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class ScalePoint:
    """
    A point of a curve.

    Attributes:
        curve (`str`): "pt", "pt+ft", or another name.
        clips (`int`): that were pre-trained on; 0 for none.
        result ([`ResultFolder`]): of the model.
    """

    curve: str
    clips: int
    result: ResultFolder


def read_label(label: str) -> tuple[str, int]:
    """
    Curve and number of clips of a label such as `pt:10k` or `pt+ft:1M`.

    Raises:
        `ValueError`: if it is none.
    """
    match = re.fullmatch(r"([^:]+):([0-9][0-9_]*(?:\.[0-9]+)?)([km]?)", label.strip().lower())
    if match is None:
        raise ValueError(f"{label!r}: expected CURVE:CLIPS, such as pt:10k or pt+ft:1M")
    return match[1], round(float(match[2].replace("_", "")) * _MULTIPLES[match[3]])


def scale_points(folders: Mapping[str, ResultFolder]) -> list[ScalePoint]:
    """
    The points of labelled results, by curve and then by clips; the paper's curves come first.

    Raises:
        `ValueError`: if a label is none, or two results are the same point.
    """
    points = [ScalePoint(*read_label(label), result) for label, result in folders.items()]
    order = [*CURVES, *(point.curve for point in points)]
    points.sort(key=lambda point: (order.index(point.curve), point.clips))
    places = [(point.curve, point.clips) for point in points]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ValueError(f"{twice[0]}:{twice[1]}: two results are given for this point")
    return points


def scale_lines(points: list[ScalePoint]) -> list[Line]:
    """The lines of the table, and the one point of the paper's figure that is published."""
    lines = []
    for point in points:
        for protocol, numbers in OURS.items():
            if protocol in point.result.protocols:
                values = {column: point.result.value(protocol, column) for column in COLUMNS}
                bounds = {column: point.result.interval(protocol, column) for column in COLUMNS}
                intervals = {column: pair for column, pair in bounds.items() if pair is not None}
                lines.append(
                    Line(f"{point.clips:,}", numbers, values, intervals, curve_title(point.curve), point.curve)
                )
    known = SCALE.known
    paper = Line(f"{SCALE_CLIPS:,}", PAPER, known.values, group=curve_title(known.key), key=known.key)
    place = max((n for n, line in enumerate(lines, start=1) if line.key == known.key), default=len(lines))
    return [*lines[:place], paper, *lines[place:]]


def scale_notes(points: list[ScalePoint]) -> list[str]:
    """What a reader has to know beside the table."""
    axes = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in SCALE.axes.items())
    data = dict.fromkeys(point.result.measured_on for point in points)
    bounded = any(line.intervals for line in scale_lines(points))
    return [
        f"Paper: {SCALE.name} of {SCALE.source}, {SCALE.data}. {SCALE.reading} Its points are not published; its axes cover "
        f"{axes}. The row is that of the full model in Table 6.",
        f"Ours: {'; '.join(data)}.",
        *([INTERVALS_NOTE] if bounded else []),
        "`official` is what the original's released code computes, `corrected` what the paper's text says.",
    ]


def curve_title(curve: str, pretrained: bool = True) -> str:
    """What a curve is called in tables and plots, and what its point without pre-training is."""
    if curve == "pt+ft" and not pretrained:
        return "fine-tuned only"
    return CURVES.get(curve, curve) + ("" if pretrained else ", not pre-trained")


__all__ = ["COLUMNS", "CURVES", "ScalePoint", "curve_title", "read_label", "scale_lines", "scale_notes", "scale_points"]
