"""WebDataset shards: tar files in which consecutive members of one key, `<key>.json` and `<key>.mp4`, make a sample.

What is written depends on nothing but the samples, so that equal data has equal checksums. What is read may come from
anybody: nothing is extracted to disk or unpickled, no header can make the reader hold more than one sample of bounded size,
and whatever is wrong is an error that names shard and sample, or a counted skip.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from fsspec.core import url_to_fs

from modeling_grove.grounded_caption import atomic_path

from .tar_members import BLOCK, PLAIN_FILES, Damage, TarMembers

MAX_MEMBER_BYTES = 1 << 29  # half a gigabyte; a clip of ten seconds has about one megabyte
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # as webdataset and `datasets` split names
_PAUSES = (0.3, 1.0, 3.0)  # seconds before each new connection, where one has dropped
_FIELD = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")


class ShardError(ValueError):
    """
    Something wrong with a sample of a shard.

    Attributes:
        shard (`str`): path or URL.
        index (`int`): position of the sample in the shard.
        key (`str`): of the sample, as far as it has one.
        reason (`str`):
            `unsafe_name`, `not_a_file`, `too_large`, `duplicate_field`, `duplicate_key`, `no_json`, `damaged` or `truncated`;
            for a sample to be written also `bad_key`, `bad_field`.
    """

    def __init__(self, message: str, shard: str = "", index: int = -1, key: str = "", reason: str = "damaged"):
        super().__init__(message)  # the message alone, so that the error survives pickling and a data loader's worker
        self.shard, self.index, self.key, self.reason = shard, index, key, reason


@dataclass(frozen=True)
class ShardSummary:
    """
    A shard that was written.

    Attributes:
        name (`str`): name of the file.
        num_samples (`int`), num_bytes (`int`): samples in it, and its size.
        sha256 (`str`): of the file, in hexadecimal.
    """

    name: str
    num_samples: int
    num_bytes: int
    sha256: str


@dataclass
class RawSample:
    """
    A sample as it lies in a shard.

    Attributes:
        index (`int`): position in the shard, counting every sample, good or bad.
        key (`str`): the members' names up to the first dot after the last slash.
        members (`dict[str, bytes]`): from field (`json`, `mp4`; in lower case) to content.
        shard (`str`): path or URL.
    """

    index: int
    key: str
    members: dict[str, bytes]
    shard: str


def write_shard(path: str | os.PathLike[str], samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardSummary:
    """
    Write a shard, or nothing if anything goes wrong. Equal samples give equal bytes, whoever writes them when.

    Args:
        path (`str` or `os.PathLike`):
            Where to; its folder must exist.
        samples (`Iterable`):
            Key and fields of each sample. The members of a sample are written in the order of their names.

    Raises:
        [`ShardError`]: for a sample that would not be read back as it is: a key that is used twice, has a dot, or that
            `datasets` takes for a hidden file; a field that is no file extension; no `json`.
    """
    digest, num_samples, num_bytes = hashlib.sha256(), 0, 0
    seen: set[str] = set()
    with atomic_path(path) as temporary, temporary.open("wb") as file:

        def put(data: bytes) -> None:
            nonlocal num_bytes
            file.write(data)
            digest.update(data)
            num_bytes += len(data)

        for key, members in samples:
            _check_sample(os.fspath(path), num_samples, key, members, seen)
            for name in sorted(members):
                data = members[name]
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
                put(data)
                put(bytes(-len(data) % BLOCK))
            num_samples += 1
        put(bytes(2 * BLOCK))
        put(bytes(-num_bytes % tarfile.RECORDSIZE))
        file.flush()
    return ShardSummary(Path(path).name, num_samples, num_bytes, digest.hexdigest())


def iter_shard(
    shard: str | os.PathLike[str],
    *,
    start: int = 0,
    on_problem: Callable[[ShardError], None] | None = None,
    max_member_bytes: int = MAX_MEMBER_BYTES,
) -> Iterator[RawSample]:
    """
    Read the samples of a shard one by one. Members without a dot in their name, and folders, belong to no sample.

    Args:
        shard (`str` or `os.PathLike`):
            Path, or any URL that fsspec opens (`hf://`, `https://`, `s3://`, ...).
        start (`int`, *optional*, defaults to 0):
            Position of the first sample to give. Those before are neither checked nor, in a local file, read.
        on_problem (`Callable`, *optional*):
            Called with the [`ShardError`] of each sample that is then skipped. After damage, reading goes on at the next
            header. Without it the first problem is raised.
        max_member_bytes (`int`, *optional*, defaults to `MAX_MEMBER_BYTES`):
            What the members of a sample may have, one by one and together.

    Raises:
        [`ShardError`]: for the first bad sample, if `on_problem` is not given. At the end of a file that was not written to
            its end, and around damage, the sample before it counts as bad, since it may lack members.
        `OSError`: if the shard cannot be opened or read; a remote one once several connections in a row have failed.
    """
    name = os.fspath(shard)
    with _opened(name) as tar:
        for group in _Groups(tar, name, start, on_problem, max_member_bytes):
            if group.members is not None and group.index >= start:
                yield RawSample(group.index, group.key, group.members, name)


def count_samples(shard: str | os.PathLike[str]) -> int:
    """Samples in a shard, good or bad: one more than the last position of [`iter_shard`]. Reads only the headers."""
    name = os.fspath(shard)
    with _opened(name) as tar:
        return sum(1 for _ in _Groups(tar, name, sys.maxsize, None, 0))


def split_name(name: str) -> tuple[str, str] | None:
    """Key and field of a member's name, `("a/b", "seg.json")` of `a/b.seg.json`; `None` of a name that has no field."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def _check_sample(shard: str, index: int, key: str, members: Mapping[str, bytes], seen: set[str]) -> None:
    """Raises for a sample that readers would refuse, or hide; remembers its key."""
    reason, text = "", ""
    if "." in key or not all(key.split("/")) or not key.isprintable():
        reason, text = "bad_key", "a key is a relative path without dots"
    elif key.rpartition("/")[2].startswith("__"):
        reason, text = "bad_key", "`datasets` hides files whose name begins with two underscores"
    elif key in seen:
        reason, text = "duplicate_key", "the key is used twice; keys are unique in a data set"
    elif "json" not in members:
        reason, text = "no_json", f"expected a field json, got {sorted(members)}"
    elif wrong := [name for name in members if not _FIELD.fullmatch(name)]:
        reason, text = "bad_field", f"expected fields such as json and mp4, got {wrong[0]!r}"
    if reason:
        raise ShardError(f"{shard}: sample {index} ({key!r}): {text}", shard, index, key, reason)
    seen.add(key)


