"""`python -m dataset_builders export`: a data set in the format of another tool."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Callable
from typing import NamedTuple

from .command_line import emit, progress
from .exporters import (
    CATEGORY_KINDS,
    ExportCounts,
    write_coco,
    write_cvat,
    write_detections,
    write_label_studio,
    write_mot,
)
from .exporters.clips_to_export import VIDEO_KINDS
from .sources import iter_source


class _Format(NamedTuple):
    write: Callable[..., ExportCounts]
    writes: str
    options: tuple[str, ...] = ()  # besides --categories


FORMATS = {
    "coco": _Format(write_coco, "a JSON file"),
    "mot": _Format(write_mot, "a folder with a folder for every clip"),
    "cvat": _Format(write_cvat, "a folder with an XML file for every clip, and labels.json", ("video",)),
    "label-studio": _Format(
        write_label_studio, "a folder with tasks.json and labeling_config.xml", ("video", "video_root")
    ),
    "supervision": _Format(write_detections, "a CSV file, as supervision's CSVSink writes it"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the command."""
    lines = [f"  {name:13} {format_.writes}" for name, format_ in FORMATS.items()]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "what --output becomes:",
            *lines,
            "",
            "examples:",
            "  python -m dataset_builders export coco iground/val.jsonl --output val_coco.json --categories head",
            "  python -m dataset_builders export label-studio shards --config default_video --output tasks --video clip",
        ]
    )
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "source", help="JSONL file, shard, folder or hf:// repository of shards, or a pattern of shards"
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="file or new folder to write")
    parser.add_argument("--config", help="configuration of a repository of shards")
    parser.add_argument("--split", help="split of a repository of shards")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N clips")
    parser.add_argument(
        "--categories",
        choices=CATEGORY_KINDS,
        default="phrase",
        help="a category for every phrase (default), for every head word (dog of 'a brown dog'), or one for all",
    )
    parser.add_argument(
        "--video",
        choices=VIDEO_KINDS,
        help="cvat, label-studio: count the frames of the source video (default), or of the clip cut out as {key}.mp4",
    )
    parser.add_argument(
        "--video-root", metavar="URL", help="label-studio: what to write before the name of a video, such as a URL"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit: expected at least 1, got {args.limit}")
    format_ = FORMATS[args.format]
    options = {name: getattr(args, name) for name in ("video", "video_root") if getattr(args, name) is not None}
    foreign = sorted(set(options) - set(format_.options))
    if foreign:
        raise ValueError(f"--{foreign[0].replace('_', '-')}: {args.format} has no use for it; leave it out")
    records = (record for record, _ in iter_source(args.source, args.config, args.split))
    clips = progress(itertools.islice(records, args.limit), f"exporting {args.format}", total=args.limit)
    counts = format_.write(clips, args.output, categories=args.categories, **options)
    result = {"format": args.format, "output": os.fspath(args.output), **dataclasses.asdict(counts)}
    text = ", ".join(f"{value} {name}" for name, value in dataclasses.asdict(counts).items())
    emit(result, f"{args.output}: {text}", as_json=args.json)
    return 0


__all__ = ["FORMATS", "add_arguments", "run"]
