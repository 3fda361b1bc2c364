"""One of the paper's tables with results of ours under its rows: adapters (Table 6), annotation (Table 7), baselines (Table 2)."""

from __future__ import annotations

from collections.abc import Mapping

from eval.ablation_tables import INTERVALS_NOTE, OURS, PAPER, Line
from eval.paper import CAPTION_COLUMNS, CENTER, PaperTable

from .result_folder import ResultFolder

AVERAGE = "Average"


def comparison(table: PaperTable, ours: Mapping[str, ResultFolder]) -> list[Line]:
    """
    The lines of a table: the paper's rows in their order, our numbers of the same key under each, then results whose key the
    paper does not have.

    In a group of the centre frame, the columns of boxes are the headline's "AP50 (center)" and "Recall (center)". A result
    without any box score in a group (a captioner of single frames has none for all frames) has no line there.

    Args:
        table ([`PaperTable`]):
            The paper's.
        ours (`Mapping[str, ResultFolder]`):
            By key.
    """
    lines = []
    for group in table.groups:
        keys = [row.key for row in table.rows if row.group == group]
        keys += [key for key in [*table.keys, *ours] if key not in keys and key in ours]
        for key in dict.fromkeys(keys):
            row = table.find(key, group)
            title = row.title if row else _title(table, key)
            if row is not None:
                lines.append(Line(title, PAPER, row.values, group=group, key=key))
            if key in ours:
                lines += _our_lines(table, ours[key], title, group, key)
    return lines


def _title(table: PaperTable, key: str) -> str:
    """What a row is called that the paper has in another group, or not at all."""
    return next((row.title for row in table.rows if row.key == key), key)


def _our_lines(table: PaperTable, result: ResultFolder, title: str, group: str, key: str) -> list[Line]:
    names = {column: headline_name(column, group) for column in table.columns}
    lines = []
    for protocol, numbers in OURS.items():
        values = {column: result.value(protocol, name) for column, name in names.items()}
        if AVERAGE in values:
            rest = [value for column, value in values.items() if column != AVERAGE]
            known = [value for value in rest if value is not None]
            values[AVERAGE] = sum(known) / len(known) if len(known) == len(rest) else None
        if all(value is None for column, value in values.items() if column not in (*CAPTION_COLUMNS, AVERAGE)):
            continue
        bounds = {column: result.interval(protocol, name) for column, name in names.items()}
        intervals = {column: pair for column, pair in bounds.items() if pair is not None}
        lines.append(Line(title, numbers, values, intervals, group, key))
    return lines


def headline_name(column: str, group: str = "") -> str:
    """The name that a column of a group has in the headline of our results."""
    return f"{column} (center)" if group == CENTER and column not in CAPTION_COLUMNS else column


def comparison_notes(table: PaperTable, ours: Mapping[str, ResultFolder]) -> list[str]:
    """What a reader has to know beside the table: where the numbers are from, and what is not comparable."""
    notes = [f"Paper: {table.name} of {table.source}, {table.data}."]
    data: dict[str, list[str]] = {}
    for key, result in ours.items():
        data.setdefault(result.measured_on, []).append(key)
    notes += [f"Ours, {', '.join(keys)}: {name}." for name, keys in data.items()]
    unknown = [key for key in ours if key not in table.keys]
    if unknown:
        notes.append(f"Not in the paper: {', '.join(unknown)}. The paper has {', '.join(table.keys)}.")
    if any(line.intervals for line in comparison(table, ours)):
        notes.append(INTERVALS_NOTE)
    notes.append(
        "`official` is what the original's released code computes, `corrected` what the paper's text says. On other data than the "
        "paper's, only the differences between rows can be compared."
    )
    return notes


__all__ = ["AVERAGE", "comparison", "comparison_notes", "headline_name"]