@dataclass
class _Group:
    """A sample that is being read; `members` is `None` from the moment that it is bad."""

    index: int
    key: str
    members: dict[str, bytes] | None = field(default_factory=dict)
    num_bytes: int = 0


class _Groups:
    """The samples of a tar file, good and bad; of those before `start` only the headers are looked at."""

    def __init__(
        self, tar: TarMembers, shard: str, start: int, on_problem: Callable[[ShardError], None] | None, max_bytes: int
    ):
        self._tar, self._shard, self._start = tar, shard, start
        self._on_problem, self._max_bytes = on_problem, max_bytes
        self._count = 0
        self._seen: set[str] = set()

    def __iter__(self) -> Iterator[_Group]:
        group: _Group | None = None
        while True:
            try:
                info = self._tar.next()
                if info is None:
                    break
                name = split_name(info.name)
                harmless = info.isdir() or (name is None and info.type in PLAIN_FILES)
                if not harmless:
                    key, extension = name or (info.name, "")
                    if group is None or key != group.key:
                        if group is not None:
                            yield self._closed(group)
                        group = self._opened(key)
                    self._add(group, info, extension)
                self._tar.skip()
            except Damage as damage:
                group = group or self._opened("")
                self._condemn(group, *damage.args)
                yield group
                group = None
        if group is not None:
            yield self._closed(group)

    def _opened(self, key: str) -> _Group:
        group = _Group(self._count, key)
        self._count += 1
        if key in self._seen:
            self._condemn(group, "duplicate_key", "an earlier sample of the shard has the same key")
        if key:
            self._seen.add(key)
        return group

    def _add(self, group: _Group, info: tarfile.TarInfo, extension: str) -> None:
        group.num_bytes += BLOCK + info.size
        if group.index < self._start or group.members is None:
            return
        if info.name.startswith("/") or ".." in info.name.split("/") or not _is_utf8(info.name):
            self._condemn(
                group, "unsafe_name", f"the member {info.name!r} points outside of the shard, or is not UTF-8"
            )
        elif info.type not in PLAIN_FILES:
            self._condemn(group, "not_a_file", f"the member {info.name!r} is a link, a device or a sparse file")
        elif extension in group.members:
            self._condemn(group, "duplicate_field", f"the field {extension!r} is there twice")
        elif group.num_bytes > self._max_bytes:
            size = f"{group.num_bytes} bytes, and {self._max_bytes} are allowed"
            self._condemn(group, "too_large", f"up to the member {info.name!r} it has {size}")
        else:
            group.members[extension] = self._tar.read()

    def _closed(self, group: _Group) -> _Group:
        if group.members is not None and "json" not in group.members:
            self._condemn(group, "no_json", f"expected a field json, got {sorted(group.members)}")
        return group

    def _condemn(self, group: _Group, reason: str, text: str) -> None:
        if group.members is None:
            return
        group.members = None
        if group.index < self._start:
            return
        # What follows `?` in a URL may be a signature that nobody should find in a log.
        place = f"{self._shard.split('?')[0]}: sample {group.index}"
        error = ShardError(f"{place} ({group.key!r}): {text}", self._shard, group.index, group.key, reason)
        if self._on_problem is None:
            raise error
        self._on_problem(error)


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


