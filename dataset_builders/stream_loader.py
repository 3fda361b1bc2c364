"""Batches of a stream, from worker processes, with a state that says exactly which of them were handed out.

Every worker makes whole batches of its own draws, and the `DataLoader` takes one of each worker in turn. With each batch comes
how many draws its worker had made by then. The state is made of these numbers, so that what workers have prepared ahead is
not in it; they make it again. A `DataLoader` always begins with its first worker: after resuming, process `i` does the work
of worker `i + next_worker`.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .stream_plan import check_integer
from .stream_samples import DamagedDataError, damaged
from .tar_shards import ShardError

if TYPE_CHECKING:
    from .stream import GroundedCaptionStream

logger = logging.getLogger(__name__)

_VERSION = 1
_OPTIONS = (
    "generator",
    "multiprocessing_context",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)


@dataclass
class _Progress:
    """How far a worker is: after a batch, or at its end."""

    draws: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    finished: bool = False


_Message = tuple[int, _Progress, dict[str, str], Any]  # of a worker: its number, its progress, new skips, a batch


class StreamLoader:
    """
    Batches of a [`GroundedCaptionStream`]. Made by [`GroundedCaptionStream.loader`].

    Iterating goes on where the batches handed out end, also after a `break` or with the state of another process. After a
    complete pass of a finite stream the next one is the next epoch: the same samples in another order.

    Args:
        stream ([`GroundedCaptionStream`]):
            What to batch.
        batch_size (`int`):
            Samples of a batch. All are of one worker.
        num_workers (`int`, *optional*, defaults to 0):
            Processes that read and decode. 0 is the order of 1, without a process.
        collate_fn (`Callable`, *optional*):
            From a list of samples to a batch, in the worker; by default the list itself.
        drop_last (`bool`, *optional*, defaults to `False`):
            Leave out what a worker has left of a finite stream if it does not fill a batch.
        options (*optional*):
            Of `DataLoader`: `generator`, `multiprocessing_context`, `persistent_workers`, `pin_memory`, `prefetch_factor`,
            `timeout`, `worker_init_fn`.

    Raises:
        `ValueError`: if a number is out of its range, an option is not one of these, or a worker would have no samples.
    """

    def __init__(
        self,
        stream: GroundedCaptionStream,
        batch_size: int,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        **options: Any,
    ):
        check_integer("batch_size", batch_size, 1)
        check_integer("num_workers", num_workers, 0)
        wrong = sorted(set(options) - set(_OPTIONS))
        if wrong:
            # Others of `DataLoader` (`shuffle`, `sampler`, `in_order`, ...) would change the order, which is the stream's.
            raise ValueError(
                f"no option {', '.join(wrong)} of a stream's loader; expected some of {', '.join(_OPTIONS)}"
            )
        self.stream, self.batch_size, self.drop_last = stream, batch_size, drop_last
        self.num_workers = num_workers
        self._num_consumers = max(num_workers, 1)
        plan = stream.plan(self._num_consumers)
        shards = min(map(len, stream.shards))
        if shards < plan.num_consumers:
            logger.warning(
                "a source of %d shards for %d workers of %d ranks: workers read parts of shards, pass over what is before them "
                "(cheap in local files only), and mix much the same parts every epoch; better make more shards",
                shards,
                self._num_consumers,
                stream.world_size,
            )
        self._epoch, self._next_worker, self._turn = 0, 0, 0
        self._workers = [_Progress() for _ in range(self._num_consumers)]
        self._batches = _Batches(stream, batch_size, self._num_consumers, collate_fn, drop_last)
        self._loader = DataLoader(
            self._batches, batch_size=None, num_workers=num_workers, collate_fn=_unchanged, **options
        )

    @property
    def skipped(self) -> dict[str, int]:
        """How many samples of this pass were skipped, by reason, as far as batches were handed out."""
        return dict(sum((Counter(worker.skipped) for worker in self._workers), Counter()))

    def __len__(self) -> int:
        """
        Batches of a pass from its beginning, if no sample is skipped.

        Raises:
            `TypeError`: if the stream is endless.
        """
        len(self.stream)
        plan = self.stream.plan(self._num_consumers)
        first = self.stream.rank * self._num_consumers
        sizes = [sum(plan.share_sizes(first + worker)) for worker in range(self._num_consumers)]
        return sum(size // self.batch_size if self.drop_last else -(-size // self.batch_size) for size in sizes)

    def __iter__(self) -> Iterator[Any]:
        """
        Yields the batches after those handed out.

        Raises:
            [`DamagedDataError`]: if a worker found more damaged samples than the stream allows.
            `RuntimeError`: if meanwhile another iteration has begun, or a state was loaded.
        """
        if all(worker.finished for worker in self._workers):
            self._epoch, self._next_worker = self._epoch + 1, 0
            self._workers = [_Progress() for _ in self._workers]
        self._batches.begin(self._epoch, self._next_worker, self._workers)
        before = [Counter(worker.skipped) for worker in self._workers]
        self._turn += 1
        turn = self._turn
        for number, worker, new_skips, batch in self._started():
            if turn != self._turn:
                raise RuntimeError(
                    "another iteration of this loader has begun, or a state was loaded; this one cannot go on"
                )
            for reason, problem in new_skips.items():
                self.stream.warn(reason, problem)
            if isinstance(batch, DamagedDataError):
                raise batch
            worker.skipped = dict(before[number] + Counter(worker.skipped))
            self._workers[number] = worker
            if not worker.finished:
                self._next_worker = (number + 1) % self._num_consumers
                yield batch

    def _started(self) -> Iterator[_Message]:
        """
        The `DataLoader`'s iterator. Forked workers inherit the garbage of this process, and must not collect it: to free a
        frame that PyAV's scaler converted in several threads, they would wait for ever for threads that they do not have.
        """
        gc.freeze()
        try:
            return iter(self._loader)
        finally:
            gc.unfreeze()

    def state_dict(self) -> dict[str, Any]:
        """The state after the batches handed out so far, small and of JSON types."""
        return {
            "version": _VERSION,
            "plan": self._plan(),
            "epoch": self._epoch,
            "next_worker": self._next_worker,
            "workers": [asdict(worker) for worker in self._workers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Goes on after the batches that were handed out when `state` was taken.

        That the sources are the same is known from the names and sizes of their shards only, see
        [`GroundedCaptionStream.fingerprint`]: with other data under these, it goes on at the same places of that.

        Raises:
            `ValueError`: if the state is of a stream with another order; it names what differs. Or if it is damaged.
        """
        if not isinstance(state, dict) or state.get("version") != _VERSION:
            raise ValueError(
                f"expected a state of StreamLoader.state_dict(), version {_VERSION}, got {repr(state)[:80]}"
            )
        ours, theirs = self._plan(), _checked(state, "plan", lambda plan: isinstance(plan, dict))
        different = [name for name in sorted({*ours, *theirs}, key=str) if ours.get(name) != theirs.get(name)]
        if different:
            values = "; ".join(f"{name} was {theirs.get(name)} and is {ours.get(name)}" for name in different)
            raise ValueError(
                f"the state is of a stream in another order: {values}; build the stream as it was, or start anew"
            )
        epoch = _checked(state, "epoch", _is_count)
        next_worker = _checked(state, "next_worker", lambda worker: _is_count(worker) and worker < self._num_consumers)
        workers = _checked(
            state,
            "workers",
            lambda workers: (
                isinstance(workers, list) and len(workers) == self._num_consumers and all(map(_is_progress, workers))
            ),
        )
        self._turn += 1
        self._epoch, self._next_worker = epoch, next_worker
        self._workers = [_Progress(**worker) for worker in workers]
        self.stream.warned.update(self.skipped)

    def _plan(self) -> dict[str, Any]:
        own = {"workers": self._num_consumers, "batch_size": self.batch_size, "drop_last": self.drop_last}
        return {**self.stream.fingerprint(), **own}


