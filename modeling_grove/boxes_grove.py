"""Boxes between the model's coordinates and pixels: (cx, cy, w, h) in [0, 1] of the source frame, as the box head emits
them, and absolute (x1, y1, x2, y2) in pixels of the source frame, as annotations store them.

Both are relative to the frame itself, not to the square that the grounding encoder sees after resizing and padding.
"""

from typing import TypeVar

import numpy as np
import torch

Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


def boxes_to_pixels(boxes: Boxes, width: float, height: float, clip: bool = False) -> Boxes:
    """
    Convert normalised boxes to pixel corners.

    Args:
        boxes (`np.ndarray` or `torch.Tensor`):
            `(..., 4)` floating-point (cx, cy, w, h) in [0, 1] of a frame of `width` x `height`.
        width (`float`), height (`float`):
            Size of the frame in pixels.
        clip (`bool`, *optional*, defaults to `False`):
            Whether to clip the corners to the frame. The original does not, so a box may reach outside.

    Returns:
        The same type and dtype as `boxes`, `(..., 4)`: (x1, y1, x2, y2) in pixels.

    Raises:
        `ValueError`: if `boxes` is not `(..., 4)` floating point, or the size is not positive.
    """
    cx, cy, w, h = _columns(boxes, width, height)
    x1, y1, x2, y2 = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
    if clip:
        x1, x2 = x1.clip(0, width), x2.clip(0, width)
        y1, y2 = y1.clip(0, height), y2.clip(0, height)
    return _join(boxes, (x1, y1, x2, y2))


def boxes_from_pixels(boxes: Boxes, width: float, height: float) -> Boxes:
    """
    Convert pixel corners to normalised boxes; the inverse of [`boxes_to_pixels`].

    Args:
        boxes (`np.ndarray` or `torch.Tensor`):
            `(..., 4)` floating-point (x1, y1, x2, y2) in pixels of a frame of `width` x `height`.
        width (`float`), height (`float`):
            Size of the frame in pixels.

    Returns:
        The same type and dtype as `boxes`, `(..., 4)`: (cx, cy, w, h), in [0, 1] for boxes inside the frame.

    Raises:
        `ValueError`: if `boxes` is not `(..., 4)` floating point, or the size is not positive.
    """
    x1, y1, x2, y2 = _columns(boxes, width, height)
    return _join(boxes, ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height))


def _columns(boxes: Boxes, width: float, height: float) -> tuple[Boxes, Boxes, Boxes, Boxes]:
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have shape (..., 4), got {tuple(boxes.shape)}")
    floating = boxes.is_floating_point() if isinstance(boxes, torch.Tensor) else boxes.dtype.kind == "f"
    if not floating:
        raise ValueError(f"boxes must be floating point, got {boxes.dtype}; convert them first")
    if width <= 0 or height <= 0:
        raise ValueError(f"the frame size must be positive, got width={width}, height={height}")
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _join(like: Boxes, columns: tuple[Boxes, ...]) -> Boxes:
    if isinstance(like, torch.Tensor):
        return torch.stack(columns, dim=-1)
    return np.stack(columns, axis=-1)
