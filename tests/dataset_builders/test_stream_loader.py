"""Batches of a stream: the same ones after an interruption, wherever it comes, as without it."""

import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from dataset_builders.stream import GroundedCaptionStream, StreamSource
from dataset_builders.stream_samples import DamagedDataError
from dataset_builders.tar_shards import write_shard
from tests.conftest import ROOT
from tests.dataset_builders.stream_shards import keys_of, members, run, write_shards

# What is tested are orders, on machines of two cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two data sets of json-only shards, one small."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "large", [11, 7, 9, 12, 8], prefix="a")
    write_shards(folder / "small", [6, 5], prefix="b")
    return folder


def mixture(folder: Path, **options) -> GroundedCaptionStream:
    sources = [StreamSource(folder / "large", weight=3), StreamSource(folder / "small", weight=1)]
    return GroundedCaptionStream(sources, **{"decode": False, "shuffle_buffer": 5, "seed": 7, **options})


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_sample_once_in_whole_batches(folder, num_workers, drop_last):
    keys, num_batches = Counter(), 0
    for rank in range(2):
        stream = mixture(folder, repeat=False, rank=rank, world_size=2)
        loader = stream.loader(4, num_workers, keys_of, drop_last)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert not drop_last or {len(batch) for batch in batches} == {4}
        num_batches += len(batches)
        keys.update(key for batch in batches for key in batch)
    assert max(keys.values()) == 1
    assert len(keys) == (4 * num_batches if drop_last else 58)


def test_passes_of_a_finite_stream_are_epochs(folder):
    loader = mixture(folder, repeat=False).loader(5, 0, keys_of)
    first, second = list(loader), list(loader)
    assert first != second and sorted(chain(*first)) == sorted(chain(*second))
    assert loader.state_dict()["epoch"] == 1
    again = mixture(folder, repeat=False).loader(5, 0, keys_of)
    again.load_state_dict({**loader.state_dict(), "epoch": 0})
    assert list(again) == second


def test_iterating_again_goes_on(folder):
    whole = list(islice(mixture(folder).loader(3, 0, keys_of), 12))
    loader = mixture(folder).loader(3, 0, keys_of)
    assert list(islice(loader, 5)) + list(islice(loader, 7)) == whole


def test_one_iteration_at_a_time(folder):
    loader = mixture(folder).loader(3, 0, keys_of)
    first = iter(loader)
    next(first)
    state = loader.state_dict()
    next(iter(loader))
    with pytest.raises(RuntimeError, match="another iteration of this loader has begun"):
        next(first)
    second = iter(loader)
    next(second)
    loader.load_state_dict(state)
    with pytest.raises(RuntimeError, match="or a state was loaded"):
        next(second)
    assert loader.state_dict() == state


