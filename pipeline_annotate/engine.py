"""
All three stages over many clips: a task for every part of the list, in processes that may die, here or on a cluster.

The blocks and executors are datatrove's. A part's files are written by [`~pipeline_annotate.stage_files.StageWriter`], so whatever
is killed, and whenever, goes on behind the last clip that it finished. datatrove's own local executor waits for ever for a worker
that was killed; [`ResilientExecutor`] does its part again.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from dataset_builders.worker_pool import worker_context, worker_pool
from modeling_grove.grounded_caption import atomic_path

from .clip_lists import ClipRequest
from .stage1 import write_frames
from .stage2 import read_clips, write_captions
from .stage3 import write_records
from .stage_files import dropped_path
from .stage_settings import StageSettings

logger = logging.getLogger(__name__)

STAGES = ("frames", "captions", "records")
_MOST_DEATHS = 3  # in a row, without a part that is finished between them


def part_folder(output: Path, rank: int) -> Path:
    """The folder of a part."""
    return output / "parts" / f"{rank:05d}"


class AnnotateParts(PipelineStep):
    """
    A block: task `rank` annotates the clips of part `rank`.

    Args:
        output (`str`): folder of the run, with `clips.jsonl`.
        videos (`str`): folder of the videos.
        settings ([`StageSettings`]): how.
        clips_per_part (`int`): of the list.
    """

    type = "GROVE"
    name = "annotate"

    def __init__(self, output: str, videos: str, settings: StageSettings, clips_per_part: int):
        super().__init__()
        self.output, self.videos, self.settings, self.clips_per_part = output, videos, settings, clips_per_part

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Annotates a part; what goes in passes through."""
        requests = read_requests(Path(self.output), rank * self.clips_per_part, self.clips_per_part)
        with self.track_time("part"):
            counts = annotate_part(part_folder(Path(self.output), rank), requests, Path(self.videos), self.settings)
        for name, value in counts.items():
            self.stat_update(name, value=value, unit="part")
        yield from data or ()


def annotate_part(
    folder: Path, requests: Sequence[ClipRequest], videos: Path, settings: StageSettings
) -> dict[str, int]:
    """
    All three stages of some clips; stages that are finished are not done again.

    Returns:
        `dict[str, int]`: `annotated`, and dropped clips by reason.
    """
    frames, captions, records = (folder / f"{stage}.jsonl" for stage in STAGES)
    if not frames.exists():
        write_frames(frames, requests, videos, settings)
    # What the file says, which has rounded numbers, and not what stage 1 gave: a run that was stopped has nothing else.
    clips = [] if records.exists() else [*read_clips(frames)]
    if not captions.exists():
        write_captions(captions, frames, settings, videos, clips)
    if not records.exists():
        write_records(records, frames, captions, settings, videos, clips)
    return part_counts(folder)


def part_counts(folder: Path) -> dict[str, int]:
    """`annotated`, and dropped clips by reason, of a part that is finished."""
    counts = Counter({"annotated": (folder / "records.jsonl").read_bytes().count(b"\n")})
    for stage in STAGES:
        with dropped_path(folder / f"{stage}.jsonl").open(encoding="utf-8") as lines:
            counts.update(json.loads(line)["reason"] for line in lines)
    return dict(counts)


def write_requests(output: Path, requests: Iterable[ClipRequest]) -> None:
    """Writes the list of clips."""
    with atomic_path(output / "clips.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for request in requests:
            file.write(json.dumps(asdict(request), ensure_ascii=False) + "\n")


def read_requests(output: Path, start: int, count: int) -> list[ClipRequest]:
    """Some of the list of clips."""
    with (output / "clips.jsonl").open(encoding="utf-8") as lines:
        return [ClipRequest(**json.loads(line)) for line in islice(lines, start, start + count)]


class ResilientExecutor(LocalPipelineExecutor):
    """
    datatrove's local executor with processes that may be killed: what the dead one was at is done again by another.

    Args:
        gpus (`int`, *optional*, defaults to 0): each process sees one of so many, by its number.
        kwargs: of `LocalPipelineExecutor`.
    """

    def __init__(self, *args: Any, gpus: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.gpus = gpus

    def run(self) -> None:
        """Runs every part that is not finished."""
        for _ in self.finished_parts():
            pass

    def finished_parts(self) -> Iterator[int]:
        """
        Runs every part that is not finished; yields its rank when it is.

        Raises:
            `ValueError`: if processes die again and again, or a part cannot be done.
        """
        deaths = 0
        while left := self.get_incomplete_ranks(skip_completed=True):
            try:
                for rank in self._some(left):
                    deaths = 0
                    yield rank
            except BrokenProcessPool:
                deaths += 1
                if deaths == _MOST_DEATHS:
                    raise ValueError(
                        f"a process died {deaths} times in a row with no part finished; left are the parts {left[:5]}...; take "
                        "fewer --workers if memory ran out; what is made stays"
                    ) from None
                logger.warning("a process died; what it was at is done again")

    def _some(self, ranks: Sequence[int]) -> Iterator[int]:
        """
        Runs parts; yields their ranks.

        Raises:
            `BrokenProcessPool`: if a process dies.
        """
        workers, numbers = min(self.workers, len(ranks)), worker_context(__name__).Queue()
        for number in range(workers):
            numbers.put(number)
        pool = worker_pool(workers, __name__, numbers, self.gpus, initializer=_start)
        try:
            pending = {pool.submit(_run_rank, self, rank): rank for rank in ranks}
            while pending:
                done = wait(pending, return_when=FIRST_COMPLETED).done
                for future in sorted(
                    done, key=lambda one: one.exception() is not None
                ):  # what is finished counts first
                    rank, error = pending.pop(future), future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    if error is not None:
                        said = " ".join(str(error).split())
                        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                        raise ValueError(f"part {rank}: {kind}{said}") from error
                    yield rank
        finally:
            processes = [*(pool._processes or {}).values()]
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:  # two must not write the same part
                process.join()


def _run_rank(executor: PipelineExecutor, rank: int) -> None:
    executor._run_for_rank(rank, 1)  # of 0, all that it logs would go to the terminal too


def _start(numbers: Any, gpus: int) -> None:
    """Prepares a process: it has one GPU, and interrupts are its parent's business."""
    number = numbers.get()
    if gpus:
        names = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("dataset_builders.command_line").setLevel(logging.WARNING)  # one line of progress is enough


__all__ = [
    "STAGES",
    "AnnotateParts",
    "ResilientExecutor",
    "annotate_part",
    "part_counts",
    "part_folder",
    "read_requests",
    "write_requests",
]
