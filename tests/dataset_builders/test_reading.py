import gzip
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dataset_builders import reading
from dataset_builders.reading import (
    JsonError,
    ReadProblem,
    parse_json,
    read_entries,
    read_json,
    read_jsonl,
    read_records,
)
from tests.records import make_record


def _file(tmp_path: Path, content: bytes, name: str = "file.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def _read(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[ReadProblem]]:
    problems: list[ReadProblem] = []
    return list(read_jsonl(path, problems.append)), problems


def test_records_come_back_from_every_kind_of_file(tmp_path: Path) -> None:
    records = [make_record(clip_id=i, metadata={"odd": 'a "quoted": name'}) for i in range(5)]
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    keyed = json.dumps({f"video_{i}": record for i, record in enumerate(records)}).encode()
    for name, content in {
        "a.jsonl": lines,
        "no_end.jsonl": lines[:-1],
        "blank.jsonl": lines.replace(b"\n", b"\r\n \r\n\n"),
        "mark.jsonl": b"\xef\xbb\xbf" + lines,
        "keyed.jsonl": b"".join(b'{"video_0":' + line + b"}\n" for line in lines.splitlines()),
        "list.json": json.dumps(records, indent=2).encode(),
        "keyed.json": keyed,
        "mark.json": b"\xef\xbb\xbf" + keyed,
    }.items():
        assert list(read_records(_file(tmp_path, content, name))) == records, name
        assert list(read_records(_file(tmp_path, gzip.compress(content), f"{name}.gz"))) == records, name
    single = _file(tmp_path, json.dumps(records[0], indent=2).encode(), "one.json")
    assert list(read_records(str(single))) == records[:1]
    assert list(read_records(f"file://{single}")) == records[:1]
    assert [entry.key for entry in read_entries(tmp_path / "keyed.json")] == [f"video_{i}" for i in range(5)]


# What is in the line, where it is, and what kind of problem it is.
ODD_LINES = [
    (b'{"caption": "caf\xe9"}', "caption", "invalid_utf8"),
    (b'{"caption": "\\ud800"}', "caption", "invalid_json"),
    (b'{"fps": NaN}', "fps", "not_a_number"),
    (b'{"a": 1, "boxes": [[1, 2, {"x": [3, -Infinity]}]]}', "boxes.x", "not_a_number"),
    (b'{"a": {"b": 1}, "c": ' + b"9" * 400 + b"}", "c", "huge_number"),
    (b'{"fps": 1e999}', "fps", "huge_number"),
    (b'{"a": 1, "b": 2, "a": 3}', "a", "duplicate_name"),
    (b'{"a": [{"b": 1, "b": 1}]}', "b", "duplicate_name"),
    (b'{"a\\\\": 1, "a\\\\": 1}', "a\\", "duplicate_name"),
    (b'{"a": "x\\\\","a":1}', "a", "duplicate_name"),
    (b'{"a" :1,"a"\t:1}', "a", "duplicate_name"),
    (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", None, "too_deep"),
    (b"[" * 100_000, None, "too_deep"),
    (b'{"a":' * 100_000, None, "too_deep"),
    (b"[1, 2]", None, "not_an_object"),
    (b"null", None, "not_an_object"),
    (b'"text"', None, "not_an_object"),
    (b'{"caption": "a" "b"}', "caption", "invalid_json"),
    (b'{"a": 1} {"b": 2}', None, "invalid_json"),
    (b"\x00\x00", None, "invalid_json"),
    (b'{"a": "\x01"}', "a", "invalid_json"),
    (b'\xef\xbb\xbf{"a": 1}', None, "invalid_json"),
]


@pytest.mark.parametrize(("line", "field", "reason"), ODD_LINES)
def test_an_odd_line_is_named_and_passed_over(line: bytes, field: str | None, reason: str, tmp_path: Path) -> None:
    path = _file(tmp_path, b'{"good": 1}\n\n' + line + b'\n{"good": 2}\n')
    records, [problem] = _read(path)
    assert records == [(1, {"good": 1}), (4, {"good": 2})]
    assert (problem.path, problem.line, problem.field, problem.reason) == (str(path), 3, field, reason)
    with pytest.raises(ValueError, match=f"^{path}: line 3: [^\n]+$") as error:
        list(read_jsonl(path))
    assert str(error.value) == str(problem) and len(str(problem)) < 300 + len(str(path))


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    line = json.dumps(make_record()).encode()
    for kept in (1, 20, len(line) // 2, len(line) - 1):
        records, [problem] = _read(_file(tmp_path, line + b"\n" + line[:kept]))
        assert len(records) == 1
        assert (problem.line, problem.reason) == (2, "truncated_line") and "cut off" in problem.message


def test_lines_may_lie_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(b'{"number": %d, "text": "%s"}\n' % (i, b"\xc3\xa9" * (i % 7)) for i in range(50))
    expected = list(read_jsonl(_file(tmp_path, content)))
    for size in (4, 5, 7, 64, len(content)):
        monkeypatch.setattr(reading, "_CHUNK_BYTES", size)
        assert list(read_jsonl(tmp_path / "file.jsonl")) == expected


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 2 << 20)
    path = _file(tmp_path, gzip.compress(b'{"a": 1}\n{"b": "' + b"x" * (50 << 20)), "bomb.jsonl.gz")
    with pytest.raises(ValueError, match="line 2 is longer than 2 MiB"):
        list(read_jsonl(path, lambda problem: None))


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    line = json.dumps(make_record()).encode() + b"\n"
    path = _file(tmp_path, line * 8000)
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == 8000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 < path.stat().st_size


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_unpickled(protocol: int, tmp_path: Path) -> None:
    flag = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (flag,)

    content = pickle.dumps({"video_0": Touch()}, protocol)
    for name in ("set.pkl", "set.PICKLE", "set.json", "set.jsonl", "set"):
        for path in (_file(tmp_path, content, name), _file(tmp_path, gzip.compress(content), f"{name}.gz")):
            with pytest.raises(
                ValueError, match="nothing is unpickled here.*ekazakos/HowToGround1M.*ekazakos/iGround"
            ) as error:
                list(read_records(path, lambda problem: None))
            assert "\n" not in str(error.value)
    assert not flag.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "one object a line has to be named .jsonl"),
        ("a.json", b"", "empty document"),
        ("a.json", b"5", "expected a list of objects, or objects keyed by clip, got a number"),
        ("a.json", b'[{"video": {"a": 1, "a": 2}}]', "a: the name appears twice"),
        ("a.json", b'{"x": NaN, "y": }', "not JSON"),
        ("a.json", b'{"x": NaN, "y": ' + b"[" * 5000, "nested|not JSON"),
        ("a.json", b'{"x": NaN, "x": NaN}', "x: the name appears twice"),
        ("a.jsonl.gz", b'{"a": 1}', "gzip archive is damaged"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-9], "damaged or cut off"),
        ("a.json.gz", gzip.compress(b'{"a": 1}', mtime=0)[:20], "damaged or cut off"),
    ],
)
def test_what_cannot_be_read_at_all_raises_in_any_case(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = _file(tmp_path, content, name)
    with pytest.raises(ValueError, match=message) as error:
        list(read_jsonl(path, lambda problem: None))
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(IsADirectoryError):
        list(read_jsonl(tmp_path))


def test_entries_of_a_document_are_passed_over_one_by_one(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        b'{"a_0": {"x": 1}, "b_0": null, "c_0": {"x": [NaN, 1]}, "d_0": {"x": 1e999}, "e_0": {"x": 2}}',
        "a.json",
    )
    problems: list[ReadProblem] = []
    entries = list(read_entries(path, problems.append))
    assert [(entry.number, entry.key, entry.value) for entry in entries] == [(1, "a_0", {"x": 1}), (5, "e_0", {"x": 2})]
    assert [(problem.line, problem.field, problem.reason, problem.unit) for problem in problems] == [
        (2, "b_0", "not_an_object", "entry"),
        (3, "c_0", "not_a_number", "entry"),
        (4, "d_0", "not_a_number", "entry"),
    ]
    assert read_json(path)["d_0"] == {"x": float("inf")}


def test_integers_are_read_as_far_as_64_bits_hold_them() -> None:
    assert parse_json(b"[9223372036854775807, 18446744073709551615]") == [2**63 - 1, 2**64 - 1]
    assert parse_json(b"18446744073709551616") == 2.0**64
    with pytest.raises(JsonError, match="float64"):
        parse_json(b"9" * 5000)
