"""`supervision`: the boxes of every frame as `sv.Detections`, for its annotators, trackers, zones and metrics, or as a CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modeling_grove.grounded_caption import atomic_path

from .categories import Categories, CategoryKind
from .clips_to_export import Clip, Clips, ExportCounts

if TYPE_CHECKING:
    import supervision as sv


def frame_detections(
    record: Mapping[str, Any], categories: Categories | None = None
) -> Iterator[tuple[int, sv.Detections]]:
    """
    Yields source frame (from 0) and `sv.Detections` of every sampled frame of a record, also of those without a box.

    `xyxy` is float32 in pixels of the source frame, `confidence` the objectness, `tracker_id` counts the objects of the clip
    from 1, `class_id` the categories from 0, and `data` has the names of the categories in `class_name` and the phrases
    as written in `phrase`.

    Args:
        record (`Mapping`): A record, ours or the original's.
        categories ([`Categories`], *optional*, defaults to one for every phrase):
            Given for several records, it numbers the classes for all of them together.

    Raises:
        `ValueError`: if the record is not valid.

    Example:

    ```python
    annotator = sv.BoxAnnotator()
    for frame, detections in frame_detections(record):
        picture = annotator.annotate(pictures[frame], detections)
    ```
    """
    clips = Clips([record], Categories() if categories is None else categories)
    for clip in clips:
        yield from _detections(clip, clips.categories)


def write_detections(
    records: Iterable[Mapping[str, Any]], path: str | os.PathLike[str], *, categories: CategoryKind = "phrase"
) -> ExportCounts:
    """
    Writes the detections of [`frame_detections`] with `sv.CSVSink`: one CSV file, a row for every box, with its clip (`key`),
    `video_fname`, source `frame` (from 0) and `seconds` as custom columns. Frames without a box have no row.

    Args:
        records (iterable of records): Read once.
        path (`str` or `os.PathLike`): The file, usually `.csv`; replaced if it exists.
        categories (`"phrase"`, `"head"` or `"single"`): What a class is, see [`Categories`].

    Raises:
        `ValueError`: if a record is not valid, two have the same key, or `supervision` is not installed.
    """
    try:
        import supervision as sv
    except ModuleNotFoundError:
        raise ValueError("supervision is not installed; run `pip install supervision`") from None

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    clips = Clips(records, categories)
    with atomic_path(target) as temporary, sv.CSVSink(str(temporary)) as sink:
        for clip in clips:
            columns: dict[str, Any] = {"key": clip.key, "video_fname": clip.caption.video_fname}
            times = clip.caption.timestamps.tolist()
            for (frame, detections), seconds in zip(_detections(clip, clips.categories), times, strict=True):
                sink.append(detections, custom_data={**columns, "frame": frame, "seconds": seconds})
    return clips.counts()


def _detections(clip: Clip, categories: Categories) -> Iterator[tuple[int, sv.Detections]]:
    import supervision as sv

    names = categories.names
    for n, frame in enumerate(clip.caption.frame_indices.tolist()):
        present = [(number, track) for number, track in enumerate(clip.tracks, start=1) if track.presence[n]]
        tracks = [track for _, track in present]
        yield (
            frame,
            sv.Detections(
                xyxy=np.array([track.boxes[n] for track in tracks], dtype=np.float32).reshape(-1, 4),
                confidence=np.array([track.objectness[n] for track in tracks], dtype=np.float32),
                class_id=np.array([track.category for track in tracks], dtype=int),
                tracker_id=np.array([number for number, _ in present], dtype=int),
                data={
                    "class_name": np.array([names[track.category] for track in tracks], dtype=str),
                    "phrase": np.array([track.phrase for track in tracks], dtype=str),
                },
            ),
        )


__all__ = ["frame_detections", "write_detections"]
