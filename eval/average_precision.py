"""
Average precision as COCO defines it, for many clips at once.

Detections of an image are matched to its annotated boxes in the order of their scores, each to the free box that it overlaps
most, from an IoU threshold on. Ranked by score over all images, they give a curve of precision over recall, which is made to
fall and is read at 101 recalls; AP is the mean. COCO's twelve statistics are APs and average recalls over ten thresholds, in
ranges of areas, with limits to the detections of an image (Lin et al., 2014; https://cocodataset.org/#detection-eval).

Two ways of matching and ranking are here: `coco_matches` is COCO's, where the order of the input decides between equal scores;
`score_matches` lets nothing but scores and boxes decide, and `average_precisions` then reads the curve only where a group of equal
scores ends. They agree where all scores of a clip differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame_matching import Pairs, greedy_matching

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Limits of width x height, in square pixels: all, small, medium, large. An annotated box outside is ignored, not missed; a
# detection outside that finds no box is ignored too, no false positive. Negative areas are outside all of them.
AREA_RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Matches:
    """
    Attributes:
        hits (`np.ndarray` of shape `(N,)`, bool): of the detections, which are right.
        misses (`np.ndarray` of shape `(N,)`, bool): which are wrong; the others are ignored.
        wanted (`np.ndarray` of shape `(M,)`, bool): of the annotated boxes, which are to be found.
    """

    hits: np.ndarray
    misses: np.ndarray
    wanted: np.ndarray


def coco_matches(
    pairs: Pairs,
    place: np.ndarray,
    truth_area: np.ndarray,
    predicted_area: np.ndarray,
    threshold: float = 0.5,
    area_range: tuple[float, float] = AREA_RANGES[0],
) -> Matches:
    """
    COCO's matches where all scores of an image are equal: detections choose in the order of the input, the first hundred of an
    image alone; of equally good boxes the later one is taken, and an ignored one only when no other is left.

    Args:
        pairs ([`Pairs`]): with true IoU.
        place (`np.ndarray` of shape `(N,)`): of the detections in their images.
        truth_area (`np.ndarray` of shape `(M,)`), predicted_area (`np.ndarray` of shape `(N,)`): width times height.
    """
    low, high = area_range
    ignored = (truth_area < low) | (truth_area > high)
    outside = (predicted_area < low) | (predicted_area > high)
    counted = place < MAX_DETECTIONS
    near = pairs.at((pairs.value >= min(threshold, 1 - 1e-10)) & counted[pairs.predicted])
    near = near.at(np.lexsort((-near.truth, -near.value, ignored[near.truth], near.predicted)))
    matched = near.at(greedy_matching(near))
    partner = np.full(len(place), -1)
    partner[matched.predicted] = matched.truth
    found = partner >= 0
    hits = found & ~ignored[partner] if len(ignored) else found
    return Matches(hits, ~found & ~outside & counted, ~ignored)


def score_matches(
    pairs: Pairs, truth: np.ndarray, predicted: np.ndarray, scores: np.ndarray, threshold: float = 0.5
) -> Matches:
    """
    Matches that do not depend on the order of the input: the higher score chooses first, of equal scores the larger IoU, then
    the coordinates.

    Args:
        pairs ([`Pairs`]): with true IoU.
        truth (`np.ndarray` of shape `(M, 4)`), predicted (`np.ndarray` of shape `(N, 4)`): the boxes.
        scores (`np.ndarray` of shape `(N,)`): of the detections.
    """
    near = pairs.at(pairs.value >= threshold)
    boxes = (*predicted[near.predicted].T, *truth[near.truth].T)
    near = near.at(np.lexsort((*boxes, -near.value, -scores[near.predicted], near.frame)))
    hits = np.zeros(len(predicted), dtype=bool)
    hits[near.predicted[greedy_matching(near)]] = True
    return Matches(hits, ~hits, np.ones(len(truth), dtype=bool))


def average_precisions(
    matches: Matches,
    truth_group: np.ndarray,
    predicted_group: np.ndarray,
    num_groups: int,
    order: np.ndarray,
    scores: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    AP and final recall of every group: of every clip, or of all of them as one group.

    Args:
        matches ([`Matches`]): of all images.
        truth_group (`np.ndarray` of shape `(M,)`), predicted_group (`np.ndarray` of shape `(N,)`): the groups of the boxes.
        num_groups (`int`): G.
        order (`np.ndarray` of shape `(n,)`): the detections that take part, by group, then from the surest to the least sure one.
        scores (`np.ndarray` of shape `(N,)`, *optional*):
            Where given, the curve is read only at the ends of equal scores. Without them after every detection, as COCO does.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: `(G,)` each; -1 for a group without annotated boxes, as in COCO.
    """
    wanted = np.bincount(truth_group[matches.wanted], minlength=num_groups)
    cuts = np.searchsorted(predicted_group[order], np.arange(num_groups + 1))
    hits, misses = matches.hits[order], matches.misses[order]
    precisions, recalls = np.full(num_groups, -1.0), np.full(num_groups, -1.0)
    for group in np.flatnonzero(wanted).tolist():
        part = slice(cuts[group], cuts[group + 1])
        true, false = np.cumsum(hits[part]), np.cumsum(misses[part])
        if not len(true):
            precisions[group] = recalls[group] = 0.0
            continue
        # COCO's: keeps 0 / 0 away from ignored detections, and makes a single right one 0.9999999999999999.
        found = true + false + np.spacing(1)
        if scores is not None:
            ends = np.diff(scores[order[part]], append=np.inf) != 0
            true, found = true[ends], (true + false)[ends]
        recall, precision = true / wanted[group], true / found
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, RECALLS, side="left")
        points = np.zeros(len(RECALLS))
        reached = at < len(recall)
        points[reached] = falling[at[reached]]
        precisions[group], recalls[group] = points.mean(), recall[-1]
    return precisions, recalls


