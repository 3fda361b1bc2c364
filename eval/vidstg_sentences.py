"""Sentences of VidSTG as its metrics see them, and how they come from records, captions and the original's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.importers.entries import MAX_CLIP_FRAMES
from dataset_builders.record import Record, record_metadata
from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.video_grove import sampled_frame_indices

from .clips import caption_of
from .single_phrase import as_boxes, one_box_a_frame, phrase_boxes

QUESTION_TYPES = ("declarative", "interrogative")


@dataclass(frozen=True)
class VidstgReference:
    """
    A sentence and the boxes of its object.

    Attributes:
        key (`str`): of the sentence: the prepared file's `video_id`, a record's `{video_id}_{clip_id}`.
        qtype (`str`): "declarative" or "interrogative".
        fps (`float`): frames per second of the video.
        tube (`tuple[int, int]`): first source frame in which the sentence holds, and the first after that in which it does not.
        frame_indices (`np.ndarray` of shape `(F,)`, int64): the sampled source frames of the tube, increasing.
        boxes (`np.ndarray` of shape `(F, 4)`, float64): xyxy in pixels of the source frame; NaN where there is none.

    Raises:
        `ValueError`: if the parts do not fit together.
    """

    key: str
    qtype: str
    fps: float
    tube: tuple[int, int]
    frame_indices: np.ndarray
    boxes: np.ndarray

    def __post_init__(self) -> None:
        _check_question_type(self.key, self.qtype)
        if len(self.frame_indices) != len(self.boxes):
            sizes = f"{len(self.boxes)} for {len(self.frame_indices)} frames"
            raise ValueError(f"video {self.key!r}: boxes: got {sizes}, expected one a frame")


@dataclass(frozen=True)
class VidstgPrediction:
    """
    What a model answers.

    Attributes:
        key (`str`): of the sentence.
        frame_indices (`np.ndarray` of shape `(F,)`, int64): source frames, in any order; of duplicates the first counts.
        boxes (`tuple[np.ndarray, ...]`): for every frame `(n, 4)`, float32 xyxy in pixels of the source frame.
        qtype (`str` or `None`): the type of the sentence, where the prediction says it.

    Raises:
        `ValueError`: if the parts do not fit together.
    """

    key: str
    frame_indices: np.ndarray
    boxes: tuple[np.ndarray, ...]
    qtype: str | None = None

    def __post_init__(self) -> None:
        if self.qtype is not None:
            _check_question_type(self.key, self.qtype)
        if len(self.frame_indices) != len(self.boxes):
            sizes = f"{len(self.boxes)} lists of boxes for {len(self.frame_indices)} frame_ids"
            raise ValueError(f"video {self.key!r}: boxes: got {sizes}, expected one a frame")


def vidstg_reference(caption: GroundedCaption, qtype: str, tube: tuple[int, int] | None = None) -> VidstgReference:
    """
    An annotation whose only phrase is the sentence.

    Args:
        caption ([`GroundedCaption`]):
            Its frames of the tube are those that are scored; see `dataset_builders.importers.vidstg`.
        qtype (`str`):
            "declarative" or "interrogative".
        tube (`tuple[int, int]`, *optional*):
            First frame of the tube and the first after it. Without it, both protocols score the frames that have a box.

    Raises:
        `ValueError`: if the caption has another number of phrases than one, or there is no box in the tube.
    """
    boxes = phrase_boxes(caption, present_only=True)
    known = caption.frame_indices[~np.isnan(boxes[:, 0])]
    if not len(known):
        message = "no frame has a box, expected the object's; give VidOR's trajectories to the importer"
        raise ValueError(f"clip {caption.key!r}: bboxes: {message}")
    first, end = (int(known[0]), int(known[-1]) + 2) if tube is None else tube
    inside = (caption.frame_indices >= first) & (caption.frame_indices < end)
    if tube is None:
        inside = ~np.isnan(boxes[:, 0])
    if not inside.any():
        raise ValueError(
            f"clip {caption.key!r}: temporal_gt: no sampled frame is in {first}..{end}, expected one at least"
        )
    return VidstgReference(caption.key, qtype, caption.fps, (first, end), caption.frame_indices[inside], boxes[inside])


def vidstg_reference_of(record: Record) -> VidstgReference:
    """
    An imported record (`dataset_builders.importers.vidstg`), whose metadata has the type of the sentence and the tube.

    Raises:
        `ValueError`: if the metadata lacks them; or as [`vidstg_reference`].
    """
    caption, metadata = caption_of(record), record_metadata(record)
    tube = metadata.get("temporal_gt")
    if tube is not None and not (isinstance(tube, dict) and {"begin_fid", "end_fid"} <= set(tube)):
        message = f"metadata.temporal_gt: got {tube!r}, expected begin_fid and end_fid"
        raise ValueError(f"clip {caption.key!r}: {message}; import the annotation anew")
    frames = None if tube is None else (int(tube["begin_fid"]), int(tube["end_fid"]))
    return vidstg_reference(caption, str(metadata.get("qtype")), frames)


def vidstg_prediction(caption: GroundedCaption, qtype: str | None = None) -> VidstgPrediction:
    """
    A model's answer: the box of every frame, whatever the objectness of it (see [`single_phrase`]).

    Raises:
        `ValueError`: if the caption has another number of phrases than one.
    """
    boxes = one_box_a_frame(phrase_boxes(caption, present_only=False))
    return VidstgPrediction(caption.key, caption.frame_indices, boxes, qtype)


def as_vidstg_reference(
    item: VidstgReference | GroundedCaption | Record, question_types: Mapping[str, str] | None = None
) -> VidstgReference:
    """
    What is annotated, from a record, whose metadata says the type of the sentence, or a caption of a key in `question_types`.

    Raises:
        `ValueError`: if the type of a caption is not known; or as [`vidstg_reference`] and [`vidstg_reference_of`].
    """
    if isinstance(item, VidstgReference):
        return item
    if not isinstance(item, GroundedCaption):
        return vidstg_reference_of(item)
    if item.key not in (question_types or {}):
        message = f"question_types: missing, expected {' or '.join(QUESTION_TYPES)}; records have it in their metadata"
        raise ValueError(f"clip {item.key!r}: {message}")
    return vidstg_reference(item, (question_types or {})[item.key])


def read_original_vidstg(
    annotations: Mapping[str, Any], predictions: Mapping[str, Any]
) -> tuple[list[VidstgReference], list[VidstgPrediction]]:
    """
    The files of the original.

    Args:
        annotations (`Mapping`):
            `videos`, a list of sentences, and `trajectories[video][target][frame]["bbox"]`, xywh in pixels.
        predictions (`Mapping`):
            By the `video_id` of the sentence: `frame_ids`, `boxes` (for every frame a list of xyxy), `qtype`.

    Raises:
        `ValueError`: naming the video and the field, if something is missing or not what it should be.
    """
    videos, trajectories = (_field(annotations, name, "annotations") for name in ("videos", "trajectories"))
    if not isinstance(predictions, Mapping):
        raise ValueError(f"predictions: got a {type(predictions).__name__}, expected an object of videos")
    references = [_original_reference(video, trajectories, f"videos[{n}]") for n, video in enumerate(videos)]
    return references, [_original_prediction(key, value) for key, value in predictions.items()]


def _original_reference(video: Mapping[str, Any], trajectories: Mapping[str, Any], place: str) -> VidstgReference:
    key = str(_field(video, "video_id", place))
    where = f"video {key!r}"
    original, target, qtype = (_field(video, name, where) for name in ("original_video_id", "target_id", "qtype"))
    fps, first, end = (_number(video, name, where) for name in ("fps", "tube_start_frame", "tube_end_frame"))
    if not (first < end <= first + MAX_CLIP_FRAMES and float(first).is_integer() and float(end).is_integer()):
        raise ValueError(
            f"{where}: tube_end_frame: got {first:g}..{end:g}, expected frame numbers, the end after the start"
        )
    try:
        boxes = trajectories[original][str(target)]
    except (KeyError, TypeError):
        message = f"nothing of object {target} in video {original!r}, expected its boxes"
        raise ValueError(f"{where}: trajectories: {message}") from None
    frames = np.array(sampled_frame_indices(fps, int(first), int(end) - 1), dtype=np.int64)
    rows = np.full((len(frames), 4), np.nan)
    for row, frame in zip(rows, frames.tolist(), strict=True):
        if str(frame) in boxes:
            box = _field(boxes[str(frame)], "bbox", f"{where}: trajectories of frame {frame}")
            try:
                x, y, width, height = (float(value) for value in box)
            except (TypeError, ValueError):
                message = f"bbox: got {str(box)[:60]}, expected [x, y, width, height]"
                raise ValueError(f"{where}: trajectories of frame {frame}: {message}") from None
            row[:] = x, y, x + width, y + height
    return VidstgReference(key, str(qtype), fps, (int(first), int(end)), frames, rows)


def _original_prediction(key: str, value: Mapping[str, Any]) -> VidstgPrediction:
    where = f"video {key!r}"
    frames, boxes, qtype = (_field(value, name, where) for name in ("frame_ids", "boxes", "qtype"))
    try:
        indices = np.array(frames, dtype=np.int64).reshape(-1)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: frame_ids: got {str(frames)[:60]}, expected a list of integers") from None
    arrays = tuple(as_boxes(item, f"{where}: boxes[{n}]") for n, item in enumerate(boxes))
    return VidstgPrediction(key, indices, arrays, str(qtype))


def _check_question_type(key: str, qtype: str) -> None:
    if qtype not in QUESTION_TYPES:
        raise ValueError(f"video {key!r}: qtype: got {qtype!r}, expected {' or '.join(QUESTION_TYPES)}")


def _number(video: Mapping[str, Any], name: str, where: str) -> float:
    value = _field(video, name, where)
    if not isinstance(value, int | float) or not abs(value) < 2**31:
        raise ValueError(f"{where}: {name}: got {str(value)[:40]!r}, expected a number")
    return value


def _field(value: Mapping[str, Any], name: str, where: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise ValueError(f"{where}: {name}: missing, expected the prepared files of VidSTG")
    return value[name]


__all__ = [
    "QUESTION_TYPES",
    "VidstgPrediction",
    "VidstgReference",
    "as_vidstg_reference",
    "read_original_vidstg",
    "vidstg_prediction",
    "vidstg_reference",
    "vidstg_reference_of",
]
