"""
Stage 3, second half: boxes of frames that have got their labels, by language or by a tracker, become tracks of the caption's
phrases.

Boxes of one phrase in a frame are united, since GROVE has one box for a phrase and frame (the original's training asserts it). What
has no label is dropped. Beyond the paper there are four options, all off by default: a least score, the rejection of boxes that
jump away from their neighbours in time, filling of gaps, and a least number of frames.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from eval.boxes import iou
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack

from .frame_captions import CaptionedClip
from .video_captions import VideoCaption
from .visual_trackers import BoxTracker, boxes_by_language


@dataclass(frozen=True)
class TrackOptions:
    """
    What is done to tracks.

    Args:
        min_score (`float`, *optional*, defaults to 0): boxes that the captioner is less sure of are dropped.
        reject_outliers (`float`, *optional*): a box is dropped whose IoU with the box before and with the one behind is below
            this, while those two have this IoU with each other.
        fill_gaps (`int`, *optional*, defaults to 0): gaps of up to so many sampled frames are filled with boxes on the straight
            line between their ends.
        min_frames (`int`, *optional*, defaults to 1): phrases that are seen in fewer frames are seen in none.
    """

    min_score: float = 0.0
    reject_outliers: float | None = None
    fill_gaps: int = 0
    min_frames: int = 1

    def __post_init__(self) -> None:
        for name, value in (("min_score", self.min_score), ("reject_outliers", self.reject_outliers or 0.0)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
        for name, least in (("fill_gaps", 0), ("min_frames", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


AS_IN_THE_PAPER = TrackOptions()


def distinct_phrases(clip: CaptionedClip) -> tuple[str, ...]:
    """The phrases of all frames in lower case, each once, in the order in which they come up."""
    return tuple(dict.fromkeys(phrase.text.lower() for frame in clip.frames for phrase in frame.phrases))


def make_tracks(
    clip: CaptionedClip,
    caption: VideoCaption,
    labels: dict[str, int | None],
    options: TrackOptions = AS_IN_THE_PAPER,
    tracker: BoxTracker | None = None,
) -> tuple[GroundedCaption, Counter[str]]:
    """
    The grounded caption of a clip, and what was dropped on the way.

    Args:
        clip ([`CaptionedClip`]): frames with their boxes.
        caption ([`VideoCaption`]): of the clip.
        labels (`dict[str, int | None]`): for each of [`distinct_phrases`] the number of the caption's phrase that it is.
        options ([`TrackOptions`], *optional*): by default those of the paper.
        tracker ([`BoxTracker`], *optional*): says what the boxes are, given the labels; by default each is what its phrase is.

    Returns:
        The caption with a track for every phrase, also for those that are never seen, and the number of boxes by reason:
        `no_label`, `low_score`, `outlier`, `short_track`; and `filled`, which were added.
    """
    length, counts = len(clip.frames), Counter[str]()
    boxes = np.full((len(caption.spans), length, 4), np.nan, np.float32)
    scores = np.zeros((len(caption.spans), length), np.float32)
    for number, label, box, score in (
        boxes_by_language(clip, labels) if tracker is None else tracker.track(clip, labels)
    ):
        if score < options.min_score:
            counts["low_score"] += 1
        elif label is None:
            counts["no_label"] += 1
        else:
            known = boxes[label, number] if scores[label, number] else box
            boxes[label, number] = np.concatenate([np.minimum(known, box)[:2], np.maximum(known, box)[2:]])
            scores[label, number] = max(scores[label, number], score, 1e-6)
    tracks = []
    for text, span, of_phrase, of_score in zip(caption.phrases, caption.spans, boxes, scores, strict=True):
        seen = of_score > 0
        if options.reject_outliers is not None:
            outliers = _outliers(of_phrase, seen, options.reject_outliers)
            counts["outlier"] += int(outliers.sum())
            seen &= ~outliers
        if seen.sum() < options.min_frames:
            counts["short_track"] += int(seen.sum())
            seen[:] = False
        counts["filled"] += _fill(of_phrase, of_score, seen, options.fill_gaps)
        track = PhraseTrack(text, span, np.where(seen[:, None], of_phrase, np.nan), seen, np.where(seen, of_score, 0.0))
        tracks.append(track)
    grounded = GroundedCaption(
        caption=caption.caption,
        tracks=tuple(tracks),
        **clip.clip_fields(),
        frame_indices=np.array([frame.frame_index for frame in clip.frames]),
        timestamps=np.array([frame.timestamp for frame in clip.frames]),
    )
    return grounded, counts


def _outliers(boxes: np.ndarray, seen: np.ndarray, least: float) -> np.ndarray:
    """bool `(T,)`: boxes that are far from their neighbours, which are near each other."""
    places = np.flatnonzero(seen)
    found = np.zeros_like(seen)
    for before, place, behind in zip(places, places[1:], places[2:], strict=False):
        near = iou(boxes[[before, place, before]], boxes[[place, behind, behind]])
        found[place] = near[0] < least and near[1] < least and near[2] >= least
    return found


def _fill(boxes: np.ndarray, scores: np.ndarray, seen: np.ndarray, longest: int) -> int:
    """Fills gaps in place; returns the number of new boxes. Their score is the lower one of the gap's ends."""
    places, filled = np.flatnonzero(seen), 0
    for before, behind in itertools.pairwise(places):
        gap = behind - before - 1
        if not 0 < gap <= longest:
            continue
        for place in range(before + 1, behind):
            share = (place - before) / (behind - before)
            boxes[place] = (1 - share) * boxes[before] + share * boxes[behind]
            scores[place], seen[place] = min(scores[before], scores[behind]), True
        filled += int(gap)
    return filled


__all__ = ["AS_IN_THE_PAPER", "TrackOptions", "distinct_phrases", "make_tracks"]
