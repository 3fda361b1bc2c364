"""Tolerant reading of JSON Lines and JSON: everything odd is named with its file, line and field, and nothing is unpickled.

Files are `.jsonl` (one object a line, read line by line in constant memory) and `.json` (a list of objects, one object, or
objects keyed by clip as in the original's pickles), each also as `.gz`, local or anything that fsspec opens. A byte order
mark at the beginning, blank lines and line ends of any system are passed over. JSON is read strictly otherwise: UTF-8 without
lone surrogates, no NaN or Infinity, no number beyond float64, no name twice in one object.

An entry that cannot be read is a [`ReadProblem`]: it ends the reading with a `ValueError`, or goes to `on_problem` and the
reading goes on with the next one. What makes the whole file unreadable (a pickle, a damaged archive, a `.json` that is not
JSON) is a `ValueError` in any case.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec
import orjson

from .record import Record

_CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 256 << 20  # far beyond any record; a file without line ends must not fill the memory
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class ReadProblem:
    """
    Something odd about one entry of a file.

    Attributes:
        path (`str`): the file.
        line (`int`): number of the line, from 1; in a `.json`, which has no lines, the number of the entry.
        field (`str` or `None`): the field it is about, where it is about one.
        message (`str`): what was got and what was expected.
        reason (`str`): the kind of problem, for counting: a stable name in snake_case.
        unit (`str`): "line" or "entry", or how else entries are called ("video 'v_x', segment '3'").
    """

    path: str
    line: int
    field: str | None
    message: str
    reason: str = "bad_value"
    unit: str = "line"

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.path}: {self.unit} {self.line}: {' '.join(f'{field}{self.message}'.split())}"


OnProblem = Callable[[ReadProblem], None]


class Entry(NamedTuple):
    """One object of a file; `key` is its name where the file keys objects by clip."""

    number: int
    key: str | None
    value: dict[str, Any]


class JsonError(ValueError):
    """JSON that cannot be read; `field` is where, `reason` the kind of problem."""

    def __init__(self, reason: str, field: str | None, message: str):
        super().__init__(message)
        self.reason, self.field = reason, field


def report(problem: ReadProblem, on_problem: OnProblem | None) -> None:
    """
    Hands a problem to `on_problem`.

    Raises:
        `ValueError`: the problem in one line, if there is no `on_problem`.
    """
    if on_problem is None:
        raise ValueError(str(problem))
    on_problem(problem)


def read_jsonl(
    path: str | os.PathLike[str], on_problem: OnProblem | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Yields the objects of a file, each with its number from 1: of its line in a `.jsonl`, of the entry in a `.json`.

    Args:
        path (path or URL):
            See the module's first lines.
        on_problem (`Callable[[ReadProblem], None]`, *optional*):
            Gets every line that is not one JSON object; the line is passed over. By default the first one raises.

    Raises:
        `ValueError`: naming path, line and field of the first problem, or saying why the whole file cannot be read.
        `OSError`: if it cannot be opened.
    """
    for number, _, value in read_entries(path, on_problem):
        yield number, value


def read_records(path: str | os.PathLike[str], on_problem: OnProblem | None = None) -> Iterator[Record]:
    """
    Yields the records of a file, ours or the original's, as they are: whether one is right is for `from_record` and the
    validator to say.

    Args and Raises: as [`read_jsonl`].
    """
    for entry in read_entries(path, on_problem):
        yield entry.value