def _checked(state: dict[str, Any], name: str, is_right: Callable[[Any], bool]) -> Any:
    """An entry of a state, which may come from a damaged file."""
    if not is_right(state.get(name)):
        got = repr(state[name])[:80] if name in state else "nothing"
        raise ValueError(f"the state is damaged: {name} cannot be {got}; load one as StreamLoader.state_dict() gave it")
    return state[name]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= torch.iinfo(torch.int64).max


def _is_progress(value: Any) -> bool:
    """Whether [`_Progress`] can be made of it."""
    if not isinstance(value, dict) or value.keys() != {"draws", "skipped", "finished"}:
        return False
    draws, skipped = value["draws"], value["skipped"]
    return (
        isinstance(value["finished"], bool)
        and isinstance(skipped, dict)
        and all(isinstance(reason, str) and _is_count(count) for reason, count in skipped.items())
        and _is_count(draws)
        and sum(skipped.values()) <= draws
    )


class _Batches(IterableDataset[_Message]):
    """
    What runs in a worker: its batches, each with the worker's number and progress and with what to warn of (from the reason to
    the first sample skipped for it), and a last message that only says that it is finished.

    Where to begin is in shared memory, because persistent workers keep the copy of this object that they were started with.
    """

    def __init__(
        self,
        stream: GroundedCaptionStream,
        batch_size: int,
        num_consumers: int,
        collate_fn: Callable[[list[Any]], Any] | None,
        drop_last: bool,
    ):
        self._stream, self._batch_size, self._drop_last = stream, batch_size, drop_last
        self._num_consumers = num_consumers
        self._collate = collate_fn or _unchanged
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()  # epoch, next worker
        self._rows = torch.zeros(num_consumers, 3, dtype=torch.int64).share_memory_()  # draws, damaged, finished

    def begin(self, epoch: int, next_worker: int, workers: list[_Progress]) -> None:
        """Sets where iterations begin from now on."""
        self._place.copy_(torch.tensor([epoch, next_worker]))
        self._rows.copy_(torch.tensor([[w.draws, damaged(w.skipped), w.finished] for w in workers]))

    def __iter__(self) -> Iterator[_Message]:
        info = get_worker_info()
        epoch, next_worker = self._place.tolist()
        worker = (next_worker + (0 if info is None else info.id)) % self._num_consumers
        start, damaged_before, finished = self._rows[worker].tolist()
        if finished:
            return
        new_skips: dict[str, str] = {}

        def note(problem: ShardError) -> None:
            new_skips[problem.reason] = str(problem)

        consumer = self._stream.consumer(
            worker, self._num_consumers, epoch=epoch, start=start, damaged=damaged_before, on_new=note
        )

        def message(batch: Any, finished: bool = False) -> _Message:
            told = dict(new_skips)
            new_skips.clear()
            return worker, _Progress(consumer.made, dict(consumer.skips.counts), finished), told, batch

        samples: list[Any] = []
        try:
            for sample in consumer:
                samples.append(sample)
                if len(samples) == self._batch_size:
                    yield message(self._collate(samples))
                    samples = []
        except DamagedDataError as error:  # raised in the worker, it would come with a page of traces
            yield message(error)
            return
        if samples and not self._drop_last:
            yield message(self._collate(samples))
        yield message(None, finished=True)


def _unchanged(value: Any) -> Any:
    return value


__all__ = ["StreamLoader"]
