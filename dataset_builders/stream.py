"""
The training stream: grounded clips from WebDataset shards, shuffled, mixed, decoded, and the same again after an interruption.

    stream = GroundedCaptionStream(["shards", StreamSource("hf://datasets/org/iground", weight=0.1)], seed=1)
    loader = stream.loader(batch_size=4, num_workers=8, collate_fn=collate)
    for batch in loader:
        ...
        save(loader.state_dict())

What is drawn when is decided by numbers alone (see `stream_plan`), each worker reads its shards in sequence (`stream_reader`)
and decodes with one thread (`stream_samples`); `stream_loader` puts batches together and keeps the state.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from .command_line import progress
from .frame_sampling import MAX_REDRAWS, FrameChoice
from .sources import ShardFile, find_shards
from .stream_loader import StreamLoader
from .stream_plan import Draw, StreamPlan, check_integer
from .stream_reader import SourceReader
from .stream_samples import DamagedDataError, EncodedSample, SampleDecoder, Skips, StreamSample, read_sample_record
from .tar_shards import ShardError, count_samples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamSource:
    """
    One of the data sets that a stream mixes.

    Args:
        location (`str` or `os.PathLike`, or a sequence of these):
            A tar, a pattern of tars, or a folder or repository of shards, local or at any URL that fsspec opens
            (`hf://datasets/org/name`); see [`find_shards`]. Several of them make one source.
        config (`str`, *optional*), split (`str`, *optional*):
            As for [`find_shards`]; a stream that decodes prefers the configuration with clips, unless there is `videos`.
        weight (`float`, *optional*):
            How often the source is drawn, in proportion to the weights of the others; all sources have one, or none.
        videos (`str` or `os.PathLike`, *optional*):
            Folder with the source videos, under the records' `video_fname`, for shards without clips.
    """

    location: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    config: str | None = None
    split: str | None = None
    weight: float | None = None
    videos: str | os.PathLike[str] | None = None


class GroundedCaptionStream(IterableDataset[StreamSample | EncodedSample]):
    """
    A stream of training samples.

    Over all ranks and workers no sample comes twice in an epoch and none is left out, however many shards there are: every
    worker gets an equal, contiguous share of the shards in their order of that epoch (shares differ by one sample at
    most). With fewer shards than workers, several workers read parts of one shard, and each passes over what is before its
    part: by the headers alone in local files, by reading it from elsewhere. The parts go round, so that every worker gets
    another one each epoch; but few shards are mixed badly, as the samples of a part stay together.

    The order depends on seed, shards, ranks, workers, buffer and weights only. Iterated directly, or in a `DataLoader`, it
    begins at its beginning; [`~GroundedCaptionStream.loader`] can be saved and resumed.

    Args:
        sources (`str`, `os.PathLike`, [`StreamSource`] or a sequence of these):
            What to read; several are mixed. Shards of which no manifest says how many samples they have are counted first,
            by their headers.
        seed (`int`, *optional*, defaults to 0):
            Of all that is random.
        rank (`int`, *optional*), world_size (`int`, *optional*):
            By default those of `torch.distributed` where that is initialised, else 0 and 1.
        shuffle_buffer (`int`, *optional*, defaults to 256):
            Encoded samples of each source that a worker keeps to draw from. 1: only the order of the shards is random; 0:
            nothing is.
        repeat (`bool`, *optional*, defaults to `True`):
            Endless, every epoch of every source in a new order, as training needs it: all ranks always have a next batch.
            Else every sample of every source exactly once; workers, and ranks, may then end some batches apart.
        decode (`bool`, *optional*, defaults to `True`):
            Give [`StreamSample`]; else [`EncodedSample`], for which nothing but the JSON is parsed.
        num_frames (`int`, *optional*, defaults to 8), frames (`str`, *optional*, defaults to `"random"`), max_redraws (`int`,
            *optional*, defaults to 20):
            Which frames make a sample; see [`choose_frames`]. `frames="midpoints"` is for validation.
        keep_empty (`bool`, *optional*, defaults to `False`):
            Keep clips in no frame of which an object is visible; else they are skipped and counted.
        max_skipped (`int` or `float`, *optional*, defaults to 0.01):
            How many samples a worker may find damaged before it gives up: a number, or a fraction of its draws (of 1,000 at
            least). Clips without a visible object are not damaged. The first sample that is skipped for some reason is logged
            as a warning, once for a stream and the states that it goes on from.

    Attributes:
        warned (`set[str]`): reasons to skip a sample of which a warning has told.

    Raises:
        `ValueError`: if there are no samples, or an argument is out of its range.
        `OSError`: if a shard cannot be opened.
    """

    def __init__(
        self,
        sources: str | os.PathLike[str] | StreamSource | Sequence[str | os.PathLike[str] | StreamSource],
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        shuffle_buffer: int = 256,
        repeat: bool = True,
        decode: bool = True,
        num_frames: int = 8,
        frames: FrameChoice = "random",
        max_redraws: int = MAX_REDRAWS,
        keep_empty: bool = False,
        max_skipped: int | float = 0.01,
    ):
        listed = [sources] if isinstance(sources, str | os.PathLike | StreamSource) else list(sources)
        self.sources = [source if isinstance(source, StreamSource) else StreamSource(source) for source in listed]
        weights = [source.weight for source in self.sources if source.weight is not None]
        if weights and len(weights) < len(self.sources):
            raise ValueError(
                f"{len(weights)} of {len(self.sources)} sources have a weight; give all of them one, or none"
            )
        self.weights = tuple(weights) or None
        self.seed, self.shuffle_buffer, self.repeat, self.decode = seed, shuffle_buffer, repeat, decode
        check_integer("seed", seed)
        self.decoder = SampleDecoder(num_frames, frames, max_redraws, keep_empty, seed)
        is_number = isinstance(max_skipped, int | float) and not isinstance(max_skipped, bool)
        if not is_number or not 0 <= max_skipped <= (1 if isinstance(max_skipped, float) else math.inf):
            raise ValueError(f"max_skipped must be a number of samples or a fraction in [0, 1], got {max_skipped!r}")
        self.max_skipped = max_skipped
        self.rank, self.world_size = _place(rank, world_size)
        self.warned: set[str] = set()
        self.shards = [_counted(source, decode) for source in self.sources]
        self.plan(1)

    def plan(self, num_workers: int, epoch: int = 0) -> StreamPlan:
        """
        What decides the order, for a number of workers a rank.

        Raises:
            `ValueError`: if some worker would have nothing to draw.
        """
        return StreamPlan(
            tuple(tuple(shard.num_samples or 0 for shard in shards) for shards in self.shards),
            self.weights,
            self.seed,
            self.world_size * num_workers,
            self.shuffle_buffer,
            self.repeat,
            epoch,
        )

    def consumer(
        self,
        worker: int = 0,
        num_workers: int = 1,
        *,
        epoch: int = 0,
        start: int = 0,
        damaged: int = 0,
        on_new: Callable[[ShardError], None] | None = None,
    ) -> StreamConsumer:
        """
        The samples of one worker of this rank.

        Args:
            worker (`int`), num_workers (`int`): which of how many.
            epoch (`int`): from which the epochs are counted.
            start (`int`): draws that have been made already.
            damaged (`int`): how many of them were damaged.
            on_new (`Callable`, *optional*): gets the first skipped sample of every reason; by default it is logged.
        """
        return StreamConsumer(self, worker, num_workers, epoch, start, damaged, on_new or self._log_skip)

    def warn(self, reason: str, problem: str) -> None:
        """Logs a skipped sample, unless there was one with this reason before."""
        if reason not in self.warned:
            self.warned.add(reason)
            logger.warning("%s: skipped; more with %s are only counted", problem, reason)

    def _log_skip(self, problem: ShardError) -> None:
        self.warn(problem.reason, str(problem))

    def __iter__(self) -> Iterator[StreamSample | EncodedSample]:
        info = get_worker_info()
        return iter(self.consumer() if info is None else self.consumer(info.id, info.num_workers))

    def __len__(self) -> int:
        """
        Samples of this rank in an epoch, damaged ones among them.

        Raises:
            `TypeError`: if the stream is endless.
        """
        if self.repeat:
            raise TypeError("an endless stream has no length; build it with repeat=False, or count steps")
        return sum(self.plan(1).share_sizes(self.rank))

    def loader(
        self,
        batch_size: int,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        **options: Any,
    ) -> StreamLoader:
        """Batches that can be resumed; see [`StreamLoader`] for the arguments."""
        return StreamLoader(self, batch_size, num_workers, collate_fn, drop_last, **options)

    def fingerprint(self) -> dict[str, Any]:
        """
        What has to be equal for a saved state to make sense, as JSON types.

        Of the shards these are the file names and numbers of samples, in their order. Neither where they lie matters, so that
        a data set can be moved, nor what is in them: other shards with the same names and numbers (another configuration or
        revision of a data set, records that were changed in place) are not told apart. Nor is what makes a sample of a clip:
        `decode`, `num_frames`, `frames`, `max_redraws`, `keep_empty` and `videos`.
        """
        described = []
        for shards in self.shards:
            entries = [[shard.url.rpartition("/")[2].partition("?")[0], shard.num_samples] for shard in shards]
            digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
            samples = sum(shard.num_samples or 0 for shard in shards)
            described.append({"shards": len(shards), "samples": samples, "digest": digest[:16]})
        return {
            "seed": self.seed,
            "rank": self.rank,
            "world_size": self.world_size,
            "shuffle_buffer": self.shuffle_buffer,
            "repeat": self.repeat,
            "weights": list(self.weights) if self.weights else None,
            "sources": described,
        }


class StreamConsumer:
    """
    Iterates over the samples of one worker (see [`GroundedCaptionStream.consumer`]).

    Attributes:
        made (`int`): draws made, those before the start and those skipped among them.
        skips ([`Skips`]): what was skipped, and why.
    """

    def __init__(
        self,
        stream: GroundedCaptionStream,
        worker: int,
        num_workers: int,
        epoch: int,
        start: int,
        damaged: int,
        on_new: Callable[[ShardError], None],
    ):
        self._stream, self._worker = stream, worker
        plan = stream.plan(num_workers, epoch)
        consumer = stream.rank * num_workers + worker
        self._draws = plan.draws(consumer, start)
        self._readers = [SourceReader([shard.url for shard in shards], plan, consumer) for shards in stream.shards]
        self._once = sum(plan.share_sizes(consumer))
        self.skips = Skips(stream.max_skipped, f"worker {worker} of rank {stream.rank}", on_new, damaged)

    @property
    def made(self) -> int:
        return self._draws.made

    def __iter__(self) -> Iterator[StreamSample | EncodedSample]:
        """
        Raises:
            [`DamagedDataError`]: a `ValueError`; if more samples are damaged than allowed, or if of an endless stream nothing
                can be used.
            `OSError`: if a shard cannot be opened or read.
        """
        stream, useless = self._stream, 0
        try:
            for draw in self._draws:
                try:
                    sample = self._sample(draw)
                except ShardError as problem:
                    self.skips.add(problem, self.made)
                    useless += 1
                    if stream.repeat and useless > 2 * self._once:
                        raise DamagedDataError(
                            f"none of {useless} samples drawn one after another can be used: {problem}"
                        ) from None
                    continue
                useless = 0
                yield sample
        finally:
            for reader in self._readers:
                reader.close()

    def _sample(self, draw: Draw) -> StreamSample | EncodedSample:
        raw = self._readers[draw.source].take(draw, self._draws)
        if self._stream.decode:
            videos = self._stream.sources[draw.source].videos
            folder = None if videos is None else os.fspath(videos)
            return self._stream.decoder(raw, draw, folder, self._worker, self.made)
        record = read_sample_record(raw)
        return EncodedSample(raw.key, record, raw.members.get("mp4"), draw.source, draw.epoch, self._worker, self.made)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: given, of `torch.distributed`, or a single one."""
    if (rank is None) != (world_size is None):
        raise ValueError(f"give both rank and world_size, or none; got rank={rank}, world_size={world_size}")
    if rank is None or world_size is None:
        running = distributed.is_available() and distributed.is_initialized()
        rank, world_size = (distributed.get_rank(), distributed.get_world_size()) if running else (0, 1)
    check_integer("rank", rank)
    check_integer("world_size", world_size, 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in 0..{world_size - 1} for world_size={world_size}, got {rank}")
    return rank, world_size


def _counted(source: StreamSource, decode: bool) -> list[ShardFile]:
    """The shards of a source, with the number of samples of each."""
    listed = [source.location] if isinstance(source.location, str | os.PathLike) else source.location
    with_clips = decode and source.videos is None
    shards = [
        shard
        for place in listed
        for shard in find_shards(os.fspath(place), source.config, source.split, prefer_video=with_clips)
    ]
    if all(shard.num_samples is not None for shard in shards):
        return shards
    counted = []
    for shard in progress(shards, "counting samples", unit="shard"):
        known = shard.num_samples is not None
        counted.append(shard if known else ShardFile(shard.url, count_samples(shard.url)))
    return counted


__all__ = ["GroundedCaptionStream", "StreamConsumer", "StreamSource"]
