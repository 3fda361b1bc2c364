"""Boxes between normalised centres and pixel corners, against the numbers of the original."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from modeling_grove.boxes_grove import boxes_from_pixels, boxes_to_pixels

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "grove" / "preprocess" / "outputs.safetensors")
SIZES = [(320, 180), (180, 320), (333, 500)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_matches_the_original(width: int, height: int, convert: Callable[[np.ndarray], Any]) -> None:
    golden = {name: GOLDEN[f"boxes.{width}x{height}.{name}"] for name in ("xyxy_px", "norm_cxcywh", "back_xyxy_px")}
    normalised = boxes_from_pixels(convert(golden["xyxy_px"]), width, height)
    assert type(normalised) is type(convert(golden["xyxy_px"]))
    np.testing.assert_allclose(np.asarray(normalised), golden["norm_cxcywh"], atol=1e-6)
    pixels = boxes_to_pixels(convert(golden["norm_cxcywh"]), width, height)
    np.testing.assert_allclose(np.asarray(pixels), golden["back_xyxy_px"], atol=1e-3)


def test_clip_is_optional() -> None:
    boxes = np.array([[[0.0, 0.5, 0.5, 2.0]]], dtype=np.float32)
    assert boxes_to_pixels(boxes, 100, 40).tolist() == [[[-25.0, -20.0, 25.0, 60.0]]]
    clipped = [[[0.0, 0.0, 25.0, 40.0]]]
    assert boxes_to_pixels(boxes, 100, 40, clip=True).tolist() == clipped
    assert boxes_to_pixels(torch.from_numpy(boxes), 100, 40, clip=True).tolist() == clipped


def test_gradients_and_empty_boxes() -> None:
    boxes = torch.rand(3, 4, requires_grad=True)
    boxes_to_pixels(boxes, 10, 20).sum().backward()
    assert boxes.grad is not None
    assert boxes_to_pixels(torch.zeros(0, 4), 10, 20).shape == (0, 4)
    assert boxes_to_pixels(torch.zeros(2, 4, dtype=torch.bfloat16), 10, 20).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "boxes", [np.zeros((2, 3), np.float32), np.float32(1), np.zeros((2, 4), int), torch.zeros(4).int()]
)
def test_wrong_boxes(boxes: Any) -> None:
    with pytest.raises(ValueError, match="boxes must"):
        boxes_to_pixels(boxes, 10, 10)


def test_wrong_size() -> None:
    with pytest.raises(ValueError, match="positive"):
        boxes_from_pixels(np.zeros((1, 4), np.float32), 0, 10)
