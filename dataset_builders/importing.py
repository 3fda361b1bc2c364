"""Turns released annotations into records: one JSON Lines file that every other command reads.

    python -m dataset_builders import howtoground1m HowToGround1M_automatic_annotation_method.jsonl --output howtoground1m.jsonl
    python -m dataset_builders import iground iGround_train_set_raw.jsonl --processed --output iground_train.jsonl
    python -m dataset_builders import vidstg val_annotations.json --trajectories vidor/validation --output vidstg_val.jsonl
    python -m dataset_builders import activitynet-entities anet_entities_cleaned_class_thresh50_trainval.json \\
        --videos videos --split-file split_ids_anet_entities.json --split validation --output anet_val.jsonl

An entry that is wrong is left out, printed, and counted by reason; `--problems` keeps all of them, `--max-problems` says when
it is too much. Nothing is unpickled: what was also released as `.pkl` is JSON Lines on the Hub.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, Any

import orjson
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from modeling_grove.grounded_caption import atomic_path

from .command_line import emit, progress
from .importers.activitynet_entities import import_activitynet_entities
from .importers.pointing import import_pointing
from .importers.released import import_released
from .importers.vidstg import import_vidstg
from .reading import OnProblem, ReadProblem, read_json
from .record import Record, processed, record_key, record_metadata

logger = logging.getLogger(__name__)

_SHOWN_PROBLEMS = 5
_SHOWN_IDS = 5

# Yields the records of every input, with its name, one input after the other.
Importer = Callable[[argparse.Namespace, OnProblem, Collection[str] | None], Iterable[tuple[str, Iterator[Record]]]]


def _one_by_one(function: Callable[..., Iterator[Record]], **options: str) -> Importer:
    """An importer that reads a file after the other; `options` maps its arguments to those of the command."""

    def records(
        args: argparse.Namespace, on_problem: OnProblem, _: Collection[str] | None
    ) -> Iterator[tuple[str, Iterator[Record]]]:
        given = {name: getattr(args, option) for name, option in options.items()}
        return ((path, function(path, on_problem, **given)) for path in args.inputs)

    return records


def _activitynet(
    args: argparse.Namespace, on_problem: OnProblem, ids: Collection[str] | None
) -> Iterator[tuple[str, Iterator[Record]]]:
    # One file tells how to read another, so they are one input.
    yield args.inputs[0], import_activitynet_entities(args.inputs, on_problem, videos=args.videos, ids=ids)


FORMATS: dict[str, Importer] = {
    "howtoground1m": _one_by_one(import_released),
    "iground": _one_by_one(import_released),
    "vidstg": _one_by_one(import_vidstg, trajectories="trajectories"),
    "activitynet-entities": _activitynet,
    "youcook-interactions": _one_by_one(import_pointing),
    "groundingyoutube": _one_by_one(import_pointing),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("format", choices=FORMATS, help="what the input is", metavar="FORMAT")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="released files (.jsonl or .json, also .gz, also URLs that fsspec opens such as hf://datasets/...); for "
        f"activitynet-entities also anet_entities_trainval.json. FORMAT is one of {', '.join(FORMATS)}",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="records to write, as .jsonl")
    parser.add_argument(
        "--processed", action="store_true", help="merge the boxes of a phrase in a frame into one, their union"
    )
    parser.add_argument(
        "--trajectories",
        type=Path,
        metavar="DIR",
        help="vidstg: folder of VidOR's annotations, one JSON a video; without it the records have no boxes",
    )
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="DIR",
        help="activitynet-entities: folder of videos, for their size and frame rate, which the annotations lack",
    )
    parser.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE",
        help="import these only: JSON, a list of video ids or clip keys (VIDEO_CLIP), or an object with one a split; "
        "those of which nothing was imported are counted as not_found",
    )
    parser.add_argument("--split", metavar="NAME", help="split of the split file")
    parser.add_argument("--problems", type=Path, metavar="FILE", help="write what is left out, and why, as .jsonl")
    parser.add_argument(
        "--max-problems",
        type=int,
        metavar="N",
        help="fail, writing nothing, on more problems than this (default: no limit, but one entry has to be good)",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Imports, and prints the counts."""
    for option, of in (("trajectories", "vidstg"), ("videos", "activitynet-entities")):
        if getattr(args, option) is not None and args.format != of:
            raise ValueError(f"--{option} is for {of} only, got format {args.format}")
    ids = _split_ids(args.split_file, args.split)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        log = _ProblemLog(args.problems, [*args.inputs, args.output, args.split_file], files) if args.problems else None
        tally = _Tally(args.max_problems, log, ids, questions=args.format == "vidstg")
        inputs = FORMATS[args.format](args, tally, ids)
        if args.processed:
            inputs = ((path, map(processed, records)) for path, records in inputs)
        records = chain.from_iterable(tally.counted(path, records) for path, records in inputs)
        with atomic_path(args.output) as temporary, open(temporary, "wb") as file:
            for record in progress(records, f"importing {args.format}", unit="record"):
                file.write(orjson.dumps(record) + b"\n")
            if not tally.counts["records"]:
                first = f"the first of {tally.num_problems} problems: {tally.first}" if tally.first else "no entry"
                of = "" if ids is None or tally.first else f" of the {len(ids)} ids that {args.split_file} asks for"
                raise ValueError(f"nothing could be imported as {args.format}; {first}{of}")
            if log is not None:
                log.begin()  # without problems it is empty, and not that of an earlier import
    if args.format == "vidstg" and not tally.counts["with_boxes"]:
        logger.warning("no record has boxes: those of VidSTG are in VidOR's annotations, see --trajectories")
    result = {
        "format": args.format,
        "output": str(args.output),
        **{name: tally.counts[name] for name in ("records", "videos", "with_boxes", "without_boxes", "boxes")},
        **tally.of_format,
        "num_problems": tally.num_problems,
        "problems": dict(tally.reasons.most_common()),
    }
    if ids is not None:
        missing = sorted(ids - tally.found)
        result["not_found"] = {"count": len(missing), "ids": missing[:_SHOWN_IDS]}
        if missing:
            some = ", ".join(missing[:_SHOWN_IDS])
            logger.warning("nothing was imported of %d of the %d ids of the split: %s", len(missing), len(ids), some)
    emit(result, as_json=args.json)
    return 0


