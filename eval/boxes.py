"""Overlap of boxes, as most of the benchmarks measure it; one that measures it otherwise says so and has its own."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """
    Areas of boxes `(..., 4)` xyxy, without the pixel that some codes add to each side; 0 for a box without area, and for an
    inverted one.
    """
    return np.clip(boxes[..., 2] - boxes[..., 0], 0, None) * np.clip(boxes[..., 3] - boxes[..., 1], 0, None)


def intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Areas that boxes xyxy have in common: of shape `(..., 4)` each, broadcast against one another."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    sides = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Intersection over union of boxes xyxy, `(..., 4)` each, broadcast against one another: `iou(a[:, None], b[None])` is the
    matrix of all pairs. In [0, 1]; 0 where neither box has an area.
    """
    common = intersections(first, second)
    union = areas(first) + areas(second) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def clipped(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes xyxy cut at the border of a frame of this size."""
    return np.clip(boxes, 0, [width, height, width, height])


__all__ = ["areas", "clipped", "intersections", "iou"]
