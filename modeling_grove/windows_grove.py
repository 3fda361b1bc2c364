"""Which sampled frames form a window of the model: the windows of the original, a minimal cover of the clip, and the
segments that training and validation draw their frames from.

A clip has `T` sampled frames, numbered 0..T-1; the model sees `window_size` of them at a time. Everything here is
arithmetic on those numbers.
"""

import numpy as np


def sliding_windows(num_frames_total: int, window_size: int) -> tuple[np.ndarray, np.ndarray]:
    """
    The windows of the original inference: `T // window_size` interleaved windows, then `T % window_size` more that
    slide by one frame and contribute only the frames that no earlier window has.

    Args:
        num_frames_total (`int`):
            Sampled frames of the clip, `T`, at least `window_size` (for fewer, the original returns every frame
            `window_size` times; use [`covering_windows`]).
        window_size (`int`):
            Frames of a window.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: windows `(W, window_size)` int64 and keep masks `(W, window_size)` bool, where
        `W = T // window_size + T % window_size`; every frame is kept exactly once.

    Raises:
        `ValueError`: if `T < window_size`.
    """
    _check(num_frames_total, window_size, sliding=True)
    segment, remainder = divmod(num_frames_total, window_size)
    # Remainder windows continue the same progression: offsets 0..segment-1, then segment..segment+remainder-1.
    offsets = np.arange(segment + remainder, dtype=np.int64)
    windows = offsets[:, None] + segment * np.arange(window_size, dtype=np.int64)[None, :]
    masks = np.zeros(windows.shape, dtype=bool)
    window, slot = first_occurrence(windows).T
    masks[window, slot] = True
    return windows, masks


def sliding_center_window(num_frames_total: int, window_size: int) -> int:
    """Index of the window that the original captions: the middle one of its `T // window_size` interleaved windows."""
    _check(num_frames_total, window_size, sliding=True)
    return (num_frames_total // window_size - 1) // 2


def covering_windows(num_frames_total: int, window_size: int) -> np.ndarray:
    """
    The fewest windows that cover a clip: `W = ceil(T / window_size)`.

    The clip is split into `window_size` contiguous segments whose lengths differ by at most one; window `o` takes frame
    `o` of each segment, or its last frame where the segment is shorter. For `T % window_size == 0` this is the set of
    the original; otherwise the original runs up to `window_size - 1` windows more, some of them for one new frame.

    For `T < window_size` there is one window, frames 0..T-1 with the last one repeated. (The original makes `T` windows
    of one repeated frame each when captioning a video, and raises in training.)

    Args:
        num_frames_total (`int`):
            Sampled frames of the clip, `T`, at least 1.
        window_size (`int`):
            Frames of a window.

    Returns:
        `np.ndarray`: windows `(W, window_size)` int64; rows strictly increase when `T >= window_size`.

    Raises:
        `ValueError`: if `T < 1`.
    """
    _check(num_frames_total, window_size)
    if num_frames_total < window_size:
        return np.minimum(np.arange(window_size, dtype=np.int64), num_frames_total - 1)[None, :]
    bounds = np.arange(window_size + 1, dtype=np.int64) * num_frames_total // window_size
    lengths = np.diff(bounds)
    offsets = np.arange(lengths.max(), dtype=np.int64)
    return bounds[:-1][None, :] + np.minimum(offsets[:, None], lengths[None, :] - 1)


def covering_center_window(num_frames_total: int, window_size: int) -> int:
    """Index of the window to caption among [`covering_windows`]: the middle one, the earlier of two."""
    _check(num_frames_total, window_size)
    return (-(-num_frames_total // window_size) - 1) // 2


def first_occurrence(windows: np.ndarray) -> np.ndarray:
    """
    Where each frame's result comes from when a frame is in several windows: the first window that has it.

    Args:
        windows (`np.ndarray`):
            `(W, window_size)` frame numbers that together cover 0..T-1.

    Returns:
        `np.ndarray`: `(T, 2)` int64, for each frame its (window, slot).

    Raises:
        `ValueError`: if a frame between 0 and the largest one is in no window.
    """
    frames, positions = np.unique(windows, return_index=True)
    if not np.array_equal(frames, np.arange(len(frames))):
        raise ValueError(f"windows must cover every frame from 0 to the last one, got frames {frames.tolist()}")
    return np.stack(np.unravel_index(positions, np.shape(windows)), axis=1).astype(np.int64)


def training_segments(num_frames_total: int, window_size: int) -> list[tuple[int, int]]:
    """
    The `window_size` ranges `[start, end)` from which training draws one frame each.

    As the original for `T >= window_size`: length `T // window_size`, the last one extended to `T`. For fewer frames
    (the original raises) the ranges are one frame long and spread over the clip, so frames repeat in order.

    Raises:
        `ValueError`: if `T < 1`.
    """
    _check(num_frames_total, window_size)
    length = num_frames_total // window_size
    if length == 0:
        starts = [i * num_frames_total // window_size for i in range(window_size)]
        return [(start, start + 1) for start in starts]
    ends = [(i + 1) * length for i in range(window_size - 1)] + [num_frames_total]
    return [(i * length, end) for i, end in enumerate(ends)]


def segment_midpoints(num_frames_total: int, window_size: int) -> np.ndarray:
    """
    The frames that validation uses: the middle, `(start + end) // 2`, of each of the [`training_segments`].

    Returns:
        `np.ndarray`: `(window_size,)` int64, non-decreasing; strictly increasing when `T >= window_size`.

    Raises:
        `ValueError`: if `T < 1`.
    """
    segments = training_segments(num_frames_total, window_size)
    # A range of one frame has its midpoint (start + end) // 2 at its start, so short clips need no case of their own.
    return np.array([(start + end) // 2 for start, end in segments], dtype=np.int64)


def _check(num_frames_total: int, window_size: int, sliding: bool = False) -> None:
    if window_size < 1:
        raise ValueError(f"window_size must be at least 1, got {window_size}")
    if num_frames_total < 1:
        raise ValueError(f"a clip must have at least one frame to form a window, got {num_frames_total}")
    if sliding and num_frames_total < window_size:
        raise ValueError(
            f"sliding windows need at least window_size={window_size} frames, got {num_frames_total}; "
            "use the covering windows for shorter clips"
        )
