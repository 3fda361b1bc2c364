"""Plots in one look, for print and screen: panels of curves, and panels of points by row.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; what differs in colour also differs in
marker or dashes, so that nothing is lost in grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_grove.grounded_caption import atomic_path

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, PALE = "#222222", "#6E6E6E", "#D9D9D9"

# For curves that have no colour of their own.
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P")

INTERVAL = "95 % interval"

_DOTS_PER_INCH = 200
_MOST_TICKS = 5
_MANY_POINTS = 10  # of a curve, for smaller markers
_STYLE: Any = {  # Any: the type that matplotlib asks for lists all of its settings
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a plot looks the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Curve:
    """
    A curve of a panel, or single points.

    Attributes:
        label (`str`): in the legend; curves of one label look the same in all panels. One that begins with "_" is not in it.
        x (`Sequence[float]`), y (`Sequence[float | None]`): its points; `None` leaves a gap.
        low (`Sequence[float | None]`), high (`Sequence[float | None]`): bounds of confidence intervals, where there are any.
        color (`str`), marker (`str`), dashes (`str`): of matplotlib. A marker of "" draws none, dashes of "" no line.
        hollow (`bool`): whether markers are only outlines, as those of numbers that are not ours.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    color: str = BLUE
    marker: str = "o"
    dashes: str = "-"
    hollow: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line through a panel, for what has no place on its axis: `y`, with a label for the legend."""

    label: str
    y: float
    color: str = GREY
    dashes: str = ":"


@dataclass(frozen=True)
class Panel:
    """
    One plot of a figure.

    Attributes:
        title (`str`): above it.
        curves (`Sequence[Curve]`), levels (`Sequence[Level]`): what is drawn.
        mark_x (`float`, *optional*): where a thin vertical line stands, and `mark_text`, what it says.
        missing (`Sequence[str]`): labels of what the other panels have and this one has no number of; it says so below its curves.
    """

    title: str
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()
    mark_x: float | None = None
    mark_text: str = ""
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Point:
    """A value in a row of a panel of rows: whose it is (a label of the legend), and the bounds of its interval if known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    color: str = BLUE
    marker: str = "o"
    hollow: bool = False


@dataclass(frozen=True)
class RowPanel:
    """A panel of rows: a title, and for every row of the figure its points."""

    title: str
    points: Sequence[Sequence[Point]]


@dataclass(frozen=True)
class RowNames:
    """What the rows are called, and the group that each is in (equal groups next to each other)."""

    titles: Sequence[str]
    groups: Sequence[str] = field(default_factory=tuple)


def plot_curves(panels: Sequence[Panel], path: str | Path, *, x_label: str, y_label: str, log_x: bool = False) -> Path:
    """
    Writes a PNG of panels side by side with curves over a common x axis.

    Args:
        panels (`Sequence[Panel]`):
            From left to right. Every one has its own y axis.
        path (`str` or `Path`):
            Where the picture goes; its folder has to exist.
        x_label (`str`), y_label (`str`):
            What the axes are; y is said at the left panel only.
        log_x (`bool`, *optional*, defaults to `False`):
            Whether x is logarithmic, and a number of clips.

    Returns:
        `Path`: of the picture.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(0.7 + 2.45 * len(panels), 2.9), dpi=_DOTS_PER_INCH, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for place, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
            _draw_curves(axis, panel)
            axis.set_title(panel.title)
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label if place == 0 else "")
            if log_x:
                _clip_counts(axis, sorted({x for curve in panel.curves for x in curve.x}))
            else:
                axis.margins(x=0.03)
            axis.margins(y=0.09)
            _whole_steps(axis)
            _say_missing(axis, panel.missing)
        bounded = any(low is not None for panel in panels for curve in panel.curves for low in curve.low)
        _legend(figure, axes, {INTERVAL: Patch(color=GREY, alpha=0.2, linewidth=0)} if bounded else {})
        return _save(figure, path)


def plot_rows(
    panels: Sequence[RowPanel], names: RowNames, path: str | Path, *, x_label: str, bounds: str = INTERVAL
) -> Path:
    """
    Writes a PNG of panels side by side whose rows are what is compared, with the values as points.

    Args:
        panels (`Sequence[RowPanel]`):
            From left to right, all with as many rows as there are names.
        names ([`RowNames`]):
            Of the rows, from top to bottom.
        path (`str` or `Path`):
            Where the picture goes; its folder has to exist.
        x_label (`str`):
            What the values are.
        bounds (`str`, *optional*, defaults to [`INTERVAL`]):
            What the bounds of points are, for the legend.

    Returns:
        `Path`: of the picture.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    groups = names.groups or [""] * len(names.titles)
    # A group begins with a line for its name.
    places, headings, place = [], [], 0.0
    for number, group in enumerate(groups):
        if group and (number == 0 or groups[number - 1] != group):
            headings.append((place, group))
            place += 0.8
        places.append(place)
        place += 1
    with matplotlib.rc_context(_STYLE):
        size = (2.4 + 1.75 * len(panels), 1.15 + 0.38 * place)
        figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for panel, axis in zip(panels, axes, strict=True):
            for row, points in zip(places, panel.points, strict=True):
                _draw_points(axis, row, points)
            axis.set_title(panel.title)
            axis.set_xlabel(x_label)
            axis.tick_params(axis="y", length=0)
            axis.grid(visible=False, axis="y")
            for row in places:
                axis.axhline(row, color=PALE, linewidth=0.6, zorder=0)
            axis.margins(x=0.12)
            _whole_steps(axis, "x")
        axes[0].set_yticks(places, names.titles)
        axes[0].set_ylim(place - 0.4, -0.6)
        for row, group in headings:
            at = (-0.03, row)
            axes[0].annotate(
                group, at, xycoords=axes[0].get_yaxis_transform(), ha="right", va="center", fontweight="bold"
            )
        bounded = any(point.low is not None for panel in panels for row in panel.points for point in row)
        _legend(figure, axes, {bounds: Line2D([], [], color=GREY, linewidth=1.2)} if bounded else {})
        return _save(figure, path)


