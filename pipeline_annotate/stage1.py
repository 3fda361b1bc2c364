"""`python -m pipeline_annotate stage1`: captions of frames, with boxes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit, progress

from .captioners import FrameCaptioner, caption_clips
from .clip_lists import ClipRequest, clips_of_folder, read_table, without
from .shapes_captioner import ShapesCaptioner
from .stage_files import StageWriter, summary


def load_captioner(name: str, seed: int = 0) -> FrameCaptioner:
    """
    A captioner by name.

    Args:
        name (`str`): `glamm:MODEL`, a converted checkpoint (folder or Hub id); or `shapes:FILE`, the truth of GroundedShapes with
            errors.
        seed (`int`, *optional*, defaults to 0): of what is drawn.

    Raises:
        `ValueError`: if there is none of that name.
    """
    kind, _, rest = name.partition(":")
    if kind == "shapes" and rest:
        return ShapesCaptioner(Path(rest), seed=seed)
    if kind == "glamm" and rest:
        from .glamm_captioner import GlammCaptioner

        return GlammCaptioner(rest)
    raise ValueError(
        f"--captioner: got {name!r}; expected glamm:MODEL, a converted checkpoint, or shapes:FILE, with the `*.frames.jsonl` of a "
        "folder of GroundedShapes"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, metavar="DIR", help="folder of the videos")
    parser.add_argument(
        "--clips", type=Path, metavar="FILE",
        help="table of clips: CSV, JSONL or Parquet with `video` and, optional, `start` and `end` in seconds (default: all videos)",
    )  # fmt: skip
    parser.add_argument("--captioner", required=True, metavar="NAME", help="glamm:MODEL or shapes:FILE")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL to write, a clip a line")
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second to caption (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="frames at a time (default: %(default)s)"
    )
    parser.add_argument("--held-back", type=Path, metavar="FILE", help="ids of videos to leave out, one a line")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the captions of frames."""
    if args.fps <= 0 or args.batch_size < 1 or args.seed < 0:
        got = f"--fps {args.fps}, --batch-size {args.batch_size}, --seed {args.seed}"
        raise ValueError(f"{got}; expected more than 0, at least 1 and at least 0")
    if not args.videos.is_dir():
        raise ValueError(f"{args.videos}: no such folder of videos")
    requests = requested(args.videos, args.clips, args.held_back)
    captioner = load_captioner(args.captioner, args.seed)
    settings: dict[str, Any] = {"stage1": dict(captioner.describe()), "target_fps": args.fps}
    with StageWriter(args.output, settings) as writer:
        left = [request for request in requests if request.key not in writer.done]
        clips = caption_clips(left, args.videos, captioner, target_fps=args.fps, batch_size=args.batch_size)
        for clip in progress(clips, "captioning frames", len(left)):
            writer.add([clip])
    counts = dict(writer.counts)
    emit({"output": str(args.output), **counts}, f"{args.output}: {summary(counts)}", args.json)
    return 0


def requested(videos: Path, table: Path | None, held_back: Path | None) -> list[ClipRequest]:
    """
    The clips that are asked for.

    Raises:
        `ValueError`: if none is left.
    """
    requests = clips_of_folder(videos) if table is None else read_table(table)
    if held_back is not None:
        ids = {*held_back.read_text(encoding="utf-8").split()}
        before = len(requests)
        if not (requests := without(requests, ids)):
            raise ValueError(f"--held-back: {held_back} has the videos of all {before} clips; nothing is left")
    return requests


__all__ = ["load_captioner", "requested"]
