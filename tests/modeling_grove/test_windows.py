"""Windows and frame sampling against the numbers of the original."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling_grove.video_grove import sampled_frame_indices
from modeling_grove.windows_grove import (
    covering_center_window,
    covering_windows,
    first_occurrence,
    segment_midpoints,
    sliding_center_window,
    sliding_windows,
    training_segments,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "grove" / "sampling.json").read_text())
LENGTHS = sorted(int(length) for length in GOLDEN["by_T"])


@pytest.mark.parametrize("length", LENGTHS)
def test_matches_the_original(length: int) -> None:
    golden: dict[str, Any] = GOLDEN["by_T"][str(length)]
    windows, masks = sliding_windows(length, 8)
    assert windows.dtype == np.int64
    assert masks.dtype == bool
    assert windows.tolist() == golden["windows"]
    assert masks.astype(int).tolist() == golden["masks"]
    assert sliding_center_window(length, 8) == golden["centre_window"]
    assert segment_midpoints(length, 8).tolist() == golden["centre_frames"]
    assert [list(segment) for segment in training_segments(length, 8)] == golden["train_segments"]


@pytest.mark.parametrize("case", GOLDEN["frame_ids"], ids=lambda case: f"{case['fps']}fps-{case['end_frame']}")
def test_sampled_frames_match_the_original(case: dict[str, Any]) -> None:
    # grove_transformers is the variant of the original that does not raise below the target rate.
    expected = case.get("frame_ids") or case["grove_transformers_frame_ids"]
    assert sampled_frame_indices(case["fps"], case["start_frame"], case["end_frame"], case["target_fps"]) == expected


@pytest.mark.parametrize("window_size", [1, 2, 3, 8, 16])
def test_covering_windows_are_minimal_and_complete(window_size: int) -> None:
    for length in range(window_size, 8 * window_size + 3):
        windows = covering_windows(length, window_size)
        assert windows.shape == (-(-length // window_size), window_size)
        assert np.array_equal(np.unique(windows), np.arange(length))
        assert (np.diff(windows, axis=1) > 0).all()
        assert 0 <= covering_center_window(length, window_size) < len(windows)


@pytest.mark.parametrize("length", [length for length in LENGTHS if length % 8 == 0])
def test_covering_windows_equal_the_original_for_whole_multiples(length: int) -> None:
    assert np.array_equal(covering_windows(length, 8), sliding_windows(length, 8)[0])
    assert covering_center_window(length, 8) == sliding_center_window(length, 8)


@pytest.mark.parametrize("length", range(1, 8))
def test_short_clips(length: int) -> None:
    assert covering_windows(length, 8).tolist() == [[min(frame, length - 1) for frame in range(8)]]
    assert covering_center_window(length, 8) == 0
    segments = training_segments(length, 8)
    assert len(segments) == 8
    assert all(0 <= start < end <= length for start, end in segments)
    midpoints = segment_midpoints(length, 8)
    assert (np.diff(midpoints) >= 0).all()
    assert set(midpoints.tolist()) == set(range(length))
    with pytest.raises(ValueError, match="covering"):
        sliding_windows(length, 8)
    with pytest.raises(ValueError, match="covering"):
        sliding_center_window(length, 8)


@pytest.mark.parametrize("length", [1, 5, 8, 9, 23, 40])
def test_first_occurrence_finds_every_frame(length: int) -> None:
    windows = covering_windows(length, 8)
    found = first_occurrence(windows)
    assert found.shape == (length, 2)
    assert windows[found[:, 0], found[:, 1]].tolist() == list(range(length))
    for frame, (window, slot) in enumerate(found.tolist()):
        earlier = windows.reshape(-1)[: window * 8 + slot]
        assert frame not in earlier


def test_first_occurrence_needs_every_frame() -> None:
    with pytest.raises(ValueError, match="cover every frame"):
        first_occurrence(np.array([[0, 1], [3, 4]]))


@pytest.mark.parametrize(
    "function",
    [
        covering_windows,
        covering_center_window,
        segment_midpoints,
        sliding_windows,
        sliding_center_window,
        training_segments,
    ],
)
def test_nothing_is_not_a_clip(function: Any) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        function(0, 8)
    with pytest.raises(ValueError, match="window_size"):
        function(8, 0)


@pytest.mark.parametrize(("fps", "target_fps"), [(0.0, 5.0), (-1.0, 5.0), (float("nan"), 5.0), (25.0, 0.0)])
def test_rates_must_be_positive(fps: float, target_fps: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        sampled_frame_indices(fps, 0, 10, target_fps)
