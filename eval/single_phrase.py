"""What VidSTG and the pointing benchmarks share: a sentence is one phrase, and the answer is one box in every frame.

The original's models for these benchmarks have no objectness head, so every frame has a box and none is dropped. The same is
done with models that have one: the sentence is known to hold in the frames that are asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modeling_grove.grounded_caption import GroundedCaption


def phrase_boxes(caption: GroundedCaption, present_only: bool) -> np.ndarray:
    """
    The boxes of the only phrase of a caption: `(T, 4)`, float64 xyxy in pixels of the source frame, NaN where there is none.

    Args:
        caption ([`GroundedCaption`]):
            With exactly one track.
        present_only (`bool`):
            For annotations: no box where the phrase is absent. A model's box counts whatever its objectness says.

    Raises:
        `ValueError`: if the caption has no track, or several.
    """
    if len(caption.tracks) != 1:
        raise ValueError(
            f"clip {caption.key!r}: tracks: got {len(caption.tracks)}, expected one; the sentence is one phrase here, "
            "<p> sentence </p>"
        )
    track = caption.tracks[0]
    if not present_only:
        return track.boxes.astype(np.float64)
    # Through the shortest decimals that give the float32: those are what the annotation had, and a centre on its border is in.
    decimals = track.boxes.astype(str).astype(np.float64)
    return np.where(track.presence[:, None], decimals, np.nan)


def one_box_a_frame(boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Boxes `(T, 4)` as a tuple of `(1, 4)` float32, and of `(0, 4)` where a row is not finite."""
    return tuple(row[None][np.isfinite(row).all(keepdims=True)] for row in boxes.astype(np.float32))


def as_boxes(value: Any, where: str) -> np.ndarray:
    """
    A frame's list of boxes as the original stores them: `(n, 4)` float32.

    Raises:
        `ValueError`: if it is anything else; `where` says what it is of.
    """
    try:
        boxes: np.ndarray = np.array(value, dtype=np.float32)
    except (TypeError, ValueError):
        boxes = np.zeros(())
    if boxes.size == 0 and isinstance(value, list | tuple | np.ndarray):
        return np.zeros((0, 4), dtype=np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        got = " ".join(repr(value).split())
        raise ValueError(f"{where}: got {got[:60]}, expected a list of boxes [x1, y1, x2, y2], [] for none")
    return boxes


def check_overlap(references: Mapping[str, Any], predictions: Mapping[str, Any]) -> int:
    """
    How many predictions are of nothing annotated; all benchmarks ignore them.

    Raises:
        `ValueError`: if that is all of them.
    """
    unknown = [key for key in predictions if key not in references]
    if len(unknown) == len(predictions):
        raise ValueError(
            f"none of the {len(predictions)} predicted keys (the first is {unknown[0]!r}) is annotated, expected keys like "
            f"{next(iter(references))!r}; are these the predictions for another split?"
        )
    return len(unknown)


__all__ = ["as_boxes", "check_overlap", "one_box_a_frame", "phrase_boxes"]
