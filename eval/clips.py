"""A clip as the iGround metrics see it: boxes and labels of every frame, annotated and predicted, in the order they were given in.

The original's files are lists of boxes and labels for every frame, and their order decides its AP50; they may also disagree in
length. Both are kept here, which [`GroundedCaption`] does not do, so that the official protocol can be exact on any file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from dataset_builders.record import Record, from_record
from modeling_grove.grounded_caption import GroundedCaption


@dataclass(frozen=True)
class ReferenceClip:
    """
    An annotated clip.

    Attributes:
        key (`str`): `{video_id}_{clip_id}`.
        width (`int`), height (`int`): of the source frame, in pixels.
        caption (`str`): as annotated.
        boxes (`tuple[np.ndarray, ...]`): for every frame `(n, 4)`, float64 xyxy in pixels of the source frame.
        labels (`tuple[tuple[str, ...], ...]`): for every frame the phrases of the boxes, as given: there may be more or fewer.
        source ([`GroundedCaption`] or `None`): the annotation that this was made of, where it was one.
    """

    key: str
    width: int
    height: int
    caption: str
    boxes: tuple[np.ndarray, ...]
    labels: tuple[tuple[str, ...], ...]
    source: GroundedCaption | None = None

    @property
    def num_frames(self) -> int:
        """T, the number of annotated frames."""
        return len(self.boxes)

    @classmethod
    def from_caption(cls, caption: GroundedCaption) -> ReferenceClip:
        """The boxes of every frame where a phrase is present, in the order of the tracks."""
        boxes, labels, _ = _frames(caption)
        return cls(caption.key, caption.width, caption.height, caption.caption, boxes, labels, caption)


@dataclass(frozen=True)
class PredictedClip:
    """
    What a model says of a clip.

    Attributes:
        key (`str`): `{video_id}_{clip_id}`.
        caption (`str`): plain text.
        boxes (`tuple[np.ndarray | None, ...]`):
            For every frame `(n, 4)`, float64 xyxy in pixels of the source frame, already thresholded by objectness. `None`
            where the model was not asked: a captioner of single frames has only the centre frame.
        labels (`tuple[tuple[str, ...], ...]`): for every frame the phrases of the boxes, as given: there may be more or fewer.
        scores (`tuple[np.ndarray, ...]` or `None`): for every frame `(n,)` float64, probabilities of the boxes, where known.
        source ([`GroundedCaption`] or `None`): the prediction that this was made of, where it was one.
    """

    key: str
    caption: str
    boxes: tuple[np.ndarray | None, ...]
    labels: tuple[tuple[str, ...], ...]
    scores: tuple[np.ndarray, ...] | None = None
    source: GroundedCaption | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames, those that the model was not asked about too."""
        return len(self.boxes)

    @classmethod
    def from_caption(cls, caption: GroundedCaption) -> PredictedClip:
        """The boxes of every frame where a phrase is present, in the order of the tracks, with their objectness."""
        boxes, labels, scores = _frames(caption)
        return cls(caption.key, caption.caption, boxes, labels, scores, caption)


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


Item = TypeVar("Item", bound=_Keyed)


def reference_clips(clips: Iterable[GroundedCaption | ReferenceClip]) -> dict[str, ReferenceClip]:
    """
    Annotated clips by key, in their order.

    Raises:
        `ValueError`: if there is none, or two have the same key.
    """
    return by_key(
        "reference clip", (c if isinstance(c, ReferenceClip) else ReferenceClip.from_caption(c) for c in clips)
    )


def predicted_clips(
    clips: Iterable[GroundedCaption | PredictedClip], references: dict[str, ReferenceClip]
) -> dict[str, PredictedClip]:
    """
    Predicted clips by key, in their order, those of unknown clips too. A [`GroundedCaption`] is put on the frames of its
    annotation by source frame; frames that it lacks are `None`, frames that the annotation lacks are dropped.

    Raises:
        `ValueError`: if there is none, two have the same key, or a prediction shares no frame with its annotation.
    """
    made = (c if isinstance(c, PredictedClip) else _on_frames(c, references.get(c.key)) for c in clips)
    return by_key("predicted clip", made)