class _ProblemLog:
    """
    The file of `--problems`. It is begun with the first problem, so that an import that cannot even begin leaves the last one
    as it is. It is not atomic: what is wrong is to be read also where the import fails.

    Args:
        path (`Path`): the file.
        others (iterable of paths or URLs): the other files of the command, none of which it may be.
        files (`ExitStack`): what closes it.
    """

    def __init__(self, path: Path, others: Iterable[str | Path | None], files: ExitStack):
        for other in others:
            if other is not None and _is_same(path, other):
                raise ValueError(f"--problems {path}: is {other}, which is read or written too; choose another file")
        if path.is_dir():
            raise ValueError(f"--problems {path}: a folder; expected a file to write")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.files = path, files
        self.file: IO[str] | None = None

    def begin(self) -> IO[str]:
        """Empties the file, the first time."""
        if self.file is None:
            self.file = self.files.enter_context(self.path.open("w", encoding="utf-8"))
        return self.file

    def write(self, problem: ReadProblem) -> None:
        """Writes one line."""
        self.begin().write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")


def _is_same(path: Path, other: str | Path) -> bool:
    """Whether a path and another one, or a URL, are the same file, which need not be there."""
    filesystem, name = url_to_fs(str(other))
    if not isinstance(filesystem, LocalFileSystem):
        return False
    if path.exists() and Path(name).exists():
        return path.samefile(name)
    return path.resolve() == Path(name).resolve()


class _Tally:
    """
    Counts what is imported and what is not.

    Args:
        max_problems (`int`, *optional*): more of them end the import.
        log ([`_ProblemLog`], *optional*): gets all of them.
        ids (collection of `str`, *optional*): the videos and clips that are asked for.
        questions (`bool`): whether the records are VidSTG's, of which entries and sentences are counted too.
    """

    def __init__(self, max_problems: int | None, log: _ProblemLog | None, ids: Collection[str] | None, questions: bool):
        self.max_problems, self.log, self.ids, self.questions = max_problems, log, ids, questions
        self.counts: Counter[str] = Counter()
        self.of_format: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.first: ReadProblem | None = None
        self.keys: set[str] = set()
        self.videos: set[str] = set()
        self.found: set[str] = set()

    @property
    def num_problems(self) -> int:
        """Entries, or parts of one, that are left out."""
        return self.reasons.total()

    def __call__(self, problem: ReadProblem) -> None:
        """Counts a problem, and shows the first few."""
        self.first = self.first or problem
        self.reasons[problem.reason] += 1
        if self.log is not None:
            self.log.write(problem)
        if self.max_problems is not None and self.num_problems > self.max_problems:
            raise ValueError(f"more than {self.max_problems} problems, nothing is written; the last: {problem}")
        if self.num_problems <= _SHOWN_PROBLEMS:
            logger.warning("left out: %s", problem)
        elif self.num_problems == _SHOWN_PROBLEMS + 1:
            logger.warning("there are more, which are counted%s", "" if self.log else " (--problems FILE keeps them)")

    def counted(self, path: str, records: Iterable[Record]) -> Iterator[Record]:
        """Passes on the records of an input that are asked for, once each over all inputs."""
        entries: set[int] = set()  # numbered in their file
        for number, record in enumerate(records, start=1):
            key, video_id = record_key(record), record["video_id"]
            if self.ids is not None:
                asked = {key, video_id}.intersection(self.ids)
                if not asked:
                    continue
                self.found |= asked
            if key in self.keys:
                self(ReadProblem(path, number, "clip_id", f"{key} is there already", "duplicate_key", "record"))
                continue
            self.keys.add(key)
            self.videos.add(video_id)
            num_boxes = sum(map(len, record["bboxes"]))
            self.counts.update(records=1, boxes=num_boxes)
            self.counts["with_boxes" if num_boxes else "without_boxes"] += 1
            self.counts["videos"] = len(self.videos)
            if self.questions:
                metadata = record_metadata(record)
                self.of_format["entries"] += metadata["entry"] not in entries
                self.of_format[metadata["qtype"]] += 1
                entries.add(metadata["entry"])
            yield record


def _split_ids(path: Path | None, split: str | None) -> set[str] | None:
    """The ids of a split, `None` for all."""
    if path is None:
        if split is not None:
            raise ValueError(f"--split {split} needs a --split-file")
        return None
    value: Any = read_json(path)
    if isinstance(value, dict):
        if split not in value:
            problem = "choose one with --split:" if split is None else f"has no split {split!r}; expected one of"
            raise ValueError(f"{path}: {problem} {', '.join(value)}")
        value = value[split]
    elif split is not None:
        raise ValueError(f"{path}: one list without splits; leave --split out")
    if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
        raise ValueError(f"{path}: expected a list of video ids, or an object with one for every split")
    return set(value)


__all__ = ["FORMATS", "add_arguments", "run"]
