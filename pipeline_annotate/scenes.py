"""
`python -m pipeline_annotate scenes`: a table of clips, cut where the scene changes.

    python -m pipeline_annotate scenes videos --window 8 --output clips.jsonl
    python -m pipeline_annotate run videos --clips clips.jsonl --captioner ... --output annotated

FFmpeg says how much a frame differs from the one before (its filter `select`, variable `scene`, in [0, 1]). A scene starts where
that is above the threshold.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph

from dataset_builders.command_line import emit, progress
from modeling_grove.video_file_grove import VideoDecodeError, VideoFile

from .clip_lists import ClipRequest, read_table, windows
from .stage1 import requested
from .stage_files import Dropped, StageWriter, check_output, summary

_WIDTH = 160  # pixels that frames are compared at


@dataclass(frozen=True)
class Scenes:
    """
    The clips of a video, or of a part of one.

    Args:
        request ([`ClipRequest`]): that was cut.
        clips (`tuple[ClipRequest, ...]`): its scenes, in order.
    """

    request: ClipRequest
    clips: tuple[ClipRequest, ...]

    def to_dict(self) -> dict[str, Any]:
        """A row of a table, as [`~pipeline_annotate.clip_lists.read_table`] reads it: lists of start and end."""
        return {
            "video_id": self.request.video_id,
            "clip_id": self.request.clip_id,
            "video": self.request.video_fname,
            "start": [round(clip.start or 0.0, 3) for clip in self.clips],
            "end": [round(clip.end or 0.0, 3) for clip in self.clips],
        }


def scene_starts(video: VideoFile, threshold: float = 0.3, start: float = 0.0, end: float = math.inf) -> list[float]:
    """
    The seconds at which scenes start, without the beginning; frames that do not decode are passed over.

    Args:
        video ([`~modeling_grove.video_file_grove.VideoFile`]): whose clock is that of clips.
        threshold (`float`, *optional*, defaults to 0.3): of FFmpeg's score.
        start (`float`, *optional*, defaults to 0.0), end (`float`, *optional*): seconds of the part to look at.

    Raises:
        [`~modeling_grove.video_grove.VideoDecodeError`]: if no frame of the part decodes.
    """
    times = video.timeline.times
    wanted = np.flatnonzero((times >= start) & (times < end))
    if not len(wanted):
        raise VideoDecodeError(f"{video.name}: no frames from {start:g} s on; it has {times[-1]:g} s")
    graph = None
    found: list[float] = []
    for index, pixels in video.decode(wanted, 0):
        graph = graph or _comparing(pixels.shape[1], pixels.shape[0], threshold)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1)
        graph.push(frame)
        found += [float(times[passed]) for passed in _passed(graph)]
    return [second for second in found if second > start]


def _comparing(width: int, height: int, threshold: float) -> Graph:
    """A graph that lets those frames through with which a scene starts."""
    graph = Graph()
    parts = (
        graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1)),
        graph.add("scale", f"{_WIDTH}:-2"),
        graph.add("select", f"gt(scene,{threshold})"),
        graph.add("buffersink"),
    )
    for first, second in itertools.pairwise(parts):
        first.link_to(second)
    graph.configure()
    return graph


def _passed(graph: Graph) -> Iterator[int]:
    """The numbers of the frames that a graph lets through."""
    while True:
        try:
            number = graph.pull().pts
        except (av.BlockingIOError, av.EOFError):
            return
        if number is not None:
            yield number


def cut_at_scenes(
    request: ClipRequest, videos: Path, threshold: float, least: float = 1.0, window: float | None = None
) -> Scenes | Dropped:
    """
    A video, or a part of one, cut where the scene changes.

    Args:
        request ([`ClipRequest`]): in seconds, or a whole video.
        videos (`Path`): folder of the videos.
        threshold (`float`): of FFmpeg's score.
        least (`float`, *optional*, defaults to 1.0): seconds; what is shorter is no clip.
        window (`float`, *optional*): seconds; what is longer is cut into windows of this length.
    """
    path = videos / request.video_fname
    if not path.is_file():
        return Dropped(request.key, "missing_video", f"{path}: no such file")
    try:
        video = VideoFile(str(path.absolute()), path.name, None)
        duration = float(video.timeline.times[-1]) + 1 / video.timeline.fps
        first, last = request.start or 0.0, duration if request.end is None else min(request.end, duration)
        starts = [first, *scene_starts(video, threshold, first, last), last]
    except (VideoDecodeError, OSError) as error:
        return Dropped(request.key, "undecodable_video", " ".join(str(error).split()))
    scenes = [
        replace(request, start=start, end=end) for start, end in itertools.pairwise(starts) if end - start >= least
    ]
    if not scenes:
        return Dropped(request.key, "no_scene", f"{len(starts) - 1} scenes, none of {least} s or more")
    if window is not None:
        scenes = [clip for scene in scenes for clip in windows(scene, duration, window, least)]
    return Scenes(request, tuple(scenes))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("videos", type=Path, metavar="DIR", help="folder of the videos")
    parser.add_argument("--clips", type=Path, metavar="FILE", help="table of clips to cut (default: all videos, whole)")
    parser.add_argument("--held-back", type=Path, metavar="FILE", help="ids of videos to leave out, one a line")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="table to write, JSONL, a video a line"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.3,
        metavar="X",
        help="a scene starts above it, in (0, 1) (default: %(default)s)",
    )
    parser.add_argument("--least", type=float, default=1.0, metavar="SECONDS", help="of a clip (default: %(default)s)")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="cut longer scenes into windows of this length")
    parser.add_argument("--workers", type=int, default=2, help="videos at a time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the table."""
    if not 0 < args.threshold < 1 or not args.least > 0 or args.workers < 1:
        got = f"--threshold {args.threshold}, --least {args.least}, --workers {args.workers}"
        raise ValueError(f"{got}; expected a threshold in (0, 1), a positive length and at least 1 worker")
    if args.window is not None and not args.window >= args.least:
        raise ValueError(f"--window {args.window}: expected at least --least, which is {args.least}")
    if not args.videos.is_dir():
        raise ValueError(f"{args.videos}: no such folder of videos")
    check_output(args.output)
    requests = requested(args.videos, args.clips, args.held_back)
    if given := [request.key for request in requests if request.start_frame is not None]:
        raise ValueError(f"--clips: {given[0]} is given in frames; expected seconds, or whole videos")
    counts = write_scenes(args.output, requests, args)
    clips = len(read_table(args.output)) if counts["written"] else 0
    others = {reason: count for reason, count in counts.items() if reason != "written"}
    text = f"{args.output}: {counts['written']:,} videos, {summary({**others, 'written': clips})}"
    emit({"output": str(args.output), "videos": counts["written"], "clips": clips, **others}, text, args.json)
    return 0


def write_scenes(output: Path, requests: Sequence[ClipRequest], args: argparse.Namespace) -> dict[str, int]:
    """
    The scenes of videos, into a file; what is there of it already stays.

    Returns:
        `dict[str, int]`: videos `written`, and those dropped by reason.
    """
    options = {"threshold": args.threshold, "least": args.least, "window": args.window}
    listed = hashlib.sha256(repr([str(args.videos.resolve()), *requests]).encode()).hexdigest()[:16]
    with StageWriter(output, {**options, "videos": listed}) as writer, ThreadPoolExecutor(args.workers) as threads:
        left = [request for request in requests if request.key not in writer.done]
        found = threads.map(lambda request: cut_at_scenes(request, args.videos, **options), left)
        for scenes in progress(found, "looking for scenes", len(left), unit="video"):
            writer.add([scenes])
    return dict(writer.counts)


__all__ = ["Scenes", "cut_at_scenes", "scene_starts", "write_scenes"]
