"""
What stage 1 says of a clip, and the stages after it read: a caption for every sampled frame, whose phrases have boxes.

On disk a clip is a JSON object, one a line. Its own fields have the names that records have (see
[`~dataset_builders.record`]); `frames` holds an object for every sampled frame:

| field | meaning |
|---|---|
| `frame_index`, `timestamp` | source frame, and seconds from the start of the video |
| `caption`, `tagged_caption`, `phrases` | as in a record, of this frame alone |
| `spans` | for every phrase its first character in the caption, and the one behind its last |
| `bboxes` | `[x1, y1, x2, y2]`, pixels of the source frame, one entry a box |
| `labels`, `box_phrases` | for every box its phrase: as text, and as an index into `phrases` |
| `scores` | for every box how sure the captioner is, in [0, 1] |
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataset_builders.record import record_key
from modeling_grove.text_grove import locate_phrases, tag_spans

CLIP_FIELDS = ("video_id", "clip_id", "video_fname", "fps", "width", "height", "clip_start_frame", "clip_end_frame")


@dataclass(frozen=True, eq=False)
class FramePhrase:
    """
    A noun phrase of a frame's caption.

    Args:
        text (`str`): `caption[span[0]:span[1]]`.
        span (`tuple[int, int]`): characters of the caption, end excluded.
        boxes (`np.ndarray` of shape `(N, 4)`, float32): xyxy in pixels of the source frame; a phrase may have none.
        scores (`np.ndarray` of shape `(N,)`, float32): in [0, 1].
    """

    text: str
    span: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        scores = np.asarray(self.scores, np.float32).reshape(-1)
        of = f"of phrase {self.text!r}"
        if not np.isfinite(boxes).all() or not (boxes[:, :2] <= boxes[:, 2:]).all():
            raise ValueError(
                f"bboxes {of}: expected finite [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2, got {boxes.tolist()}"
            )
        if len(scores) != len(boxes) or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"scores {of}: expected {len(boxes)} numbers in [0, 1], got {scores.tolist()}")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", scores)


@dataclass(frozen=True, eq=False)
class FrameCaption:
    """
    The grounded caption of one frame.

    Args:
        frame_index (`int`): of the source video.
        timestamp (`float`): seconds from its start.
        caption (`str`): plain text; empty where a captioner had nothing to say.
        phrases (`tuple[FramePhrase, ...]`): in caption order, without overlap.
    """

    frame_index: int
    timestamp: float
    caption: str
    phrases: tuple[FramePhrase, ...]

    def __post_init__(self) -> None:
        end = 0
        for phrase in self.phrases:
            if phrase.span[0] < end or self.caption[slice(*phrase.span)] != phrase.text:
                raise ValueError(
                    f"frame {self.frame_index}: {phrase.text!r} is not at {phrase.span} of {self.caption!r}"
                )
            end = phrase.span[1]

    @property
    def tagged_caption(self) -> str:
        """The caption with `<p>` and `</p>` around every phrase."""
        return tag_spans(self.caption, [phrase.span for phrase in self.phrases])

    def to_dict(self) -> dict[str, Any]:
        """JSON types, as the module says."""
        boxes = [(number, *pair) for number, phrase in enumerate(self.phrases)
                 for pair in zip(phrase.boxes, phrase.scores, strict=True)]  # fmt: skip
        return {
            "frame_index": self.frame_index,
            "timestamp": self.timestamp,
            "caption": self.caption,
            "tagged_caption": self.tagged_caption,
            "phrases": [phrase.text for phrase in self.phrases],
            "spans": [list(phrase.span) for phrase in self.phrases],
            "bboxes": [[round(float(value), 2) for value in box] for _, box, _ in boxes],
            "labels": [self.phrases[number].text for number, _, _ in boxes],
            "box_phrases": [number for number, _, _ in boxes],
            "scores": [round(float(score), 4) for _, _, score in boxes],
        }

    @classmethod
    def from_dict(cls, frame: Mapping[str, Any]) -> FrameCaption:
        """
        Reads what `to_dict` wrote. Without `spans` the tags say where phrases are, without `box_phrases` a box is of the first
        phrase of its label, without `scores` it is sure.
        """
        caption, texts = frame["caption"], frame["phrases"]
        spans = frame.get("spans")
        if spans is None:
            spans = locate_phrases(caption, frame["tagged_caption"], texts)
        owners = frame.get("box_phrases")
        if owners is None:
            owners = [texts.index(label) for label in frame["labels"]]
        scores = frame.get("scores") or [1.0] * len(owners)
        if not len(owners) == len(scores) == len(frame["bboxes"]):
            raise ValueError(
                f"frame {frame['frame_index']}: {len(frame['bboxes'])} bboxes, {len(owners)} box_phrases, {len(scores)} scores"
            )
        if wrong := [owner for owner in owners if not 0 <= owner < len(texts)]:
            raise ValueError(
                f"frame {frame['frame_index']}: box_phrases: {wrong[0]} is no index into {len(texts)} phrases"
            )
        phrases = []
        for number, (text, span) in enumerate(zip(texts, spans, strict=True)):
            mine = [place for place, owner in enumerate(owners) if owner == number]
            boxes = np.array([frame["bboxes"][place] for place in mine], np.float32)
            phrases.append(FramePhrase(text, (span[0], span[1]), boxes, np.array([scores[place] for place in mine])))
        return cls(int(frame["frame_index"]), float(frame["timestamp"]), caption, tuple(phrases))


@dataclass(frozen=True, eq=False)
class CaptionedClip:
    """
    A clip and what was said of its frames.

    Args:
        video_id (`str`), clip_id (`int`), video_fname (`str`): as in a record.
        fps (`float`), width (`int`), height (`int`): of the source video.
        clip_start_frame (`int`), clip_end_frame (`int`): source frames, both of them in the clip.
        frames (`tuple[FrameCaption, ...]`): the sampled ones, in order.
        provenance (`Mapping`, *optional*): how it was made; JSON types.
    """

    video_id: str
    clip_id: int
    video_fname: str
    fps: float
    width: int
    height: int
    clip_start_frame: int
    clip_end_frame: int
    frames: tuple[FrameCaption, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        indices = [frame.frame_index for frame in self.frames]
        if not indices or any(second <= first for first, second in itertools.pairwise(indices)):
            raise ValueError(f"frames: expected frames of increasing frame_index, got {indices[:5]}")
        if indices[0] < self.clip_start_frame or indices[-1] > self.clip_end_frame:
            whole = f"{self.clip_start_frame}..{self.clip_end_frame}"
            raise ValueError(f"frames: {indices[0]}..{indices[-1]} are not in the clip's frames {whole}")

    @property
    def key(self) -> str:
        """`{video_id}_{clip_id}`."""
        return record_key(vars(self))

    def clip_fields(self) -> dict[str, Any]:
        """What is of the clip itself."""
        return {name: getattr(self, name) for name in CLIP_FIELDS}

    def to_dict(self) -> dict[str, Any]:
        """JSON types, as the module says."""
        frames = [frame.to_dict() for frame in self.frames]
        return {**self.clip_fields(), "frames": frames, "provenance": dict(self.provenance)}

    @classmethod
    def from_dict(cls, clip: Mapping[str, Any]) -> CaptionedClip:
        """
        Reads what `to_dict` wrote.

        Raises:
            `ValueError`: in one line that names the field, if it is no such object.
        """
        if missing := [name for name in (*CLIP_FIELDS, "frames") if clip.get(name) is None]:
            raise ValueError(f"{', '.join(missing)}: missing from the clip's frame captions")
        if not isinstance(clip.get("provenance") or {}, dict):
            raise ValueError(f"provenance: expected an object, got {clip['provenance']!r:.60}")
        try:
            frames = tuple(FrameCaption.from_dict(frame) for frame in clip["frames"])
            return cls(
                **{name: clip[name] for name in CLIP_FIELDS}, frames=frames, provenance=clip.get("provenance") or {}
            )
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"not frame captions ({type(error).__name__}: {error})") from error


__all__ = ["CLIP_FIELDS", "CaptionedClip", "FrameCaption", "FramePhrase"]
