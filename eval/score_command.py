"""
Scores saved predictions: what the original code computes and, beside it, what the paper's text says.

    python -m eval score iground --annotations val.jsonl --predictions predictions.jsonl
    python -m eval score vidstg --annotations vidstg_val.json --predictions predictions.json --protocol official --json
    python -m eval score activitynet_entities --annotations anet.json --split-file split.json --predictions results.json
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dataset_builders.command_line import complain, emit
from dataset_builders.record import Record, record_key, to_record
from dataset_builders.sources import RECORD_SUFFIXES
from modeling_grove.grounded_caption import GroundedCaption

from .clips import ReferenceClip
from .per_clip import write_per_clip
from .provenance import describe_machine
from .report_tables import coverage_line, result_table
from .result_files import WORST, check_output, json_ready, write_results
from .results import BENCHMARKS, BenchmarkResult
from .score_arguments import add_score_arguments, check_score_arguments, options_of, run_settings
from .score_formats import FORMATS, ScoreFiles, read_files
from .scoring import ScoreOptions, score_files
from .text_similarity import HEAD_WORD, encoder_device
from .worst_clips import draw_worst

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.epilog = FORMATS
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=f"one of {', '.join(BENCHMARKS)}")
    files = parser.add_argument_group("files")
    files.add_argument("--annotations", required=True, metavar="FILE", help="what is true; formats see below")
    files.add_argument("--predictions", required=True, metavar="FILE", help="what the model says; formats see below")
    files.add_argument("--split-file", type=Path, metavar="FILE", help="activitynet_entities: video ids of every split")
    files.add_argument(
        "--split",
        metavar="NAME",
        help="activitynet_entities: split of the split file, default validation; else of a folder of shards",
    )
    files.add_argument(
        "--videos",
        type=Path,
        metavar="DIR",
        help="folder of videos, for --worst, and for the original's annotations of activitynet_entities",
    )
    scores = parser.add_argument_group("scores")
    add_score_arguments(scores)
    scores.add_argument("--device", help="iground: where the text model runs, default: a GPU if there is one")
    scores.add_argument("--strict", action="store_true", help="exit status 2 if a clip has no prediction")
    results = parser.add_argument_group("results")
    results.add_argument("--json", action="store_true", help="print everything as one JSON line")
    results.add_argument("--with-clips", action="store_true", help="with --json: the scores of every clip too")
    results.add_argument("--per-clip", type=Path, metavar="FILE", help="write the scores of every clip, as .jsonl")
    results.add_argument(
        "--output", type=Path, metavar="DIR", help="write results.json, the scores of every clip, and what was scored"
    )
    results.add_argument(
        "--worst", type=int, default=0, metavar="N", help="draw the N worst clips into the folder of --output"
    )


def run(args: argparse.Namespace) -> int:
    """Scores, and prints the table."""
    started = time.monotonic()
    _check(args)
    options = options_of(args)
    files = read_files(
        args.benchmark,
        args.annotations,
        args.predictions,
        split_file=args.split_file,
        split=_split(args, options),
        videos=args.videos,
        with_source=args.worst > 0 and args.videos is not None,
    )
    if args.worst and files.original is not None:
        raise ValueError(
            f"--worst: {args.predictions} is in the original's format; grounded captions can be drawn, as JSONL"
        )
    result = score_files(args.benchmark, files, options)
    if args.per_clip is not None:
        args.per_clip.parent.mkdir(parents=True, exist_ok=True)
        write_per_clip(result.per_clip, args.per_clip)
    if args.output is not None:
        _write_folder(args, options, files, result, time.monotonic() - started)
    emitted = result.to_dict() | ({"per_clip": result.per_clip} if args.with_clips else {})
    emit(json_ready(emitted), None if args.json else result_table(result), as_json=args.json)
    if result.coverage["predicted"] == result.coverage["clips"]:
        return 0
    if args.strict:
        return complain(f"{coverage_line(result)}; --strict wants all of them")
    if args.json:  # the table says it
        logger.warning("%s", coverage_line(result))
    return 0


def _check(args: argparse.Namespace) -> None:
    """What the parser cannot know, before anything is read."""
    check_score_arguments(args)
    if args.device is not None and (args.benchmark != "iground" or args.text_similarity == HEAD_WORD):
        raise ValueError("--device: is for the text model of iground, and there is none; leave it out")
    if args.split is not None and args.split_file is None and args.annotations.endswith(RECORD_SUFFIXES):
        raise ValueError(f"--split: {args.annotations} is one file, without splits; leave it out")
    if args.with_clips and not args.json:
        raise ValueError("--with-clips: goes with --json; --per-clip FILE writes the scores of every clip")
    if args.worst < 0:
        raise ValueError(f"--worst: expected the number of clips to draw, got {args.worst}")
    if args.worst and args.output is None:
        raise ValueError("--worst: draws clips into the folder of --output; give both")
    if args.videos is not None:
        if not args.worst and args.benchmark != "activitynet_entities":
            raise ValueError("--videos: is for --worst, which is not asked for; give both, or leave it out")
        if not args.videos.is_dir():
            raise ValueError(f"--videos: {args.videos} is no folder; expected one with the annotations' videos")
    if args.per_clip is not None and args.per_clip.is_dir():
        raise ValueError(f"--per-clip: {args.per_clip} is a folder; expected a file to write, as clips.jsonl")
    if args.output is not None:
        check_output(args.output)


def _split(args: argparse.Namespace, options: ScoreOptions) -> str | None:
    """The split that is scored: of the split file, of a folder of shards, or `None` of a file that has but one."""
    return args.split if args.split_file is None else options.split


def _write_folder(
    args: argparse.Namespace, options: ScoreOptions, files: ScoreFiles, result: BenchmarkResult, seconds: float
) -> None:
    """Writes the result folder. Files are named without their folders: results are published."""
    encodes = args.benchmark == "iground" and options.text_similarity != HEAD_WORD
    device = encoder_device(options.device) if encodes else "cpu"
    about = {
        "protocols": [*options.protocols],
        "data": {"name": Path(args.annotations).name, "split": _split(args, options)},
        "predictions": Path(args.predictions).name,
        "settings": run_settings(args.benchmark, options),
        "seed": options.seed,
        "device": device,
        "seconds": round(seconds, 1),
        **describe_machine(device, ("modeling_grove", "dataset_builders", "eval")),
    }
    records = [_record(reference) for reference in files.references]
    captions = [prediction for prediction in files.predictions if isinstance(prediction, GroundedCaption)]
    write_results(
        args.output,
        result,
        about,
        # All or none: a part of them would be another data set.
        references=[] if None in records else [record for record in records if record is not None],
        predictions=captions if len(captions) == len(files.predictions) else [],
    )
    if args.worst:
        draw_worst(
            args.benchmark,
            files.references,
            files.predictions,
            result.per_clip,
            args.worst,
            args.output / WORST,
            None if args.videos is None else video_finder(args.videos, files.references),
            options.protocols[-1],
        )


def video_finder(
    folder: Path, references: Sequence[Record | GroundedCaption | ReferenceClip]
) -> Callable[[str], Path | None]:
    """
    Finds the video of a clip in a folder: under the annotation's name, else under its last part in the folder or below it. Where
    several are called so, none is taken: it would show boxes on a stranger's picture.
    """
    names = dict(_key_and_video(reference) for reference in references)
    below: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            below.setdefault(path.name, []).append(path)

    def find(key: str) -> Path | None:
        name = names[key]
        if name is None:
            return None
        paths = below.get(Path(name).name, [])
        if folder / name in paths:
            return folder / name
        if len(paths) > 1:
            logger.warning("%s: %d videos below --videos are called %r; none is drawn", key, len(paths), paths[0].name)
            return None
        return paths[0] if paths else None

    return find


def _key_and_video(reference: Record | GroundedCaption | ReferenceClip) -> tuple[str, str | None]:
    """The key of an annotation and the name of its video."""
    if isinstance(reference, GroundedCaption):
        return reference.key, reference.video_fname
    if isinstance(reference, ReferenceClip):
        return reference.key, None if reference.source is None else reference.source.video_fname
    return record_key(reference), reference.get("video_fname")


def _record(reference: Record | GroundedCaption | ReferenceClip) -> Record | None:
    """The record of an annotation; `None` for one of the original's that is none."""
    if isinstance(reference, GroundedCaption):
        return to_record(reference)
    if not isinstance(reference, ReferenceClip):
        return reference
    caption = reference.source
    whole = caption is not None and (caption.tracks or not any(map(len, reference.boxes)))
    return to_record(caption) if caption is not None and whole else None


__all__ = ["add_arguments", "run", "video_finder"]
