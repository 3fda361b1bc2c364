"""All frames of all clips as flat arrays: what the two protocols of iGround compute on.

A benchmark of 1,000 clips has 40,000 frames of a few boxes each. The boxes of one side, annotated or predicted, are one array
ordered by frame; arithmetic runs over all of them at once, and nothing is padded, so that one crowded frame costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .text_similarity import TextSimilarity


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`concatenate([arange(s, s + c) for s, c in zip(starts, counts)])`."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


@dataclass(frozen=True)
class FrameBoxes:
    """
    The boxes of one side, N in F frames, ordered by frame and by place in the frame.

    Attributes:
        boxes (`np.ndarray` of shape `(N, 4)`, float64): xyxy in pixels.
        counts (`np.ndarray` of shape `(F,)`): boxes of every frame.
        place (`np.ndarray` of shape `(N,)`): place of the box in the frame's list.
        phrase (`np.ndarray` of shape `(N,)`): index into the clip's distinct phrases; -1 without a label, or one that is no text.
        labelled (`np.ndarray` of shape `(N,)`, bool): whether the frame's list of labels is long enough to have one for it.
        scores (`np.ndarray` of shape `(N,)`): probabilities; 1 where none are known.
    """

    boxes: np.ndarray
    counts: np.ndarray
    place: np.ndarray
    phrase: np.ndarray
    labelled: np.ndarray
    scores: np.ndarray

    @property
    def frame(self) -> np.ndarray:
        """The frame of every box, `(N,)`."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def starts(self) -> np.ndarray:
        """Index of the first box of every frame, `(F,)`."""
        return np.cumsum(self.counts) - self.counts

    def of_frames(self, frames: np.ndarray) -> FrameBoxes:
        """The boxes of these frames, in this order."""
        counts = self.counts[frames]
        return replace(self._at(spread(self.starts[frames], counts)), counts=counts)

    def where(self, kept: np.ndarray) -> FrameBoxes:
        """The boxes that a mask `(N,)` keeps, in as many frames."""
        counts = np.bincount(self.frame[kept], minlength=len(self.counts))
        return replace(self._at(np.flatnonzero(kept)), counts=counts)

    def with_boxes(self, boxes: np.ndarray) -> FrameBoxes:
        """The same boxes elsewhere: cut, or rounded."""
        return replace(self, boxes=boxes)

    def _at(self, index: np.ndarray) -> FrameBoxes:
        names = ("boxes", "place", "phrase", "labelled", "scores")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    @classmethod
    def of_lists(
        cls,
        boxes: Sequence[np.ndarray],
        labels: Sequence[Sequence[Any]],
        index_of: Sequence[dict[str, int]],
        scores: Sequence[np.ndarray] | None = None,
    ) -> FrameBoxes:
        """
        From the lists of every frame, with the phrase indices of its clip. Surplus boxes have no phrase; surplus labels count
        nowhere here.
        """
        counts = np.array([len(frame) for frame in boxes], dtype=np.int64)
        named = np.array([len(frame) for frame in labels], dtype=np.int64)
        codes = [
            [index.get(label, -1) if isinstance(label, str) else -1 for label in frame[:count]]
            + [-1] * (count - len(frame))
            for frame, count, index in zip(labels, counts.tolist(), index_of, strict=True)
        ]
        place = spread(np.zeros_like(counts), counts)
        return cls(
            boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
            counts=counts,
            place=place,
            phrase=np.fromiter(chain.from_iterable(codes), dtype=np.int64, count=len(place)),
            labelled=place < np.repeat(named, counts),
            scores=np.ones(len(place)) if scores is None else np.concatenate([np.zeros(0), *scores]),
        )