def coco_statistics(
    pairs: Pairs,
    place: np.ndarray,
    truth_area: np.ndarray,
    predicted_area: np.ndarray,
    truth_group: np.ndarray,
    predicted_group: np.ndarray,
    num_groups: int,
    order: np.ndarray,
) -> np.ndarray:
    """
    COCO's twelve statistics of every group, `(G, 12)`, where all scores are equal: AP over all thresholds, at 0.5, at 0.75, of
    small, of medium, of large boxes; average recall with 1, 10, 100 detections, of small, of medium, of large boxes. -1 where a
    group has no such box. For the arguments see `coco_matches` and `average_precisions`.
    """
    limits = {limit: order[place[order] < limit] for limit in (1, 10, MAX_DETECTIONS)}
    precision = np.zeros((len(AREA_RANGES), len(THRESHOLDS), num_groups))
    recall = {key: np.zeros_like(precision[0]) for key in [*limits, *AREA_RANGES[1:]]}
    for a, area_range in enumerate(AREA_RANGES):
        for t, threshold in enumerate(THRESHOLDS):
            matches = coco_matches(pairs, place, truth_area, predicted_area, threshold, area_range)
            for limit, kept in limits.items() if a == 0 else [(MAX_DETECTIONS, limits[MAX_DETECTIONS])]:
                values = average_precisions(matches, truth_group, predicted_group, num_groups, kept)
                if limit == MAX_DETECTIONS:
                    precision[a, t] = values[0]
                recall[limit if a == 0 else area_range][t] = values[1]
    at_75 = int(np.searchsorted(THRESHOLDS, 0.75 - 1e-9))
    columns = [precision[0].mean(0), precision[0, 0], precision[0, at_75], *precision[1:].mean(1)]
    columns += [values.mean(0) for values in recall.values()]
    return np.stack(columns, axis=1)


def signed_areas(boxes: np.ndarray) -> np.ndarray:
    """Width times height, as COCO has it: negative where one side is inverted, positive where both are."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


__all__ = [
    "MAX_DETECTIONS",
    "Matches",
    "average_precisions",
    "coco_matches",
    "coco_statistics",
    "score_matches",
    "signed_areas",
]
