"""
Stage 3 by a tracker in place of "tracking by language", a row of the paper's ablation (Table 7, "Alt-3"; there CoTracker3): the
boxes of a few frames get their labels by language, and the tracker says where these things are in the others.

| name | what it follows |
|---|---|
| `bytetrack` | boxes of all frames, by how they overlap (ByteTrack, Zhang et al., 2022) |
| `sam2:MODEL` | pictures ([`~pipeline_annotate.sam2_tracker`]) |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from modeling_grove.windows_grove import segment_midpoints

from .frame_captions import CaptionedClip
from .stage_files import Dropped

LABELLED_FRAMES = 5  # of a clip, as in the paper's appendix B


class LabelledBox(NamedTuple):
    """
    A box of a frame that is, or is not, a phrase of the clip's caption.

    Args:
        frame (`int`): number of the sampled frame.
        label (`int` or `None`): number of the phrase.
        box (`np.ndarray` of shape `(4,)`): xyxy in pixels of the source frame.
        score (`float`): in [0, 1].
    """

    frame: int
    label: int | None
    box: np.ndarray
    score: float


class LostClip(ValueError):
    """
    A clip that a tracker cannot look at.

    Args:
        dropped ([`Dropped`]): which, and why.
    """

    def __init__(self, dropped: Dropped):
        super().__init__(f"{dropped.key}: {dropped.message}")
        self.dropped = dropped


class BoxTracker(Protocol):
    """A tracker."""

    def describe(self) -> Mapping[str, Any]:
        """What stands in each record's provenance."""
        ...

    def track(self, clip: CaptionedClip, labels: Mapping[str, int | None]) -> list[LabelledBox]:
        """
        The boxes of a clip, given what each of its phrases in lower case is.

        Raises:
            [`LostClip`]: if its pictures cannot be had.
        """
        ...


def boxes_by_language(clip: CaptionedClip, labels: Mapping[str, int | None]) -> list[LabelledBox]:
    """The boxes of a clip, each with the label of its phrase."""
    return [
        LabelledBox(number, labels[phrase.text.lower()], box, float(score))
        for number, frame in enumerate(clip.frames)
        for phrase in frame.phrases
        for box, score in zip(phrase.boxes, phrase.scores, strict=True)
    ]


def labelled_frames(clip: CaptionedClip, count: int) -> set[int]:
    """Numbers of the frames whose boxes are labelled by language: in the middle of as many equal parts of the clip."""
    return {*segment_midpoints(len(clip.frames), min(count, len(clip.frames))).tolist()}


class ByteTracker:
    """
    The back end `bytetrack`: boxes that overlap from frame to frame are one thing, whose label is the most frequent one that its
    boxes have in a few frames. Boxes of nothing that is labelled there have none.

    Args:
        frames (`int`, *optional*, defaults to 5): whose boxes are labelled.
        min_iou (`float`, *optional*, defaults to 0.1): between boxes of one thing in neighbouring frames.
        lost_seconds (`float`, *optional*, defaults to 1.0): after which a thing that is not seen is given up.

    Raises:
        `ValueError`: if the package `trackers` is not installed.
    """

    def __init__(self, frames: int = LABELLED_FRAMES, min_iou: float = 0.1, lost_seconds: float = 1.0):
        try:
            import trackers  # noqa: F401
        except ImportError:
            raise ValueError("--tracker bytetrack: `trackers` is not installed; `pip install trackers`") from None
        self.frames, self.min_iou, self.lost_seconds = frames, min_iou, lost_seconds

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"tracker": "bytetrack", "labelled_frames": self.frames, "min_iou": self.min_iou,
                "lost_seconds": self.lost_seconds}  # fmt: skip

    def track(self, clip: CaptionedClip, labels: Mapping[str, int | None]) -> list[LabelledBox]:
        """The boxes of a clip, given what each of its phrases in lower case is."""
        boxes = boxes_by_language(clip, labels)
        things = self._things(clip, boxes)
        chosen, votes = labelled_frames(clip, self.frames), defaultdict[int, Counter[int | None]](Counter)
        for box, thing in zip(boxes, things, strict=True):
            if box.frame in chosen:
                votes[thing][box.label] += 1
        label = {thing: counts.most_common(1)[0][0] for thing, counts in votes.items()}
        return [box._replace(label=label.get(thing)) for box, thing in zip(boxes, things, strict=True)]

    def _things(self, clip: CaptionedClip, boxes: list[LabelledBox]) -> list[int]:
        """For each box the number of its thing."""
        import supervision
        from trackers import ByteTrackTracker

        # Scores of captioners say too little to tell boxes that found a thing from those that may only go on with one.
        rate = _frames_a_second(clip)
        # Numbers of things that have one box alone are below -1: it knows nothing of them.
        tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * self.lost_seconds), frame_rate=rate, track_activation_threshold=0.0,
            high_conf_det_threshold=0.0, minimum_consecutive_frames=1, minimum_iou_threshold=self.min_iou,
        )  # fmt: skip
        things = [-1] * len(boxes)
        first: list[tuple[int, Any]] = []
        for frame in range(len(clip.frames)):
            known = [*tracker.tracks]
            mine = [place for place, box in enumerate(boxes) if box.frame == frame]
            found = tracker.update(
                supervision.Detections(
                    np.array([boxes[place].box for place in mine], np.float32).reshape(-1, 4),
                    confidence=np.array([boxes[place].score for place in mine], np.float32),
                    data={"place": np.array(mine, int)},
                ),
                timestamp=clip.frames[frame].timestamp,
            )
            numbers = [] if found.tracker_id is None else found.tracker_id.tolist()
            places = [int(place) for place in found.data.get("place", [])]
            for place, number in zip(places, numbers, strict=True):
                things[place] = number
            # The box with which a thing begins has no number yet; it gets one with the thing's next box.
            begun = [track for track in tracker.tracks if all(track is not other for other in known)]
            first += zip([place for place in places if things[place] < 0], begun, strict=True)
        for place, track in first:
            things[place] = track.tracker_id if track.tracker_id >= 0 else -2 - place
        return things


def _frames_a_second(clip: CaptionedClip) -> float:
    first, last = clip.frames[0], clip.frames[-1]
    return (len(clip.frames) - 1) / (last.timestamp - first.timestamp) if last.timestamp > first.timestamp else clip.fps


__all__ = [
    "LABELLED_FRAMES",
    "BoxTracker",
    "ByteTracker",
    "LabelledBox",
    "LostClip",
    "boxes_by_language",
    "labelled_frames",
]
