"""
What a study found: the numbers of its runs by row and seed, whether they agree with the paper, as a table and as a picture.

Rows are `{title: {column: [value of each seed]}}`, in percent.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from eval.ablation_tables import markdown_table
from eval.plots import Point, RowNames, RowPanel, plot_rows

from .study_runs import Study, StudySizes

METRICS = ("CIDEr", "AP50", "Recall")
# Of all annotated phrases, and of those that the caption has too.
PRESENCE, PAIRED_PRESENCE = "presence F1", "presence F1, paired"

Rows = dict[str, dict[str, list[float | None]]]


def values_of(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a result: both protocols, and presence, in percent."""
    values: dict[str, float | None] = {}
    for protocol, headline in result["headline"].items():
        values |= {f"{metric} ({protocol})": headline.get(metric) for metric in METRICS}
    presence = result["statistics"].get("presence", {})
    for name, found in ((PRESENCE, presence), (PAIRED_PRESENCE, presence.get("paired", {}))):
        values[name] = None if found.get("f1") is None else 100 * found["f1"]
    return values


def rows_of(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Rows:
    """The rows of a study from the results of each run and seed; without a second CIDEr, the same under both protocols."""
    values = {title: [values_of(result) for result in found] for title, found in results.items()}
    columns = list(dict.fromkeys(name for found in values.values() for one in found for name in one))
    columns.remove("CIDEr (official)")
    return {title: {name: [one.get(name) for one in found] for name in columns} for title, found in values.items()}


def read_other(path: Path, made: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """
    The same study with other seeds.

    Args:
        path (`Path`):
            What the command wrote, NAME.json.
        made (`Mapping[str, Any]`):
            What has to be the same: `study`, `sizes`, and the model that all start from as `start`.
        seeds (`Sequence[int]`):
            Which have to be others.

    Raises:
        `ValueError`: if the file is none of this study, or its numbers do not belong to it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        there = {name: content[name] for name in (*made, "rows", "seeds", "machines")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"--merge: {path}: {error!r}; expected a file that `python -m train study` wrote") from None
    for name, here in made.items():
        ours, theirs = json.loads(json.dumps(here)), there[name]
        if name == "start":  # the folder may have another name
            ours, theirs = ours["fingerprint"], theirs["fingerprint"]
        if ours != theirs:
            raise ValueError(f"--merge: {path}: its {name} is {theirs}, expected {ours}")
    if again := sorted({*seeds} & {*there["seeds"]}):
        raise ValueError(f"--merge: {path}: has seed {again[0]} too; leave one of them out")
    return there


def merge(rows: Rows, seeds: Sequence[int], others: Sequence[Mapping[str, Any]]) -> tuple[Rows, list[int]]:
    """
    The rows with those of other files, which [`read_other`] has read, and all seeds; by seed.

    Raises:
        `ValueError`: if a file has other rows or columns.
    """
    names = {title: [*columns] for title, columns in rows.items()}
    for other in others:
        if {title: [*columns] for title, columns in other["rows"].items()} != names:
            raise ValueError(f"--merge: the file with seeds {other['seeds']} has other rows or columns; make it again")
    parts: list[Mapping[str, Any]] = [{"rows": rows, "seeds": seeds}, *others]
    known = [seed for part in parts for seed in part["seeds"]]
    order = sorted(range(len(known)), key=known.__getitem__)

    def joined(title: str, name: str) -> list[float | None]:
        values = [value for part in parts for value in part["rows"][title][name]]
        return [values[place] for place in order]

    return {title: {name: joined(title, name) for name in columns} for title, columns in rows.items()}, sorted(known)


def mean_and_spread(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    """Mean, least and most over the seeds; `None` if there is none."""
    known = [value for value in values if value is not None]
    return (sum(known) / len(known), min(known), max(known)) if known else None


def table_of(rows: Rows) -> str:
    """Mean of the seeds, and half of their range; of one seed its values."""
    cells = [["", *next(iter(rows.values()))]]
    for title, columns in rows.items():
        line = [title]
        for values in columns.values():
            found = mean_and_spread(values)
            spread = f" ± {(found[2] - found[1]) / 2:.1f}" if found and len(values) > 1 else ""
            line.append("-" if found is None else f"{found[0]:.1f}{spread}")
        cells.append(line)
    return markdown_table(cells)


def report(study: Study, rows: Rows, seeds: Sequence[int]) -> dict[str, Any]:
    """What the study found, as JSON types."""
    findings = []
    for metric, above, below in study.expected:
        column = f"{metric} (corrected)"
        by_seed = [
            None if upper is None or lower is None else upper - lower
            for upper, lower in zip(rows[above][column], rows[below][column], strict=True)
        ]
        known = [difference for difference in by_seed if difference is not None]
        if not known:
            continue
        interval = interval_of_mean(known)
        findings.append(
            {"metric": column, "above": above, "below": below, "difference": statistics.fmean(known), "by_seed": by_seed,
             "interval": interval, "verdict": _verdict(statistics.fmean(known), interval)}
        )  # fmt: skip
    return {"title": study.title, "paper": study.paper, "seeds": [*seeds], "rows": rows, "findings": findings}


def interval_of_mean(differences: Sequence[float]) -> tuple[float, float] | None:
    """
    The bounds between which the mean lies with 95 % confidence, by Student's t, which takes few values for what they are; of one
    value `None`.

    Runs of a seed share their random numbers, and one may go on from the other, so that differences by seed say more than the
    values of either.
    """
    if len(differences) < 2:
        return None
    mean, half = statistics.fmean(differences), float(student_t.ppf(0.975, len(differences) - 1))
    half *= statistics.stdev(differences) / len(differences) ** 0.5
    return mean - half, mean + half


def _verdict(difference: float, interval: tuple[float, float] | None) -> str:
    """Whether a difference is what the paper found."""
    direction = "as in the paper" if difference > 0 else "unlike the paper"
    if interval is None:
        return f"{direction}; one seed, so nothing is known of others"
    shown = f"95 % interval {interval[0]:+.1f} to {interval[1]:+.1f}"
    return f"not told apart: {shown}" if interval[0] <= 0 <= interval[1] else f"{direction}: {shown}"


def notes_of(study: Study, content: Mapping[str, Any], sizes: StudySizes) -> list[str]:
    """What a reader has to know: what the paper says, whether it holds here, and what was done."""
    notes = [f"Paper: {study.paper}."]
    for found in content["findings"]:
        each = ", ".join("-" if difference is None else f"{difference:+.1f}" for difference in found["by_seed"])
        by_seed = f" ({each} by seed)" if len(found["by_seed"]) > 1 else ""
        notes.append(
            f"{found['metric']}: {found['above']} against {found['below']} {found['difference']:+.1f}{by_seed}, "
            f"{found['verdict']}."
        )
    machines = dict.fromkeys(
        f"{machine['hardware']['processor']}, {machine['hardware']['cores']} cores" for machine in content["machines"]
    )
    seeds = ", ".join(map(str, content["seeds"]))
    shown = f"seeds {seeds}: mean and half of the range" if len(content["seeds"]) > 1 else f"seed {seeds}"
    notes.append(
        f"GroundedShapes, {sizes.test} test clips of a world that no run has seen; {shown}. Steps of {sizes.batch} clips: "
        f"{sizes.pt_steps} of pre-training, {sizes.ft_steps} of fine-tuning on {sizes.finetuning} clean clips. "
        f"{'; '.join(machines)}."
    )
    return notes


def draw(study: Study, rows: Rows, path: Path) -> Path:
    """A panel for each metric, a row for each run, with the range of the seeds."""
    panels = []
    for column in (name for name in next(iter(rows.values())) if "official" not in name):
        points = []
        for columns in rows.values():
            found = mean_and_spread(columns[column])
            bounds = found[1:] if found and len(columns[column]) > 1 else ()
            points.append([] if found is None else [Point("mean of the seeds", found[0], *bounds)])
        panels.append(RowPanel(column, points))
    return plot_rows(panels, RowNames([*rows], [""] * len(rows)), path, x_label="percent", bounds="their range")


__all__ = ["Rows", "draw", "merge", "notes_of", "read_other", "report", "rows_of", "table_of"]