def read_entries(path: str | os.PathLike[str], on_problem: OnProblem | None = None) -> Iterator[Entry]:
    """
    Yields the objects of a file with their number and key. A line `{key: {...}}` counts as the object inside.

    Args and Raises: as [`read_jsonl`].
    """
    name = os.fspath(path)
    if entry_unit(path) == "entry":
        for entry in objects_of(read_json(path), name, on_problem):
            try:
                json.dumps(entry.value, allow_nan=False)
            except ValueError:
                message = "NaN, Infinity or a number too large for float64, none of which is JSON"
                report(ReadProblem(name, entry.number, entry.key, message, "not_a_number", "entry"), on_problem)
            else:
                yield entry
        return
    with _opened(name) as file:
        for number, line in enumerate(_lines(file, name), start=1):
            text = line.strip()
            if not text:
                continue
            try:
                value = parse_json(text)
                if not isinstance(value, dict):
                    raise JsonError("not_an_object", None, f"expected a JSON object, got {_kind(value)}")
            except JsonError as error:
                # Only the last line has no line end; a writer that was killed leaves a part of it.
                cut = error.reason == "invalid_json" and not line.endswith(b"\n")
                reason = "truncated_line" if cut else error.reason
                message = f"{error}; the file seems to be cut off here" if cut else str(error)
                report(ReadProblem(name, number, error.field, message, reason), on_problem)
                continue
            [(key, inner)] = value.items() if len(value) == 1 else [(None, value)]
            nested = key is not None and isinstance(inner, dict)
            yield Entry(number, key if nested else None, inner if nested else value)


def read_json(path: str | os.PathLike[str]) -> Any:
    """
    The one JSON value of a file. NaN and Infinity, which many programs write, are kept as such, so that one of them does
    not cost the whole file: they are for the reader of the values to find. Numbers too large for float64 are infinite.

    Raises:
        `ValueError`: naming the file, and the field where something is wrong.
        `OSError`: if it cannot be opened.
    """
    name = os.fspath(path)
    with _opened(name) as file:
        content = file.read().removeprefix(_BYTE_ORDER_MARK).strip()
    try:
        try:
            return parse_json(content)
        except JsonError as error:
            if error.reason not in ("not_a_number", "huge_number"):
                raise
            return _with_infinities(content)
    except JsonError as error:
        line = error.reason == "invalid_json" and b"\n" in content
        hint = "; a file with one object a line has to be named .jsonl" if line else ""
        field = f"{error.field}: " if error.field else ""
        raise ValueError(f"{name}: {' '.join(f'{field}{error}{hint}'.split())}") from None


def objects_of(value: Any, name: str, on_problem: OnProblem | None = None) -> Iterator[Entry]:
    """The objects in a JSON value: of a list, keyed by clip, or the value itself."""
    keys: Iterable[str | None]
    if isinstance(value, list):
        keys, values = [None] * len(value), value
    elif isinstance(value, dict) and value and sum(isinstance(v, dict) for v in value.values()) * 2 > len(value):
        keys, values = [*value], [*value.values()]
    elif isinstance(value, dict):
        keys, values = [None], [value]
    else:
        raise ValueError(f"{name}: expected a list of objects, or objects keyed by clip, got {_kind(value)}")
    for number, (key, entry) in enumerate(zip(keys, values, strict=True), start=1):
        if isinstance(entry, dict):
            yield Entry(number, key, entry)
        else:
            message = f"expected a JSON object, got {_kind(entry)}"
            report(ReadProblem(name, number, key, message, "not_an_object", "entry"), on_problem)


def parse_json(text: bytes) -> Any:
    """
    The value of a strict JSON text.

    Args:
        text (`bytes`):
            UTF-8.

    Raises:
        [`JsonError`]: a one-line message, with the kind of problem and the field.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _json_error(text, error) from None
    _check_depth(value)
    # orjson takes the last of two equal names. Looking for them takes several times as long as reading, so it is done only
    # where there may be any: every name is followed by a colon, and the colons after an escaped quote (JSON in `metadata`)
    # are inside a string, unless the backslash before that quote is itself escaped.
    colons = text.count(b":") - text.count(b'\\":')
    if b'\\\\"' in text or colons > (len(value) if isinstance(value, dict) else 0):
        json.loads(text, object_pairs_hook=_unique)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs, if no two have the same name."""
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise JsonError("duplicate_name", twice, "the name appears twice in one object")
    return result


