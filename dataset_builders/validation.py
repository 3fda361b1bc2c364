"""The validator that runs before anything is written or published: every record checked, every problem counted.

Nothing is dropped silently: `records = accepted + rejected`, and every box read is accepted, rejected with its record, or
counted as dropped by the repair that was asked for.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from modeling_grove.grounded_caption import atomic_path

from .command_line import emit, progress
from .problems import ERRORS, WARNINGS, Problem, is_valid, make_problem
from .reading import ReadProblem, read_records
from .record import Record
from .record_checks import check_record, key_of
from .sources import RECORD_SUFFIXES, find_shards, sample_record
from .tar_shards import ShardError, iter_shard

_MEANINGS = ERRORS | WARNINGS
# What clipping can mend; a record with any other error is left as it is.
_MENDED = {"box_outside", "box_without_area", "box_over_border"}


class Validator:
    """
    Checks the records of one data set, and counts.

    Args:
        require_processed (`bool`, *optional*, defaults to `False`):
            Whether several boxes of a phrase in a frame are an error.
        strict (`bool`, *optional*, defaults to `False`):
            Whether warnings are errors.
        repair_boxes (`bool`, *optional*, defaults to `False`):
            Whether [`Validator.admit`] mends records by [`clip_boxes`] where nothing else is wrong with them.
        num_examples (`int`, *optional*, defaults to 3):
            Messages to keep for each reason.
    """

    def __init__(
        self,
        *,
        require_processed: bool = False,
        strict: bool = False,
        repair_boxes: bool = False,
        num_examples: int = 3,
    ):
        self.require_processed = require_processed
        self.strict = strict
        self.repair_boxes = repair_boxes
        self.num_examples = num_examples
        self._keys: set[bytes] = set()  # hashes: a million of them take 0.1 GB, whatever the names
        self._counts: Counter[str] = Counter()
        self._boxes: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()
        self._reasons: dict[tuple[bool, str], dict[str, Any]] = {}

    def check(self, record: Any) -> list[Problem]:
        """The problems of the next record, which is counted; see [`check_record`]. A key may come once in a data set."""
        return self.admit(record)[1]

    def admit(self, record: Any) -> tuple[Any, list[Problem]]:
        """As [`Validator.check`]; also gives the record, mended if that was asked for and was enough."""
        problems = check_record(record, require_processed=self.require_processed)
        wrong = {problem.reason for problem in problems}
        if self.repair_boxes and wrong & _MENDED and not wrong & ERRORS.keys() - _MENDED:
            record, repaired = clip_boxes(record)
            self._repaired += repaired
            problems = check_record(record, require_processed=self.require_processed)
        key = key_of(record)
        if key is not None:
            mark = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if mark in self._keys:
                problems.append(make_problem("duplicate_key", f"key {key!r}: an earlier record has it"))
            self._keys.add(mark)
        if self.strict:
            problems = [dataclasses.replace(problem, is_error=True) for problem in problems]
        outcome = "accepted" if is_valid(problems) else "rejected"
        self._counts[outcome] += 1
        self._boxes[outcome] += _num_boxes(record)
        self._count(key, problems)
        return record, problems

    def count_unreadable(self, message: str) -> Problem:
        """Counts something that is no record at all: a broken line, a damaged sample of a shard."""
        problem = make_problem("unreadable", message)
        self._counts["unreadable"] += 1
        self._count(None, [problem])
        return problem

    @property
    def is_valid(self) -> bool:
        """Whether nothing so far had an error."""
        return not (self._counts["rejected"] or self._counts["unreadable"])

    @property
    def report(self) -> dict[str, Any]:
        """
        What was found so far, as JSON types.

        `records` = `accepted` + `rejected`, beside which `unreadable` counts what was no record; `boxes` has the same
        counts, with `dropped` by repair; `repaired` counts boxes by what was done to them; `errors` and `warnings` have
        for each reason, the most frequent first, how many `records` and how many `problems` of it there are, and
        `examples` of keys and messages.
        """
        counts, boxes = self._counts, self._boxes
        dropped = self._repaired["dropped"]
        return {
            "records": counts["accepted"] + counts["rejected"],
            "accepted": counts["accepted"],
            "rejected": counts["rejected"],
            "unreadable": counts["unreadable"],
            "boxes": {
                "read": boxes["accepted"] + boxes["rejected"] + dropped,
                "accepted": boxes["accepted"],
                "rejected": boxes["rejected"],
                "dropped": dropped,
            },
            "repaired": dict(self._repaired),
            "errors": self._by_reason(True),
            "warnings": self._by_reason(False),
        }

    def _count(self, key: str | None, problems: list[Problem]) -> None:
        for (is_error, reason), number in Counter((p.is_error, p.reason) for p in problems).items():
            entry = self._reasons.setdefault((is_error, reason), {"records": 0, "problems": 0, "examples": []})
            entry["records"] += 1
            entry["problems"] += number
            if len(entry["examples"]) < self.num_examples:
                message = next(p.message for p in problems if (p.is_error, p.reason) == (is_error, reason))
                entry["examples"].append({"key": key, "message": message})

    def _by_reason(self, is_error: bool) -> dict[str, Any]:
        entries = [(reason, entry) for (error, reason), entry in self._reasons.items() if error == is_error]
        return dict(sorted(entries, key=lambda item: (-item[1]["records"], item[0])))


def clip_boxes(record: Mapping[str, Any]) -> tuple[Record, Counter[str]]:
    """
    Cuts boxes off at the border of the frame, and drops those of which no area is left.

    Args:
        record (`Mapping`):
            A record in which nothing but its boxes may be wrong.

    Returns:
        The record with new lists, and how many boxes were `clipped` and `dropped`.
    """
    mended: Record = dict(record)
    columns = [name for name in ("bboxes", "labels", "track_ids", "scores") if record.get(name) is not None]
    mended.update({name: [] for name in columns})
    limits = [float(record["width"]), float(record["height"])] * 2
    counts: Counter[str] = Counter()
    for rows in zip(*(record[name] for name in columns), strict=True):
        kept = []
        for box, *others in zip(*rows, strict=True):
            clipped = [min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True)]
            x1, y1, x2, y2 = np.array(clipped, dtype=np.float32)
            if x1 < x2 and y1 < y2:
                kept.append([clipped, *others])
                counts["clipped"] += clipped != list(box)
            else:
                counts["dropped"] += 1
        for index, name in enumerate(columns):
            mended[name].append([entry[index] for entry in kept])
    return mended, +counts


def _num_boxes(record: Any) -> int:
    frames = record.get("bboxes") if isinstance(record, Mapping) else None
    return sum(len(boxes) for boxes in frames if isinstance(boxes, list)) if isinstance(frames, list) else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Checks records, counts what is wrong with them by reason, and sets bad ones aside. Errors are what would stop or "
        "mislead something later; warnings are worth knowing. Ends with status 0 if there are records and no errors, else with 2."
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="JSONL or JSON files of records, shards, or folders of shards"
    )
    parser.add_argument("--config", help="configuration of a folder of shards that has several")
    parser.add_argument("--split", help="split of a folder of shards that has several")
    parser.add_argument("--accepted", type=Path, metavar="FILE", help="write the records without errors here, as JSONL")
    parser.add_argument(
        "--rejected",
        type=Path,
        metavar="FILE",
        help='write what has errors here, as JSONL of {"record": ..., "problems": [...]}',
    )
    parser.add_argument(
        "--clip-boxes",
        action="store_true",
        help="cut boxes off at the border of the frame and drop those without area, counted, before judging",
    )
    parser.add_argument(
        "--require-processed", action="store_true", help="several boxes of a phrase in one frame are an error"
    )
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON, with examples")


def run(args: argparse.Namespace) -> int:
    if args.accepted and args.rejected and args.accepted.resolve() == args.rejected.resolve():
        raise ValueError(f"--accepted and --rejected are both {args.accepted}; expected two files")
    validator = Validator(require_processed=args.require_processed, strict=args.strict, repair_boxes=args.clip_boxes)
    with ExitStack() as stack:
        accepted, rejected = (stack.enter_context(_writing(path)) for path in (args.accepted, args.rejected))

        def set_aside(problem: Problem) -> None:
            rejected({"record": None, "problems": [dataclasses.asdict(problem)]})

        records = (record for source in args.sources for record in _read(source, args, validator, set_aside))
        for record in progress(records, "validating"):
            record, problems = validator.admit(record)
            if is_valid(problems):
                accepted(record)
            else:
                rejected({"record": record, "problems": [dataclasses.asdict(problem) for problem in problems]})
        if not (validator.report["records"] or validator.report["unreadable"]):
            raise ValueError(f"no records in {', '.join(map(repr, args.sources))}; expected at least one")
    emit(validator.report, _as_text(validator.report), as_json=args.json)
    return 0 if validator.is_valid else 2


def _read(
    source: str, args: argparse.Namespace, validator: Validator, set_aside: Callable[[Problem], None]
) -> Iterator[Any]:
    """The records of a source. What cannot be read is counted, and the rest goes on."""

    def on_line(problem: ReadProblem) -> None:
        set_aside(validator.count_unreadable(str(problem)))

    def on_sample(error: ShardError) -> None:
        set_aside(validator.count_unreadable(str(error)))

    if source.endswith(RECORD_SUFFIXES):
        yield from read_records(source, on_problem=on_line)
        return
    for shard in find_shards(source, args.config, args.split):
        for sample in iter_shard(shard.url, on_problem=on_sample):
            try:
                record = sample_record(sample)
            except ShardError as error:
                on_sample(error)
            else:
                yield record


@contextmanager
def _writing(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """A function that writes one line of JSON to `path`, which appears when all is written; without a path, to nothing."""
    if path is None:
        yield lambda value: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half a character, which UTF-8 cannot hold, is written as the escape that JSON has for it.
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:

        def write(value: Any) -> None:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")

        yield write


def _as_text(report: dict[str, Any]) -> str:
    boxes = report["boxes"]
    lines = [
        f"{report['records']} records: {report['accepted']} accepted, {report['rejected']} rejected; "
        f"{report['unreadable']} unreadable",
        f"{boxes['read']} boxes: {boxes['accepted']} accepted, {boxes['rejected']} rejected, {boxes['dropped']} dropped; "
        f"{report['repaired'].get('clipped', 0)} clipped",
    ]
    for kind in ("errors", "warnings"):
        if report[kind]:
            lines += ["", f"{kind:24} {'records':>9} {'problems':>9}"]
        for reason, entry in report[kind].items():
            lines.append(f"  {reason:22} {entry['records']:9} {entry['problems']:9}  {_MEANINGS[reason]}")
            for example in entry["examples"]:
                lines.append(
                    f"      {example['key']}: {example['message']}" if example["key"] else f"      {example['message']}"
                )
    return "\n".join(lines)


__all__ = ["Problem", "Validator", "check_record", "clip_boxes", "is_valid"]
