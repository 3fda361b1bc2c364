"""The clips of a benchmark: their annotations, and exactly those frames that are annotated.

Data is what [`~dataset_builders.sources.iter_source`] reads (JSONL of records, a shard, a folder or a Hub repository of shards),
a Hub id `org/name`, or `shapes:SEED[:COUNT]`, clips of GroundedShapes that are made on the spot. Data without clips needs
the folder of the source videos.

As the original, VidSTG is predicted on its tube only, and not on the rest of the segment: on all sampled frames of the tube, or
for the original's windows on `range(begin, end - 1, int(fps / 5))` as the original does, which leaves out a frame before the end
that `corrected` counts. All other benchmarks are predicted on every annotated frame.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dataset_builders.clips import clip_frames
from dataset_builders.record import Record, from_record, record_key, record_metadata
from dataset_builders.sources import MANIFEST_NAME, RECORD_SUFFIXES, find_shards, iter_source, locate
from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.video_file_grove import VideoFile
from modeling_grove.video_grove import VideoClip, VideoDecodeError, VideoSource, read_video

from .activitynet_segments import annotated_segment
from .pointing import SEGMENT_FIELDS, pointing_reference
from .vidstg_sentences import vidstg_reference_of

_SHAPES = re.compile(r"shapes:(\d+)(?::(\d+))?")
_DEFAULT_SHAPES = 100
_SHAPES_SPLITS = {"val": "validation"}
_RATE_TOLERANCE = 0.01  # as for `shard`: between 29.97 and 30 frames a second lie 0.001, between 24 and 25 0.04
_ASPECT_TOLERANCE = 0.02  # 1280 x 720 scaled to an even width of 426 x 240 differs by 0.002


@dataclass(frozen=True)
class BenchmarkClip:
    """
    A clip to predict.

    Attributes:
        record (`dict`): its annotation, see `dataset_builders.record`.
        caption ([`GroundedCaption`]): the same.
        frames (`np.ndarray` of shape `(T,)`, int64): source frames to predict, increasing.
        video (`VideoSource` or `None`): the clip or its source video; `None` if there is none.
        video_frames (`np.ndarray` of shape `(T,)`, int64): where `frames` are in `video`.
        problem (`str` or `None`): why there is no video.
    """

    record: Record
    caption: GroundedCaption
    frames: np.ndarray
    video: VideoSource | None
    video_frames: np.ndarray
    problem: str | None = None

    @property
    def key(self) -> str:
        """Name of the clip, `{video_id}_{clip_id}`."""
        return self.caption.key

    def read(self) -> VideoClip:
        """
        Decodes the frames to predict, in the numbers and the size of the annotation.

        Raises:
            [`VideoDecodeError`]: if not all of them decode, or the video is not the one that was annotated.
        """
        annotation = self.caption
        if self.video is None:
            raise VideoDecodeError(self.problem or "no video")
        wanted = self.video_frames.tolist()

        def select(total: int) -> list[int]:
            if wanted[-1] >= total:
                raise ValueError(f"the video ends with frame {total - 1}, but frame {wanted[-1]} is annotated")
            return wanted

        clip = read_video(self.video, target_fps=None, select=select, num_threads=1)
        if len(clip.frames) < len(wanted):
            missing = sorted({*wanted} - {*clip.frame_indices.tolist()})
            raise VideoDecodeError(f"{clip.name}: frames {missing[:5]} do not decode")
        annotated = f"but the clip was annotated on {annotation.width} x {annotation.height} at {annotation.fps:g} fps"
        if abs(clip.width / clip.height / (annotation.width / annotation.height) - 1) > _ASPECT_TOLERANCE:
            raise VideoDecodeError(f"{clip.name}: the video is {clip.width} x {clip.height}, {annotated}")
        source = self.video if isinstance(self.video, Path) else None
        other_rate = abs(clip.fps / annotation.fps - 1) > _RATE_TOLERANCE
        # The average of a rate that varies depends on who takes it; a clip cut out of the video has another one.
        if source and other_rate and not VideoFile(os.path.abspath(source), clip.name, None).timeline.variable:
            raise VideoDecodeError(f"{clip.name}: the video has {clip.fps:g} frames a second, {annotated}")
        return VideoClip(
            frames=clip.frames,
            frame_indices=self.frames,
            timestamps=annotation.timestamps[np.isin(annotation.frame_indices, self.frames)],
            fps=annotation.fps,
            # Boxes come out in the annotation's pixels, also where the video was scaled since.
            width=annotation.width,
            height=annotation.height,
            start_frame=annotation.clip_start_frame,
            end_frame=annotation.clip_end_frame,
            total_num_frames=annotation.clip_end_frame + 1,
            name=annotation.video_fname,
        )


class BenchmarkData:
    """
    The clips of a benchmark, in the order of the data; an iterable of [`BenchmarkClip`].

    Args:
        benchmark (`str`):
            Which frames are predicted depends on it, and what the records must have.
        source (`str`):
            See the module's first lines.
        split (`str`, *optional*), config (`str`, *optional*):
            Of data that has several.
        videos (`Path`, *optional*):
            Folder with each record's `video_fname`, for data without clips.
        limit (`int`, *optional*):
            Take the first clips only.
        windows (`str`, *optional*, defaults to `"covering"`):
            "sliding" for the original's frames of VidSTG.
        scored (`bool`, *optional*, defaults to `True`):
            Whether predictions are scored against the records, which then must have what the benchmark needs.

    Attributes:
        total (`int` or `None`): number of clips, where it is known without reading them.

    Raises:
        `ValueError`: if there is no such data.
    """

    def __init__(
        self,
        benchmark: str,
        source: str,
        split: str | None = None,
        config: str | None = None,
        videos: Path | None = None,
        limit: int | None = None,
        windows: str = "covering",
        scored: bool = True,
    ):
        if videos is not None and not videos.is_dir():
            raise ValueError(f"--videos: no folder {str(videos)!r}")
        self.benchmark, self.split, self.config, self.videos, self.limit = benchmark, split, config, videos, limit
        self.windows, self.scored = windows, scored
        self.total: int | None = None
        match = _SHAPES.fullmatch(source)
        self._shapes: tuple[int, int] | None = None
        if match:
            if split is None:
                raise ValueError("--split: shapes need one of train, validation (or val), test")
            self._shapes = int(match[1]), int(match[2] or _DEFAULT_SHAPES)
            self.split = _SHAPES_SPLITS.get(split, split)
            self.total = self._shapes[1]
        elif source.startswith("shapes:"):
            raise ValueError(f"--data: expected shapes:SEED or shapes:SEED:COUNT with numbers, got {source!r}")
        self.source = source if match else locate(source)
        self._records: list[tuple[Record, bytes | None]] | None = None
        if self.source.endswith(RECORD_SUFFIXES):
            for option, value in (("split", split), ("config", config)):
                if value is not None:
                    raise ValueError(f"--{option}: got {value!r}, but a file of records has none; leave it out")
            # Small without videos, and with their number the remaining time is known from the first clip on.
            self._records = list(islice(iter_source(self.source), limit))
            self.total = len(self._records)
        elif not match:
            counts = [shard.num_samples for shard in self._shards()]
            self.total = None if None in counts else sum(count or 0 for count in counts)
        if limit is not None:
            self.total = limit if self.total is None else min(limit, self.total)
        if self.total == 0:
            raise ValueError(f"--data: no clips in {source!r}")

    def check(self) -> None:
        """
        Looks at the annotations of a file before any clip is run; others are looked at as they are read.

        Raises:
            `ValueError`: naming clip and field of the first that is wrong.
        """
        keys: set[str] = set()
        for record, _ in self._records or ():
            self._new_key(self._annotation(record)[0].key, keys)

    def describe(self) -> dict[str, Any]:
        """
        What data it is, without a path of this machine: `name`, `hub_id` and `revision` of a Hub repository, `fingerprint` of
        local files, `split`, `config` and `limit`.
        """
        name, hub_id, revision, fingerprint = PurePosixPath(self.source.split("?")[0]).name, None, None, None
        if self._shapes is not None:
            from dataset_builders.shapes.world import VERSION

            name = f"GroundedShapes (seed {self._shapes[0]}, {self._shapes[1]} clips)"
            fingerprint = f"version {VERSION}"
        elif match := re.match(r"hf://datasets/([^/@]+/[^/@]+)@([^/]+)(?:/(.+))?", self.source):
            hub_id, revision = match[1], match[2]
            name = hub_id if match[3] is None else f"{hub_id}/{match[3]}"
        elif "://" not in self.source:
            fingerprint = self._fingerprint()
        return {
            "name": name,
            "hub_id": hub_id,
            "revision": revision,
            "fingerprint": fingerprint,
            "config": self.config,
            "split": self.split,
            "limit": self.limit,
        }

    def __iter__(self) -> Iterator[BenchmarkClip]:
        keys: set[str] = set()
        clips: Iterable[BenchmarkClip] = self._made() if self._shapes is not None else self._read()
        for clip in islice(clips, self.limit):
            self._new_key(clip.key, keys)
            yield clip
        if not keys:  # which is not always known before
            raise ValueError(f"--data: no clips in {self.source!r}")

    def _new_key(self, key: str, keys: set[str]) -> None:
        """Adds a key to those of the clips before."""
        if key in keys:
            raise ValueError(f"--data: clip {key!r}: the data has two clips of this key; keep one of them")
        keys.add(key)

    def _made(self) -> Iterator[BenchmarkClip]:
        """Clips of GroundedShapes."""
        from dataset_builders.shapes import iter_clips

        assert self._shapes is not None and self.split is not None
        for made in iter_clips(self.split, self._shapes[1], self._shapes[0]):
            record = made.to_record()
            caption, frames = self._annotation(record)
            yield BenchmarkClip(record, caption, frames, made.frames, frames)

    def _read(self) -> Iterator[BenchmarkClip]:
        """Clips of files."""
        items: Iterable[tuple[Record, bytes | None]] = self._records or iter_source(
            self.source, self.config, self.split, prefer_video=self.videos is None
        )
        for record, mp4 in items:
            caption, frames = self._annotation(record)
            video: VideoSource | None = None
            places, problem = frames, None
            try:
                video, places = self._video(record, caption, frames, mp4)
            except ValueError as error:
                problem = str(error)
            yield BenchmarkClip(record, caption, frames, video, places, problem)

    def _annotation(self, record: Record) -> tuple[GroundedCaption, np.ndarray]:
        """The annotation of a record, and the frames to predict; what could not be scored later is found now."""
        try:
            caption = from_record(record)
            frames = frames_to_predict(self.benchmark, record, caption, self.windows)
            check_benchmark(self.benchmark, record, caption, self.scored)
            return caption, frames
        except ValueError as error:
            key = record_key(record) if {"video_id", "clip_id"} <= {*record} else "without video_id or clip_id"
            message = str(error) if repr(key) in str(error) else f"clip {key!r}: {error}"
            raise ValueError(f"--data: {message}") from None

    def _video(
        self, record: Record, caption: GroundedCaption, frames: np.ndarray, mp4: bytes | None
    ) -> tuple[VideoSource, np.ndarray]:
        """The clip or the source video of a record, and where the frames are in it."""
        if mp4 is not None and self.videos is None:
            return mp4, frames - caption.frame_indices[0] + clip_frames(record)[0]
        name = PurePosixPath(caption.video_fname)
        if self.videos is None:
            raise ValueError("the data has no clips; name the folder of the source videos with --videos")
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"the video {caption.video_fname!r} would be outside of the folder of videos")
        if not os.path.isfile(self.videos / name):  # unlike `Path.is_file`, no error for names that no file can have
            raise ValueError(f"no video {caption.video_fname!r} in the folder of videos")
        return self.videos / name, frames

    def _shards(self) -> list[Any]:
        return find_shards(self.source, self.config, self.split, prefer_video=self.videos is None)

    def _fingerprint(self) -> str:
        """32 hexadecimal digits of the annotations' content, as far as it can be known without reading videos."""
        path, digest = Path(self.source), hashlib.sha256()
        if path.is_dir() and (path / MANIFEST_NAME).exists():
            path = path / MANIFEST_NAME  # has the checksum of every shard
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            for shard in self._shards():
                digest.update(f"{Path(shard.url).name}\0{os.path.getsize(shard.url)}\0".encode())
        return digest.hexdigest()[:32]


