"""From masks to boxes: the step between a segmenting captioner and the paper's annotations, which nobody has published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskBoxes:
    """
    How a box is made of a mask: the tight extent of its pixels.

    Args:
        threshold (`float`, *optional*, defaults to 0.0): a pixel belongs to the mask where its logit is above this.
        min_area (`float`, *optional*, defaults to 0.0): share of the picture that a mask has to cover; smaller ones have no box.
        inclusive (`bool`, *optional*, defaults to `False`): the box ends at the last pixel's number instead of behind it, so that
            one pixel has no extent. COCO's `toBbox` does not do so; GLaMM's recorded boxes do.

    Raises:
        `ValueError`: if the area is no share.
    """

    threshold: float = 0.0
    min_area: float = 0.0
    inclusive: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= 1:
            raise ValueError(f"min_area: expected a share of the picture in [0, 1], got {self.min_area}")

    def __call__(self, logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """
        Args:
            logits (`torch.Tensor` of shape `(N, H, W)`): of masks.

        Returns:
            Boxes `(N, 4)` xyxy in pixels, NaN where a mask is empty or too small, and scores `(N,)`: the mean probability of the
            mask's pixels, 0 where there are none.
        """
        masks = logits > self.threshold
        area = masks.flatten(1).sum(1)
        columns, rows = (_extent(masks.any(dim), not self.inclusive) for dim in (1, 2))
        boxes = torch.stack([columns[0], rows[0], columns[1], rows[1]], dim=1).float()
        empty = (area == 0) | (area < self.min_area * masks[0].numel() if len(masks) else area == 0)
        boxes[empty] = torch.nan
        sure = (logits.float().sigmoid() * masks).flatten(1).sum(1) / area.clamp(min=1)
        return boxes.cpu().numpy(), sure.masked_fill(empty, 0).cpu().numpy()


def _extent(used: Tensor, behind: bool) -> tuple[Tensor, Tensor]:
    """First and last used place of each row `(N, L)`; the one behind the last."""
    places = torch.arange(used.shape[1], device=used.device)
    first = torch.where(used, places, used.shape[1]).amin(1)
    last = torch.where(used, places, -1).amax(1)
    return first, last + behind


__all__ = ["MaskBoxes"]
