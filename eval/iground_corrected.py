"""
iGround as the paper's text has it: true overlaps, one-to-one matching, and an order of the input that decides nothing. How it
differs from the original, and why, is in `iground`.
"""

from __future__ import annotations

import numpy as np

from .average_precision import THRESHOLDS, average_precisions, score_matches
from .boxes import areas, iou
from .clip_frames import ClipFrames, FrameBoxes, GroundingScores
from .frame_matching import Pairs, best_assignment, maximum_matching, overlapping_pairs
from .iground_clips import cut_to_frame
from .iground_official import IOU_THRESHOLD, TEXT_THRESHOLD


def corrected_scores(frames: ClipFrames, *, all_thresholds: bool = False) -> GroundingScores:
    """
    AP50, Recall and mIoU of all clips; NaN where a clip has nothing to be right or wrong about.

    Args:
        frames ([`ClipFrames`]): of all annotated clips. Those that were not predicted have no predicted boxes.
        all_thresholds (`bool`, defaults to `False`): whether AP, the mean over IoU thresholds 0.5 to 0.95, is computed too.
    """
    truth, predicted = (cut_to_frame(frames, side) for side in (frames.truth, frames.predicted))
    truth, predicted = _without_flat(truth, predicted)
    pairs = overlapping_pairs(truth, predicted, iou)
    num_clips = len(frames.keys)

    counted = np.flatnonzero(np.maximum(truth.counts, predicted.counts))
    chosen = pairs.at(best_assignment(pairs))
    sums = np.bincount(chosen.frame, weights=chosen.value, minlength=len(frames.clip))
    frame_miou = sums[counted] / np.maximum(truth.counts, predicted.counts)[counted]
    totals, numbers = (np.bincount(frames.clip[counted], w, num_clips) for w in (frame_miou, None))

    near = pairs.at(pairs.value >= IOU_THRESHOLD)
    similarity = frames.similarities(
        frames.clip[near.frame], truth.phrase[near.truth], predicted.phrase[near.predicted]
    )
    near = near.at(similarity >= TEXT_THRESHOLD)
    matched = near.at(maximum_matching(near))
    matches = np.bincount(frames.clip[matched.frame], minlength=num_clips)
    boxes = frames.per_clip(truth.counts)

    ap50, flat_ap50 = _average_precision(frames, truth, predicted, pairs, IOU_THRESHOLD)
    flattening = {
        "AP50": flat_ap50,
        "Recall": float(_ratio(matches.sum(), boxes.sum())),
        "mIoU": float(frame_miou.mean()) if len(frame_miou) else float("nan"),
    }
    per_clip = {
        "AP50": ap50,
        "Recall": _ratio(matches, boxes),
        "mIoU": _ratio(totals, numbers),
        "matches": matches,
        "truth_boxes": boxes.astype(np.int64),
    }
    if all_thresholds:
        flat = [_average_precision(frames, truth, predicted, pairs, threshold)[1] for threshold in THRESHOLDS]
        flattening["AP"] = float(np.mean(flat))
    places = np.stack([matched.frame, truth.place[matched.truth], predicted.place[matched.predicted]], axis=1)
    return GroundingScores(per_clip, flattening, (counted, frame_miou), places)


def _without_flat(truth: FrameBoxes, predicted: FrameBoxes) -> tuple[FrameBoxes, FrameBoxes]:
    """
    Leaves annotated boxes without area out, and in every frame as many predicted ones, the least sure first: what answers a box
    that cannot be found is not wrong.
    """
    known = areas(truth.boxes) > 0
    lost = np.bincount(truth.frame[~known], minlength=len(truth.counts))
    flat = np.flatnonzero(~(areas(predicted.boxes) > 0))
    frame = predicted.frame[flat]
    order = np.lexsort((predicted.scores[flat], frame))
    flat, frame = flat[order], frame[order]
    kept = np.ones(len(predicted.boxes), dtype=bool)
    kept[flat[np.arange(len(flat)) - np.searchsorted(frame, frame) < lost[frame]]] = False
    return truth.where(known), predicted.where(kept)


def _average_precision(
    frames: ClipFrames, truth: FrameBoxes, predicted: FrameBoxes, pairs: Pairs, threshold: float
) -> tuple[np.ndarray, float]:
    """AP of every clip, and over all frames as if they were of one."""
    scores, num_clips = predicted.scores, len(frames.keys)
    matches = score_matches(pairs, truth.boxes, predicted.boxes, scores, threshold)
    clips = frames.clip[truth.frame], frames.clip[predicted.frame]
    everything = np.zeros_like(clips[0]), np.zeros_like(clips[1])
    by_clip, by_score = np.lexsort((-scores, clips[1])), np.argsort(-scores, kind="stable")
    ap = average_precisions(matches, *clips, num_clips, by_clip, scores)[0]
    flat = average_precisions(matches, *everything, 1, by_score, scores)[0][0]
    return np.where(ap >= 0, ap, _of_nothing(clips[1], num_clips)), float(
        flat if flat >= 0 else _of_nothing(everything[1], 1)[0]
    )


def _of_nothing(predicted_group: np.ndarray, num_groups: int) -> np.ndarray:
    """AP where nothing is annotated: 0 if something was predicted there, else undefined."""
    return np.where(np.bincount(predicted_group, minlength=num_groups) > 0, 0.0, np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


__all__ = ["corrected_scores"]
