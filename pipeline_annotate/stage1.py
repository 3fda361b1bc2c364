"""`python -m pipeline_annotate stage1`: captions of frames, with boxes."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.command_line import emit, progress

from .back_ends import load_captioner
from .captioners import caption_clips
from .clip_lists import ClipRequest, clips_of_folder, cut, read_table, without
from .stage_files import StageWriter, check_output, summary
from .stage_settings import StageSettings, add_stage1_arguments, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", type=Path, metavar="DIR", help="folder of the videos")
    parser.add_argument(
        "--clips", type=Path, metavar="FILE",
        help="table of clips: CSV, JSONL or Parquet with `video` and, optional, `start` and `end` in seconds (default: all videos)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL to write, a clip a line")
    add_stage1_arguments(parser)
    parser.add_argument("--window", type=float, metavar="SECONDS", help="cut clips into windows of this length")
    parser.add_argument("--held-back", type=Path, metavar="FILE", help="ids of videos to leave out, one a line")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the captions of frames."""
    settings = settings_of(args)
    if not args.videos.is_dir():
        raise ValueError(f"{args.videos}: no such folder of videos")
    requests = requested(args.videos, args.clips, args.held_back, args.window)
    counts = write_frames(args.output, requests, args.videos, settings)
    emit({"output": str(args.output), **counts}, f"{args.output}: {summary(counts)}", args.json)
    return 0


def write_frames(
    output: Path, requests: Sequence[ClipRequest], videos: Path, settings: StageSettings
) -> dict[str, int]:
    """
    Stage 1 of clips, into a file; what is there of it already stays.

    Returns:
        `dict[str, int]`: clips `written`, and those dropped by reason.
    """
    check_output(output)
    captioner = load_captioner(settings.captioner, settings.seed)
    listed = hashlib.sha256(repr([str(videos.resolve()), *requests]).encode()).hexdigest()[:16]
    made = {"stage1": dict(captioner.describe()), "target_fps": settings.fps, "clips": listed}
    with StageWriter(output, made) as writer:
        left = [request for request in requests if request.key not in writer.done]
        clips = caption_clips(left, videos, captioner, target_fps=settings.fps, batch_size=settings.batch_size)
        for clip in progress(clips, "captioning frames", len(left)):
            writer.add([clip])
    return dict(writer.counts)


def requested(
    videos: Path, table: Path | None, held_back: Path | None, window: float | None = None
) -> list[ClipRequest]:
    """
    The clips that are asked for.

    Raises:
        `ValueError`: if none is left.
    """
    requests = clips_of_folder(videos) if table is None else read_table(table)
    if held_back is not None:
        ids = {line.strip() for line in held_back.read_text(encoding="utf-8").splitlines() if line.strip()}
        before = len(requests)
        if not (requests := without(requests, ids)):
            raise ValueError(f"--held-back: {held_back} has the videos of all {before} clips; nothing is left")
    if window is None:
        return requests
    if not window > 0:
        raise ValueError(f"--window: expected a number of seconds above 0, got {window}")
    return cut(requests, videos, window)


__all__ = ["requested", "write_frames"]
