"""
iGround as the original scores it, to the last digit. What it does, and why the corrected protocol does otherwise, is in
`iground`.
"""

from __future__ import annotations

import numpy as np

from .average_precision import average_precisions, coco_matches, coco_statistics, signed_areas
from .boxes import iou
from .clip_frames import ClipFrames, FrameBoxes, GroundingScores
from .frame_matching import greedy_matching, overlapping_pairs
from .iground_clips import cut_to_frame

IOU_THRESHOLD = 0.5
TEXT_THRESHOLD = 0.5


def official_scores(frames: ClipFrames, *, coco_stats: bool = False) -> GroundingScores:
    """
    AP50, Recall and mIoU of the clips that have frames here; the other clips have values without meaning.

    Args:
        frames ([`ClipFrames`]): of the clips that the original does not drop.
        coco_stats (`bool`, defaults to `False`): whether COCO's twelve statistics are computed too.
    """
    truth = frames.truth.where(frames.truth.labelled)
    truth = truth.with_boxes(np.trunc(truth.boxes))
    predicted = cut_to_frame(frames, frames.predicted.where(frames.predicted.labelled))
    predicted = predicted.with_boxes(np.trunc(predicted.boxes))

    (counted, frame_miou), matched = overlaps_and_matches(frames, truth, predicted)
    per_clip, flattening = coco_average_precision(frames, truth, predicted, coco_stats)
    sums, numbers = (np.bincount(frames.clip[counted], w, len(frames.keys)) for w in (frame_miou, None))
    matches = np.bincount(frames.clip[matched[:, 0]], minlength=len(frames.keys))
    labels = frames.per_clip(frames.num_labels)
    per_clip |= {
        "Recall": matches / np.maximum(labels, 1),
        "mIoU": sums / np.maximum(numbers, 1),
        "matches": matches,
        "labels": labels.astype(np.int64),
    }
    flattening |= {
        "Recall": float(matches.sum() / max(labels.sum(), 1)),
        "mIoU": float(frame_miou.mean()) if len(frame_miou) else 0.0,
    }
    return GroundingScores(per_clip, flattening, (counted, frame_miou), matched)


def pseudo_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    What the original takes for the IoU of boxes `(n, 4)` xyxy: it hands COCO's `(x, y, width, height)` to a function that takes
    them for corners, of whole pixels with both borders. 0 unless, for both boxes, `width >= x` and `height >= y`, nearly.
    """
    one, other = (np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (first, second))
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    common = np.clip(high - low + 1, 0, None).prod(axis=1)
    union = sum((box[:, 2:] - box[:, :2] + 1).prod(axis=1) for box in (one, other)) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def overlaps_and_matches(
    frames: ClipFrames, truth: FrameBoxes, predicted: FrameBoxes
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The frames that count for mIoU and their values, and the matches that Recall counts, as in [`GroundingScores`]."""
    pairs = overlapping_pairs(truth, predicted, pseudo_iou)
    size = truth.counts * predicted.counts
    both = np.flatnonzero(size)
    # The mean of the whole matrix, whatever belongs to what.
    sums = np.bincount(pairs.frame, weights=pairs.value, minlength=len(size))

    # The best pair first, of equal ones the first of the matrix, which has a row for every annotated box.
    near = pairs.at((pairs.value >= IOU_THRESHOLD) & ~frames.null_label[pairs.frame])
    near = near.at(np.lexsort((-near.value, near.frame)))
    similarity = frames.similarities(
        frames.clip[near.frame], truth.phrase[near.truth], predicted.phrase[near.predicted]
    )
    matched = near.at(greedy_matching(near, accepted=similarity >= TEXT_THRESHOLD))
    places = np.stack([matched.frame, truth.place[matched.truth], predicted.place[matched.predicted]], axis=1)
    return (both, sums[both] / size[both]), places


def coco_average_precision(
    frames: ClipFrames, truth: FrameBoxes, predicted: FrameBoxes, coco_stats: bool
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """AP50, and COCO's statistics if asked for: of every clip, and over all frames as if they were of one."""
    pairs = overlapping_pairs(truth, predicted, iou)
    areas = signed_areas(truth.boxes), signed_areas(predicted.boxes)
    matches = coco_matches(pairs, predicted.place, *areas)
    clips = frames.clip[truth.frame], frames.clip[predicted.frame]
    everything = np.zeros_like(clips[0]), np.zeros_like(clips[1])
    # All scores are equal, so the order of the images decides: image ids are sorted as text, within a clip and over all.
    # Frames are numbered anew where some of them are chosen.
    number = np.arange(len(frames.clip)) - np.searchsorted(frames.clip, frames.clip)
    ids = [f"{frames.keys[clip]}_{n}" for clip, n in zip(frames.clip.tolist(), number.tolist(), strict=True)]
    rank = np.empty(len(ids), np.int64)
    rank[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    by_rank = np.lexsort((predicted.place, rank[predicted.frame]))
    by_clip = by_rank[np.argsort(clips[1][by_rank], kind="stable")]
    num_clips = len(frames.keys)
    per_clip = {"AP50": average_precisions(matches, *clips, num_clips, by_clip)[0]}
    flattening: dict[str, object] = {"AP50": float(average_precisions(matches, *everything, 1, by_rank)[0][0])}
    if coco_stats:
        per_clip["coco_stats"] = coco_statistics(pairs, predicted.place, *areas, *clips, num_clips, by_clip)
        values = coco_statistics(pairs, predicted.place, *areas, *everything, 1, by_rank)[0]
        flattening |= {"AP": float(values[0]), "coco_stats": values.tolist()}
    return per_clip, flattening


__all__ = ["coco_average_precision", "official_scores", "overlaps_and_matches", "pseudo_iou"]