def _draw_curves(axis: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        y = [math.nan if value is None else value for value in curve.y]
        size = 9.0 if curve.hollow else 4.5 if len(curve.x) <= _MANY_POINTS else 3.2
        axis.plot(
            curve.x, y, label=curve.label, color=curve.color, linestyle=curve.dashes or "none", marker=curve.marker or "none",
            markerfacecolor="none" if curve.hollow else curve.color, markersize=size,
            markeredgewidth=1.4 if curve.hollow else 0.0, zorder=4 if curve.hollow else 3,
        )  # fmt: skip
        if curve.low and curve.high:
            bounds = [
                (x, low, high)
                for x, low, high in zip(curve.x, curve.low, curve.high, strict=True)
                if low is not None and high is not None
            ]
            if len(bounds) == 1:  # a band of one point would not be seen
                axis.vlines(*bounds[0], color=curve.color, linewidth=1.2, zorder=2)
            elif bounds:
                xs, lows, highs = zip(*bounds, strict=True)
                axis.fill_between(xs, lows, highs, color=curve.color, alpha=0.15, linewidth=0, zorder=1)
    for level in panel.levels:
        axis.axhline(level.y, color=level.color, linestyle=level.dashes, linewidth=1.4, label=level.label, zorder=2)
    if panel.mark_x is not None:
        axis.axvline(panel.mark_x, color=GREY, linewidth=0.8, zorder=1)
        axis.annotate(
            panel.mark_text, (panel.mark_x, 1), xycoords=axis.get_xaxis_transform(), xytext=(7, -1),
            textcoords="offset points", ha="left", va="top", fontsize=7, color=GREY,
        )  # fmt: skip


def _say_missing(axis: Axes, labels: Sequence[str]) -> None:
    """Says what a panel has no number of, on a strip that it gets below its curves."""
    if not labels:
        return
    text = "\n".join(["no number:", *labels])
    low, high = axis.get_ylim()
    axis.set_ylim(low - (0.06 + 0.06 * (len(labels) + 1)) * (high - low), high)
    axis.annotate(
        text,
        (0, 0),
        xycoords="axes fraction",
        xytext=(4, 4),
        textcoords="offset points",
        va="bottom",
        fontsize=7,
        color=GREY,
    )


def _draw_points(axis: Axes, row: float, points: Sequence[Point]) -> None:
    for place, point in enumerate(points):
        y = row + (place - (len(points) - 1) / 2) * 0.27
        if point.low is not None and point.high is not None:
            axis.hlines(y, point.low, point.high, color=point.color, linewidth=1.2, zorder=2)
        axis.plot(
            [point.value], [y], label=point.label, color=point.color, linestyle="none", marker=point.marker, markersize=5,
            markerfacecolor="white" if point.hollow else point.color, markeredgewidth=1.2, zorder=3,
        )  # fmt: skip


def _clip_counts(axis: Axes, counts: Sequence[float]) -> None:
    """A logarithmic axis of numbers of clips, with a tick at each of them where there are few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_xscale("log")
    if counts:
        axis.set_xlim(counts[0] / 1.8, counts[-1] * 1.8)
    if len(counts) <= _MOST_TICKS:
        axis.xaxis.set_major_locator(FixedLocator(counts))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def short_count(value: float) -> str:
    """A number of clips as people write it: 500, 10k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def _whole_steps(axis: Axes, which: str = "y") -> None:
    """A few ticks at round numbers."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(nbins=5, steps=[1, 2, 4, 5, 10], min_n_ticks=3)
    (axis.yaxis if which == "y" else axis.xaxis).set_major_locator(locator)


def _legend(figure: Figure, axes: Sequence[Axes], bounds: Mapping[str, Artist]) -> None:
    """One legend above all panels, every label once, and what the bounds of points are if there are any."""
    handles: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles |= bounds
    # In as many columns as the figure is wide enough for.
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            list(handles.values()), list(handles), loc="outside upper left", ncols=columns, handlelength=2.2
        )
        figure.draw_without_rendering()
        place = legend.get_window_extent()
        if columns == 1 or (place.x0 >= 0 and place.x1 <= figure.bbox.width):
            break
        legend.remove()


def _save(figure: Figure, path: str | Path) -> Path:
    with atomic_path(path) as temporary:
        # Without the date and version of matplotlib, the same numbers make the same file.
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return Path(path)


__all__ = [
    "BLUE",
    "CYCLE",
    "GREEN",
    "GREY",
    "INK",
    "MARKERS",
    "ORANGE",
    "Curve",
    "Level",
    "Panel",
    "Point",
    "RowNames",
    "RowPanel",
    "plot_curves",
    "plot_rows",
    "short_count",
]
