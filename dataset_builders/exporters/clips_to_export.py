"""What every exporter needs: clips with names that files can have, runs of presence, and folders that appear when complete."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from dataset_builders.record import from_record, record_metadata, sample_key
from dataset_builders.record_checks import key_of
from modeling_grove.grounded_caption import GroundedCaption

from .categories import Categories, CategoryKind

VideoKind = Literal["source", "clip"]
VIDEO_KINDS: tuple[VideoKind, ...] = get_args(VideoKind)

# What a file name can be on every system, and what neither a URL nor an INI file reads as something else.
_FILE_NAME = re.compile(r"[^\\/:*?\"<>|%#\x00-\x1f]+")


@dataclass(frozen=True)
class ExportCounts:
    """
    What an export wrote.

    Attributes:
        clips (`int`), frames (`int`): clips, and their annotated frames.
        tracks (`int`), boxes (`int`): objects that are present at least once, and their boxes.
        categories (`int`): distinct categories.
    """

    clips: int
    frames: int
    tracks: int
    boxes: int
    categories: int


class Track(NamedTuple):
    """An object that is present at least once: its phrase, boxes `(T, 4)`, presence `(T,)` and objectness `(T,)`."""

    phrase: str
    category: int
    boxes: np.ndarray
    presence: np.ndarray
    objectness: np.ndarray


class Clip(NamedTuple):
    """A clip to export; `first_frame` is the source frame that its own video, if it was cut out, starts with."""

    key: str
    caption: GroundedCaption
    tracks: list[Track]
    first_frame: int

    def video(self, kind: VideoKind) -> tuple[str, int]:
        """File name of the source video, or of the clip's own one in its shard, and the source frame that is its frame 0."""
        if kind == "source":
            return self.caption.video_fname, 0
        name = sample_key({"video_id": self.caption.video_id, "clip_id": self.caption.clip_id})
        return f"{name}.mp4", self.first_frame


class Clips:
    """
    Reads records one by one as clips, puts their phrases into categories, and counts.

    Iterating raises a `ValueError` that names the clip if a record is not valid, or if its key is no file name or not unique.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], categories: Categories | CategoryKind):
        self.records = records
        self.categories = categories if isinstance(categories, Categories) else Categories(categories)
        self.keys: set[str] = set()
        self.frames = self.tracks = self.boxes = 0

    def __iter__(self) -> Iterator[Clip]:
        for record in self.records:
            clip = self._clip(record)
            self.keys.add(clip.key)
            self.frames += clip.caption.num_frames
            self.tracks += len(clip.tracks)
            self.boxes += sum(int(track.presence.sum()) for track in clip.tracks)
            yield clip

    def _clip(self, record: Mapping[str, Any]) -> Clip:
        try:
            caption, first = from_record(record), first_frame(record)
        except ValueError as error:
            name = key_of(record) or "without a key"
            raise ValueError(f"record {name}: {error} (`validate` sets such records aside)") from None
        if not _FILE_NAME.fullmatch(caption.key) or caption.key.startswith("."):
            raise ValueError(f"record {caption.key!r}: no name for a file; rename its video_id")
        if caption.key in self.keys:
            raise ValueError(
                f"record {caption.key!r} appears twice; keys must be unique (`validate` finds such records)"
            )
        tracks = [
            Track(t.phrase, self.categories.number(t.phrase), t.boxes, t.presence, t.objectness)
            for t in caption.tracks
            if t.presence.any()
        ]
        return Clip(caption.key, caption, tracks, first)

    def counts(self) -> ExportCounts:
        """What was read so far."""
        return ExportCounts(len(self.keys), self.frames, self.tracks, self.boxes, len(self.categories))


def first_frame(record: Mapping[str, Any]) -> int:
    """
    The source frame that a clip's own video starts with: recorded in `metadata` where the clip was cut with its shard, else
    the clip's first frame.

    Raises:
        `ValueError`: if `metadata` does not hold what it should.
    """
    cut = record_metadata(record).get("clip")
    if cut is None:
        return int(record["clip_start_frame"])
    first = cut.get("first_frame") if isinstance(cut, dict) else None
    if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first <= record["clip_start_frame"]:
        start = record["clip_start_frame"]
        raise ValueError(f"metadata: expected clip.first_frame in 0..{start}, where the clip starts, got {first!r}")
    return first


def pixels(box: np.ndarray) -> list[float]:
    """The coordinates as the shortest floats that give the same float32 again."""
    return [float(str(value)) for value in box]


def runs(presence: np.ndarray) -> list[tuple[int, int]]:
    """The ranges `(start, end)`, end exclusive, of sampled frames in which an object is present without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], presence, [False]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def checked_video(kind: str) -> VideoKind:
    """`kind`, if it is one of `VIDEO_KINDS`."""
    for known in VIDEO_KINDS:
        if kind == known:
            return known
    raise ValueError(f"video: expected one of {', '.join(VIDEO_KINDS)}, got {kind!r}")


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    Yields a temporary sibling of the folder; makes it `path` on success and removes it on any error.

    Raises:
        `ValueError`: if there is something at `path` that is not an empty folder.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{os.fspath(path)!r} is not empty; expected a new folder")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.exists():
            target.rmdir()
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


__all__ = [
    "VIDEO_KINDS",
    "Clip",
    "Clips",
    "ExportCounts",
    "Track",
    "VideoKind",
    "atomic_folder",
    "checked_video",
    "first_frame",
    "pixels",
    "runs",
]
