"""YouCook-Interactions and GroundingYouTube: short segments with a sentence and one box a second.

Both are lists of segments: `video_id`, `segment_youcook_idx` or `segment_groundingyoutube_idx`, `caption`, `fps`, `width`,
`height`, and `segment_bboxes`, for every annotated second a box (xyxy in pixels), `[]` or `null`. The sentence is the phrase, as
GROVE is fed it: `<p> sentence </p> [DET]`.

The n-th box is of second n of the segment, or of `secs_relative[n]` where the list has that, as the original's has. A second
is the source frame nearest to it: by `fps`, or by the list's `pts` (seconds of every frame of the file). Where several seconds
fall on one frame, as at the end of a file, the later ones move on to the next free frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from dataset_builders.reading import OnProblem, objects_of, read_json
from dataset_builders.record import Record

from .entries import MAX_CLIP_FRAMES, FieldError, Fields, Source, as_box, as_number, distinct_frames, single_phrase

_INDICES = ("segment_youcook_idx", "segment_groundingyoutube_idx")


def import_pointing(path: str | os.PathLike[str], on_problem: OnProblem | None = None) -> Iterator[Record]:
    """
    Yields one record for every segment, with the segment's index as `clip_id`; its frames are the annotated seconds. The
    metadata has `segment_index`, `seconds` (of every frame, from the start of the file) and `annotated` (positions among
    the frames of those that have a box, which are what the evaluation counts).

    Args:
        path (path or URL):
            The list, as JSON.
        on_problem (`Callable[[ReadProblem], None]`, *optional*):
            Gets every segment that is left out. By default the first one raises.

    Raises:
        `ValueError`: in one line, if the file cannot be read, or for the first problem without `on_problem`.
    """
    source = Source(os.fspath(path), on_problem)
    for entry in objects_of(read_json(path), source.path, on_problem):
        record = source.attempt(entry.number, _record, Fields(entry.value))
        if record is not None:
            yield record


def _record(fields: Fields) -> Record:
    index = fields.integer(next((name for name in _INDICES if fields.has(name)), _INDICES[0]))
    video_id, fps, (width, height) = fields.text("video_id"), fields.fps(), fields.size()
    items = fields.items("segment_bboxes")
    if not items:
        raise FieldError("no_frames", "segment_bboxes", "expected one box a second, got none")
    frames, timestamps, seconds = _frames(fields, len(items), fps)
    boxes = {
        frame: as_box(item, f"segment_bboxes[{n}]")
        for n, (frame, item) in enumerate(zip(frames, items, strict=True))
        if item is not None and item != []
    }
    annotated = [n for n, frame in enumerate(frames) if frame in boxes]
    return single_phrase(
        fields.text("caption"),
        boxes,
        frames,
        {"segment_index": index, "seconds": seconds, "annotated": annotated},
        video_id=video_id,
        clip_id=index,
        video_fname=fields.text("video_fname", f"{video_id}.mp4"),
        fps=fps,
        width=width,
        height=height,
        clip_start_frame=frames[0],
        clip_end_frame=frames[-1],
        timestamps=timestamps,
    )


def _frames(fields: Fields, count: int, fps: float) -> tuple[list[int], list[float], list[float]]:
    """The source frame, its time, and the annotated second, of every box."""
    given = fields.items("secs_relative", [*range(count)])
    if len(given) != count:
        raise FieldError("length_mismatch", "secs_relative", f"{len(given)} seconds for {count} boxes")
    seconds = [as_number(second, f"secs_relative[{n}]") for n, second in enumerate(given)]
    if any(second < first for first, second in pairwise(seconds)) or seconds[0] < 0:
        raise FieldError("frame_order", "secs_relative", "expected seconds that do not decrease")
    if not seconds[-1] * fps < MAX_CLIP_FRAMES:
        raise FieldError("out_of_range", "secs_relative", f"second {seconds[-1]:g} is beyond any clip")
    if fields.has("pts"):
        times = np.array([as_number(time, f"pts[{n}]") for n, time in enumerate(fields.items("pts"))])
        if len(times) < count or (np.diff(times) <= 0).any():
            raise FieldError("frame_order", "pts", f"expected at least {count} increasing times")
        nearest = [int(np.abs(times - second).argmin()) for second in seconds]
        frames = distinct_frames(nearest, len(times))
        return frames, times[frames].tolist(), seconds
    frames = distinct_frames([round(second * fps) for second in seconds])
    return frames, [frame / fps for frame in frames], seconds


__all__ = ["import_pointing"]
