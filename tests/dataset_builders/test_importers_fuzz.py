"""Broken files, thousands of them: an importer reports and goes on, or raises a `ValueError` of one line; nothing else."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.importers.pointing import import_pointing
from dataset_builders.importers.released import import_released
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.reading import OnProblem, ReadProblem
from dataset_builders.record import Record, from_record
from tests.dataset_builders import released_files

ROUNDS = 120  # of each kind and format; a hundred thousand others were run once

Importer = Callable[[Path, OnProblem | None], Iterator[Record]]


def _activitynet(path: Path, on_problem: OnProblem | None) -> Iterator[Record]:
    return import_activitynet_entities([path], on_problem)


# Name: file, its content, the importer, and where the list or object of its entries is.
FORMATS: dict[str, tuple[str, Any, Importer, str | None]] = {
    "released": ("raw.jsonl", released_files.released(instances=2), import_released, None),
    "vidstg": ("annotations.json", [released_files.vidstg(2 * i + 1)[-1] for i in range(3)], import_vidstg, None),
    "prepared_vidstg": ("prepared.json", released_files.prepared_vidstg(), import_vidstg, "videos"),
    "activitynet_entities": ("reference.json", released_files.activitynet_entities(), _activitynet, "annotations"),
    "pointing": ("list.json", released_files.pointing(), import_pointing, None),
}

JUNK: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        2**31,
        2**63,
        2**64,
        -(2**70),
        10**400,
        float("nan"),
        float("-inf"),
        0.5,
        1e300,
        -1e300,
        1e-320,
        -0.0,
    ),
    *(
        "",
        " ",
        "12",
        "29.97",
        "nan",
        "inf",
        "x" * 5000,
        "<p>",
        "a <p>b</p> c",
        "../../etc/passwd",
        "\u2028\x00",
        "\U0001f600",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [0, 0, 0, 0],
        [1, 2, 3],
        [5, 5, 1, 1],
        [[1, 2, 3, 4]],
        ["a"],
        {"a": 1},
        {"": {}},
        [[[[[]]]]],
    ),
    *([1e30] * 4, [float(2**53)] * 4, ["1", "2", "3", "4"], [True] * 4, {str(i): i for i in range(50)}, [0] * 3000),
]


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def _mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one value anywhere in it replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    spot = value
    while True:
        keys = [*spot] if isinstance(spot, dict) else [*range(len(spot))]
        if not keys:
            return value
        key = rng.choice(keys)
        if isinstance(spot[key], dict | list) and spot[key] and rng.random() < 0.75:
            spot = spot[key]
            continue
        action = rng.random()
        if action < 0.7:
            spot[key] = copy.deepcopy(rng.choice(JUNK)) if rng.random() < 0.95 else _deep(200)
        elif action < 0.8:
            del spot[key]
        elif action < 0.9 and isinstance(spot, list):
            spot.insert(key, copy.deepcopy(spot[rng.randrange(len(spot))]))
        elif isinstance(spot, dict):
            spot[f"{key}x"] = spot.pop(key)
        return value


def _corrupted(content: bytes, rng: random.Random) -> bytes:
    """A copy with some bytes changed, removed or put in, or the end cut off."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 10])):
        place = rng.randrange(len(content)) if content else 0
        action = rng.randrange(5)
        if action == 0:
            del content[place:]
        elif action == 1:
            del content[place : place + rng.randrange(1, 40)]
        elif action == 2:
            content[place:place] = rng.choice(
                [b"\xff", b"\x00", b'"', b"{", b"[", b"\n", b"NaN", b"9" * 500, b"\\ud800"]
            )
        elif action == 3:
            content[place : place + 1] = bytes([rng.randrange(256)])
        else:
            content[place:place] = rng.choice([b"[", b'{"a":']) * 3000
    return bytes(content)


def _import(path: Path, importer: Importer) -> tuple[list[Record], list[ReadProblem]]:
    """Records and problems; raises what a caller may expect, as an assertion otherwise."""
    problems: list[ReadProblem] = []
    records: list[Record] = []
    refusal = None
    try:
        for record in importer(path, problems.append):
            from_record(record)
            records.append(record)
    except ValueError as error:
        refusal, records = str(error), []
    assert refusal is None or (refusal.startswith(str(path)) and "\n" not in refusal)
    for problem in problems:
        assert "\n" not in str(problem) and str(problem).startswith(str(path)) and problem.reason.isidentifier()
        assert len(str(problem)) < 20_000
    if problems:
        with pytest.raises(ValueError, match="^[^\n]+$"):
            list(importer(path, None))
    return records, problems


@pytest.mark.parametrize("name", FORMATS)
def test_a_wrong_value_costs_its_own_entry_only(name: str, tmp_path: Path) -> None:
    file, document, importer, within = FORMATS[name]
    path = tmp_path / file
    rng = random.Random(name)
    good, problems = _import(released_files.write(path, document), importer)
    assert good and not problems
    num_reported = 0
    for _ in range(ROUNDS):
        broken = copy.deepcopy(document)
        entries = broken if within is None else broken[within]
        key = rng.choice([*entries] if isinstance(entries, dict) else [*range(len(entries))])
        entries[key] = _mutated(entries[key], rng)
        records, problems = _import(released_files.write(path, broken), importer)
        others = {str(name) for name in ([*entries] if isinstance(entries, dict) else range(len(entries)))} - {str(key)}
        kept = [record for record in good if _entry_of(record, name) in others]
        assert [record for record in records if record in kept] == kept
        num_reported += bool(problems)
    assert num_reported > ROUNDS // 4


def _entry_of(record: Record, name: str) -> str:
    """Which entry of the made-up files a record is from."""
    if name == "vidstg":
        return str(int(record["video_id"]) - 1000)
    return record["video_id"] if name == "activitynet_entities" else record["video_id"][-1]


@pytest.mark.parametrize("name", FORMATS)
def test_corrupted_bytes_are_reported(name: str, tmp_path: Path) -> None:
    file, document, importer, _ = FORMATS[name]
    path = tmp_path / file
    rng = random.Random(name)
    content = released_files.write(path, document).read_bytes()
    for _ in range(ROUNDS):
        path.write_bytes(_corrupted(content, rng))
        _import(path, importer)


@pytest.mark.parametrize("name", FORMATS)
def test_any_document_is_refused_or_reported(name: str, tmp_path: Path) -> None:
    file, document, importer, _ = FORMATS[name]
    path = tmp_path / file.replace(".jsonl", ".json")
    rng = random.Random(name)
    for value in [*JUNK, *(_mutated(document, rng) for _ in range(ROUNDS // 4))]:
        _import(released_files.write(path, value), importer)


def test_broken_trajectories_cost_the_sentences_of_their_video_only(tmp_path: Path) -> None:
    path = released_files.write(tmp_path / "annotations.json", released_files.vidstg(4))
    folder = released_files.vidor(tmp_path / "vidor", ["1000", "1001"])

    def importer(path: Path, on_problem: OnProblem | None) -> Iterator[Record]:
        return import_vidstg(path, on_problem, trajectories=folder)

    good, problems = _import(path, importer)
    assert len(good) == 12 and not problems
    kept = [record for record in good if record["video_id"] == "1001"]
    file = folder / "0000" / "1000.json"
    content, rng = file.read_bytes(), random.Random(0)
    for n in range(ROUNDS):
        if n % 2:
            file.write_bytes(_corrupted(content, rng))
        else:
            released_files.write(file, _mutated(json.loads(content), rng))
        records, _ = _import(path, importer)
        assert [record for record in records if record["video_id"] == "1001"] == kept
