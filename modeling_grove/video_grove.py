"""From a video (path, bytes, file object, URL or frames in memory) to the sampled RGB frames of a clip, or of one clip
after another. `video_file_grove` decodes the files; here is which frames are wanted, and what becomes of them.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast

import fsspec
import numpy as np
from PIL import Image

from .video_file_grove import CLOCK_TOLERANCE, UNKNOWN_RATE, Timeline, VideoDecodeError, VideoFile

logger = logging.getLogger(__name__)

VideoSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | np.ndarray | Sequence[Any]


@dataclass(frozen=True)
class VideoClip:
    """
    The sampled frames of a clip.

    Attributes:
        frames (`np.ndarray`):
            uint8 `(T, height, width, 3)` RGB, upright (rotation and mirroring of the file's display matrix applied).
        frame_indices (`np.ndarray`):
            `(T,)` int64, each frame's number in the source, in display order from 0.
        timestamps (`np.ndarray`):
            `(T,)` float64, seconds from the first frame of the source.
        fps (`float`):
            Average rate of the source.
        width (`int`), height (`int`):
            Size of the frames in stored pixels, after rotation. A sample aspect ratio is not applied, as in the
            original: boxes are in stored pixels.
        start_frame (`int`), end_frame (`int`):
            First and last source frame that the clip covers, inclusive.
        total_num_frames (`int`):
            Frames of the whole source.
        name (`str`):
            The file's name, or "video" for what has none.
    """

    frames: np.ndarray
    frame_indices: np.ndarray
    timestamps: np.ndarray
    fps: float
    width: int
    height: int
    start_frame: int
    end_frame: int
    total_num_frames: int
    name: str


def sampled_frame_indices(fps: float, start_frame: int, end_frame: int, target_fps: float | None = 5.0) -> list[int]:
    """
    The source frames that the original samples from a clip: every `int(fps / target_fps)`-th one.

    The rate is therefore `fps / int(fps / target_fps)`, 5 to 10 frames a second for the default. A source slower than
    `target_fps` gives all its frames (the original raises on it).

    Args:
        fps (`float`):
            Rate of the source.
        start_frame (`int`), end_frame (`int`):
            First and last frame of the clip, inclusive.
        target_fps (`float`, *optional*, defaults to 5.0):
            Frames a second to aim for; `None` for every frame.

    Raises:
        `ValueError`: if a rate is not positive.
    """
    return list(sampled_frame_range(fps, start_frame, end_frame, target_fps))


def sampled_frame_range(fps: float, start_frame: int, end_frame: int, target_fps: float | None = 5.0) -> range:
    """The frames of [`sampled_frame_indices`], not listed: for numbers that may be anything."""
    if not fps > 0 or (target_fps is not None and not target_fps > 0):
        raise ValueError(f"frame rates must be positive, got fps={fps}, target_fps={target_fps}")
    step = 1 if target_fps is None else max(1, int(fps / target_fps))
    return range(start_frame, end_frame + 1, step)


def read_video(
    source: VideoSource,
    *,
    target_fps: float | None = 5.0,
    start_frame: int | None = None,
    end_frame: int | None = None,
    start_time: float | None = None,
    end_time: float | None = None,
    source_fps: float | None = None,
    select: Callable[[int], Iterable[int]] | None = None,
    num_threads: int = 0,
) -> VideoClip:
    """
    Decode the sampled frames of a video, or of a part of it.

    Of a video with a constant frame rate, the frames of [`sampled_frame_indices`]. Of one with a variable rate, the
    distinct frames shown at each 1 / `target_fps` second from the start of the clip.

    Damaged files give what decodes, with a logged warning. Of several video streams the first is read; cover art is not
    a video. Transparency is dropped, interlaced frames are not deinterlaced.

    Args:
        source (path, `bytes`, binary file object, URL, `np.ndarray` or sequence of images):
            A file object is read from its beginning and left open. A URL is anything that fsspec opens (`https://`,
            `s3://`, `hf://`, ...). Frames in memory are uint8 `(T, H, W, 3)` or `(T, 3, H, W)`, or PIL images or uint8
            `(H, W, 3)` arrays of one size.
        target_fps (`float`, *optional*, defaults to 5.0):
            Frames a second to aim for; `None` for every frame.
        start_frame (`int`, *optional*), end_frame (`int`, *optional*):
            First and last frame of the clip, inclusive. An end past the last frame means the last frame.
        start_time (`float`, *optional*), end_time (`float`, *optional*):
            The same in seconds: the frames that start in `[start_time, end_time)`. Not together with frame numbers.
        source_fps (`float`, *optional*):
            Rate of frames in memory, which are then sampled as a file is; without it all are taken, at `target_fps`.
            Of a file, the rate to use in place of its own.
        select (`Callable`, *optional*):
            Given the number of sampled frames, returns the positions among them to keep, in non-decreasing order:
            `lambda n: segment_midpoints(n, 8)`. Only these frames are converted and held.
        num_threads (`int`, *optional*, defaults to 0):
            Decoding threads; 0 lets FFmpeg choose. Data loader workers should use 1.

    Raises:
        [`VideoDecodeError`]: if the source is not a video, none of the wanted frames decodes, or the part asked for is
            not in it.
    """
    with _opened(source, source_fps, target_fps) as video:
        clip_range = _trimmed(video.timeline, start_frame, end_frame, start_time, end_time)
        (clip,) = _clips(video, [clip_range], target_fps if video.sampled else None, select, num_threads)
        return clip


def iter_video_clips(
    source: VideoSource,
    *,
    clip_seconds: float,
    target_fps: float | None = 5.0,
    start_frame: int | None = None,
    end_frame: int | None = None,
    start_time: float | None = None,
    end_time: float | None = None,
    source_fps: float | None = None,
    num_threads: int = 0,
) -> Iterator[VideoClip]:
    """
    Cut a video into consecutive clips of `clip_seconds` and yield them one by one, in one decoding pass that holds one
    clip at a time. The last clip has what is left.

    Args:
        clip_seconds (`float`):
            Length of a clip. Clip `k` has the frames that start in `[k, k + 1) * clip_seconds` after the first one.

    The other arguments are those of [`read_video`]; each clip is sampled from its own first frame. A clip of which no
    frame decodes is skipped with a warning.

    Raises:
        [`VideoDecodeError`]: as [`read_video`], and if `clip_seconds` is not positive.
    """
    if not clip_seconds > 0:
        raise VideoDecodeError(f"clip_seconds must be positive, got {clip_seconds}")
    with _opened(source, source_fps, target_fps) as video:
        start, end = _trimmed(video.timeline, start_frame, end_frame, start_time, end_time)
        elapsed = video.timeline.times[start : end + 1] - video.timeline.times[start]
        _, firsts = np.unique(np.floor((elapsed + CLOCK_TOLERANCE) / clip_seconds), return_index=True)
        bounds = [*(start + firsts).tolist(), end + 1]
        ranges = [(first, after - 1) for first, after in pairwise(bounds)]
        yield from _clips(video, ranges, target_fps if video.sampled else None, None, num_threads)


class _Video(Protocol):
    """An opened source: a file or frames in memory."""

    name: str
    timeline: Timeline
    sampled: bool  # whether target_fps applies
    num_frames: int  # of the whole source, as far as is known by now

    def decode(self, wanted: np.ndarray, num_threads: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, RGB) of the wanted frames that decode, in order; `wanted` strictly increases."""


def _clips(
    video: _Video,
    ranges: list[tuple[int, int]],
    target_fps: float | None,
    select: Callable[[int], Iterable[int]] | None,
    num_threads: int,
) -> Iterator[VideoClip]:
    """Decode consecutive frame ranges in one pass; a range of which nothing decodes gives no clip."""
    try:
        wanted = [_selected(_sampled(video.timeline, first, last, target_fps), select) for first, last in ranges]
    except ValueError as error:
        raise VideoDecodeError(f"{video.name}: {error}") from error
    decoded = video.decode(np.unique(np.concatenate(wanted)), num_threads)
    pending = next(decoded, None)
    for (first, last), indices in zip(ranges, wanted, strict=True):
        rows: dict[int, int] = {}
        frames: np.ndarray = np.empty(0, dtype=np.uint8)
        while pending is not None and pending[0] <= last:
            index, frame = pending
            if not rows:
                frames = np.empty((len(np.unique(indices)), *frame.shape), dtype=np.uint8)
            frames[len(rows)] = frame
            rows[index] = len(rows)
            pending = next(decoded, None)
        if not rows:
            continue
        indices = indices[np.isin(indices, list(rows))]
        kept = np.array([rows[index] for index in indices.tolist()])
        identity = np.array_equal(kept, np.arange(len(rows)))
        clip = VideoClip(
            frames=frames[: len(rows)] if identity else frames[kept],
            frame_indices=indices,
            timestamps=video.timeline.times[indices],
            fps=video.timeline.fps,
            width=frames.shape[2],
            height=frames.shape[1],
            start_frame=first,
            end_frame=min(last, video.num_frames - 1),
            total_num_frames=video.num_frames,
            name=video.name,
        )
        del frames  # so that a consumer that drops the clip frees it before the next one is decoded
        yield clip
        del clip


def _sampled(timeline: Timeline, start: int, end: int, target_fps: float | None) -> np.ndarray:
    """The frames to take of the source frames `start`..`end`, as [`read_video`] says."""
    if target_fps is None or not timeline.variable:
        return np.array(sampled_frame_indices(timeline.fps, start, end, target_fps), dtype=np.int64)
    # Frame i is shown at a tick k / target_fps if a whole number lies in [ticks[i], ticks[i + 1]).
    times = np.append(timeline.times, timeline.times[-1] + 1 / timeline.fps)[start : end + 2]
    ticks = (times - times[0] - CLOCK_TOLERANCE) * target_fps
    shown = np.ceil(ticks[:-1]) < ticks[1:]
    shown[0] = True
    return start + np.flatnonzero(shown)


def _selected(indices: np.ndarray, select: Callable[[int], Iterable[int]] | None) -> np.ndarray:
    if select is None:
        return indices
    positions = np.array(list(select(len(indices))), dtype=np.int64)
    if not len(positions) or positions.min() < 0 or positions.max() >= len(indices) or (np.diff(positions) < 0).any():
        raise ValueError(
            f"select must return non-decreasing positions among {len(indices)} frames, got {positions.tolist()}"
        )
    return indices[positions]


def _trimmed(
    timeline: Timeline,
    start_frame: int | None,
    end_frame: int | None,
    start_time: float | None,
    end_time: float | None,
) -> tuple[int, int]:
    """The clip's first and last frame."""
    by_frame, by_time = (start_frame, end_frame) != (None, None), (start_time, end_time) != (None, None)
    if by_frame and by_time:
        raise VideoDecodeError("a clip is cut by frames or by seconds, got both; pass only one kind")
    if any(time is not None and time != time for time in (start_time, end_time)):
        raise VideoDecodeError(f"a clip is cut at numbers of seconds, got start {start_time}, end {end_time}")
    start, end = start_frame, end_frame
    # Half a frame of slack at most: seconds are rarely exact frame times.
    slack = min(CLOCK_TOLERANCE, 0.5 / timeline.fps)
    if start_time is not None:
        start = int(np.searchsorted(timeline.times, start_time - slack))
    if end_time is not None:
        end = int(np.searchsorted(timeline.times, end_time - slack)) - 1
    num_frames = len(timeline.times)
    start = 0 if start is None else start
    end = num_frames - 1 if end is None else end
    asked = f"start {start_time} s, end {end_time} s" if by_time else f"start frame {start}, end frame {end}"
    if start < 0 or (start_time is not None and start_time < 0):
        raise VideoDecodeError(f"the start of a clip must not be negative, got {asked}")
    if start >= num_frames:
        raise VideoDecodeError(
            f"the clip starts past the end: got {asked}, and the video has {num_frames} frames "
            f"({num_frames / timeline.fps:.3f} s)"
        )
    if end < start:
        raise VideoDecodeError(f"the clip has no frame: got {asked}; the end must not be before the start")
    if end >= num_frames:
        logger.warning("clip end %d is past the last frame, %d; the clip ends there", end, num_frames - 1)
        end = num_frames - 1
    return start, end


@contextmanager
def _opened(source: VideoSource, source_fps: float | None, target_fps: float | None) -> Iterator[_Video]:
    for label, rate in (("source_fps", source_fps), ("target_fps", target_fps)):
        if rate is not None and not 0 < rate < float("inf"):
            raise VideoDecodeError(f"{label} must be a positive number, got {rate}")
    if isinstance(source, bytes | bytearray | memoryview):
        yield VideoFile(BytesIO(source), "video", source_fps)
    elif isinstance(source, str) and "://" in source:
        handle = _fetched(source)
        with handle:
            yield VideoFile(handle, PurePosixPath(source.split("?")[0]).name or "video", source_fps)
    elif isinstance(source, str | os.PathLike):
        yield VideoFile(_checked_path(source), Path(source).name, source_fps)
    elif hasattr(source, "read"):
        handle = cast(IO[bytes], source)
        name = getattr(handle, "name", None)
        yield VideoFile(_seekable(handle), Path(name).name if isinstance(name, str) else "video", source_fps)
    else:
        yield _Frames(source, source_fps, target_fps)


def _checked_path(path: str | os.PathLike[str]) -> str:
    """Only a regular file will do: opening a pipe or a device could wait for ever."""
    if not os.path.exists(path):
        raise VideoDecodeError(f"no such video file: {os.fspath(path)!r}")
    if not os.path.isfile(path):
        kind = "a directory" if os.path.isdir(path) else "neither a regular file nor a link to one"
        raise VideoDecodeError(f"expected a video file, but {os.fspath(path)!r} is {kind}")
    # Absolute, so that FFmpeg does not take the part before a colon for a protocol.
    return os.path.abspath(path)


def _fetched(url: str) -> IO[bytes]:
    try:
        handle = cast(IO[bytes], fsspec.open(url, "rb").open())
        if handle.seekable():
            return handle
        with handle:
            return BytesIO(handle.read())
    except Exception as error:  # each file system raises its own
        raise VideoDecodeError(f"cannot open the video {url!r}: {type(error).__name__}: {error}") from error


def _seekable(handle: IO[bytes]) -> IO[bytes]:
    if not isinstance(handle.read(0), bytes):
        raise VideoDecodeError("expected a file object opened in binary mode, got one that reads text; open with 'rb'")
    return handle if handle.seekable() else BytesIO(handle.read())


class _Frames:
    """Frames in memory."""

    name = "video"

    def __init__(self, source: Any, source_fps: float | None, target_fps: float | None):
        expected = "expected uint8 frames (T, H, W, 3) or (T, 3, H, W), or a sequence of images of one size"
        if hasattr(source, "cpu"):
            source = source.cpu().numpy()
        if isinstance(source, np.ndarray):
            if source.ndim == 4 and source.shape[1] == 3 and source.shape[3] != 3:
                source = source.transpose(0, 2, 3, 1)
            if source.ndim != 4 or source.shape[3] != 3 or source.dtype != np.uint8 or not source.size:
                raise VideoDecodeError(f"{expected}, got an array of shape {source.shape} and type {source.dtype}")
        elif isinstance(source, Sequence) and len(source) and all(_is_image(frame) for frame in source):
            sizes = {frame.size if isinstance(frame, Image.Image) else frame.shape[1::-1] for frame in source}
            if len(sizes) > 1:
                raise VideoDecodeError(f"{expected}, got images of (width, height) {sorted(sizes)}")
        else:
            kinds = sorted({type(frame).__name__ for frame in source}) if isinstance(source, Sequence) else []
            got = f"{type(source).__name__}{f' of {kinds}' if kinds else ''}"
            raise VideoDecodeError(f"{expected}, or a path, bytes, binary file object or URL of one video; got {got}")
        self.source = source
        self.sampled = source_fps is not None
        fps = source_fps or target_fps or UNKNOWN_RATE
        self.num_frames = len(source)
        self.timeline = Timeline(fps, np.arange(len(source)) / fps)

    def decode(self, wanted: np.ndarray, num_threads: int) -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted.tolist():
            frame = self.source[index]
            yield index, np.asarray(frame.convert("RGB") if isinstance(frame, Image.Image) else frame)


def _is_image(frame: Any) -> bool:
    if isinstance(frame, np.ndarray):
        return frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8
    return isinstance(frame, Image.Image)


__all__ = [
    "VideoClip",
    "VideoDecodeError",
    "VideoSource",
    "iter_video_clips",
    "read_video",
    "sampled_frame_indices",
    "sampled_frame_range",
]
