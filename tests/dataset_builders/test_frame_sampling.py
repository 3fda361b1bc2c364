"""Frames of a training sample: drawn evenly from their segments, with an object in view."""

import random
from collections import Counter

import numpy as np
import pytest

from dataset_builders.frame_sampling import choose_frames
from modeling_grove.windows_grove import segment_midpoints, training_segments


@pytest.mark.parametrize("total", [8, 25, 47])
def test_random_frames_are_even_in_their_segments(total):
    rng, draws = random.Random(0), 4000
    drawn = np.stack([choose_frames(np.ones(total, bool), 8, "random", rng) for _ in range(draws)])
    assert drawn.shape == (draws, 8) and drawn.dtype == np.int64
    for slot, (start, end) in enumerate(training_segments(total, 8)):
        counts = Counter(drawn[:, slot].tolist())
        assert set(counts) == set(range(start, end))
        expected = draws / (end - start)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("total", [1, 3, 8, 25, 47])
def test_midpoints_and_all(total):
    visible = np.zeros(total, bool)
    rng = random.Random(0)
    assert np.array_equal(choose_frames(visible, 8, "midpoints", rng), segment_midpoints(total, 8))
    assert choose_frames(visible, 8, "all", rng).tolist() == list(range(total))


@pytest.mark.parametrize("total", [1, 2, 5, 7, 8, 9, 47])
def test_an_object_is_always_visible(total):
    for frame in range(total):
        visible = np.zeros(total, bool)
        visible[frame] = True
        for seed in range(20):
            positions = choose_frames(visible, 8, "random", random.Random(seed), max_redraws=seed % 3)
            assert visible[positions].any()
            assert (np.diff(positions) >= 0).all() and len(positions) == 8
            for position, (start, end) in zip(positions, training_segments(total, 8), strict=True):
                assert start <= position < end


def test_redraws_keep_the_distribution():
    """Where some draws show nothing, those that show something stay as likely among themselves."""
    visible = np.array([True, False, False, True, True, False])
    wanted = {(0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (2, 3), (2, 4)}
    counts = Counter(
        tuple(choose_frames(visible, 2, "random", random.Random(seed), max_redraws=60).tolist()) for seed in range(7000)
    )
    assert set(counts) == wanted
    assert all(850 < count < 1150 for count in counts.values())


def test_after_the_redraws_visible_frames_are_equally_likely():
    visible = np.zeros(80, bool)
    visible[[3, 4, 70]] = True
    shown: Counter[int] = Counter()
    for seed in range(3000):
        positions = choose_frames(visible, 8, "random", random.Random(seed), max_redraws=0)
        shown.update(positions[visible[positions]].tolist())
    assert set(shown) == {3, 4, 70}
    assert max(shown.values()) < 1.15 * min(shown.values())


def test_a_clip_without_objects_ends():
    positions = choose_frames(np.zeros(47, bool), 8, "random", random.Random(0))
    assert len(positions) == 8


def test_equal_seeds_draw_equally():
    visible = np.arange(47) % 11 == 0
    first, second = (choose_frames(visible, 8, "random", random.Random("a")).tolist() for _ in range(2))
    assert first == second != choose_frames(visible, 8, "random", random.Random("b")).tolist()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="frames must be one of random, midpoints, all, got 'first'"):
        choose_frames(np.ones(9, bool), 8, "first", random.Random(0))
    for choice in ("random", "midpoints"):
        with pytest.raises(ValueError, match="at least one frame"):
            choose_frames(np.ones(0, bool), 8, choice, random.Random(0))
        with pytest.raises(ValueError, match="window_size must be at least 1"):
            choose_frames(np.ones(5, bool), 0, choice, random.Random(0))
