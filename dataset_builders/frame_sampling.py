"""Which annotated frames of a clip make a training sample: random ones for training, midpoints for validation.

As in the original, the clip is cut into as many segments as frames are wanted (see
[`~modeling_grove.windows_grove.training_segments`]) and each gives one frame. The original redraws until an object is
visible, which never ends for a clip without any; here the redraws are counted, and then one visible frame is put in.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from typing import Literal, get_args

import numpy as np

from modeling_grove.windows_grove import segment_midpoints, training_segments

FrameChoice = Literal["random", "midpoints", "all"]

MAX_REDRAWS = 20


def choose_frames(
    visible: np.ndarray,
    num_frames: int,
    choice: FrameChoice,
    rng: random.Random,
    max_redraws: int = MAX_REDRAWS,
) -> np.ndarray:
    """
    The positions, among the annotated frames of a clip, that make a sample.

    Args:
        visible (`np.ndarray` of shape `(T,)`, bool):
            Whether some object is visible in each annotated frame.
        num_frames (`int`):
            How many frames to choose. A clip with fewer gives some of them several times.
        choice (`str`):
            `"random"` draws each frame evenly from its segment; again, until an object is visible in one of them, and after
            `max_redraws` more draws it puts one of the visible frames, drawn evenly from them, in its segment. A clip without
            a visible object gives its first draw. `"midpoints"` are the segments' midpoints, visible or not, as in the
            original's validation. `"all"` are all frames, whatever `num_frames` is.
        rng (`random.Random`):
            For `"random"`.
        max_redraws (`int`, *optional*, defaults to 20):
            Draws after the first one.

    Returns:
        `np.ndarray`: int64 positions that never decrease, `(num_frames,)`, or `(T,)` for `"all"`.

    Raises:
        `ValueError`: if there is no frame, `num_frames` is not positive or `choice` is none of the three.
    """
    if choice == "midpoints":
        return segment_midpoints(len(visible), num_frames)
    if choice == "all":
        return np.arange(len(visible), dtype=np.int64)
    check_choice(choice)
    segments = training_segments(len(visible), num_frames)
    positions = _draw(segments, rng)
    candidates = np.flatnonzero(visible)
    if not len(candidates):
        return positions
    for _ in range(max_redraws):
        if visible[positions].any():
            return positions
        positions = _draw(segments, rng)
    if not visible[positions].any():
        frame = int(candidates[int(rng.random() * len(candidates))])
        # The segments follow one another; of those of a short clip, which repeat a frame, the last one is taken.
        positions[bisect_right([start for start, _ in segments], frame) - 1] = frame
    return positions


def check_choice(choice: str) -> None:
    """
    Raises:
        `ValueError`: if `choice` is no [`FrameChoice`].
    """
    if choice not in get_args(FrameChoice):
        raise ValueError(f"frames must be one of {', '.join(get_args(FrameChoice))}, got {choice!r}")


def _draw(segments: list[tuple[int, int]], rng: random.Random) -> np.ndarray:
    """One frame of every segment. `random.Random.random` alone keeps its sequence from one version of Python to the next."""
    return np.array([start + int(rng.random() * (end - start)) for start, end in segments], dtype=np.int64)


__all__ = ["MAX_REDRAWS", "FrameChoice", "check_choice", "choose_frames"]
