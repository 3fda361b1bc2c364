"""Making shards, one job a shard, in processes that may die: what is made stays made, and the rest is made again."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from modeling_grove.grounded_caption import atomic_path
from modeling_grove.video_grove import VideoDecodeError

from .clips import Clip, cut_clip
from .manifest import video_config
from .record import Record, from_record, processed, record_key, record_metadata, sample_key, to_record
from .statistics import Statistics
from .tar_shards import write_shard
from .worker_pool import worker_context, worker_pool

logger = logging.getLogger(__name__)

Sample = tuple[str, dict[str, bytes]]

_POLL_SECONDS = 0.2
_RATE_TOLERANCE = 0.01  # between 29.97 and 30 frames a second lie 0.001, between 24 and 25 0.04
_MAX_DEATHS = 3  # of workers in a row, without a shard that was finished between them


@dataclass(frozen=True)
class ShardJob:
    """
    A shard of records and, with `videos`, the one of the same records with their clips.

    Attributes:
        index (`int`), num_shards (`int`): number of the shard, and how many the split has.
        lines (`np.ndarray`): `(N, 2)` int64, offset and length of each record in `records`.
        records (`Path`): JSONL of valid records.
        root (`Path`), config (`str`), split (`str`): where the shards go.
        videos (`Path`, *optional*): folder of the videos.
        make_processed (`bool`): whether instances of a phrase in a frame become their union.
        result (`Path`): where to write down that it is done.
    """

    index: int
    num_shards: int
    lines: np.ndarray
    records: Path
    root: Path
    config: str
    split: str
    videos: Path | None
    make_processed: bool
    result: Path

    def shard(self, config: str) -> str:
        """Path of the shard inside of the data set."""
        return f"{config}/{self.split}-{self.index:05d}-of-{self.num_shards:05d}.tar"


def make_shard(job: ShardJob, on_record: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """
    Makes the shard or shards of a job, writes what it returns to `job.result`, and returns it.

    Args:
        job ([`ShardJob`]):
            What to make.
        on_record (`Callable`, *optional*):
            Called with the number of records that are done.

    Returns:
        `dict` of JSON types: `index`; by configuration, `shards` (the manifest's entry) and `statistics` (their state); `cuts`,
        how many clips were copied and encoded; `missing`, the number of records of each video that is not there; `broken`, key,
        video and message of each clip that cannot be cut.

    Raises:
        `ValueError`: naming the record, if one cannot be written; [`ShardError`] if the shards could not be read back.
        `OSError`: if the shards cannot be written.
    """
    missing: Counter[str] = Counter()
    broken: list[dict[str, str]] = []
    cuts: Counter[str] = Counter()
    statistics = {job.config: Statistics()}
    shards = {}
    done = 0

    def annotations() -> Iterator[Sample]:
        nonlocal done
        for record in _records(job):
            statistics[job.config].add(record)
            yield sample_key(record), {"json": _dumped(record)}
            if job.videos is None:
                on_record(done := done + 1)

    def clips(folder: Path) -> Iterator[Sample]:
        nonlocal done
        for record in _records(job):
            name = record["video_fname"]
            if not os.path.isfile(folder / name):  # unlike `Path.is_file`, no error for names that no file can have
                missing[name] += 1
            else:
                try:
                    clip = _cut(record, folder / name)
                except VideoDecodeError as error:
                    broken.append({"key": record_key(record), "video": name, "message": str(error)})
                except OSError as error:
                    message = f"{name}: cannot be read ({error.strerror or type(error).__name__})"
                    broken.append({"key": record_key(record), "video": name, "message": message})
                else:
                    metadata = {**record_metadata(record), "clip": clip.metadata()}
                    record["metadata"] = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
                    statistics[with_video].add(record)
                    cuts["copied" if clip.cut == "copy" else "encoded"] += 1
                    yield sample_key(record), {"json": _dumped(record), "mp4": clip.data}
            on_record(done := done + 1)

    shards[job.config] = {
        **asdict(write_shard(job.root / job.shard(job.config), annotations())),
        "name": job.shard(job.config),
    }
    if job.videos is not None:
        with_video = video_config(job.config)
        statistics[with_video] = Statistics()
        summary = write_shard(job.root / job.shard(with_video), clips(job.videos))
        shards[with_video] = {**asdict(summary), "name": job.shard(with_video)}
    states = {name: found.state() for name, found in statistics.items()}
    result = {
        "index": job.index,
        "shards": shards,
        "statistics": states,
        "cuts": cuts,
        "missing": missing,
        "broken": broken,
    }
    with atomic_path(job.result) as temporary:
        temporary.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    return result


def make_shards(jobs: Sequence[ShardJob], workers: int) -> Iterator[None]:
    """
    Makes the shards of many jobs; yields once for each record that is done.

    A worker that dies (killed when memory runs out, crashed by a video) costs the shard that it was at, which is made again.

    Args:
        jobs (`Sequence[ShardJob]`):
            What to make.
        workers (`int`):
            Processes. With 1 the jobs run in a thread of this one.

    Raises:
        `OSError`: if a shard cannot be written. What is made stays.
        `ValueError`: if workers die again and again.
    """
    counters = worker_context(__name__).RawArray("q", len(jobs) + 1)
    left = set(range(len(jobs)))
    reported = deaths = 0
    while left:
        _remove_leftovers(jobs)
        with _executor(min(workers, len(left)), workers == 1, counters) as executor:
            pending = {executor.submit(_run, position, jobs[position]) for position in sorted(left)}
            try:
                while pending:
                    finished, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                    for future in finished:
                        if not isinstance(future.exception(), BrokenProcessPool):
                            left.remove(future.result())
                            deaths = 0
                    if any(future.exception() for future in finished):
                        break
                    total = sum(counters[:-1])
                    yield from [None] * (total - reported)
                    reported = max(reported, total)
            finally:
                counters[-1] = _STOP if pending else 0
        if left:
            deaths += 1
            at = [f"shard {jobs[n].index} after {counters[n]} of {len(jobs[n].lines)}" for n in left if counters[n]]
            what = f"a worker died ({', '.join(at) or 'before its first record'})"
            if deaths == _MAX_DEATHS:
                raise ValueError(
                    f"{what}, {deaths} times in a row; take fewer --workers if memory ran out, or the video that it was at "
                    "out of the annotations; what is made stays"
                )
            logger.warning("%s; making %d shards again", what, len(left))


def _remove_leftovers(jobs: Sequence[ShardJob]) -> None:
    """Removes the temporary files of workers, and of runs, that were killed."""
    for folder in {
        (job.root / job.shard(name)).parent for job in jobs for name in (job.config, video_config(job.config))
    }:
        for path in folder.glob(f".{jobs[0].split}-*.tmp.tar"):
            path.unlink()


class _Stopped(Exception):
    """The run ends; what is half made is not needed."""


_STOP = 1
_counters: Any = None  # of this worker: records done by position of the job, and last, whether to stop


def _executor(workers: int, in_thread: bool, counters: Any) -> Executor:
    counters[-1] = 0
    if in_thread:
        return ThreadPoolExecutor(1, initializer=_use, initargs=(counters,))
    return worker_pool(workers, __name__, counters, initializer=_start)


def _use(counters: Any) -> None:
    global _counters
    _counters = counters


def _start(counters: Any) -> None:
    """Prepares a process: interrupts are its parent's business."""
    _use(counters)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(position: int, job: ShardJob) -> int:
    """Makes the shards of the job at a position, and returns the position."""

    def on_record(done: int) -> None:
        if _counters[-1] == _STOP:
            raise _Stopped
        _counters[position] = done

    on_record(0)
    make_shard(job, on_record)
    return position


def _records(job: ShardJob) -> Iterator[Record]:
    with job.records.open("rb") as file:
        for offset, length in job.lines.tolist():
            file.seek(offset)
            record = orjson.loads(file.read(length))
            with _named(record):
                ours = (
                    processed(record) if job.make_processed else to_record(from_record(record), record_metadata(record))
                )
            yield ours


def _dumped(record: Record) -> bytes:
    with _named(record):
        return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@contextmanager
def _named(record: Mapping[str, Any]) -> Iterator[None]:
    """Says of which record an error is."""
    try:
        yield
    except ValueError as error:
        what = f"the record {record_key(record)!r} cannot be written"
        raise ValueError(f"{what} ({error}); take it out of the annotations") from error


def _cut(record: Record, path: Path) -> Clip:
    """
    The clip of a record.

    Raises:
        [`VideoDecodeError`]: if it cannot be cut, or the video is not the one that was annotated.
    """
    clip = cut_clip(path, record["clip_start_frame"], record["clip_end_frame"])
    annotated = (
        f"but the record was annotated on one of {record['width']} x {record['height']} at {record['fps']:g} fps"
    )
    if (clip.width, clip.height) != (record["width"], record["height"]):
        raise VideoDecodeError(f"{path.name}: the video is {clip.width} x {clip.height}, {annotated}")
    if clip.fps is not None and abs(clip.fps / record["fps"] - 1) > _RATE_TOLERANCE:
        raise VideoDecodeError(f"{path.name}: the video has {clip.fps:g} frames a second, {annotated}")
    last, end = record["frame_indices"][-1], clip.first_frame + clip.num_frames - 1
    if last > end:
        raise VideoDecodeError(f"{path.name}: the video ends with frame {end}, but the record annotates frame {last}")
    return clip


__all__ = ["ShardJob", "make_shard", "make_shards"]
