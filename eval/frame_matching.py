"""Which predicted box is which annotated one: pairs of boxes of a frame, and one-to-one matchings of them, all frames at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from .clip_frames import FrameBoxes, spread

# Pairs computed at once: their temporary arrays stay in the processor's cache, and memory does not grow with the benchmark.
_BLOCK = 1 << 15


@dataclass(frozen=True)
class Pairs:
    """
    Pairs of an annotated and a predicted box of one frame, `(P,)` each.

    Attributes:
        frame (`np.ndarray`): the frame.
        truth (`np.ndarray`), predicted (`np.ndarray`): indices into all annotated and all predicted boxes.
        value (`np.ndarray`): their overlap.
    """

    frame: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def at(self, index: np.ndarray) -> Pairs:
        """Some of the pairs, by mask or by index."""
        return Pairs(self.frame[index], self.truth[index], self.predicted[index], self.value[index])


def overlapping_pairs(
    truth: FrameBoxes, predicted: FrameBoxes, overlap: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Pairs:
    """
    All pairs whose overlap is positive, by frame, then by annotated, then by predicted box.

    Args:
        truth ([`FrameBoxes`]), predicted ([`FrameBoxes`]):
            Of the same frames.
        overlap (`Callable`):
            Of boxes `(n, 4)` and `(n, 4)`, row by row: `(n,)`.
    """
    frame_of = truth.frame
    partners = predicted.counts[frame_of]  # of every annotated box
    starts = predicted.starts[frame_of]
    ends = np.cumsum(partners)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.searchsorted(ends, np.arange(_BLOCK, total + _BLOCK, _BLOCK))) + 1
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    first = 0
    for cut in np.minimum(cuts, len(ends)).tolist():
        rows = np.repeat(np.arange(first, cut), partners[first:cut])
        columns = spread(starts[first:cut], partners[first:cut])
        values = overlap(truth.boxes[rows], predicted.boxes[columns])
        kept = np.flatnonzero(values > 0)
        found.append((rows[kept], columns[kept], values[kept]))
        first = cut
    rows, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Pairs(frame_of[rows], rows, columns, values)


def greedy_matching(pairs: Pairs, accepted: np.ndarray | None = None) -> np.ndarray:
    """
    In every frame again and again the first pair whose boxes are both free.

    Args:
        pairs ([`Pairs`]):
            Sorted by frame, then by preference.
        accepted (`np.ndarray` of shape `(P,)`, bool, *optional*):
            The original's rule: a frame ends at the first free pair that is not accepted, without trying the next one.

    Returns:
        `np.ndarray`: the indices of the matches, by frame, then by preference.
    """
    taken = np.zeros(int(pairs.truth.max(initial=-1)) + 1, dtype=bool)
    used = np.zeros(int(pairs.predicted.max(initial=-1)) + 1, dtype=bool)
    ended = np.zeros(int(pairs.frame.max(initial=-1)) + 1, dtype=bool)
    free = np.arange(len(pairs))
    rounds = [free[:0]]
    while len(free):
        frame = pairs.frame[free]
        first = free[np.diff(frame, prepend=-1) != 0]
        if accepted is not None:
            ended[pairs.frame[first[~accepted[first]]]] = True
            first = first[accepted[first]]
        taken[pairs.truth[first]] = True
        used[pairs.predicted[first]] = True
        rounds.append(first)
        free = free[~(taken[pairs.truth[free]] | used[pairs.predicted[free]] | ended[frame])]
    return np.sort(np.concatenate(rounds))


def maximum_matching(pairs: Pairs) -> np.ndarray:
    """The indices of as many pairs as there can be such that no box is in two, in the order of `pairs`."""
    if not len(pairs):
        return np.zeros(0, np.int64)
    # Indices are those of the boxes in their frames, so all frames are one graph, of as many parts that do not touch.
    number = np.arange(1, len(pairs) + 1)
    graph = csr_array((number, (pairs.truth, pairs.predicted)))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    rows = np.flatnonzero(partner >= 0)
    return np.sort(np.asarray(graph[rows, partner[rows]]).reshape(-1)) - 1


def best_assignment(pairs: Pairs) -> np.ndarray:
    """The indices of the pairs, no box in two, whose overlaps have the largest sum, in the order of `pairs`."""
    # Where the best partners of the annotated boxes differ, or those of the predicted ones, they are the best assignment.
    easy = []
    for one, other in ((pairs.truth, pairs.predicted), (pairs.predicted, pairs.truth)):
        order = np.lexsort((pairs.value, one))
        best = order[np.diff(one[order], append=-1) != 0]
        wanted = np.bincount(other[best], minlength=int(other.max(initial=-1)) + 1)
        clash = np.zeros(int(pairs.frame.max(initial=-1)) + 1, dtype=bool)
        clash[pairs.frame[best[wanted[other[best]] > 1]]] = True
        easy.append((best, clash))
    (by_truth, first_clash), (by_predicted, second_clash) = easy
    chosen = [
        by_truth[~first_clash[pairs.frame[by_truth]]],
        by_predicted[(first_clash & ~second_clash)[pairs.frame[by_predicted]]],
    ]
    hard = np.flatnonzero((first_clash & second_clash)[pairs.frame])
    cuts = np.flatnonzero(np.diff(pairs.frame[hard])) + 1
    for part in np.split(hard, cuts) if len(hard) else []:
        row, column = (side[part] - side[part].min() for side in (pairs.truth, pairs.predicted))
        table = np.zeros((row.max() + 1, column.max() + 1))
        table[row, column] = pairs.value[part]
        where = np.full(table.shape, -1)
        where[row, column] = part
        matched = where[linear_sum_assignment(table, maximize=True)]
        chosen.append(matched[matched >= 0])
    return np.sort(np.concatenate(chosen))


__all__ = ["Pairs", "best_assignment", "greedy_matching", "maximum_matching", "overlapping_pairs"]