def _json_error(text: bytes, error: orjson.JSONDecodeError) -> JsonError:
    """What is wrong with a text that is not JSON, and in which field."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as unicode:
        before = text[: unicode.start].decode()
        problem = f"byte 0x{text[unicode.start]:02x} is not UTF-8 at byte {unicode.start + 1}"
        return JsonError("invalid_utf8", _field_at(before), problem)
    problem = re.sub(r": line \d+ column \d+ \(char \d+\)$", "", str(error))
    column = error.pos + 1
    rest = decoded[error.pos : error.pos + 9]
    if constant := re.match(r"-?(NaN|Infinity)", rest):
        what = f"{constant[0]} is not JSON; write null"
        return JsonError("not_a_number", _field_at(decoded[: error.pos]), what)
    if "infinity" in problem:
        return JsonError("huge_number", _field_at(decoded[: error.pos]), "a number is too large for float64")
    if "depth" in problem:
        return _too_deep()
    return JsonError("invalid_json", _field_at(decoded[: error.pos]), f"not JSON at character {column} ({problem})")


def _with_infinities(text: bytes) -> Any:
    """The value of a JSON text with NaN, Infinity or huge numbers."""
    try:
        value = json.loads(
            text,
            parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits),
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        raise JsonError("invalid_json", None, f"not JSON ({error})") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raises where nesting would exhaust the stack of what walks the value later."""
    try:
        orjson.dumps(value)  # the fastest way to know: 254 levels are its limit, four times fewer than those of reading
    except orjson.JSONEncodeError:
        raise _too_deep() from None


def _too_deep() -> JsonError:
    return JsonError("too_deep", None, "lists or objects are nested more than 254 levels deep")


def _field_at(text: str) -> str | None:
    """The path of names that a position in a JSON text is under, given the text before it: `segments.0.tokens`."""
    path: list[str | None] = []
    for match in _STRING_OR_BRACKET.finditer(text):
        token = match[0]
        if token[0] in "{[":
            path.append(None)
        elif token[0] in "}]":
            del path[-1:]
        elif match[1] and path:
            path[-1] = token[1 : -len(match[1]) - 1]
        elif token == "," and path:
            path[-1] = None
    names = [name for name in path if name is not None]
    return ".".join(names) or None


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    """The decompressed bytes of a file, unless it is a pickle."""
    lowered = name.lower()
    if lowered.endswith(_PICKLE_SUFFIXES):
        raise ValueError(_pickle_message(name))
    try:
        with fsspec.open(name, "rb", compression="gzip" if lowered.endswith(".gz") else None) as file:
            if _PICKLE_START.match(file.read(2)):
                raise ValueError(_pickle_message(name))
            file.seek(0)
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: the gzip archive is damaged or cut off ({error})") from None


def _pickle_message(name: str) -> str:
    files = "HowToGround1M_automatic_annotation_method.jsonl and HowToGround1M_model_preds.jsonl"
    return (
        f"{name}: a pickle, and nothing is unpickled here, because a pickle can run any code; the same annotations are "
        f"JSONL on the Hub: {files} in ekazakos/HowToGround1M, iGround_{{train,val,test}}_set_{{raw,processed}}.jsonl in "
        "ekazakos/iGround (hf download --repo-type dataset)"
    )


def _lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of a file with their ends, the first one without a byte order mark."""
    pieces: list[bytes] = []
    size, number, first = 0, 1, True
    while chunk := file.read(_CHUNK_BYTES):
        if first:
            chunk, first = chunk.removeprefix(_BYTE_ORDER_MARK), False
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield b"".join((*pieces, piece, b"\n"))
            pieces, size, number = [], 0, number + 1
        pieces.append(rest)
        size += len(rest)
        if size > MAX_LINE_BYTES:
            raise ValueError(
                f"{name}: line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; expected one object a line"
            )
    if size:
        yield b"".join(pieces)


def entry_unit(path: str | os.PathLike[str]) -> str:
    """How the entries of a file are counted: in lines, or as entries of a `.json`."""
    return "entry" if Path(os.fspath(path).lower().removesuffix(".gz")).suffix == ".json" else "line"


def _kind(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


__all__ = [
    "Entry",
    "JsonError",
    "OnProblem",
    "ReadProblem",
    "entry_unit",
    "objects_of",
    "parse_json",
    "read_entries",
    "read_json",
    "read_jsonl",
    "read_records",
    "report",
]
