"""Segments of ActivityNet-Entities as its metrics see them, and how they come from records and from the original's files.

A segment has ten frames, 0 to 9. An annotated box is in one of them and belongs to one or several words of the sentence; each
such word has a class ("man", "knife"). A prediction has a class, which for GROVE is a phrase of the caption that it generates,
and a box in every one of the ten frames, whether the object is thought to be there or not.

The boxes of the released annotations are in videos scaled to a width of 720 pixels. Those of [`GroundedCaption`] are in pixels
of the source; they are scaled here, as the original's overlap adds a pixel to each side and so depends on the size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.importers.activitynet_entities import ANNOTATED_WIDTH
from dataset_builders.record import Record, record_key, record_metadata
from modeling_grove.grounded_caption import GroundedCaption


@dataclass(frozen=True)
class AnnotatedSegment:
    """
    An annotated segment.

    Attributes:
        video_id (`str`), segment_id (`str`): which one.
        tokens (`tuple[str, ...]`): of the sentence.
        boxes (`np.ndarray` of shape `(N, 4)`, float64): xyxy in pixels of the video at a width of 720.
        frames (`np.ndarray` of shape `(N,)`, int64): for every box its frame, 0 to 9.
        words (`tuple[tuple[int, ...], ...]`): for every box the indices of its words among the tokens.
        classes (`tuple[tuple[str, ...], ...]`): for every box the classes of these words.
    """

    video_id: str
    segment_id: str
    tokens: tuple[str, ...]
    boxes: np.ndarray
    frames: np.ndarray
    words: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[str, ...], ...]

    @property
    def key(self) -> str:
        """`{video_id}_{segment_id}`."""
        return f"{self.video_id}_{self.segment_id}"

    @property
    def word_classes(self) -> dict[int, str]:
        """The annotated words, in their order, and the class of each: that which its first box says."""
        first: dict[int, str] = {}
        for words, classes in zip(self.words, self.classes, strict=True):
            for word, name in zip(words, classes, strict=True):
                first.setdefault(word, name)
        return dict(sorted(first.items()))

    def boxes_of(self, word: int) -> list[int]:
        """Indices of the boxes of a word."""
        return [n for n, words in enumerate(self.words) if word in words]


@dataclass(frozen=True)
class PredictedSegment:
    """
    What a model says of a segment.

    Attributes:
        video_id (`str`), segment_id (`str`): which one.
        classes (`tuple[str, ...]`): of the objects, in the order of the sentence; in GT mode not used.
        words (`tuple[int, ...]`): of the objects, indices among the tokens of the annotated sentence; used in GT mode alone.
        boxes (`tuple[np.ndarray, ...]`):
            For every object `(10, 4)` float64 xyxy in pixels of the video at a width of 720. A box of zeros is none.
    """

    video_id: str
    segment_id: str
    classes: tuple[str, ...]
    words: tuple[int, ...]
    boxes: tuple[np.ndarray, ...]

    @property
    def key(self) -> str:
        """`{video_id}_{segment_id}`."""
        return f"{self.video_id}_{self.segment_id}"


def annotated_segment(record: Record) -> AnnotatedSegment:
    """
    The annotation of a record, from the words, classes and boxes that its importer keeps in the metadata.

    Raises:
        `ValueError`: naming the clip and the field, if one is missing or wrong.
    """
    key = record_key(record)
    return _annotated(
        str(record["video_id"]), str(record["clip_id"]), record_metadata(record), f"clip {key!r}: metadata"
    )


def predicted_segment(caption: GroundedCaption) -> PredictedSegment:
    """
    The prediction of a caption: an object for every track, its class the phrase as it is. Boxes are taken in all frames,
    present or not, as the original's model for this benchmark has no objectness; an unknown box is one of zeros.
    """
    boxes = [
        np.nan_to_num(track.boxes.astype(np.float64)) * (ANNOTATED_WIDTH / caption.width) for track in caption.tracks
    ]
    return PredictedSegment(
        caption.video_id,
        str(caption.clip_id),
        tuple(track.phrase for track in caption.tracks),
        # The tokens of a sentence have blanks between them.
        tuple(caption.caption.count(" ", 0, track.span[0]) for track in caption.tracks),
        tuple(boxes),
    )


def read_original_activitynet_entities(
    annotations: Mapping[str, Any],
    split_file: Mapping[str, Any],
    submission: Mapping[str, Any],
    split: str | Collection[str] = "validation",
) -> tuple[list[AnnotatedSegment], list[PredictedSegment]]:
    """
    The original's files: annotated segments of the splits that have a box, and all predicted segments, those of other videos
    too, as the original counts them.

    Args:
        annotations (`Mapping`):
            The reference file, with `annotations`.
        split_file (`Mapping`):
            Name of a split to the ids of its videos.
        submission (`Mapping`):
            The predictions, with `results`.
        split (`str` or collection of `str`, *optional*, defaults to `"validation"`):
            One split or several.

    Raises:
        `ValueError`: naming the clip and the field, if one is missing or wrong.
    """
    names = [split] if isinstance(split, str) else list(split)
    if unknown := [name for name in names if name not in split_file]:
        raise ValueError(f"split: the split file has no {unknown[0]!r}; expected one of {', '.join(split_file)}")
    videos = {video for name in names for video in split_file[name]}
    references = [
        _annotated(video, segment, fields, f"clip {f'{video}_{segment}'!r}")
        for video, entry in _object(annotations, "annotations", "annotations").items()
        if video in videos
        for segment, fields in _object(entry, "segments", f"video {video!r}").items()
    ]
    predictions = [
        _predicted(video, segment, fields)
        for video, segments in _object(submission, "results", "predictions").items()
        for segment, fields in segments.items()
    ]
    return references, predictions


def _annotated(video: str, segment: str, fields: Any, where: str) -> AnnotatedSegment:
    values = {name: _list(fields, name, where) for name in ("tokens", "frame_ind", "process_idx", "process_clss")}
    boxes = _boxes(_list(fields, "process_bnd_box", where), f"{where}: process_bnd_box")
    for name in ("frame_ind", "process_idx", "process_clss"):
        if len(values[name]) != len(boxes):
            raise ValueError(f"{where}: {name}: {len(values[name])} entries for the {len(boxes)} of process_bnd_box")
    for n, (words, classes) in enumerate(zip(values["process_idx"], values["process_clss"], strict=True)):
        if len(words) != len(classes):
            raise ValueError(
                f"{where}: process_clss[{n}]: {len(classes)} classes for the {len(words)} words of the box"
            )
    return AnnotatedSegment(
        video,
        segment,
        tuple(values["tokens"]),
        boxes,
        np.array(values["frame_ind"], dtype=np.int64),
        tuple(tuple(words) for words in values["process_idx"]),
        tuple(tuple(classes) for classes in values["process_clss"]),
    )


def _predicted(video: str, segment: str, fields: Any) -> PredictedSegment:
    where = f"clip {f'{video}_{segment}'!r}"
    classes, words, boxes = (_list(fields, name, where) for name in ("clss", "idx_in_sent", "bbox_for_all_frames"))
    if wrong := [name for name in classes if not isinstance(name, str)]:
        raise ValueError(f"{where}: clss: expected strings, got {wrong[0]!r}")
    tubes = tuple(_boxes(tube, f"{where}: bbox_for_all_frames[{n}]") for n, tube in enumerate(boxes))
    return PredictedSegment(video, segment, tuple(classes), tuple(words), tubes)


def _object(fields: Any, name: str, where: str) -> Mapping[str, Any]:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {name}: expected an object, got {type(value).__name__}")
    return value


def _list(fields: Any, name: str, where: str) -> list[Any]:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if not isinstance(value, list):
        raise ValueError(f"{where}: {name}: expected a list, got {type(value).__name__}")
    return value


def _boxes(rows: Any, where: str) -> np.ndarray:
    try:
        boxes = np.array(rows, dtype=np.float64).reshape(-1, 4) if rows == [] else np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where}: expected boxes [x1, y1, x2, y2]")
    return boxes


__all__ = [
    "AnnotatedSegment",
    "PredictedSegment",
    "annotated_segment",
    "predicted_segment",
    "read_original_activitynet_entities",
]
