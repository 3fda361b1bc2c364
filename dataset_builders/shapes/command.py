"""`python -m dataset_builders shapes`: makes GroundedShapes on disk and prints what is in it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_records
from dataset_builders.statistics import Statistics, statistics_table

from .stories import LEVELS
from .world import SPLITS, ShapesConfig
from .writing import frames_path, records_path, write_shapes

_EXAMPLES = """examples:
  python -m dataset_builders shapes --output worlds/shapes --split train=1000 --split validation=50 --split test=100
  python -m dataset_builders shapes --output worlds/hard --split test=20 --difficulty hard --size 320x240 --seconds 8

A clip depends only on the seed, its split and number, and the settings: the same command makes the same bytes, and splits never
share a clip. A run that was stopped goes on where it was when the command is given again; a larger count
adds clips.
"""


def _split(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in SPLITS or not count.isdecimal() or int(count) < 1:
        raise argparse.ArgumentTypeError(f"expected NAME=CLIPS with NAME one of {', '.join(SPLITS)}, got {text!r}")
    return name, int(count)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, such as 128x128, got {text!r}")
    return int(match[1]), int(match[2])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    defaults = ShapesConfig()
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for videos, records and frame captions"
    )
    parser.add_argument(
        "--split", required=True, type=_split, action="append", metavar="NAME=CLIPS",
        help=f"how many clips of {', '.join(SPLITS)}; may be given for each of them",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=_size, default=(defaults.width, defaults.height), metavar="WxH",
        help=f"pixels of the video (default: {defaults.width}x{defaults.height})",
    )  # fmt: skip
    parser.add_argument("--fps", type=float, default=defaults.fps, help="frames a second (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, help="length of a clip (default: %(default)s)"
    )
    parser.add_argument(
        "--difficulty", choices=list(LEVELS), default=defaults.difficulty,
        help="easy: all in sight, still camera; medium: things go away and come back; hard: look-alikes, clutter, moving camera "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--plain", action="store_true", help="say everything in one way instead of choosing among several"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the world; other seeds have no clip in common (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    splits = dict(args.split)
    if len(splits) != len(args.split):
        raise ValueError(
            f"--split: a name is given twice in {' '.join(f'{name}={count}' for name, count in args.split)}"
        )
    (width, height), output = args.size, args.output
    config = ShapesConfig(width, height, args.fps, args.seconds, args.difficulty, varied=not args.plain)
    made = write_shapes(output, splits, config, args.seed, args.workers)
    results, columns = {}, {}
    for split, count in splits.items():
        records = records_path(output, split)
        statistics = Statistics()
        for record in progress(read_records(records), f"counting {split}", total=count):
            statistics.add(record)
        columns[split] = statistics.as_dict()
        results[split] = {
            "clips": count,
            "made_now": made[split],
            "records": str(records),
            "frame_captions": str(frames_path(output, split)),
            "videos": str(output / "videos"),
            "statistics": columns[split],
        }
    written = "\n".join(f"{result['records']}: {made[split]} clips made now" for split, result in results.items())
    emit(results, f"{statistics_table(columns)}\n{written}", as_json=args.json)
    return 0
