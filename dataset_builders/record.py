"""The record: one clip and its grounded caption as a JSON object, the unit that every tool of this folder reads and writes.

A record has the field names of the original release (`RECORD_FIELDS`), so that the original's tools read ours and ours
read theirs. Five fields of ours make it exact: `frame_indices` and `timestamps` say which source frames were annotated,
`track_phrases`, `track_ids` and `scores` which object a box belongs to and how sure it is, and `metadata` keeps what a data
set has beyond that. All of them are optional on reading.

Boxes are float32 `[x1, y1, x2, y2]` in pixels of the source frame. *Raw* records may have several boxes of a phrase in a
frame (two hands); *processed* ones have at most one, the union of the instances (see [`processed`]). A phrase that the caption
has twice ("a man hands a man a cup") counts as two: each mention has boxes of its own, as each has a [DET] token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.text_grove import locate_phrases

# The original's fields, then ours. Per-frame fields have one entry for every annotated frame.
RECORD_FIELDS = (
    "video_id",
    "clip_id",
    "video_fname",
    "fps",
    "width",
    "height",
    "clip_start_frame",
    "clip_end_frame",
    "caption",
    "tagged_caption",
    "phrases",
    "bboxes",
    "labels",
    "frame_indices",
    "timestamps",
    "track_phrases",
    "track_ids",
    "scores",
    "metadata",
)

Record = dict[str, Any]


def record_key(record: Mapping[str, Any]) -> str:
    """Name of the clip in files and shards, `{video_id}_{clip_id}`."""
    return f"{record['video_id']}_{record['clip_id']}"


def sample_key(record: Mapping[str, Any]) -> str:
    """
    Name of the record's sample in a shard: its key, after a `~` if it begins with `__`, as a few YouTube ids do: `datasets`
    takes such files for hidden ones and leaves them out.
    """
    key = record_key(record)
    return f"~{key}" if key.startswith("__") else key


def to_record(caption: GroundedCaption, metadata: Mapping[str, Any] | None = None) -> Record:
    """
    The record of a grounded caption. Boxes are kept where a phrase is present; everything else of an annotation survives
    the round trip through [`from_record`] (a model's boxes and probabilities of absent frames do not).

    Args:
        caption ([`GroundedCaption`]):
            Raw or processed.
        metadata (`Mapping`, *optional*):
            What the data set has beyond the caption, as JSON types: a question's type, an object's id.
    """
    record = caption.to_dict()
    tracks = record.pop("tracks")
    places = {span: index for index, span in enumerate(caption.spans)}
    present = [[i for i, t in enumerate(caption.tracks) if t.presence[n]] for n in range(caption.num_frames)]
    record["track_phrases"] = [places[track.span] for track in caption.tracks]
    record["track_ids"] = present
    record["scores"] = [[tracks[i]["objectness"][n] for i in ids] for n, ids in enumerate(present)]
    record["metadata"] = json.dumps(metadata or {}, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return {name: record[name] for name in RECORD_FIELDS}


def from_record(record: Mapping[str, Any]) -> GroundedCaption:
    """
    The grounded caption of a record, ours or the original's.

    Raises:
        `ValueError`: in one line that names the field, as [`GroundedCaption.from_dict`] does, if the track fields do not fit
            the boxes, or for values of other types than a record has.
    """
    try:
        if record.get("track_ids") is None or record.get("track_phrases") is None:
            return GroundedCaption.from_dict({**record, "tracks": None})
        tracks = _tracks(record)
        nothing: list[list[Any]] = [[]] * len(record["bboxes"])
        clip = GroundedCaption.from_dict(
            {**record, "bboxes": nothing, "labels": nothing, "phrases": [], "tracks": None}
        )
        return replace(clip, tracks=tracks)
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"not a record ({type(error).__name__}: {text}); `validate` names what is wrong") from error


def processed(record: Mapping[str, Any]) -> Record:
    """The processed form of a record: at most one box a frame of each mention of a phrase, the union of its instances."""
    return to_record(from_record(record).merged(), record_metadata(record))


def record_metadata(record: Mapping[str, Any]) -> dict[str, Any]:
    """
    What the data set has beyond the caption.

    Raises:
        `ValueError`: if `metadata` is not a JSON object.
    """
    text = record.get("metadata") or "{}"
    try:
        metadata = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"metadata: not JSON ({error})") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata: expected a JSON object, got {type(metadata).__name__}")
    return metadata


def _tracks(record: Mapping[str, Any]) -> tuple[PhraseTrack, ...]:
    """The tracks, from the boxes of every frame."""
    phrases, bboxes, labels = ([*(record.get(name) or [])] for name in ("phrases", "bboxes", "labels"))
    track_phrases, track_ids = [*record["track_phrases"]], [*record["track_ids"]]
    scores: Sequence[Sequence[float]] = record.get("scores") or [[1.0] * len(ids) for ids in track_ids]
    caption = record.get("caption")
    if not isinstance(caption, str):
        raise ValueError(f"caption: expected a string, got {caption!r:.60}")
    spans = locate_phrases(caption, record.get("tagged_caption") or "", phrases)
    wrong = [index for index in track_phrases if not 0 <= index < len(phrases)]
    if wrong:
        raise ValueError(f"track_phrases: {wrong[0]} is no index into the {len(phrases)} phrases")
    if lost := [phrase for index, phrase in enumerate(phrases) if index not in track_phrases]:
        raise ValueError(f"track_phrases: no track of {lost[0]!r}; a phrase that is never visible has one too")
    shape = (len(track_phrases), len(bboxes))
    boxes = np.full((*shape, 4), np.nan, dtype=np.float32)
    objectness = np.zeros(shape, dtype=np.float32)
    presence = np.zeros(shape, dtype=bool)
    for name, frames in (("labels", labels), ("track_ids", track_ids), ("scores", scores)):
        if len(frames) != len(bboxes):
            raise ValueError(f"{name}: {len(frames)} frames, but bboxes has {len(bboxes)}")
    for n, (frame_boxes, frame_labels, ids, values) in enumerate(zip(bboxes, labels, track_ids, scores, strict=True)):
        if not len(frame_boxes) == len(frame_labels) == len(ids) == len(values):
            sizes = f"{len(frame_boxes)} boxes, {len(frame_labels)} labels, {len(ids)} tracks, {len(values)} scores"
            raise ValueError(f"track_ids[{n}]: expected one entry a box, got {sizes}")
        for i, (box, label, track, value) in enumerate(zip(frame_boxes, frame_labels, ids, values, strict=True)):
            if not 0 <= track < len(track_phrases) or presence[track, n]:
                problem = "appears twice" if 0 <= track < len(track_phrases) else f"is none of {len(track_phrases)}"
                raise ValueError(f"track_ids[{n}]: track {track} {problem}")
            if phrases[track_phrases[track]].casefold() != label.casefold():
                of = phrases[track_phrases[track]]
                raise ValueError(f"track_ids[{n}]: a box of {label!r} is in track {track}, which is of {of!r}")
            try:
                x1, y1, x2, y2 = box  # NumPy would take one number for all four
                boxes[track, n] = x1, y1, x2, y2
            except (TypeError, ValueError):
                raise ValueError(f"bboxes[{n}][{i}]: expected [x1, y1, x2, y2], got {box!r:.80}") from None
            objectness[track, n], presence[track, n] = value, True
    return tuple(
        PhraseTrack(phrases[index], spans[index], boxes[i], presence[i], objectness[i])
        for i, index in enumerate(track_phrases)
    )


__all__ = [
    "RECORD_FIELDS",
    "Record",
    "from_record",
    "processed",
    "record_key",
    "record_metadata",
    "sample_key",
    "to_record",
]
