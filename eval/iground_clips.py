"""Puts the clips of iGround together for scoring: references with predictions, checked, counted where odd, as flat arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .average_precision import MAX_DETECTIONS
from .boxes import areas
from .clip_frames import ClipFrames, FrameBoxes, PhraseSimilarities, distinct_phrases
from .clips import PredictedClip, ReferenceClip
from .text_similarity import TextSimilarity


@dataclass(frozen=True)
class PairedClips:
    """
    Every annotated clip with its prediction, an empty one where there is none.

    Attributes:
        references (`list[ReferenceClip]`), predictions (`list[PredictedClip]`): C each, of as many frames.
        kept (`np.ndarray` of shape `(C,)`, bool): whether the original keeps the clip.
        warnings (`Counter[str]`): what is odd, and how often.
    """

    references: list[ReferenceClip]
    predictions: list[PredictedClip]
    kept: np.ndarray
    warnings: Counter[str]

    @property
    def keys(self) -> list[str]:
        """Of the clips, in the order of the references."""
        return [clip.key for clip in self.references]


def pair_clips(
    references: dict[str, ReferenceClip], predictions: dict[str, PredictedClip], *, merge_instances: bool = False
) -> PairedClips:
    """
    Finds the prediction of every annotated clip. A prediction one frame too long loses its last one, boxes and labels each for
    themselves, as in the original.

    Raises:
        `ValueError`: if no predicted clip is among the references, or one has another number of frames.
    """
    if not any(key in references for key in predictions):
        raise ValueError(
            f"clip {next(iter(predictions))!r}: none of the {len(predictions)} predicted clips is among the {len(references)} "
            f"annotated ones, expected the same keys; are these predictions for another split?"
        )
    warnings: Counter[str] = Counter(unknown_clip=sum(key not in references for key in predictions))
    truth, answers, kept = [], [], []
    for key, reference in references.items():
        if len(reference.labels) != len(reference.boxes):
            frames = f"got {len(reference.labels)} frames, but bboxes has {len(reference.boxes)}"
            raise ValueError(f"clip {key!r}: labels of the annotation: {frames}; expected as many")
        prediction = predictions.get(key)
        if prediction is not None and (prediction.boxes or prediction.labels):
            answers.append(_trimmed(prediction, reference, warnings))
        else:
            warnings["clip_not_predicted" if prediction is None else "clip_with_empty_lists"] += 1
            boxes = tuple(np.zeros((0, 4)) for _ in reference.boxes)
            caption = "" if prediction is None else prediction.caption
            answers.append(PredictedClip(key, caption, boxes, ((),) * len(boxes)))
        kept.append(prediction is not None and bool(prediction.boxes or prediction.labels))
        truth.append(_merged(reference) if merge_instances else reference)
    if not any(kept):
        raise ValueError(
            f"clip {next(key for key in references if key in predictions)!r}: bboxes of the prediction: an empty list, as in all "
            f"predicted clips; expected one for every frame"
        )
    return PairedClips(truth, answers, np.array(kept), warnings)


def gather_frames(clips: PairedClips, similarity: TextSimilarity) -> ClipFrames:
    """
    All frames as flat arrays; adds to the warnings of the clips what is odd about boxes and labels.

    Raises:
        `ValueError`: if a box is not four finite numbers, or scores are not one finite number a box.
    """
    phrases = [
        (distinct_phrases(truth.labels), distinct_phrases(answer.labels))
        for truth, answer in zip(clips.references, clips.predictions, strict=True)
    ]
    counts = np.array([len(clip.boxes) for clip in clips.references])
    clip = np.repeat(np.arange(len(counts)), counts)
    frame_labels = [[frame for each in side for frame in each.labels] for side in (clips.references, clips.predictions)]
    null = [not all(isinstance(x, str) for x in (*a, *b)) for a, b in zip(*frame_labels, strict=True)]
    asked = [boxes is not None for answer in clips.predictions for boxes in answer.boxes]
    frames = ClipFrames(
        keys=clips.keys,
        sizes=np.array([(each.width, each.height) for each in clips.references], dtype=np.float64),
        clip=clip,
        index=np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts),
        truth=_side(clips.references, frame_labels[0], [pair[0] for pair in phrases], clip),
        predicted=_side(clips.predictions, frame_labels[1], [pair[1] for pair in phrases], clip),
        num_labels=np.array([len(frame) for frame in frame_labels[0]], dtype=np.int64),
        null_label=np.array(null, dtype=bool),
        unpredicted=~np.array(asked, dtype=bool),
        similarities=PhraseSimilarities(phrases, similarity),
    )
    num_predicted_labels = np.array([len(frame) for frame in frame_labels[1]], dtype=np.int64)
    clips.warnings.update(_oddities(frames, num_predicted_labels))
    return frames


def cut_to_frame(frames: ClipFrames, side: FrameBoxes) -> FrameBoxes:
    """The boxes of one side, cut at the borders of their frames."""
    return side.with_boxes(np.clip(side.boxes, 0, np.tile(frames.sizes[frames.clip[side.frame]], 2)))


def _trimmed(prediction: PredictedClip, reference: ReferenceClip, warnings: Counter[str]) -> PredictedClip:
    wanted, scores, labels = len(reference.boxes), prediction.scores, prediction.labels
    given = {"bboxes": len(prediction.boxes), "labels": len(labels)}
    if scores is not None and len(scores) != given["bboxes"]:
        frames = f"got {len(scores)} frames, but bboxes has {given['bboxes']}"
        raise ValueError(f"clip {reference.key!r}: scores of the prediction: {frames}; expected as many")
    for name, number in given.items():
        if number not in (wanted, wanted + 1):
            raise ValueError(
                f"clip {reference.key!r}: {name} of the prediction: got {number} frames, expected the {wanted} annotated ones "
                f"(or one more, which is dropped)"
            )
    warnings["surplus_frame_dropped"] += max(given.values()) > wanted
    return replace(
        prediction,
        boxes=prediction.boxes[:wanted],
        labels=labels[:wanted],
        scores=None if scores is None else scores[:wanted],
    )


def _merged(clip: ReferenceClip) -> ReferenceClip:
    """
    The processed form: one box of a label in a frame, the union of its instances. Boxes without a label stay as they are, and
    so do those of a label that is no text: it is like no other.
    """
    frames, names = [], []
    for boxes, labels in zip(clip.boxes, clip.labels, strict=True):
        groups: dict[Any, list[int]] = {}
        for n in range(min(len(boxes), len(labels))):
            groups.setdefault(labels[n] if isinstance(labels[n], str) else n, []).append(n)
        unions = [np.concatenate([boxes[g, :2].min(axis=0), boxes[g, 2:].max(axis=0)]) for g in groups.values()]
        frames.append(np.concatenate([np.reshape(unions, (-1, 4)), boxes[len(labels) :]]))
        names.append((*(labels[g[0]] for g in groups.values()), *labels[len(boxes) :]))
    return replace(clip, boxes=tuple(frames), labels=tuple(names))


def _side(
    clips: Sequence[ReferenceClip] | Sequence[PredictedClip],
    labels: list[tuple[str, ...]],
    phrases: list[list[str]],
    clip_of: np.ndarray,
) -> FrameBoxes:
    """The boxes of one side."""
    boxes: list[np.ndarray] = []
    scores: list[np.ndarray] | None = [] if isinstance(clips[0], PredictedClip) else None
    whose = "prediction" if scores is not None else "annotation"
    for clip in clips:
        of_clip = [np.zeros((0, 4)) if frame is None else np.asarray(frame, dtype=np.float64) for frame in clip.boxes]
        given = clip.scores if isinstance(clip, PredictedClip) else None
        for n, frame in enumerate(of_clip):
            if frame.shape[1:] != (4,):
                raise ValueError(
                    f"clip {clip.key!r}: bboxes[{n}] of the {whose}: got shape {frame.shape}, expected (boxes, 4)"
                )
            if given is not None and np.shape(given[n]) != (len(frame),):
                got = f"got shape {np.shape(given[n])} for {len(frame)} boxes"
                raise ValueError(f"clip {clip.key!r}: scores[{n}] of the {whose}: {got}; expected one a box")
        boxes += of_clip
        if scores is not None:
            scores += [np.ones(len(frame)) for frame in of_clip] if given is None else [*given]
    codes = [{phrase: n for n, phrase in enumerate(of_clip)} for of_clip in phrases]
    side = FrameBoxes.of_lists(boxes, labels, [codes[clip] for clip in clip_of.tolist()], scores)
    wrong = np.flatnonzero(~(np.isfinite(side.boxes).all(axis=1) & np.isfinite(side.scores)))
    if len(wrong):
        at = int(side.frame[wrong[0]])
        of_frame, first = clips[clip_of[at]], int(np.searchsorted(clip_of, clip_of[at]))
        got = f"box {side.place[wrong[0]]} is {side.boxes[wrong[0]].tolist()} with score {side.scores[wrong[0]]:g}"
        raise ValueError(f"clip {of_frame.key!r}: bboxes[{at - first}] of the {whose}: {got}; expected finite numbers")
    return side


def _oddities(frames: ClipFrames, num_predicted_labels: np.ndarray) -> Counter[str]:
    """What the original takes without a word."""
    found: Counter[str] = Counter()
    sides = (("", frames.predicted, num_predicted_labels), ("annotated_", frames.truth, frames.num_labels))
    for whose, side, num_labels in sides:
        cut = cut_to_frame(frames, side)
        found[f"{whose}boxes_without_label"] = int((~side.labelled).sum())
        found[f"{whose}labels_without_box"] = int(np.clip(num_labels - side.counts, 0, None).sum())
        found[f"{whose}inverted_boxes"] = int((side.boxes[:, 2:] < side.boxes[:, :2]).any(axis=1).sum())
        found[f"{whose}boxes_beyond_frame"] = int((cut.boxes != side.boxes).any(axis=1).sum())
        found[f"{whose}boxes_without_area"] = int((areas(cut.boxes) == 0).sum())
    both = np.minimum(frames.num_labels, num_predicted_labels) > 0
    found["frames_with_null_label"] = int((frames.null_label & both).sum())
    found["frames_not_predicted"] = int(frames.unpredicted.sum())
    found["frames_of_more_than_100_boxes"] = int((frames.predicted.counts > MAX_DETECTIONS).sum())
    found["clips_without_annotated_boxes"] = int((frames.per_clip(frames.truth.counts) == 0).sum())
    return found


__all__ = ["PairedClips", "cut_to_frame", "gather_frames", "pair_clips"]
