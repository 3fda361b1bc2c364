"""
Which clips are annotated: all videos of a folder, or the rows of a table, cut into windows if that is asked for.

A table is CSV (with a header), JSONL or Parquet. Its columns are `video` (file, relative to the folder of videos) and, optional,
`start` and `end` (seconds), `video_id` and `clip_id`; or the fields of records, of which the source frames are taken.
HowToCaption's layout is read too: one entry a video, with lists of `start` and `end`.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import av

from dataset_builders.reading import read_entries

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")


@dataclass(frozen=True)
class ClipRequest:
    """
    A clip that is to be annotated.

    Args:
        video_id (`str`), clip_id (`int`), video_fname (`str`): as in a record.
        start (`float`, *optional*), end (`float`, *optional*): seconds of the video; by default all of it.
        start_frame (`int`, *optional*), end_frame (`int`, *optional*): source frames, both in the clip; instead of seconds.
    """

    video_id: str
    clip_id: int
    video_fname: str
    start: float | None = None
    end: float | None = None
    start_frame: int | None = None
    end_frame: int | None = None

    def __post_init__(self) -> None:
        name = PurePosixPath(self.video_fname)
        if not name.name or name.is_absolute() or ".." in name.parts:
            raise ValueError(f"video: expected a file below the folder of videos, got {self.video_fname!r}")
        try:
            f"{self.video_id}{self.video_fname}".encode()
        except UnicodeEncodeError:
            raise ValueError(f"video: expected a name in UTF-8, got {self.video_fname!r}") from None
        frames = 0 if self.start_frame is None else self.start_frame, self.end_frame
        if frames[0] < 0 or (frames[1] is not None and frames[1] < frames[0]):
            raise ValueError(
                f"{self.video_fname}: frames {self.start_frame}..{self.end_frame}; expected 0 <= first <= last"
            )
        start, end = 0.0 if self.start is None else self.start, float("inf") if self.end is None else self.end
        if not 0 <= start < end:
            raise ValueError(
                f"{self.video_fname}: start {self.start}, end {self.end}; expected 0 <= start < end, in seconds"
            )

    @property
    def key(self) -> str:
        """`{video_id}_{clip_id}`."""
        return f"{self.video_id}_{self.clip_id}"


def clips_of_folder(folder: Path) -> list[ClipRequest]:
    """
    Every video of a folder and those below it, as one clip each, in the order of their names.

    Raises:
        `ValueError`: if there is none.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )
    if not names:
        raise ValueError(f"{folder}: no videos ({', '.join(VIDEO_SUFFIXES)}); expected a folder of them")
    files: dict[str, str] = {}
    for name in names:
        if (other := files.setdefault(_video_id(name), name)) != name:
            raise ValueError(
                f"{folder}: {other} and {name} would both be {_video_id(name)!r}; give a table with video_id for each"
            )
    return [ClipRequest(video_id, 0, name) for video_id, name in files.items()]


def _video_id(name: str) -> str:
    """What a file's video is called where nobody says it."""
    return PurePosixPath(name).with_suffix("").as_posix().replace("/", "-")


def read_table(path: Path) -> list[ClipRequest]:
    """
    The clips of a table (see the module).

    Raises:
        `ValueError`: naming file and row, if one cannot be read, or a key comes twice.
    """
    requests: list[ClipRequest] = []
    rows: dict[str, int] = {}
    counted: dict[str, int] = {}
    for number, row in enumerate(_rows(path), start=1):
        try:
            for request in _requests(row, counted):
                if request.key in rows:
                    raise ValueError(
                        f"the key {request.key!r} is row {rows[request.key]}'s already; expected each once"
                    )
                rows[request.key] = number
                requests.append(request)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}: row {number}: {error}") from None
    if not requests:
        raise ValueError(f"{path}: no clips; expected a row for each")
    return requests


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                yield from (
                    {name: value or None for name, value in row.items() if name} for row in csv.DictReader(file)
                )
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from None
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1024):
            yield from batch.to_pylist()
    else:
        for entry in read_entries(str(path)):
            yield {"video_id": entry.key, **entry.value} if entry.key and "video_id" not in entry.value else entry.value


