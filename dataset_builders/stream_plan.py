"""Which samples every consumer of a stream draws, and in which order: arithmetic on numbers, before any data is read.

A consumer is one worker of one rank. In every epoch the shards of a source are put in a random order and laid end to end, and
each consumer gets an equal, contiguous share of that line: whole shards, but for a cut one at either end (with fewer shards
than consumers, only parts of shards). So shares are disjoint, together they are everything, and their sizes differ by at
most one, whatever the numbers of shards and consumers. A consumer reads its share from beginning to end through a shuffle
buffer, which is emptied at the end of the epoch, and mixes sources by weight.

From epoch to epoch the shares move on by one consumer, so that also of a single shard every consumer gets all parts in turn.
Where the shards are too few to mix (most of all a single one), the samples that make up a share stay the same ones.

All of it is a pure function of the plan, so that the state of a consumer is the number of draws that it has made. Random
numbers are those of `random.Random.random`, whose sequence Python promises to keep; numpy's may change with its version.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import NamedTuple


class Part(NamedTuple):
    """Samples `start <= index < stop` of a shard, the `shard`-th of its source."""

    shard: int
    start: int
    stop: int


class Draw(NamedTuple):
    """The sample at `position` of a consumer's share of an epoch of a source."""

    source: int
    epoch: int
    position: int


@dataclass(frozen=True)
class Share:
    """
    What a consumer reads of a source in an epoch, in reading order.

    Attributes:
        parts (`tuple[Part, ...]`): not empty ones.
    """

    parts: tuple[Part, ...]

    @property
    def starts(self) -> list[int]:
        """Position of the first sample of every part, then the number of all samples."""
        return [0, *accumulate(part.stop - part.start for part in self.parts)]

    def __len__(self) -> int:
        return self.starts[-1]

    def locate(self, position: int) -> tuple[int, int]:
        """Shard and index in it of the sample at a position."""
        starts = self.starts
        place = bisect_right(starts, position) - 1
        part = self.parts[place]
        return part.shard, part.start + position - starts[place]


@dataclass(frozen=True)
class StreamPlan:
    """
    What decides the order of a stream.

    Args:
        counts (`tuple[tuple[int, ...], ...]`):
            Samples of every shard of every source.
        weights (`tuple[float, ...]`, *optional*):
            How often each source is drawn, in proportion; by default as its number of samples.
        seed (`int`, *optional*, defaults to 0):
            Another seed, another order.
        num_consumers (`int`, *optional*, defaults to 1):
            Ranks times workers.
        shuffle_buffer (`int`, *optional*, defaults to 1):
            Samples of a source among which a consumer draws. With 1 only the shards are shuffled, with 0 not even these.
        repeat (`bool`, *optional*, defaults to `False`):
            Endless, each epoch in another order; else every sample exactly once.
        first_epoch (`int`, *optional*, defaults to 0):
            Where the epochs are counted from.

    Raises:
        `ValueError`: if there is nothing to draw, a number is out of its range, or with `repeat` a consumer would have
            no sample of some source.
    """

    counts: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] | None = None
    seed: int = 0
    num_consumers: int = 1
    shuffle_buffer: int = 1
    repeat: bool = False
    first_epoch: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_consumers", 1), ("shuffle_buffer", 0), ("first_epoch", 0)):
            check_integer(name, getattr(self, name), least)
        if self.weights is not None and len(self.weights) != len(self.counts):
            raise ValueError(f"expected one weight a source, got {len(self.weights)} for {len(self.counts)} sources")
        if self.weights is not None and not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"the weights of sources must be positive numbers, got {list(self.weights)}")
        for source, sizes in enumerate(map(sum, self.counts)):
            if self.repeat and sizes < self.num_consumers:
                raise ValueError(
                    f"source {source} has {sizes} samples for {self.num_consumers} consumers (ranks times workers), and an "
                    "endless stream needs one for each; use fewer workers, or add samples"
                )
        if not any(map(sum, self.counts)):
            raise ValueError("the sources have no samples")

    def share(self, source: int, epoch: int, consumer: int) -> Share:
        """The share of a consumer of an epoch of a source."""
        counts = self.counts[source]
        total = sum(counts)
        order = list(range(len(counts)))
        low, high = _bounds(total, consumer, self.num_consumers)
        if self.shuffle_buffer > 0 and total > 0:
            rng = random.Random(f"shards {self.seed} {source} {epoch}")
            order = sorted(order, key=[rng.random() for _ in order].__getitem__)
            # This consumer's share is the first one: sizes stay with their consumers, only the places of the shares turn.
            first, _ = _bounds(total, epoch % self.num_consumers, self.num_consumers)
            low, high = (low - first) % total, (low - first) % total + high - low
        parts, before = [], 0
        for shard in order:
            start, stop = max(low - before, 0), min(high - before, counts[shard])
            if start < stop:
                parts.append(Part(shard, start, stop))
            before += counts[shard]
        return Share(tuple(parts))

    def share_sizes(self, consumer: int) -> list[int]:
        """How many samples of each source a consumer gets in an epoch."""
        bounds = (_bounds(sum(counts), consumer, self.num_consumers) for counts in self.counts)
        return [high - low for low, high in bounds]

    def draws(self, consumer: int, start: int = 0) -> ConsumerDraws:
        """The draws of a consumer, from its `start`-th on."""
        return ConsumerDraws(self, consumer, start)

    def order(self, source: int, epoch: int, consumer: int) -> BufferOrder:
        """The order in which a consumer takes the samples of its share."""
        size = self.share_sizes(consumer)[source]
        return BufferOrder(size, self.shuffle_buffer, f"buffer {self.seed} {source} {epoch} {consumer}")


