"""
`python -m dataset_builders stills`: the captions of single frames as records of one frame each.

This is what a captioner of pictures is trained on: static statements, nothing of before and after, every phrase visible. GROVE's
paper starts from such a model, GLaMM; in the world of GroundedShapes a model trained on stills takes its place.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_entries, read_records
from dataset_builders.record import Record, from_record, record_key, to_record
from modeling_grove.grounded_caption import GroundedCaption, atomic_path


def stills(record: Record, frames: Mapping[str, Any], per_clip: int | None = None) -> Iterator[Record]:
    """
    Records of single frames of a clip.

    Args:
        record (`dict`):
            Of the clip.
        frames (`dict`):
            Its frame captions, a line of `{split}.frames.jsonl`.
        per_clip (`int`, *optional*):
            How many frames, evenly spread over those that show something; by default all of these.

    Raises:
        `ValueError`: if the two are not of one clip, or a frame's caption is none.
    """
    if record_key(record) != record_key(dict(frames)):
        raise ValueError(f"frame captions of {record_key(dict(frames))!r} beside the record of {record_key(record)!r}")
    clip = from_record(record)
    shown = [frame for frame in frames["frames"] if frame["phrases"]]
    count = len(shown) if per_clip is None else min(per_clip, len(shown))
    for place in np.linspace(0, len(shown) - 1, count).round().astype(int).tolist() if count else []:
        frame = shown[place]
        index = int(frame["frame_index"])
        still = {
            "video_id": clip.video_id,
            "clip_id": index,
            "video_fname": clip.video_fname,
            "fps": clip.fps,
            "width": clip.width,
            "height": clip.height,
            "clip_start_frame": index,
            "clip_end_frame": index,
            "frame_indices": [index],
            "timestamps": [frame["timestamp"]],
            **{name: frame[name] for name in ("caption", "tagged_caption", "phrases")},
            **{name: [frame[name]] for name in ("bboxes", "labels")},
        }
        yield to_record(GroundedCaption.from_dict(still))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", type=Path, metavar="RECORDS", help="`{split}.jsonl` of a folder of shapes")
    parser.add_argument(
        "--frames", type=Path, metavar="FILE", help="its frame captions (default: `{split}.frames.jsonl` beside it)"
    )
    parser.add_argument("--per-clip", type=int, metavar="N", help="frames of each clip, evenly spread (default: all)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL to write the records to")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the records."""
    if args.per_clip is not None and args.per_clip < 1:
        raise ValueError(f"--per-clip: expected at least 1, got {args.per_clip}")
    frames = args.frames or args.records.with_suffix(".frames.jsonl")
    clips = zip(read_records(str(args.records)), read_entries(str(frames)), strict=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with atomic_path(args.output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record, entry in progress(clips, "taking stills"):
            for still in stills(record, entry.value, args.per_clip):
                file.write(json.dumps(still, ensure_ascii=False, allow_nan=False) + "\n")
                written += 1
    emit({"records": str(args.output), "stills": written}, f"{args.output}: {written:,} stills", args.json)
    return 0


__all__ = ["stills"]
