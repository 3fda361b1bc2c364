"""
The four training losses of GROVE (paper, section 4.3; denominators as in the original training code).

Shape legend: B windows, T frames, N phrases (padded).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100


@dataclass
class GroundingLosses:
    """Unweighted sums over a batch divided by their counts, each a scalar tensor; `objectness` is `None` without that head."""

    giou: Tensor
    l1: Tensor
    objectness: Tensor | None


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """`(..., 4)` boxes as centre, width and height -> as corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def generalized_box_iou_loss(boxes: Tensor, targets: Tensor, eps: float = 1e-7) -> Tensor:
    """
    `1 - GIoU` of corresponding boxes (Rezatofighi et al., 2019).

    Args:
        boxes, targets (`torch.Tensor` of shape `(..., 4)`): x1, y1, x2, y2 in any one unit.
        eps (`float`): added to the denominators, as torchvision does.

    Returns:
        `torch.Tensor` of shape `(...)`, in [0, 2] for well-formed boxes.
    """

    def area(corners: Tensor) -> Tensor:
        return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])

    overlap = torch.cat(
        [torch.maximum(boxes[..., :2], targets[..., :2]), torch.minimum(boxes[..., 2:], targets[..., 2:])], dim=-1
    )
    overlaps = (overlap[..., 2] > overlap[..., 0]) & (overlap[..., 3] > overlap[..., 1])
    intersection = torch.where(overlaps, area(overlap), 0.0)
    union = area(boxes) + area(targets) - intersection
    hull = torch.cat(
        [torch.minimum(boxes[..., :2], targets[..., :2]), torch.maximum(boxes[..., 2:], targets[..., 2:])], dim=-1
    )
    hull_area = area(hull)
    return 1 - intersection / (union + eps) + (hull_area - union) / (hull_area + eps)


def caption_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """
    Mean cross-entropy over the supervised tokens of the batch; 0 when nothing is supervised.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, sequence_length, vocab_size)`): position `i` predicts token `i + 1`.
        labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`): token ids, -100 where not supervised.
    """
    targets = labels[:, 1:].to(logits.device)
    total = F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / (targets != IGNORE_INDEX).sum().clamp(min=1)


def grounding_losses(
    pred_boxes: Tensor,
    objectness_logits: Tensor | None,
    phrase_mask: Tensor,
    box_labels: Tensor,
    objectness_labels: Tensor,
) -> GroundingLosses:
    """
    Args:
        pred_boxes (`torch.Tensor` of shape `(B, T, N, 4)`): cxcywh in [0, 1] of the original frame.
        objectness_logits (`torch.Tensor` of shape `(B, T, N)`, *optional*): before the sigmoid.
        phrase_mask (`torch.BoolTensor` of shape `(B, N)`): real phrases.
        box_labels (`torch.Tensor` of shape `(B, T, N, 4)`): cxcywh in [0, 1]; read where an object is visible.
        objectness_labels (`torch.Tensor` of shape `(B, T, N)`): 1 visible, 0 absent, -100 not annotated.

    Returns:
        [`GroundingLosses`]. GIoU and L1 (over the four coordinates, not their mean) are divided by the number of visible boxes,
        the binary cross-entropy of objectness by the number of annotated (frame, phrase) pairs; each count has 1e-8 added. The
        counts are this process's, as in the original: they are not reduced over data-parallel ranks.
    """
    annotated = phrase_mask[:, None] & (objectness_labels != IGNORE_INDEX)
    visible = annotated & (objectness_labels == 1)
    boxes, targets = pred_boxes[visible].float(), box_labels[visible].float()
    num_visible = visible.sum() + 1e-8
    giou = generalized_box_iou_loss(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets)).sum() / num_visible
    l1 = (boxes - targets).abs().sum() / num_visible
    objectness = None
    if objectness_logits is not None:
        logits, presence = objectness_logits[annotated].float(), objectness_labels[annotated].float()
        total = F.binary_cross_entropy_with_logits(logits, presence, reduction="sum")
        objectness = total / (annotated.sum() + 1e-8)
    return GroundingLosses(giou=giou, l1=l1, objectness=objectness)


__all__ = [
    "IGNORE_INDEX",
    "GroundingLosses",
    "caption_loss",
    "cxcywh_to_xyxy",
    "generalized_box_iou_loss",
    "grounding_losses",
]
