"""Matching all frames at once is matching one after another."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval import frame_matching
from eval.boxes import iou
from eval.clip_frames import FrameBoxes, spread
from eval.frame_matching import Pairs, best_assignment, greedy_matching, maximum_matching, overlapping_pairs

# A frame is a table of overlaps, 0 where boxes do not touch.
values = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0])
shapes = st.tuples(st.integers(0, 4), st.integers(0, 4))
frames = st.lists(arrays(np.float64, shapes, elements=values), min_size=1, max_size=4)


def pairs_of(tables):
    """The pairs of all frames, numbered over the frames."""
    found, rows, columns = [], 0, 0
    for frame, table in enumerate(tables):
        for row, column in zip(*np.nonzero(table), strict=True):
            found.append((frame, rows + row, columns + column, table[row, column]))
        rows, columns = rows + table.shape[0], columns + table.shape[1]
    parts = list(zip(*found, strict=True)) or [(), (), (), ()]
    return Pairs(*(np.array(part, dtype=np.int64) for part in parts[:3]), np.array(parts[3], dtype=np.float64))


def one_to_one(pairs, chosen):
    return len({*pairs.truth[chosen]}) == len({*pairs.predicted[chosen]}) == len(chosen) == len({*chosen.tolist()})


def largest(tables, value):
    """The largest sum of the values of entries of a table of which no two share a row or a column, over all tables."""
    total = 0.0
    for table in tables:
        entries = list(zip(*np.nonzero(table), strict=True))
        total += max(
            sum(value(table[entry]) for entry in chosen)
            for size in range(min(table.shape) + 1)
            for chosen in combinations(entries, size)
            if len({row for row, _ in chosen}) == len({column for _, column in chosen}) == size
        )
    return total


@given(frames)
def test_maximum_matching_has_as_many_pairs_as_there_can_be(tables):
    pairs = pairs_of(tables)
    chosen = maximum_matching(pairs)
    assert one_to_one(pairs, chosen)
    assert len(chosen) == largest(tables, lambda value: 1)


@given(frames)
def test_best_assignment_has_the_largest_sum(tables):
    pairs = pairs_of(tables)
    chosen = best_assignment(pairs)
    assert one_to_one(pairs, chosen)
    assert pairs.value[chosen].sum() == pytest.approx(largest(tables, float))


@given(frames, st.randoms(use_true_random=False))
def test_greedy_matching_takes_the_first_free_pair(tables, random):
    pairs = pairs_of(tables)
    pairs = pairs.at(np.array(sorted(range(len(pairs)), key=lambda n: (pairs.frame[n], random.random())), dtype=int))
    accepted = np.array([random.random() < 0.7 for _ in range(len(pairs))], dtype=bool)
    for rule in (None, accepted):
        expected, taken, used, ended = [], set(), set(), set()
        for n in range(len(pairs)):
            free = pairs.truth[n] not in taken and pairs.predicted[n] not in used and pairs.frame[n] not in ended
            if free and rule is not None and not rule[n]:
                ended.add(pairs.frame[n])
            elif free:
                expected.append(n)
                taken.add(pairs.truth[n])
                used.add(pairs.predicted[n])
        assert greedy_matching(pairs, rule).tolist() == expected


def flat(rng, counts):
    low = rng.uniform(0, 50, (sum(counts), 2))
    boxes = np.split(np.concatenate([low, low + rng.uniform(1, 50, (sum(counts), 2))], axis=1), np.cumsum(counts)[:-1])
    return FrameBoxes.of_lists(boxes, [["cup"] * n for n in counts], [{"cup": 0}] * len(counts))


@pytest.mark.parametrize("block", [1, 7, 1 << 15])
def test_overlapping_pairs_are_those_of_every_frame(monkeypatch, block):
    monkeypatch.setattr(frame_matching, "_BLOCK", block)
    rng = np.random.default_rng(0)
    truth, predicted = flat(rng, [2, 0, 3, 4, 0]), flat(rng, [3, 2, 0, 9, 0])
    pairs = overlapping_pairs(truth, predicted, iou)
    expected = []
    for frame in range(5):
        rows, columns = (np.flatnonzero(side.frame == frame) for side in (truth, predicted))
        for row in rows:
            for column in columns:
                value = iou(truth.boxes[row], predicted.boxes[column])
                if value > 0:
                    expected.append((frame, row, column, value))
    assert len(pairs) > 10
    assert [*zip(pairs.frame, pairs.truth, pairs.predicted, pairs.value, strict=True)] == expected


def test_no_pairs_at_all():
    nothing = FrameBoxes.of_lists([np.zeros((0, 4))], [()], [{}])
    pairs = overlapping_pairs(nothing, nothing, iou)
    assert len(pairs) == 0
    for matching in (maximum_matching, best_assignment, greedy_matching):
        assert matching(pairs).tolist() == []


def test_frames_and_masks_of_flat_boxes():
    boxes = flat(np.random.default_rng(1), [2, 0, 3])
    chosen = boxes.of_frames(np.array([2, 2, 1]))
    assert chosen.counts.tolist() == [3, 3, 0]
    assert np.array_equal(chosen.boxes, np.concatenate([boxes.boxes[2:], boxes.boxes[2:]]))
    assert chosen.place.tolist() == [0, 1, 2, 0, 1, 2] and chosen.frame.tolist() == [0, 0, 0, 1, 1, 1]
    kept = boxes.where(boxes.place == 0)
    assert kept.counts.tolist() == [1, 0, 1] and kept.frame.tolist() == [0, 2]
    assert spread(np.array([5, 0]), np.array([2, 3])).tolist() == [5, 6, 0, 1, 2]
