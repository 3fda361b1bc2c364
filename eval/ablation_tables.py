"""The paper's tables with our numbers under its own, as Markdown that can also be read as plain text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# How the numbers of a line came about.
PAPER = "paper"
OURS = {"official": "ours, official", "corrected": "ours, corrected"}

INTERVALS_NOTE = "In brackets: 95 % confidence intervals over clips."


@dataclass(frozen=True)
class Line:
    """
    A line of a table.

    Attributes:
        title (`str`): what it is about.
        numbers (`str`): whose numbers they are: `PAPER`, or one of `OURS`.
        values (`Mapping[str, float | None]`): by column; `None` or nothing where there is none.
        intervals (`Mapping[str, tuple[float, float]]`): of some columns, the bounds of the 95 % confidence interval.
        group (`str`): the part of the table that it belongs to.
        key (`str`): the short name of what it is about.
    """

    title: str
    numbers: str
    values: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    group: str = ""
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        intervals = {name: [*bounds] for name, bounds in self.intervals.items()}
        return {
            "group": self.group,
            "key": self.key,
            "title": self.title,
            "numbers": self.numbers,
            "values": dict(self.values),
            "intervals": intervals,
        }


def comparison_table(lines: Sequence[Line], columns: Sequence[str], heading: str = "", digits: int = 1) -> str:
    """
    A Markdown table: the lines in their order, what is the same as in the line above left out.

    Args:
        lines (`Sequence[Line]`):
            Those of one group and title next to each other.
        columns (`Sequence[str]`):
            Names of the values.
        heading (`str`, *optional*):
            What the titles are.
        digits (`int`, *optional*, defaults to 1):
            Behind the decimal point; the paper has one.
    """
    grouped = any(line.group for line in lines)
    cells = [[*([""] if grouped else []), heading, "numbers", *columns]]
    widths = {
        column: (
            max((len(_number(line, column, digits)) for line in lines), default=0),
            max((len(_bounds(line, column, digits)) for line in lines), default=0),
        )
        for column in columns
    }
    before: tuple[str, str] | None = None
    for line in lines:
        group = "" if before and before[0] == line.group else line.group
        title = "" if before == (line.group, line.title) else line.title
        before = line.group, line.title
        values = _cells(line, columns, widths, digits)
        cells.append([*([group] if grouped else []), title, line.numbers, *values])
    texts = 3 if grouped else 2
    return markdown_table(cells, [*range(texts), *(texts + n for n, column in enumerate(columns) if widths[column][1])])


def markdown_table(cells: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """
    A Markdown table whose columns also line up as plain text.

    Args:
        cells (`Sequence[Sequence[str]]`):
            Rows of equal length, the first one the headings.
        left (`Collection[int]`, *optional*, defaults to `(0,)`):
            The columns that are set to the left; the others, numbers, are set to the right.
    """
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(3, *map(len, column)) for column in zip(*escaped, strict=True)]
    rows = [
        " | ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in escaped
    ]
    rule = ["-" * (width + 2) if place in left else "-" * (width + 1) + ":" for place, width in enumerate(widths)]
    lines = [f"| {rows[0]} |", f"|{'|'.join(rule)}|", *(f"| {row} |" for row in rows[1:])]
    return "\n".join(lines)


def document(title: str, table: str, notes: Iterable[str], pictures: Iterable[str] = ()) -> str:
    """A Markdown page: title, table, notes, and pictures whose files lie beside it."""
    links = [f"![{title}]({picture})" for picture in pictures]
    parts = [f"# {title}", table, "\n".join(f"- {note}" for note in notes), *links]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(line: Line, columns: Sequence[str], widths: Mapping[str, tuple[int, int]], digits: int) -> list[str]:
    """Numbers with their intervals; where a column has any, its numbers end and its intervals begin at the same places."""
    cells = []
    for column in columns:
        number, bounds = _number(line, column, digits), _bounds(line, column, digits)
        before, behind = widths[column]
        cells.append(f"{number:>{before}} {bounds:<{behind}}" if behind else number)
    return cells


def _number(line: Line, column: str, digits: int) -> str:
    value = line.values.get(column)
    return "-" if value is None else f"{value:.{digits}f}"


def _bounds(line: Line, column: str, digits: int) -> str:
    if column not in line.intervals:
        return ""
    low, high = line.intervals[column]
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


__all__ = ["INTERVALS_NOTE", "OURS", "PAPER", "Line", "comparison_table", "document", "markdown_table"]