def _requests(row: Mapping[str, Any], counted: dict[str, int]) -> Iterator[ClipRequest]:
    """The clips of a row: one, or as many as its lists of start and end are long."""
    name = row.get("video") or row.get("video_fname")
    video_id = row.get("video_id")
    if name is None and video_id is None:
        raise ValueError(f"expected a column `video` (or `video_fname`, `video_id`), got {', '.join(row) or 'nothing'}")
    name = f"{video_id}.mp4" if name is None else str(name)
    video_id = _video_id(name) if video_id is None else str(video_id)
    if row.get("clip_start_frame") is not None and row.get("clip_end_frame") is not None:
        frames = int(row["clip_start_frame"]), int(row["clip_end_frame"])
        yield ClipRequest(video_id, _number(row, video_id, counted), name, start_frame=frames[0], end_frame=frames[1])
        return
    start, end = row.get("start"), row.get("end")
    if isinstance(start, Sequence) and not isinstance(start, str):
        if not isinstance(end, Sequence) or len(start) != len(end):
            raise ValueError(f"{video_id}: start has {len(start)} entries; expected as many in end")
        for one, other in zip(start, end, strict=True):
            yield ClipRequest(video_id, _number({}, video_id, counted), name, float(one), float(other))
        return
    seconds = [None if value is None else float(value) for value in (start, end)]
    yield ClipRequest(video_id, _number(row, video_id, counted), name, seconds[0], seconds[1])


def _number(row: Mapping[str, Any], video_id: str, counted: dict[str, int]) -> int:
    """The row's `clip_id`, or how many of its video came before."""
    given = row.get("clip_id")
    number = counted.get(video_id, 0) if given is None else int(given)
    counted[video_id] = max(counted.get(video_id, 0), number + 1)
    return number


def cut(requests: Sequence[ClipRequest], videos: Path, seconds: float) -> list[ClipRequest]:
    """
    Clips cut into windows (see [`windows`]); one whose video cannot be read stays whole, to be dropped with a reason later.

    Raises:
        `ValueError`: if two would have one key, or a clip is given in frames.
    """
    found: dict[str, ClipRequest] = {}
    for request in requests:
        duration = video_duration(videos / request.video_fname)
        for window in [request] if duration is None else windows(request, duration, seconds):
            if window.key in found:
                raise ValueError(
                    f"windows of {seconds} s: two clips would have the key {window.key!r}; give one row a video"
                )
            found[window.key] = window
    return list(found.values())


def video_duration(path: Path) -> float | None:
    """Seconds of a video, by its header; `None` if it cannot be read or does not say."""
    try:
        with av.open(str(path.absolute())) as container:
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, OSError):
        return None


def windows(request: ClipRequest, duration: float, seconds: float, least: float = 1.0) -> list[ClipRequest]:
    """
    A clip cut into windows of equal length.

    Args:
        request ([`ClipRequest`]): cut by seconds, or a whole video.
        duration (`float`): of the video, in seconds.
        seconds (`float`): of a window.
        least (`float`, *optional*, defaults to 1.0): a rest that is shorter is left out, unless it is all there is.

    Raises:
        `ValueError`: if the clip is given in frames, or a length is not positive.
    """
    if request.start_frame is not None or not seconds > 0:
        raise ValueError(
            f"{request.key}: windows of {seconds} s; expected a clip given in seconds, and a positive length"
        )
    start, end = request.start or 0.0, duration if request.end is None else min(request.end, duration)
    count = max(1, int((end - start) // seconds) + ((end - start) % seconds >= least))
    return [
        replace(request, clip_id=request.clip_id + number, start=start + number * seconds,
                end=min(end, start + (number + 1) * seconds))
        for number in range(count)
    ]  # fmt: skip


def without(requests: Sequence[ClipRequest], held_back: Collection[str]) -> list[ClipRequest]:
    """Those whose video is not among the ids that are held back for evaluation."""
    return [request for request in requests if request.video_id not in held_back]


__all__ = [
    "VIDEO_SUFFIXES",
    "ClipRequest",
    "clips_of_folder",
    "cut",
    "read_table",
    "video_duration",
    "windows",
    "without",
]
