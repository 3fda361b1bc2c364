"""Reads the samples that a plan draws: every share once, from its beginning to its end, while samples wait for their draw.

Nothing of what waits has to be saved: a reader that starts in the middle of a share reads again from the first sample that
is still wanted, and drops those that have been drawn.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import cast

from .stream_plan import BufferOrder, ConsumerDraws, Draw, Share, StreamPlan
from .tar_shards import RawSample, ShardError, iter_shard


class ShareReader:
    """
    The samples of a share, by position.

    Args:
        shards (`Sequence[str]`):
            Paths or URLs of the source's shards.
        share ([`Share`]):
            What to read.
        order ([`BufferOrder`]):
            The order in which the samples are taken, right after it has given `position`.
        position (`int`):
            The first one to be taken.
    """

    def __init__(self, shards: Sequence[str], share: Share, order: BufferOrder, position: int):
        wanted = {position, *order.held}
        self._shards, self._share = shards, share
        self._reached = min(wanted)  # every position below is held, was taken, or is not there
        self._gone = set(range(self._reached, order.entered)) - wanted
        self._waiting: dict[int, RawSample | ShardError] = {}
        self._stream = self._read(self._reached)

    def take(self, position: int) -> RawSample:
        """
        The sample at a position, which is then forgotten.

        Raises:
            [`ShardError`]: if the sample is bad, or its shard does not have it.
            `OSError`: if the shard cannot be opened or read.
        """
        while position >= self._reached:
            self._reached, found = next(self._stream)
            if found is not None and self._reached - 1 not in self._gone:
                self._waiting[self._reached - 1] = found
        found = self._waiting.pop(position, None)
        if found is None:
            raise self._absent(position)
        if isinstance(found, ShardError):
            raise found
        return found

    def close(self) -> None:
        """Closes the shard that is open."""
        self._stream.close()

    def _read(self, first: int) -> Generator[tuple[int, RawSample | ShardError | None]]:
        """Yields, for what is found at a position, the position after it; and `None` at the end of every part."""
        for part, before in zip(self._share.parts, self._share.starts, strict=False):
            after = before + part.stop - part.start
            if after <= first:
                continue
            offset = before - part.start  # from an index in the shard to a position
            problems: list[ShardError] = []
            samples = iter_shard(
                self._shards[part.shard], start=max(part.start, first - offset), on_problem=problems.append
            )
            with closing(cast(Generator[RawSample], samples)):
                for sample in samples:
                    yield from (
                        (offset + problem.index + 1, problem) for problem in problems if problem.index < part.stop
                    )
                    problems.clear()
                    if sample.index < part.stop:
                        yield offset + sample.index + 1, sample
                    if sample.index >= part.stop - 1:
                        break
            yield from ((offset + problem.index + 1, problem) for problem in problems if problem.index < part.stop)
            yield after, None

    def _absent(self, position: int) -> ShardError:
        shard, index = self._share.locate(position)
        url = self._shards[shard].split("?")[0]
        text = f"{url}: sample {index}: not there; the shard has fewer samples than it should"
        return ShardError(text, self._shards[shard], index, "", "missing")


class SourceReader:
    """
    The samples of a source that a consumer draws, epoch after epoch.

    Args:
        shards (`Sequence[str]`):
            Paths or URLs of the shards.
        plan ([`StreamPlan`]), consumer (`int`):
            Of the draws.
    """

    def __init__(self, shards: Sequence[str], plan: StreamPlan, consumer: int):
        self._shards, self._plan, self._consumer = shards, plan, consumer
        self._epoch = -1
        self._share = Share(())
        self._reader: ShareReader | None = None

    def take(self, draw: Draw, draws: ConsumerDraws) -> RawSample:
        """The sample of a draw that `draws` has just made; raises as [`ShareReader.take`]."""
        if self._reader is None or draw.epoch != self._epoch:
            self.close()
            self._epoch = draw.epoch
            self._share = self._plan.share(draw.source, draw.epoch, self._consumer)
            self._reader = ShareReader(self._shards, self._share, draws.orders[draw.source], draw.position)
        return self._reader.take(draw.position)

    def close(self) -> None:
        """Closes the shard that is open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


__all__ = ["ShareReader", "SourceReader"]
