"""The four losses against their definitions, written out one box and one token at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling_grove.loss_grove import caption_loss, cxcywh_to_xyxy, generalized_box_iou_loss, grounding_losses


def giou_by_hand(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    intersection = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return intersection / union - (hull - union) / hull


@pytest.mark.parametrize(
    ("a", "b", "giou"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 9),
        ([0, 0, 1, 1], [2, 0, 3, 1], -1 / 3),
        ([0, 0, 1, 1], [1, 0, 2, 1], 0.0),  # touching
        ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16),
    ],
)
def test_giou_of_known_boxes(a, b, giou):
    assert giou_by_hand(a, b) == pytest.approx(giou)
    boxes = torch.tensor([a, b], dtype=torch.float64)
    assert generalized_box_iou_loss(boxes[0], boxes[1]).item() == pytest.approx(1 - giou, abs=1e-6)
    assert generalized_box_iou_loss(boxes[1], boxes[0]).item() == pytest.approx(1 - giou, abs=1e-6)


def test_giou_of_random_boxes():
    corners = (
        torch.rand(2, 200, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort(dim=2).values
    )
    a, b = corners.flatten(2)
    losses = generalized_box_iou_loss(a, b)
    expected = [1 - giou_by_hand(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)
    assert generalized_box_iou_loss(a[:0], b[:0]).shape == (0,)


def test_giou_of_points_is_finite_and_has_gradients():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.4]], requires_grad=True)
    loss = generalized_box_iou_loss(boxes, torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.6, 0.6]]))
    loss.sum().backward()
    assert loss.isfinite().all() and boxes.grad.isfinite().all()


def test_giou_pulls_disjoint_boxes_together():
    box = torch.tensor([0.0, 0.0, 0.2, 0.2], requires_grad=True)
    generalized_box_iou_loss(box, torch.tensor([0.6, 0.0, 0.8, 0.2])).backward()
    assert box.grad[2] < 0  # growing to the right lowers the loss


def test_corners_of_centred_boxes():
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.6]])
    torch.testing.assert_close(cxcywh_to_xyxy(boxes), torch.tensor([[0.4, 0.1, 0.6, 0.7]]))


# --- caption ---


def test_caption_loss_predicts_the_next_supervised_token():
    logits = torch.randn(2, 5, 7)
    labels = torch.tensor([[3, -100, 2, 6, -100], [-100, -100, -100, -100, 4]])
    # The first label has nothing before it.
    pairs = [(0, 1, 2), (0, 2, 6), (1, 3, 4)]
    expected = torch.stack([-F.log_softmax(logits[b, i], -1)[target] for b, i, target in pairs]).mean()
    torch.testing.assert_close(caption_loss(logits, labels), expected)


def test_caption_loss_without_supervision_is_zero_and_trains():
    logits = torch.randn(1, 4, 7, requires_grad=True)
    loss = caption_loss(logits, torch.full((1, 4), -100))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_caption_loss_is_computed_in_float32():
    logits = torch.randn(1, 6, 500).bfloat16()
    labels = torch.randint(500, (1, 6))
    loss = caption_loss(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, caption_loss(logits.float(), labels), rtol=0, atol=0)


# --- boxes and objectness ---


def random_boxes(*shape: int) -> Tensor:
    return torch.rand(*shape, 4) * 0.5 + 0.25


def test_grounding_losses_by_hand():
    torch.manual_seed(0)
    pred, target, logits = random_boxes(2, 3, 2), random_boxes(2, 3, 2), torch.randn(2, 3, 2)
    phrase_mask = torch.tensor([[True, True], [True, False]])
    presence = torch.tensor([[[1, 0], [-100, 1], [0, 0]], [[1, 1], [0, 1], [-100, 1]]])
    giou, l1, bce = [], [], []
    for b in range(2):
        for t in range(3):
            for n in range(2):
                label = presence[b, t, n].item()
                if not phrase_mask[b, n] or label == -100:
                    continue
                probability = torch.sigmoid(logits[b, t, n])
                bce.append(-(probability if label else 1 - probability).log())
                if label:
                    ours, true = (cxcywh_to_xyxy(boxes[b, t, n]).tolist() for boxes in (pred, target))
                    giou.append(torch.tensor(1 - giou_by_hand(ours, true)))
                    l1.append((pred[b, t, n] - target[b, t, n]).abs().sum())
    assert len(giou) == 3 and len(bce) == 7
    losses = grounding_losses(pred, logits, phrase_mask, target, presence)
    torch.testing.assert_close(losses.giou, torch.stack(giou).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.l1, torch.stack(l1).mean())
    torch.testing.assert_close(losses.objectness, torch.stack(bce).mean())


@pytest.mark.parametrize("dtype", [torch.long, torch.float32, torch.float64, torch.bfloat16])
def test_presence_may_have_any_dtype(dtype):
    torch.manual_seed(0)
    presence = torch.tensor([[[1, 0, -100]]])
    arguments = random_boxes(1, 1, 3), torch.randn(1, 1, 3), torch.ones(1, 3, dtype=torch.bool), random_boxes(1, 1, 3)
    expected, losses = grounding_losses(*arguments, presence), grounding_losses(*arguments, presence.to(dtype))
    for name in ("giou", "l1", "objectness"):
        torch.testing.assert_close(getattr(losses, name), getattr(expected, name))


def test_nothing_visible_and_nothing_annotated():
    pred = random_boxes(1, 2, 2).requires_grad_()
    logits = torch.randn(1, 2, 2, requires_grad=True)
    mask, unread = torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2, 2, 4), torch.nan)
    losses = grounding_losses(pred, logits, mask, unread, torch.full((1, 2, 2), -100))
    (losses.giou + losses.l1 + losses.objectness).backward()
    assert losses.giou == losses.l1 == losses.objectness == 0
    assert not pred.grad.any() and not logits.grad.any()
    losses = grounding_losses(pred, logits, mask, unread, torch.zeros(1, 2, 2))
    assert losses.giou == losses.l1 == 0 and losses.objectness > 0


def test_without_logits_there_is_no_objectness_loss():
    losses = grounding_losses(
        random_boxes(1, 1, 1), None, torch.ones(1, 1, dtype=torch.bool), random_boxes(1, 1, 1), torch.ones(1, 1, 1)
    )
    assert losses.objectness is None and losses.l1 > 0