def check_benchmark(benchmark: str, record: Record, caption: GroundedCaption, scored: bool = True) -> None:
    """
    Raises:
        `ValueError`: naming the field, if the record is not of this benchmark, or cannot be scored and is to be.
    """
    if benchmark in SEGMENT_FIELDS and "temporal_gt" in record_metadata(record):
        raise ValueError(f"metadata.temporal_gt: there is one, as in VidSTG; expected a segment of {benchmark}")
    if not scored:
        return
    if benchmark == "activitynet_entities":
        annotated_segment(record)
    elif benchmark in SEGMENT_FIELDS:
        pointing_reference(caption)
    elif benchmark == "vidstg":
        vidstg_reference_of(record)


def frames_to_predict(
    benchmark: str, record: Record, caption: GroundedCaption, windows: str = "covering"
) -> np.ndarray:
    """
    Which source frames of an annotated clip a benchmark asks a model about.

    Raises:
        `ValueError`: if the record of a VidSTG sentence does not say where its tube is.
    """
    if benchmark != "vidstg":
        return caption.frame_indices
    tube = record_metadata(record).get("temporal_gt")
    if not isinstance(tube, dict) or not all(isinstance(tube.get(name), int) for name in ("begin_fid", "end_fid")):
        raise ValueError(
            f"metadata: expected `temporal_gt` with begin_fid and end_fid, as the importer writes it, got {tube!r}"
        )
    first, end = tube["begin_fid"], tube["end_fid"]
    if windows == "sliding":
        end = max(end - 1, first + 1)  # a tube of one frame, which the official evaluation does not count, still has it
    inside = (caption.frame_indices >= first) & (caption.frame_indices < end)
    if not inside.any():
        raise ValueError(f"metadata.temporal_gt: no annotated frame from {first} on and before {end}")
    return caption.frame_indices[inside]


__all__ = ["BenchmarkClip", "BenchmarkData", "check_benchmark", "frames_to_predict"]
