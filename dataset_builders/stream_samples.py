"""What a stream gives: clips with their captions and frames, decoded from the samples of shards, and what is skipped."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import orjson

from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.video_grove import VideoDecodeError, VideoSource, read_video

from .clips import clip_frames
from .frame_sampling import MAX_REDRAWS, FrameChoice, check_choice, choose_frames
from .record import Record, from_record
from .stream_plan import Draw, check_integer
from .tar_shards import RawSample, ShardError

NO_OBJECT = "no_visible_object"  # the one reason to skip a sample that is nobody's mistake
_LEAST_DRAWS = 1000  # to which a fraction is applied, so that one bad sample at the beginning is not all of them
_NUM_EXAMPLES = 3
# What reading a record of the wrong types may raise.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class DamagedDataError(ValueError):
    """So many samples cannot be used that something must be wrong with all of them."""


@dataclass
class EncodedSample:
    """
    A sample as the shard has it.

    Attributes:
        key (`str`): name of the clip, `{video_id}_{clip_id}`.
        record (`dict`): see `dataset_builders.record`.
        mp4 (`bytes` or `None`): the clip, where the shard has it.
        source (`int`), epoch (`int`): which source it is from, and in which epoch of that source it was drawn.
        worker (`int`), draw (`int`): who drew it, and its number among the draws of this worker, from 1.
    """

    key: str
    record: Record
    mp4: bytes | None
    source: int
    epoch: int
    worker: int
    draw: int


@dataclass
class StreamSample:
    """
    A training sample.

    Attributes:
        key (`str`): name of the clip, `{video_id}_{clip_id}`.
        caption ([`GroundedCaption`]): in the processed form, with all annotated frames of the clip.
        frames (`np.ndarray` of shape `(num_frames, H, W, 3)`, uint8): RGB.
        frame_positions (`np.ndarray` of shape `(num_frames,)`, int64):
            Position of each frame among the annotated frames of `caption`; never decreasing.
        source (`int`), epoch (`int`): which source it is from, and in which epoch of that source it was drawn.
        worker (`int`), draw (`int`): who drew it, and its number among the draws of this worker, from 1.
    """

    key: str
    caption: GroundedCaption
    frames: np.ndarray
    frame_positions: np.ndarray
    source: int
    epoch: int
    worker: int
    draw: int


@dataclass(frozen=True)
class SampleDecoder:
    """
    From the sample of a shard to a training sample.

    Args:
        num_frames (`int`, *optional*, defaults to 8):
            Frames of a sample.
        frames (`str`, *optional*, defaults to `"random"`):
            Which ones; see [`choose_frames`].
        max_redraws (`int`, *optional*, defaults to 20):
            See [`choose_frames`].
        keep_empty (`bool`, *optional*, defaults to `False`):
            Keep clips in no frame of which an object is visible.
        seed (`int`, *optional*, defaults to 0):
            Of the random frames, which depend on it, on source, epoch and key of the sample, and on nothing else.
    """

    num_frames: int = 8
    frames: FrameChoice = "random"
    max_redraws: int = MAX_REDRAWS
    keep_empty: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.frames)
        for name, least in (("num_frames", 1), ("max_redraws", 0)):
            check_integer(name, getattr(self, name), least)

    def __call__(self, raw: RawSample, draw: Draw, videos: str | None, worker: int, number: int) -> StreamSample:
        """
        Args:
            raw ([`RawSample`]), draw ([`Draw`]): what was drawn.
            videos (`str` or `None`): folder of source videos, for shards without clips.
            worker (`int`), number (`int`): who drew it, and its number among the draws of this worker.

        Raises:
            [`ShardError`]: if the sample cannot be used, with the reason `bad_json`, `bad_record`, `no_video`, `bad_video` or
                `no_visible_object`.
        """
        record = read_sample_record(raw)
        try:
            caption = from_record(record).merged()
        except _UNREADABLE as error:
            raise _problem(raw, "bad_record", str(error)) from None
        visible = np.zeros(caption.num_frames, dtype=bool)
        for track in caption.tracks:
            visible |= track.presence
        if not self.keep_empty and not visible.any():
            raise _problem(raw, NO_OBJECT, f"no object is visible in any of {len(visible)} frames")
        rng = random.Random(f"frames {self.seed} {draw.source} {draw.epoch} {raw.key}")
        positions = choose_frames(visible, self.num_frames, self.frames, rng, self.max_redraws)
        video, indices = _video_frames(raw, record, caption, videos)
        frames = _read_frames(raw, video, indices[positions])
        return StreamSample(raw.key, caption, frames, positions, draw.source, draw.epoch, worker, number)


def read_sample_record(raw: RawSample) -> Record:
    """
    The record of a sample, not checked further.

    Raises:
        [`ShardError`]: with the reason `bad_json`, if it is no JSON object.
    """
    try:
        record = orjson.loads(raw.members["json"])
    except ValueError as error:
        raise _problem(raw, "bad_json", str(error)) from None
    if not isinstance(record, dict):
        raise _problem(raw, "bad_json", f"expected a JSON object, got {type(record).__name__}")
    return record


class Skips:
    """
    Counts the samples that a worker could not use.

    Args:
        limit (`int` or `float`):
            How many may be damaged: a number, or a fraction of the draws (of at least 1,000).
        who (`str`):
            Whose they are, for messages.
        on_new (`Callable`):
            Gets the first [`ShardError`] of every reason, to tell of it.
        damaged (`int`, *optional*, defaults to 0):
            How many were damaged before.

    Attributes:
        counts (`Counter`): from reason to number, since this object was made.
    """

    def __init__(self, limit: int | float, who: str, on_new: Callable[[ShardError], None], damaged: int = 0):
        self.counts: Counter[str] = Counter()
        self._limit, self._who, self._on_new, self._damaged = limit, who, on_new, damaged
        self._examples: list[str] = []

    def add(self, problem: ShardError, draws: int) -> None:
        """
        Counts a sample; `draws` is the number of all draws so far.

        Raises:
            [`DamagedDataError`]: if more than the limit are damaged.
        """
        if not self.counts[problem.reason]:
            self._on_new(problem)
        self.counts[problem.reason] += 1
        if problem.reason == NO_OBJECT:
            return
        self._damaged += 1
        self._examples = [*self._examples[1 - _NUM_EXAMPLES :], str(problem)]
        allowed = self._limit if isinstance(self._limit, int) else self._limit * max(draws, _LEAST_DRAWS)
        if self._damaged > allowed:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.counts.most_common())
            raise DamagedDataError(
                f"{self._who}: {self._damaged} of {draws} samples are damaged, and max_skipped={self._limit} allows "
                f"{int(allowed)} ({reasons}; such as {'; '.join(self._examples)}); repair the shards, or raise max_skipped"
            )


def damaged(counts: Mapping[str, int]) -> int:
    """How many of the samples skipped count towards the limit."""
    return sum(count for reason, count in counts.items() if reason != NO_OBJECT)


def _video_frames(
    raw: RawSample, record: Record, caption: GroundedCaption, videos: str | None
) -> tuple[VideoSource, np.ndarray]:
    """The video of a sample, and which of its frames are the annotated ones."""
    mp4 = raw.members.get("mp4")
    if mp4 is not None:
        try:
            return mp4, clip_frames(record)
        except _UNREADABLE as error:
            raise _problem(raw, "bad_record", str(error)) from None
    if videos is None:
        raise _problem(raw, "no_video", "no mp4; choose a configuration with video, or name a folder of videos")
    name = PurePosixPath(caption.video_fname)
    if name.is_absolute() or ".." in name.parts:
        raise _problem(raw, "bad_record", f"the video {caption.video_fname!r} would be outside of the folder of videos")
    path = Path(videos, name)
    try:
        found = path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        found = False  # no file can have this name
    if not found:
        raise _problem(raw, "no_video", f"no video {caption.video_fname!r} in {os.fspath(videos)!r}")
    return path, caption.frame_indices


def _read_frames(raw: RawSample, video: VideoSource, wanted: np.ndarray) -> np.ndarray:
    """The frames `(len(wanted), H, W, 3)`; all of them or an error."""
    try:
        # One thread: parallelism comes from the workers, and more threads a worker are slower.
        clip = read_video(video, target_fps=None, select=lambda _: wanted.tolist(), num_threads=1)
    except VideoDecodeError as error:
        raise _problem(raw, "bad_video", str(error)) from None
    if len(clip.frames) < len(wanted):
        missing = sorted({*wanted.tolist()} - {*clip.frame_indices.tolist()})
        raise _problem(raw, "bad_video", f"frames {missing} do not decode")
    return clip.frames


def _problem(raw: RawSample, reason: str, text: str) -> ShardError:
    message = f"{raw.shard.split('?')[0]}: sample {raw.index} ({raw.key!r}): {' '.join(text.split())}"
    return ShardError(message, raw.shard, raw.index, raw.key, reason)


__all__ = [
    "NO_OBJECT",
    "DamagedDataError",
    "EncodedSample",
    "SampleDecoder",
    "Skips",
    "StreamSample",
    "damaged",
    "read_sample_record",
]