@dataclass(frozen=True)
class ClipFrames:
    """
    F frames of C clips, in the order of the clips.

    Attributes:
        keys (`list[str]`): of the clips.
        sizes (`np.ndarray` of shape `(C, 2)`): width and height of the source frames, in pixels.
        clip (`np.ndarray` of shape `(F,)`): the clip of every frame.
        index (`np.ndarray` of shape `(F,)`): its place in the clip.
        truth ([`FrameBoxes`]), predicted ([`FrameBoxes`]): the boxes.
        num_labels (`np.ndarray` of shape `(F,)`): annotated labels, which may be more or fewer than boxes.
        null_label (`np.ndarray` of shape `(F,)`, bool): whether a label, annotated or predicted, is no text.
        unpredicted (`np.ndarray` of shape `(F,)`, bool): whether the model was not asked about the frame.
        similarities ([`PhraseSimilarities`]): of the phrases of every clip.
    """

    keys: list[str]
    sizes: np.ndarray
    clip: np.ndarray
    index: np.ndarray
    truth: FrameBoxes
    predicted: FrameBoxes
    num_labels: np.ndarray
    null_label: np.ndarray
    unpredicted: np.ndarray
    similarities: PhraseSimilarities

    def of_frames(self, frames: np.ndarray) -> ClipFrames:
        """These frames, in this order; all clips stay, some of them perhaps without a frame."""
        names = ("clip", "index", "num_labels", "null_label", "unpredicted")
        arrays = {name: getattr(self, name)[frames] for name in names}
        return replace(self, truth=self.truth.of_frames(frames), predicted=self.predicted.of_frames(frames), **arrays)

    def per_clip(self, values: np.ndarray) -> np.ndarray:
        """Sums of a value of every frame `(F,)`, by clip `(C,)`."""
        return np.bincount(self.clip, weights=values, minlength=len(self.keys))


class PhraseSimilarities:
    """
    Similarity of every annotated to every predicted phrase of a clip, asked for once for every distinct phrase.

    Args:
        phrases (`Sequence[tuple[Sequence[str], Sequence[str]]]`): for every clip its distinct annotated and predicted phrases.
        similarity ([`TextSimilarity`]): of two lists of phrases.
    """

    def __init__(self, phrases: Sequence[tuple[Sequence[str], Sequence[str]]], similarity: TextSimilarity) -> None:
        similarity.prepare(dict.fromkeys(chain.from_iterable(chain.from_iterable(phrases))))
        tables = [similarity(*pair).reshape(-1) if all(pair) else np.zeros(0) for pair in phrases]
        sizes = np.array([len(table) for table in tables], dtype=np.int64)
        self._values = np.concatenate([*tables, [-np.inf]])
        self._starts = np.cumsum(sizes) - sizes
        self._widths = np.array([len(pair[1]) for pair in phrases], dtype=np.int64)

    def __call__(self, clip: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Of phrases by their index in the clip, `(P,)` each; minus infinity where one of them is -1."""
        at = self._starts[clip] + truth * self._widths[clip] + predicted
        return self._values[np.where((truth < 0) | (predicted < 0), -1, at)]


@dataclass(frozen=True)
class GroundingScores:
    """
    What a protocol gives for a set of frames.

    Attributes:
        per_clip (`dict[str, np.ndarray]`): by name, a value for every clip `(C,)`; NaN where the protocol leaves the clip out.
        flattening (`dict[str, Any]`): the same metrics over the frames of all clips as if they were of one.
        frame_miou (`tuple[np.ndarray, np.ndarray]`): places of the frames that count for mIoU, and their values.
        matched (`np.ndarray` of shape `(M, 3)`):
            Frame, place of the annotated and of the predicted box of every match that recall counts, by frame, in the order of
            matching.
    """

    per_clip: dict[str, np.ndarray]
    flattening: dict[str, Any]
    frame_miou: tuple[np.ndarray, np.ndarray]
    matched: np.ndarray


def distinct_phrases(labels: Iterable[Sequence[Any]]) -> list[str]:
    """The distinct labels of a clip that are text, in the order of their first use."""
    return [*dict.fromkeys(label for label in chain.from_iterable(labels) if isinstance(label, str))]


__all__ = ["ClipFrames", "FrameBoxes", "GroundingScores", "PhraseSimilarities", "distinct_phrases", "spread"]