class BufferOrder(Iterator[int]):
    """
    The order in which 0, 1, ..., `count - 1` leave a shuffle buffer: it is filled, then each number drawn from it is
    replaced by the next one, until it is empty.

    Args:
        count (`int`): how many numbers.
        size (`int`): size of the buffer; 0 and 1 keep the order.
        seed (`str`): of the random numbers.

    Attributes:
        held (`list[int]`): what is in the buffer now.
        entered (`int`): how many numbers have entered it; those below that are not held have left it.
    """

    def __init__(self, count: int, size: int, seed: str):
        self.count = count
        self.entered = min(max(size, 1), count)
        self.held = list(range(self.entered))
        self._random = random.Random(seed).random

    def __next__(self) -> int:
        held = self.held
        if not held:
            raise StopIteration
        slot = int(self._random() * len(held))
        number = held[slot]
        if self.entered < self.count:
            held[slot] = self.entered
            self.entered += 1
        else:
            last = held.pop()
            if slot < len(held):
                held[slot] = last
        return number

    def skip(self, number: int) -> None:
        """Draws without looking."""
        next(islice(self, number, number), None)


class ConsumerDraws(Iterator[Draw]):
    """
    The draws of a consumer (see [`StreamPlan.draws`]).

    Attributes:
        made (`int`): draws so far, those before the start among them.
        orders (`list[BufferOrder]`): for every source the order of its current epoch; its buffer is what a reader that
            starts here has to find again.
        epochs (`list[int]`): the current epoch of every source.
    """

    def __init__(self, plan: StreamPlan, consumer: int, start: int = 0):
        self._plan, self._consumer = plan, consumer
        sizes = plan.share_sizes(consumer)
        weights = plan.weights or [sum(counts) for counts in plan.counts]
        left = [math.inf if plan.repeat else size for size in sizes]
        self._mixture = _Mixture(weights, left, f"mixture {plan.seed} {plan.first_epoch} {consumer}")
        made = [0] * len(sizes)
        self.made = 0
        for source in islice(self._mixture, start):
            made[source] += 1
            self.made += 1
        # Whole epochs need no replay. A finite source keeps its one epoch also when that is over.
        over = [done // size if plan.repeat else 0 for done, size in zip(made, sizes, strict=True)]
        self.epochs = [plan.first_epoch + number for number in over]
        self.orders = [plan.order(source, epoch, consumer) for source, epoch in enumerate(self.epochs)]
        for order, done, number, size in zip(self.orders, made, over, sizes, strict=True):
            order.skip(done - number * size)

    def __next__(self) -> Draw:
        source = next(self._mixture)
        self.made += 1
        position = next(self.orders[source], None)
        if position is None:  # only an endless source is drawn when it is empty
            self.epochs[source] += 1
            self.orders[source] = self._plan.order(source, self.epochs[source], self._consumer)
            position = next(self.orders[source])
        return Draw(source, self.epochs[source], position)


class _Mixture(Iterator[int]):
    """Random sources in proportion to their weights, each as often as it has samples left."""

    def __init__(self, weights: Sequence[float], left: Sequence[float], seed: str):
        self._weights, self._left = weights, list(left)
        self._random = random.Random(seed).random
        self._choose_among([source for source, number in enumerate(left) if number > 0])

    def _choose_among(self, sources: list[int]) -> None:
        self._sources = sources
        self._limits = list(accumulate(self._weights[source] for source in sources))

    def __next__(self) -> int:
        sources = self._sources
        if not sources:
            raise StopIteration
        if len(sources) == 1:
            source = sources[0]
        else:
            # The product may round up to the last limit itself.
            place = bisect_right(self._limits, self._random() * self._limits[-1])
            source = sources[min(place, len(sources) - 1)]
        self._left[source] -= 1
        if not self._left[source]:
            self._choose_among([other for other in sources if other != source])
        return source


def check_integer(name: str, value: object, least: int | None = None) -> None:
    """Raises `ValueError` at once, instead of what a wrong type or number would lead to later."""
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be an integer{bound}, got {value!r}")


def _bounds(count: int, consumer: int, num_consumers: int) -> tuple[int, int]:
    """Where the share of a consumer begins and ends."""
    return count * consumer // num_consumers, count * (consumer + 1) // num_consumers


__all__ = ["BufferOrder", "ConsumerDraws", "Draw", "Part", "Share", "StreamPlan", "check_integer"]
