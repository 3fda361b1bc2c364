"""Reads iGround's annotations and predictions: our records and captions, and the original's files in JSON, as they are.

The original's annotation of a clip is a record without our fields: `bboxes` and `labels` (of every frame), `caption`, `width`,
`height`. Its prediction has `pred_bboxes`, `pred_labels` and `pred_text`. Both are keyed by clip. Nothing is repaired: boxes keep
their order, and a frame may have more labels than boxes, or the other way round, because the official protocol depends on it.
Boxes of predictions are float32, as the original's arrays are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dataset_builders.importers.released import is_ours, read_released
from dataset_builders.reading import Entry
from dataset_builders.record import from_record
from modeling_grove.grounded_caption import GroundedCaption

from .clips import PredictedClip, ReferenceClip

_NO_BOX = "expected four finite numbers [x1, y1, x2, y2]"


def read_reference(entry: Entry, place: str, *, with_source: bool) -> GroundedCaption | ReferenceClip:
    """
    An annotated clip.

    Args:
        entry ([`~dataset_builders.reading.Entry`]):
            The object, and its key where the file has it under one.
        place (`str`):
            File and line, which errors begin with.
        with_source (`bool`):
            Whether an annotation of the original's gets its grounded caption too, which names the video and the frames.

    Raises:
        `ValueError`: naming place, clip and field.
    """
    if _has_tracks(entry.value):
        return read_caption(entry, place)
    where = clip_place(entry, place)
    boxes, labels = _all_boxes(entry.value, where), _labels(entry.value, ("labels",), where)
    return ReferenceClip(
        key=_key(entry, place),
        width=_size(entry.value, "width", where),
        height=_size(entry.value, "height", where),
        caption=_text(entry.value, ("caption",), where),
        boxes=tuple(boxes),
        labels=labels,
        source=_placed(entry, where) if with_source else None,
    )


def read_prediction(entry: Entry, place: str) -> GroundedCaption | PredictedClip:
    """
    A predicted clip; `null` in place of a frame's boxes means that the model was not asked.

    Raises:
        `ValueError`: naming place, clip and field.
    """
    if _has_tracks(entry.value):
        return read_caption(entry, place)
    where = clip_place(entry, place)
    names = ("pred_bboxes", "bboxes")
    boxes = [None if frame is None else _float32(frame) for frame in _boxes(entry.value, names, where)]
    return PredictedClip(
        key=_key(entry, place),
        caption=_text(entry.value, ("pred_text", "pred_caption", "caption"), where),
        boxes=tuple(boxes),
        labels=_labels(entry.value, ("pred_labels", "labels"), where),
    )


def read_caption(entry: Entry, place: str) -> GroundedCaption:
    """
    The grounded caption of a record, or of what [`GroundedCaption.to_dict`] wrote.

    Raises:
        `ValueError`: naming place, clip and field.
    """
    try:
        if entry.value.get("tracks") is not None:
            return GroundedCaption.from_dict(entry.value)
        if is_ours(entry.value):
            return from_record(entry.value)
        return from_record(read_released(entry))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        where = clip_place(entry, place)
        _check_fields(entry.value, where)
        raise ValueError(f"{where}: {_problem(error)}") from error


def clip_place(entry: Entry, place: str) -> str:
    """File, line and clip, for errors."""
    return f"{place}: clip {_key(entry, place)!r}"


def _check_fields(value: Mapping[str, Any], where: str) -> None:
    """
    Names field and frame of a value that cannot be one of its field. Only asked of what could not be read, as it takes longer
    than reading.
    """
    _all_boxes(value, where)
    for n, frame in enumerate(_labels(value, ("labels",), where)):
        for i, label in enumerate(frame):
            if not isinstance(label, str):
                raise ValueError(f"{where}: labels[{n}][{i}]: expected a string, got {label!r:.60}")
    for name, kind, what in (("tagged_caption", str, "a string"), ("fps", int | float, "a number")):
        if value.get(name) is not None and not isinstance(value[name], kind):
            raise ValueError(f"{where}: {name}: expected {what}, got {value[name]!r:.60}")
    for name in ("track_ids", "scores"):
        frames = value.get(name)
        if frames is not None and not (isinstance(frames, list) and all(map(_are_numbers, frames))):
            raise ValueError(f"{where}: {name}: expected a list of numbers for every frame, got {frames!r:.60}")
    tracks = value.get("tracks")
    if tracks is not None and (not isinstance(tracks, list) or any(not isinstance(track, dict) for track in tracks)):
        raise ValueError(f"{where}: tracks: expected a list of objects")
    for k, track in enumerate(tracks or ()):
        rows = track.get("boxes")
        if not isinstance(rows, list):
            raise ValueError(f"{where}: tracks[{k}].boxes: expected a box or null for every frame, got {rows!r:.60}")
        # A row as a frame of its own, so that the frame's place is that of the row.
        for (n, _), row in _wrong_boxes([[] if row is None else [row] for row in rows]):
            raise ValueError(f"{where}: tracks[{k}].boxes[{n}]: {_NO_BOX}, got {row!r:.80}")
    _text(value, ("caption",), where)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)


def _has_tracks(value: Mapping[str, Any]) -> bool:
    """Whether an object is of ours, which says whose a box is and which frames there are."""
    return is_ours(value) or value.get("tracks") is not None


def _key(entry: Entry, place: str) -> str:
    if entry.key is not None:
        return entry.key
    missing = [name for name in ("video_id", "clip_id") if entry.value.get(name) is None]
    if missing:
        there = ", ".join([*entry.value][:8]) or "nothing"
        raise ValueError(f"{place}: {missing[0]}: missing, and the clip is under no key; there is {there}")
    return f"{entry.value['video_id']}_{entry.value['clip_id']}"


def _placed(entry: Entry, where: str) -> GroundedCaption:
    """
    The grounded caption of an annotation of the original's. Where it is no record, as its phrases are not those of its caption,
    the caption is without tracks: it names the frames all the same.
    """
    try:
        return from_record(read_released(entry))
    except ValueError:
        nothing: list[list[Any]] = [[] for _ in entry.value["bboxes"]]
        bare = {"bboxes": nothing, "labels": nothing, "phrases": [], "tagged_caption": None}
    try:
        return from_record(read_released(entry._replace(value=entry.value | bare)))
    except ValueError as error:
        raise ValueError(f"{where}: {_problem(error)}; these say which frames are annotated") from error


def _problem(error: Exception) -> str:
    """The field and the message of an error, in one line."""
    field = getattr(error, "field", None)
    return " ".join(f"{field}: {error}".split() if field else str(error).split())


def _value(value: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    found = [name for name in names if value.get(name) is not None]
    if not found:
        there = ", ".join([*value][:8]) or "nothing"
        raise ValueError(f"{where}: {names[0]}: missing; there is {there}")
    return value[found[0]]


def _text(value: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    text = _value(value, names, where)
    if not isinstance(text, str):
        raise ValueError(f"{where}: {names[0]}: expected a string, got {text!r:.60}")
    return text


def _size(value: Mapping[str, Any], name: str, where: str) -> int:
    size = _value(value, (name,), where)
    if isinstance(size, bool) or not isinstance(size, int | float) or size != int(size) or size < 1:
        raise ValueError(f"{where}: {name}: expected a whole number of pixels, got {size!r:.60}")
    return int(size)


def _labels(value: Mapping[str, Any], names: Sequence[str], where: str) -> tuple[tuple[Any, ...], ...]:
    """Labels of every frame as they are: one that is no string is for the protocol to judge."""
    frames = _value(value, names, where)
    if not isinstance(frames, list) or any(not isinstance(frame, list | None) for frame in frames):
        raise ValueError(f"{where}: {names[0]}: expected a list of labels for every frame")
    return tuple(tuple(frame or ()) for frame in frames)


def _all_boxes(value: Mapping[str, Any], where: str) -> list[np.ndarray]:
    """Boxes `(n, 4)` float64 of every frame of an annotation."""
    boxes = _boxes(value, ("bboxes",), where)
    for n, frame in enumerate(boxes):
        if frame is None:
            raise ValueError(f"{where}: bboxes[{n}]: got null, expected the boxes of the frame, [] if there is none")
    return [frame for frame in boxes if frame is not None]


def _boxes(value: Mapping[str, Any], names: Sequence[str], where: str) -> list[np.ndarray | None]:
    """Boxes `(n, 4)` float64 of every frame, `None` for `null`."""
    frames = _value(value, names, where)
    if not isinstance(frames, list) or any(not isinstance(frame, list | None) for frame in frames):
        raise ValueError(f"{where}: {names[0]}: expected a list of boxes for every frame")
    everything = [box for frame in frames for box in frame or ()]
    try:
        boxes = np.array(everything, dtype=np.float64).reshape(len(everything), 4)
        right = not everything or bool(np.isfinite(boxes).all())
    except (TypeError, ValueError):
        right = False
    if not right:
        (n, i), box = next(_wrong_boxes(frames))
        raise ValueError(f"{where}: {names[0]}[{n}][{i}]: {_NO_BOX}, got {box!r:.80}")
    ends = np.cumsum([len(frame or ()) for frame in frames], dtype=np.int64)
    parts = np.split(boxes, ends[:-1]) if frames else []
    return [None if frame is None else part for frame, part in zip(frames, parts, strict=True)]


def _wrong_boxes(frames: Sequence[Sequence[Any] | None]) -> Iterator[tuple[tuple[int, int], Any]]:
    """Frame, place in it and value of what is no box."""
    for n, frame in enumerate(frames):
        for i, box in enumerate(frame or ()):
            try:
                right = np.array(box, dtype=np.float64).shape == (4,) and bool(np.isfinite(box).all())
            except (TypeError, ValueError):
                right = False
            if not right:
                yield (n, i), box


def _float32(boxes: np.ndarray) -> np.ndarray:
    return boxes.astype(np.float32).astype(np.float64)


__all__ = ["clip_place", "read_caption", "read_prediction", "read_reference"]