def by_key(kind: str, items: Iterable[Item]) -> dict[str, Item]:
    """
    Clips, sentences or segments by key, in their order; `kind` says in errors what they are.

    Raises:
        `ValueError`: if there is none, or two have the same key.
    """
    found: dict[str, Item] = {}
    for item in items:
        if item.key in found:
            raise ValueError(f"clip {item.key!r}: there are two {kind}s of this key; keep one of them")
        found[item.key] = item
    if not found:
        raise ValueError(f"no {kind}s; expected at least one")
    return found


def caption_of(record: Record) -> GroundedCaption:
    """
    The grounded caption of a record.

    Raises:
        `ValueError`: naming clip and field, as [`~dataset_builders.record.from_record`] names the field.
    """
    try:
        return from_record(record)
    except ValueError as error:
        key = f"{record.get('video_id')}_{record.get('clip_id')}"
        raise ValueError(f"clip {key!r}: {error}") from error


def places_of_frames(key: str, predicted: np.ndarray, annotated: np.ndarray) -> list[int | None]:
    """
    Where a prediction has the annotated frames.

    Args:
        key (`str`): of the clip.
        predicted (`np.ndarray` of shape `(P,)`), annotated (`np.ndarray` of shape `(A,)`): numbers of source frames.

    Returns:
        `list`: for every annotated frame its place among the predicted ones, `None` where it is not there.

    Raises:
        `ValueError`: if none is there.
    """
    places = {frame: n for n, frame in enumerate(predicted.tolist())}
    at = [places.get(frame) for frame in annotated.tolist()]
    if all(n is None for n in at):
        frames, expected = (f"{each[0]}..{each[-1]}" if len(each) else "none" for each in (predicted, annotated))
        raise ValueError(
            f"clip {key!r}: frame_indices: none of the predicted frames {frames} is annotated, expected those of {expected}; "
            "predict the annotation's frames"
        )
    return at


def _on_frames(caption: GroundedCaption, reference: ReferenceClip | None) -> PredictedClip:
    clip = PredictedClip.from_caption(caption)
    annotated = None if reference is None else reference.source
    if annotated is None or np.array_equal(annotated.frame_indices, caption.frame_indices):
        return clip
    at = places_of_frames(clip.key, caption.frame_indices, annotated.frame_indices)
    scores = clip.scores
    return replace(
        clip,
        boxes=tuple(None if n is None else clip.boxes[n] for n in at),
        labels=tuple(() if n is None else clip.labels[n] for n in at),
        scores=None if scores is None else tuple(np.zeros(0) if n is None else scores[n] for n in at),
    )


def _frames(
    caption: GroundedCaption,
) -> tuple[tuple[np.ndarray, ...], tuple[tuple[str, ...], ...], tuple[np.ndarray, ...]]:
    """Boxes, phrases and objectness of what is present in every frame."""
    tracks = caption.tracks
    if not tracks:
        nothing = range(caption.num_frames)
        return tuple(np.zeros((0, 4)) for _ in nothing), ((),) * caption.num_frames, tuple(np.zeros(0) for _ in nothing)
    presence = np.stack([track.presence for track in tracks])
    boxes = np.stack([track.boxes for track in tracks]).astype(np.float64)
    objectness = np.stack([track.objectness for track in tracks]).astype(np.float64)
    present: Sequence[np.ndarray] = [np.flatnonzero(presence[:, n]) for n in range(caption.num_frames)]
    return (
        tuple(boxes[there, n] for n, there in enumerate(present)),
        tuple(tuple(tracks[i].phrase for i in there) for there in present),
        tuple(objectness[there, n] for n, there in enumerate(present)),
    )


__all__ = [
    "PredictedClip",
    "ReferenceClip",
    "by_key",
    "caption_of",
    "places_of_frames",
    "predicted_clips",
    "reference_clips",
]