@contextmanager
def _opened(shard: str) -> Iterator[TarMembers]:
    if "://" not in shard:
        with open(shard, "rb") as local:
            yield TarMembers(local, os.fstat(local.fileno()).st_size)
        return
    with closing(_RemoteFile(shard)) as remote:
        yield TarMembers(cast(IO[bytes], remote), None)


class _RemoteFile:
    """A file that is read from its beginning on, over a new connection where one drops; whatever fails is an `OSError`."""

    def __init__(self, url: str):
        self._url, self._position = url, 0
        # A size of 0 makes the Hub's file system keep one connection open instead of asking for every few megabytes anew.
        options = {"block_size": 0} if url.startswith("hf://") else {}
        try:
            self._file = _connected(url, **options)
        except Exception as error:
            raise self._failure(_reason(error)) from error

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, none only at the end of the file."""
        pauses = iter(_PAUSES)
        failure: Exception | None = None  # the first one; those of new connections only follow from it
        while True:
            try:
                if failure is not None:
                    self._file.close()
                    self._file = _connected(self._url)
                    self._file.seek(self._position)
                data = self._file.read(count)
            except Exception as error:  # each file system has the errors of its own HTTP client
                failure = failure or _reason(error)
                pause = None if _is_final(_reason(error)) else next(pauses, None)
                if pause is None:
                    raise self._failure(failure) from failure
                time.sleep(pause)
            else:
                self._position += len(data)
                return data

    def close(self) -> None:
        self._file.close()

    def _failure(self, error: Exception) -> OSError:
        # What follows `?` in a URL may be a signature; clients' messages have URLs, and several lines.
        text = re.sub(r"(://[^\s?'\"]*)\?[^\s'\")>]*", r"\1", " ".join(str(error).split()))
        return OSError(f"{self._url.split('?')[0]}: cannot be read ({type(error).__name__}: {text})")


def _connected(url: str, **options: int) -> Any:
    filesystem, path = url_to_fs(url)  # `fsspec.open` would take a query for a pattern
    return filesystem.open(path, "rb", **options)


def _reason(error: Exception) -> Exception:
    """Why a file could not be opened: the HTTP file system says of every reason that there is no such file."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) else error


def _is_final(error: Exception) -> bool:
    """Whether a new connection would end the same: the server refuses, or cannot go on in the middle of a file."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    refused = isinstance(status, int) and 400 <= status < 500
    return refused or isinstance(error, (FileNotFoundError, PermissionError, ValueError))


__all__ = [
    "MAX_MEMBER_BYTES",
    "RawSample",
    "ShardError",
    "ShardSummary",
    "count_samples",
    "iter_shard",
    "split_name",
    "write_shard",
]
