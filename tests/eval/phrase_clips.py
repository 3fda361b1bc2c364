"""Clips for tests of phrases over time: written out by hand, random, and GroundedShapes with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from dataset_builders.noise import LEVELS, noise_generator
from dataset_builders.shapes import ShapesConfig, iter_clips
from eval.clips import PredictedClip, ReferenceClip
from modeling_grove.grounded_caption import GroundedCaption

WIDTH, HEIGHT = 100, 80
Box = tuple[float, float, float, float]
# For every phrase its boxes, one a frame, or None where it is absent.
Tubes = Mapping[str, Sequence[Box | None]]


def frames_of(tubes: Tubes) -> tuple[tuple[np.ndarray, ...], tuple[tuple[str, ...], ...]]:
    """Boxes and labels of every frame."""
    count = max(map(len, tubes.values()))
    frames = [[(box, phrase) for phrase, boxes in tubes.items() if (box := boxes[n])] for n in range(count)]
    boxes = tuple(np.array([box for box, _ in frame], dtype=np.float64).reshape(-1, 4) for frame in frames)
    return boxes, tuple(tuple(phrase for _, phrase in frame) for frame in frames)


def reference(tubes: Tubes, key: str = "clip_0") -> ReferenceClip:
    return ReferenceClip(key, WIDTH, HEIGHT, "", *frames_of(tubes))


def prediction(tubes: Tubes, key: str = "clip_0") -> PredictedClip:
    return PredictedClip(key, "", *frames_of(tubes))


def random_tubes(rng: np.random.Generator, phrases: Sequence[str], num_frames: int) -> dict[str, list[Box | None]]:
    """Each phrase in about two of three frames, somewhere."""
    tubes: dict[str, list[Box | None]] = {}
    for phrase in phrases:
        low = rng.uniform(0, [WIDTH / 2, HEIGHT / 2], (num_frames, 2))
        high = low + rng.uniform(1, [WIDTH / 2, HEIGHT / 2], (num_frames, 2))
        there = rng.random(num_frames) < 2 / 3
        boxes = np.concatenate([low, high], axis=1).tolist()
        tubes[phrase] = [tuple(box) if present else None for box, present in zip(boxes, there, strict=True)]
    return tubes


@cache
def shapes_truth(count: int = 24) -> tuple[GroundedCaption, ...]:
    config = ShapesConfig(width=64, height=64, fps=5, difficulty="hard")
    return tuple(clip.caption for clip in iter_clips("test", count, config=config))


@cache
def shapes_noisy(count: int = 24, level: str = "howtoground1m") -> tuple[GroundedCaption, ...]:
    return tuple(LEVELS[level].apply(clip, noise_generator(0, clip.key)) for clip in shapes_truth(count))