def test_no_worker_is_the_order_of_one(folder):
    first, second = (islice(mixture(folder).loader(3, workers, keys_of), 10) for workers in (0, 1))
    assert list(first) == list(second)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 3},
        {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4},
        {"num_workers": 3, "drop_last": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("repeat", [False, True])
def test_resuming_anywhere(folder, options, repeat):
    """The state after any batch, through JSON, and in the same loader or a new one, gives the batches that follow."""
    limit = 24 if repeat else None
    loader = mixture(folder, repeat=repeat).loader(4, collate_fn=keys_of, **options)
    states, whole = [loader.state_dict()], []
    for batch in islice(loader, limit):
        whole.append(batch)
        states.append(loader.state_dict())
    assert len(json.dumps(states[-1])) < 1200
    for place in (1, 4, len(whole) // 2, len(whole) - 1, len(whole)):
        if place % 2:
            loader = mixture(folder, repeat=repeat).loader(4, collate_fn=keys_of, **options)
        loader.load_state_dict(json.loads(json.dumps(states[place])))
        assert list(islice(loader, len(whole) - place if repeat else None)) == whole[place:]


def test_workers_that_finish_early_pass_their_turn(tmp_path):
    """One of three workers has few usable samples; the order of the others' batches survives any interruption."""
    samples = [(f"v_{i}", {"json": b"["} if 9 < i < 15 else members("v", i)) for i in range(24)]
    write_shard(tmp_path / "a.tar", samples)

    def loader():
        return GroundedCaptionStream(tmp_path, repeat=False, decode=False, shuffle_buffer=0).loader(1, 3, keys_of)

    first, whole = loader(), []
    states = [first.state_dict()]
    for (key,) in first:
        whole.append(int(key.removeprefix("v_")))
        states.append(first.state_dict())
    assert whole == [0, 8, 16, 1, 9, 17, 2, 15, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23]
    for place in (6, 8, 9, 10, 18):
        resumed = loader()
        resumed.load_state_dict(states[place])
        assert [int(key.removeprefix("v_")) for (key,) in resumed] == whole[place:]


@pytest.mark.slow  # each worker imports everything anew
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_workers(folder, method):
    loader = mixture(folder).loader(3, 2, keys_of)
    next(iter(loader))
    other = mixture(folder).loader(3, 2, keys_of, multiprocessing_context=method)
    other.load_state_dict(loader.state_dict())
    assert list(islice(other, 6)) == list(islice(loader, 6))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shards_behind_http(folder, num_workers):
    """Counted here and read in workers, which are forked while the file system's thread runs."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "large"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}/shard-{number}.tar" for number in range(5)]

        def loader():
            options = {"repeat": False, "decode": False, "shuffle_buffer": 4}
            return GroundedCaptionStream(urls, **options).loader(
                4, num_workers, keys_of, timeout=60 * bool(num_workers)
            )

        whole, first, second = list(loader()), loader(), loader()
        begin = list(islice(first, 5))
        second.load_state_dict(first.state_dict())
        assert begin + list(second) == whole and sum(map(len, whole)) == 47
        server.shutdown()


def test_shards_on_the_hub(folder, hub_repo):
    """Streamed by the name of their repository, and resumed in another loader, in two workers."""
    name = hub_repo("dataset")
    HfApi().upload_folder(repo_id=name, repo_type="dataset", folder_path=folder / "large", path_in_repo="default")

    def loader():
        stream = GroundedCaptionStream(f"hf://datasets/{name}", repeat=False, decode=False, shuffle_buffer=4, seed=2)
        return stream.loader(4, 2, keys_of, timeout=60)

    first, second = loader(), loader()
    begin = list(islice(first, 5))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    whole = list(
        GroundedCaptionStream(folder / "large", repeat=False, decode=False, shuffle_buffer=4, seed=2).loader(4, 2)
    )
    assert begin + list(second) == [keys_of(batch) for batch in whole] and sum(map(len, whole)) == 47


def stacked(samples):
    """A collation as for training."""
    return {
        "keys": [sample.key for sample in samples],
        "frames": torch.from_numpy(np.stack([sample.frames for sample in samples])),
    }


def test_decoded_batches_of_workers_resume(tmp_path):
    write_shards(tmp_path, [6, 5], with_video=True)
    loader = GroundedCaptionStream(tmp_path, num_frames=4).loader(2, 2, stacked, pin_memory=torch.cuda.is_available())
    whole, states = [], []
    for batch in islice(loader, 8):
        whole.append(batch)
        states.append(loader.state_dict())
    loader.load_state_dict(states[2])
    for ours, theirs in zip(islice(loader, 5), whole[3:], strict=True):
        assert ours["keys"] == theirs["keys"] and torch.equal(ours["frames"], theirs["frames"])


def collect_garbage(worker: int) -> None:
    """What a worker does sooner or later."""
    gc.enable()
    gc.collect()


def test_workers_after_decoding_here(tmp_path):
    """Frames that were decoded in this process, and not freed yet, must not stop its forked workers."""
    write_shards(tmp_path, [30], with_video=True)
    gc.disable()
    try:
        decoded = list(GroundedCaptionStream(tmp_path, repeat=False))
        loader = GroundedCaptionStream(tmp_path, repeat=False).loader(
            3, 2, keys_of, timeout=30, worker_init_fn=collect_garbage
        )
        assert len(list(loader)) == 10
    finally:
        gc.enable()
    assert len(decoded) == 30


def test_skipped_samples_are_in_the_state(tmp_path):
    samples = [(f"v_{i}", {**members("v", i), **({"json": b"["} if i % 5 == 3 else {})}) for i in range(40)]
    write_shard(tmp_path / "a.tar", samples)

    def loader(limit):
        stream = GroundedCaptionStream(tmp_path, repeat=False, decode=False, max_skipped=limit, shuffle_buffer=0)
        return stream.loader(4, 2, keys_of)

    whole = loader(4)
    batches, states = [], []
    for batch in whole:
        batches.append(batch)
        states.append(whole.state_dict())
    assert sum(map(len, batches)) == 32 and whole.skipped == {"bad_json": 8}
    resumed = loader(4)
    resumed.load_state_dict(states[3])
    assert (
        sum(resumed.skipped.values()) == sum(states[3]["workers"][i]["skipped"].get("bad_json", 0) for i in (0, 1)) > 0
    )
    assert list(resumed) == batches[4:] and resumed.skipped == {"bad_json": 8}
    # The limit holds for what was before the state, too.
    strict = loader(3)
    strict.load_state_dict(states[3])
    with pytest.raises(DamagedDataError, match="^worker . of rank 0: 4 of 19 samples are damaged.*raise max_skipped$"):
        list(strict)


def test_a_reason_to_skip_is_logged_once(tmp_path, caplog):
    """Not by every worker, in every pass, and after every interruption."""
    samples = [(f"v_{i}", {**members("v", i), **({"json": b"["} if i % 3 == 1 else {})}) for i in range(24)]
    write_shard(tmp_path / "a.tar", samples)

    def loader():
        return GroundedCaptionStream(tmp_path, repeat=False, decode=False, max_skipped=20).loader(2, 2, keys_of)

    def warnings():
        return [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]

    first = loader()
    list(islice(first, 4))
    state = first.state_dict()
    list(first), list(first)
    assert len(warnings()) == 1 and warnings()[0].endswith("more with bad_json are only counted")
    assert "a.tar: sample" in warnings()[0]
    second = loader()
    second.load_state_dict(state)
    list(second)
    list(second.stream)
    assert second.skipped == {"bad_json": 8} and len(warnings()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan", None),
        ("plan", []),
        ("epoch", -1),
        ("epoch", "0"),
        ("epoch", 2**63),
        ("next_worker", 2),
        ("next_worker", True),
        ("workers", []),
        ("workers", {}),
        ("workers", [{"draws": 1, "skipped": {}, "finished": False}]),
        ("workers", [{"draws": 1, "skipped": {}}] * 2),
        ("workers", [{"draws": 1, "skipped": {}, "finished": 0}] * 2),
        ("workers", [{"draws": 1.5, "skipped": {}, "finished": False}] * 2),
        ("workers", [{"draws": 1, "skipped": {"bad_json": 2}, "finished": False}] * 2),
        ("workers", [{"draws": 1, "skipped": [], "finished": False, "more": 0}] * 2),
    ],
    ids=str,
)
def test_damaged_states_are_refused(folder, name, value):
    loader = mixture(folder).loader(4, 2, keys_of)
    state = loader.state_dict()
    without = {key: entry for key, entry in state.items() if key != name}
    for damaged, got in (({**state, name: value}, ""), (without, "nothing")):
        with pytest.raises(ValueError, match=f"^the state is damaged: {name} cannot be {got}.*; load one as [^\n]*$"):
            loader.load_state_dict(damaged)
    assert loader.state_dict() == state


def test_states_of_other_streams_are_refused(folder):
    state = mixture(folder).loader(4, 2).state_dict()
    cases = [
        (mixture(folder, seed=8).loader(4, 2), "seed was 7 and is 8"),
        (mixture(folder, shuffle_buffer=6).loader(4, 2), "shuffle_buffer was 5 and is 6"),
        (mixture(folder, rank=0, world_size=2).loader(4, 2), "world_size was 1 and is 2"),
        (mixture(folder, repeat=False).loader(4, 2), "repeat was True and is False"),
        (mixture(folder).loader(3, 2), "batch_size was 4 and is 3"),
        (mixture(folder).loader(4, 3), "workers was 2 and is 3"),
        (GroundedCaptionStream(folder / "large", decode=False, seed=7, shuffle_buffer=5).loader(4, 2), "sources was"),
    ]
    for loader, message in cases:
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict(state)
    with pytest.raises(ValueError, match="expected a state of StreamLoader"):
        mixture(folder).loader(4, 2).load_state_dict({"step": 3})


def test_a_moved_data_set_can_be_resumed(folder, tmp_path):
    loader = mixture(folder).loader(4, 0, keys_of)
    next(iter(loader))
    moved = tmp_path / "moved"
    moved.symlink_to(folder)
    other = mixture(moved).loader(4, 0, keys_of)
    other.load_state_dict(loader.state_dict())
    assert list(islice(other, 3)) == list(islice(loader, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "batch_size must be an integer of at least 1, got 0"),
        ((1, -1), {}, "num_workers must be an integer of at least 0, got -1"),
        ((1,), {"shuffle": True}, "no option shuffle of a stream's loader; expected some of generator, "),
        ((1,), {"in_order": False}, "no option in_order of"),
        ((1,), {"prefetch": 2, "shuffel": 1}, "no option prefetch, shuffel of"),
        ((2.5,), {}, "batch_size must be an integer"),
        ((1, 12), {}, "source 1 has 11 samples for 12 consumers"),
    ],
)
def test_wrong_options(folder, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        mixture(folder).loader(*arguments, **options)


def test_killed_at_any_step(folder, tmp_path):
    """SIGKILL, twice, with workers, a shuffle buffer, a mixture, and a state that is some steps old."""
    steps, rng = 60, random.Random()
    options = {
        "sources": [
            {"location": str(folder / name), "weight": weight} for name, weight in (("large", 2), ("small", 1))
        ],
        "stream": {"seed": 5, "shuffle_buffer": 6, "decode": False, "rank": 1, "world_size": 2},
        "loader": {"batch_size": 3, "num_workers": 2},
        "steps": steps,
        "save_every": 4,
        "log": str(tmp_path / "log"),
        "state": str(tmp_path / "state.json"),
    }
    log, kills = tmp_path / "log", sorted(rng.sample(range(1, steps - 5), 2))
    for kill in kills:
        process = multiprocessing.get_context("fork").Process(target=run, kwargs={**options, "pause": 0.005})
        process.start()
        while process.is_alive() and (not log.exists() or log.read_text().count("\n") < kill):
            time.sleep(0.0005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"ended before it was killed, at {kills}"
    # The last part in a new interpreter, in which nothing is as it was.
    (tmp_path / "options.json").write_text(json.dumps(options))
    program = ROOT / "tests" / "dataset_builders" / "stream_shards.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(program), str(tmp_path / "options.json")], env=environment, check=True)
    run(**{**options, "log": str(tmp_path / "whole"), "state": str(tmp_path / "other.json")})
    assert log.read_text() == (tmp_path / "whole").read_text(), f"differs after kills at {kills}"
    assert log.read_text().count("\n") == steps
