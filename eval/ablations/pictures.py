"""The plots of the studies: which numbers become which curves and points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.ablation_tables import OURS, PAPER, Line
from eval.paper import DEFAULT_THRESHOLD, SCALE, SCALE_CLIPS, THRESHOLD, PaperTable
from eval.plots import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    Curve,
    Level,
    Panel,
    Point,
    RowNames,
    RowPanel,
    plot_curves,
    plot_rows,
)
from eval.results import PROTOCOLS

from .data_scale import ScalePoint, curve_title

SCORE = "score x 100"  # percent, but for CIDEr

# Colour, marker and dashes by whose numbers they are.
LOOKS = {OURS["official"]: (BLUE, "o", "-"), OURS["corrected"]: (ORANGE, "s", "--"), PAPER: (INK, "D", "")}


def comparison_plot(table: PaperTable, lines: Sequence[Line], path: Path) -> Path:
    """A panel for every column, a row for every title, the paper's numbers and ours as points."""
    rows = list(dict.fromkeys((line.group, line.title) for line in lines))
    panels = []
    for column in table.columns:
        points: list[list[Point]] = []
        for row in rows:
            points.append([])
            for line in lines:
                value = line.values.get(column)
                if (line.group, line.title) == row and value is not None:
                    color, marker, _ = LOOKS[line.numbers]
                    low, high = line.intervals.get(column, (None, None))
                    label = _paper_label(table.data) if line.numbers == PAPER else line.numbers
                    points[-1].append(Point(label, value, low, high, color, marker, hollow=line.numbers == PAPER))
        panels.append(RowPanel(column, points))
    return plot_rows(panels, RowNames([row[1] for row in rows], [row[0] for row in rows]), path, x_label=SCORE)


def sweep_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """AP50, Recall and presence against the threshold."""
    x = [row["threshold"] for row in rows]
    panels = []
    for metric in THRESHOLD.axes:
        curves = []
        for protocol in PROTOCOLS:
            if protocol in rows[0]:
                color, marker, dashes = LOOKS[OURS[protocol]]
                y, low, high = _sweep_values(rows, protocol, metric)
                curves.append(Curve(OURS[protocol], x, y, low, high, color=color, marker=marker, dashes=dashes))
        curves.append(_paper_point(THRESHOLD.data, DEFAULT_THRESHOLD, THRESHOLD.known.values[metric]))
        panels.append(Panel(metric, curves, mark_x=DEFAULT_THRESHOLD, mark_text="default"))
    presence = [Curve("_presence", x, *_sweep_values(rows, "presence", "f1"), color=GREEN, marker="^")]
    panels.append(Panel("Presence F1", presence, mark_x=DEFAULT_THRESHOLD, mark_text="default"))
    return plot_curves(panels, path, x_label="objectness threshold", y_label="percent")


def _sweep_values(
    rows: Sequence[Mapping[str, Any]], group: str, name: str
) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """A score at every threshold, and the bounds of its intervals."""
    bounds = [row["intervals"].get(group, {}).get(name, [None, None]) for row in rows]
    return [row[group][name] for row in rows], [pair[0] for pair in bounds], [pair[1] for pair in bounds]


def scale_plot(points: Sequence[ScalePoint], protocol: str, path: Path) -> Path:
    """CIDEr, AP50 and Recall against the number of clips for pre-training, under one protocol."""
    panels = scale_panels(points, protocol)
    return plot_curves(panels, path, x_label="clips pre-trained on", y_label=f"{protocol} {SCORE}", log_x=True)


def scale_panels(points: Sequence[ScalePoint], protocol: str) -> list[Panel]:
    """What `scale_plot` draws."""
    names = list(dict.fromkeys(point.curve for point in points))
    panels = []
    for metric in SCALE.axes:
        curves, levels, missing = [], [], []
        for number, name in enumerate(names):
            color, marker = CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)]
            known = [
                point for point in points if point.curve == name and point.result.value(protocol, metric) is not None
            ]
            placed = [point for point in known if point.clips]
            if placed:
                bounds = [point.result.interval(protocol, metric) for point in placed]
                curves.append(
                    Curve(
                        curve_title(name),
                        [point.clips for point in placed],
                        [point.result.value(protocol, metric) for point in placed],
                        [pair[0] if pair else None for pair in bounds],
                        [pair[1] if pair else None for pair in bounds],
                        color=color,
                        marker=marker,
                        dashes="-" if number % 2 == 0 else "--",
                    )
                )
            elif any(point.curve == name and point.clips for point in points):
                missing.append(curve_title(name))
            for point in points:
                if point.curve == name and not point.clips:
                    title, value = curve_title(name, pretrained=False), point.result.value(protocol, metric)
                    if value is None:
                        missing.append(title)
                    else:
                        levels.append(Level(title, value, color))
        if protocol == "official":  # which is what the paper's numbers can be compared with
            curves.append(_paper_point(SCALE.data, SCALE_CLIPS, SCALE.known.values[metric]))
        panels.append(Panel(metric, curves, levels, missing=missing))
    return panels


def _paper_point(data: str, x: float, y: float) -> Curve:
    color, marker, dashes = LOOKS[PAPER]
    return Curve(_paper_label(data), [x], [y], color=color, marker=marker, dashes=dashes, hollow=True)


def _paper_label(data: str) -> str:
    return f"paper, {data}"


__all__ = ["comparison_plot", "scale_panels", "scale_plot", "sweep_plot"]
