"""
`python -m pipeline_annotate stats`: how far a run is, what it dropped and why, and the statistics of what it made.

    python -m pipeline_annotate stats annotated

It can be asked at any time, also while the run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_records
from dataset_builders.statistics import PAPER, Statistics, statistics_table
from eval.ablation_tables import markdown_table

from .engine import STAGES, part_folder
from .stage3 import box_counts
from .stage_files import dropped_path

_STAGE_TITLES = dict(zip(STAGES, ("stage 1, frames", "stage 2, captions", "stage 3, labels"), strict=True))


def run_statistics(folder: Path) -> dict[str, Any]:
    """
    What there is of a run.

    Args:
        folder (`Path`): of the run.

    Returns:
        `dict`: `requested` clips; `parts`, and how many of them are `finished`; for every stage of `stages` the clips `done` and
        `dropped` by reason; an example of every reason; `boxes` of frames by what became of them; `statistics` of the records.

    Raises:
        `ValueError`: if the folder is none of a run.
    """
    plan_file = folder / "plan.json"
    if not plan_file.is_file():
        raise ValueError(f"{folder}: no plan.json; expected the --output of `python -m pipeline_annotate run`")
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    if not {"requested", "clips_per_part"} <= plan.keys():
        raise ValueError(f"{plan_file}: is no plan of `python -m pipeline_annotate run`; expected the --output of one")
    parts = math.ceil(plan["requested"] / plan["clips_per_part"])
    stages: dict[str, dict[str, Any]] = {stage: {"done": 0, "dropped": Counter()} for stage in STAGES}
    examples: dict[str, str] = {}
    boxes, finished = Counter[str](), list[Path]()
    for rank in progress(range(parts), "reading parts", parts, unit="part"):
        part = part_folder(folder, rank)
        for stage in STAGES:
            file = part / f"{stage}.jsonl"
            whole, unfinished = file.exists(), part / f"{stage}.part.jsonl"
            # A stage may end between two looks, so what is gone has the other name.
            made = _content(file) if whole else _content(unfinished) or _content(file)
            dropped = _content(dropped_path(file)) or _content(dropped_path(unfinished))
            stages[stage]["done"] += made.count(b"\n")
            for line in map(json.loads, dropped.split(b"\n")[:-1]):
                stages[stage]["dropped"][line["reason"]] += 1
                examples.setdefault(line["reason"], f"{line['key']}: {line['message']}")
            if whole and stage == STAGES[-1]:
                finished.append(file)
                boxes.update(box_counts(file))
    statistics = Statistics()
    for file in progress(finished, "counting", len(finished), unit="part"):
        for record in read_records(str(file)):
            statistics.add(record)
    return {
        "requested": plan["requested"],
        "parts": parts,
        "finished": len(finished),
        "stages": {stage: {**found, "dropped": dict(found["dropped"])} for stage, found in stages.items()},
        "examples": examples,
        "boxes": dict(sorted(boxes.items())),
        "statistics": statistics.as_dict() if finished else None,
    }


def _content(path: Path) -> bytes:
    """A file that may not be there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def report(found: dict[str, Any]) -> str:
    """What [`run_statistics`] found, for people."""
    text = [
        f"{found['finished']:,} of {found['parts']:,} parts are finished; {found['requested']:,} clips were asked for.\n"
    ]
    rows = [["", "done", "dropped", "why"]]
    for stage, counts in found["stages"].items():
        dropped = counts["dropped"]
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
        rows.append([_STAGE_TITLES[stage], f"{counts['done']:,}", f"{sum(dropped.values()):,}", why or "-"])
    text.append(markdown_table(rows))
    if found["examples"]:
        text.append("\nFor example:")
        text += [f"- {reason}: {example}" for reason, example in sorted(found["examples"].items())]
    if found["boxes"]:
        said = ", ".join(f"{count:,} {name}" for name, count in found["boxes"].items())
        text.append(f"\nBoxes of frames: {said}")
    if found["statistics"] is not None:
        columns = {"this run": found["statistics"], **{name: PAPER[name] for name in PAPER if "HowTo" in name}}
        text.append(f"\n{statistics_table(columns)}")
    return "\n".join(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("run_folder", type=Path, metavar="DIR", help="the --output of `run`")
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Says it."""
    found = run_statistics(args.run_folder)
    emit(found, report(found), args.json)
    return 0


__all__ = ["report", "run_statistics"]
