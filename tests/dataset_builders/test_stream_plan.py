"""The order of a stream is complete, disjoint, random and a function of numbers alone."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice, product

import pytest

from dataset_builders.stream_plan import BufferOrder, Draw, StreamPlan


def located(plan: StreamPlan, consumer: int, draws: list[Draw]) -> list[tuple[int, int, int, int]]:
    """(source, epoch, shard, index) of draws."""
    shares = {draw[:2]: plan.share(*draw[:2], consumer) for draw in draws}
    return [(*draw[:2], *shares[draw[:2]].locate(draw.position)) for draw in draws]


def everything(counts: tuple[tuple[int, ...], ...], epoch: int = 0) -> list[tuple[int, int, int, int]]:
    return [
        (source, epoch, shard, index)
        for source, shards in enumerate(counts)
        for shard, count in enumerate(shards)
        for index in range(count)
    ]


def random_plans(repeat: bool) -> Iterator[StreamPlan]:
    for seed in range(60):
        rng = random.Random(seed)
        counts = tuple(
            tuple(rng.randrange(1, 30) for _ in range(rng.randrange(1, 7))) for _ in range(rng.randrange(1, 4))
        )
        yield StreamPlan(
            counts,
            seed=seed,
            num_consumers=rng.randrange(1, min(*map(sum, counts), 12) + 1 if repeat else 12),
            shuffle_buffer=rng.choice([0, 1, 2, 7, 100]),
            repeat=repeat,
            first_epoch=rng.randrange(3),
        )


def test_every_sample_once_over_all_consumers():
    for plan in random_plans(repeat=False):
        drawn = []
        for consumer in range(plan.num_consumers):
            draws = list(plan.draws(consumer))
            assert len(draws) == sum(plan.share_sizes(consumer))
            drawn += located(plan, consumer, draws)
        assert sorted(drawn) == everything(plan.counts, plan.first_epoch)


def test_an_endless_stream_has_every_sample_once_an_epoch():
    for plan in random_plans(repeat=True):
        drawn = []
        for consumer in range(plan.num_consumers):
            drawn += located(plan, consumer, list(islice(plan.draws(consumer), 500)))
        assert len(set(drawn)) == len(drawn)
        if len(plan.counts) == 1:
            first = [sample for sample in drawn if sample[1] == plan.first_epoch]
            assert sorted(first) == everything(plan.counts, plan.first_epoch)


@pytest.mark.parametrize("repeat", [False, True])
def test_starting_anywhere_continues(repeat):
    for plan in random_plans(repeat):
        consumer = plan.seed % plan.num_consumers
        whole = list(islice(plan.draws(consumer), 300))
        for start in {0, min(1, len(whole)), len(whole) // 3, max(len(whole) - 1, 0), len(whole)}:
            draws = plan.draws(consumer, start)
            assert draws.made == start
            held = [list(order.held) for order in draws.orders]
            rest = list(islice(draws, len(whole) - start))
            assert rest == whole[start:]
            if not repeat:  # what the buffers hold then is among what comes
                for source, positions in enumerate(held):
                    assert set(positions) <= {draw.position for draw in rest if draw.source == source}


def test_shares_are_even_and_contiguous():
    plan = StreamPlan(((100, 7, 33, 1),), num_consumers=6, seed=5)
    sizes = [plan.share_sizes(consumer)[0] for consumer in range(6)]
    assert sum(sizes) == 141 and max(sizes) - min(sizes) == 1
    for consumer in range(6):
        share = plan.share(0, 0, consumer)
        assert len(share) == sizes[consumer]
        assert all(0 <= part.start < part.stop <= plan.counts[0][part.shard] for part in share.parts)
        assert len({part.shard for part in share.parts}) == len(share.parts)


def test_shares_move_on_every_epoch():
    """Of a single shard, too, a consumer gets every part in turn; sizes stay, and the shares of an epoch are everything."""
    plan = StreamPlan(((4,), (9,), (7, 6)), num_consumers=5, shuffle_buffer=3)
    for source, epoch in product(range(3), range(7)):
        places = []
        for consumer in range(5):
            share = plan.share(source, epoch, consumer)
            assert len(share) == plan.share_sizes(consumer)[source]
            places += [(source, 0, *share.locate(position)) for position in range(len(share))]
        assert sorted(places) == [place for place in everything(plan.counts) if place[0] == source]
    even = StreamPlan(((20,),), num_consumers=4, shuffle_buffer=2)
    for consumer in range(4):
        assert sorted(even.share(0, epoch, consumer).parts[0].start for epoch in range(4)) == [0, 5, 10, 15]


def test_with_many_shards_almost_all_are_read_whole():
    plan = StreamPlan(((50,) * 64,), num_consumers=4)
    parts = [part for consumer in range(4) for part in plan.share(0, 0, consumer).parts]
    assert len(parts) == 64
    uneven = StreamPlan((tuple(range(20, 84)),), num_consumers=4)
    assert sum(len(uneven.share(0, 0, consumer).parts) for consumer in range(4)) <= 64 + 3


def test_order_depends_on_seed_and_epoch_only():
    plan = StreamPlan(((40,) * 8,), seed=3, num_consumers=2, shuffle_buffer=10, repeat=True)
    first = list(islice(plan.draws(1), 320))
    assert first == list(islice(plan.draws(1), 320))
    samples = located(plan, 1, first)
    epochs = [[sample[2:] for sample in samples if sample[1] == epoch] for epoch in (0, 1)]
    assert len(epochs[0]) == len(epochs[1]) == 160
    assert epochs[0] != epochs[1] and sorted(epochs[0]) != sorted(epochs[1])  # other shards, too
    other = StreamPlan(((40,) * 8,), seed=4, num_consumers=2, shuffle_buffer=10, repeat=True)
    assert located(other, 1, list(islice(other.draws(1), 320))) != samples


def test_shuffle_buffer():
    assert list(BufferOrder(5, 0, "")) == list(BufferOrder(5, 1, "")) == [0, 1, 2, 3, 4]
    assert list(BufferOrder(0, 10, "")) == []
    order = list(BufferOrder(1000, 50, "a"))
    assert sorted(order) == list(range(1000)) and order != list(BufferOrder(1000, 50, "b"))
    assert all(number <= place + 50 for place, number in enumerate(order))  # cannot come before it entered
    displacement = sum(abs(number - place) for place, number in enumerate(order)) / 1000
    assert displacement > 20
    # A buffer for everything is a uniform permutation: each number is first as often as another.
    firsts = Counter(next(BufferOrder(5, 5, str(seed))) for seed in range(2000))
    assert all(320 < firsts[number] < 480 for number in range(5))


def test_without_shuffling_shards_come_in_their_order():
    plan = StreamPlan(((3, 2, 4),), shuffle_buffer=0)
    assert located(plan, 0, list(plan.draws(0))) == everything(plan.counts)
    shuffled = {tuple(part.shard for part in StreamPlan(((3, 2, 4),), seed=s).share(0, 0, 0).parts) for s in range(60)}
    assert len(shuffled) == 6


def test_mixing_follows_the_weights():
    plan = StreamPlan(((100,) * 10, (100,) * 10), weights=(3, 1), num_consumers=2, repeat=True)
    sources = Counter(draw.source for draw in islice(plan.draws(0), 8000))
    assert sources[0] / 8000 == pytest.approx(0.75, abs=0.02)
    by_size = StreamPlan(((900,), (100,)), repeat=True)
    sources = Counter(draw.source for draw in islice(by_size.draws(0), 8000))
    assert sources[0] / 8000 == pytest.approx(0.9, abs=0.015)


def test_mixtures_differ():
    """Consumers, seeds and epochs choose their sources independently of each other."""

    def sources(consumer: int, **options: int) -> tuple[int, ...]:
        plan = StreamPlan(((50,), (50,)), num_consumers=2, **options)
        return tuple(draw.source for draw in islice(plan.draws(consumer), 30))

    chosen = [sources(0), sources(1), sources(0, seed=1), sources(1, seed=1), sources(0, first_epoch=1)]
    assert len(set(chosen)) == len(chosen) and sources(0) == chosen[0]


def test_a_finite_mixture_lasts_until_all_are_exhausted():
    plan = StreamPlan(((10,), (200,)), weights=(5, 1))
    sources = [draw.source for draw in plan.draws(0)]
    assert Counter(sources) == {0: 10, 1: 200}
    assert set(sources[30:]) == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": ((0, 0),)}, "no samples"),
        ({"counts": ()}, "no samples"),
        ({"counts": ((5,),), "num_consumers": 0}, "num_consumers must be an integer of at least 1, got 0"),
        ({"counts": ((5,),), "shuffle_buffer": -1}, "shuffle_buffer must be an integer of at least 0"),
        ({"counts": ((5,),), "shuffle_buffer": 2.5}, "shuffle_buffer must be an integer of at least 0, got 2.5"),
        ({"counts": ((5,), (5,)), "weights": (1.0,)}, "one weight a source"),
        ({"counts": ((5,), (5,)), "weights": (1.0, 0.0)}, "must be positive"),
        ({"counts": ((50,), (3,)), "num_consumers": 4, "repeat": True}, "source 1 has 3 samples for 4 consumers"),
    ],
)
def test_impossible_plans(arguments, message):
    with pytest.raises(ValueError, match=message):
        StreamPlan(**arguments)


def test_replaying_is_fast():
    """A resumed worker of a long training replays its draws; a million of them must not take minutes."""
    plan = StreamPlan(((1000,) * 500, (1000,) * 50), weights=(1, 1), shuffle_buffer=1000, repeat=True)
    assert next(plan.draws(0, start=300_000)) == next(islice(plan.draws(0), 300_000, None))
