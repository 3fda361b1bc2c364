"""Overlap of boxes against counting unit squares, and its edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.boxes import areas, clipped, intersections, iou

SIDE = 8
corners = st.tuples(*[st.integers(0, SIDE)] * 4).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)


def squares(box: list[int]) -> np.ndarray:
    """The unit squares that a box covers."""
    covered = np.zeros((SIDE, SIDE), dtype=bool)
    covered[box[1] : box[3], box[0] : box[2]] = True
    return covered


@given(corners, corners)
def test_iou_counts_squares(first, second):
    a, b = squares(first), squares(second)
    union = (a | b).sum()
    pair = np.array(first, float), np.array(second, float)
    assert intersections(*pair) == (a & b).sum() and areas(pair[0]) == a.sum()
    assert iou(*pair) == pytest.approx((a & b).sum() / union if union else 0.0, abs=1e-15)


def test_pairs_are_broadcast():
    boxes = np.array([[0, 0, 2, 2], [0, 0, 1, 2], [5, 5, 6, 6]], dtype=float)
    np.testing.assert_array_equal(iou(boxes[:, None], boxes[None]), [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])


def test_inverted_and_empty_boxes_overlap_nothing():
    boxes = np.array([[5, 5, 1, 1], [5, 1, 1, 5], [2, 2, 2, 4]], dtype=float)
    assert not areas(boxes).any()
    assert not iou(boxes[:, None], np.array([[[0, 0, 9, 9]], *boxes[:, None]]).reshape(1, -1, 4)).any()


def test_boxes_are_cut_at_the_border():
    np.testing.assert_array_equal(clipped(np.array([[-3.0, 2, 9, 9]]), 8, 6), [[0, 2, 8, 6]])
