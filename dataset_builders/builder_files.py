"""The files that a builder reads: which they are, and the records of those that are JSON Lines."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import datasets
from datasets.data_files import DataFilesDict, DataFilesList
from huggingface_hub import parse_hf_uri, resolve_revision
from huggingface_hub.errors import HfHubHTTPError, HfUriError

from .importers.entries import FieldError, Source
from .importers.released import is_ours, read_released
from .reading import Entry, ReadProblem, read_entries
from .record import RECORD_FIELDS, Record
from .record_checks import check_record

logger = logging.getLogger(__name__)

_SHARD_NAME = re.compile(r"(?:.*/)?(?P<split>[^/]+)-\d+-of-(?P<count>\d+)\.tar")
_JSON_NAME = re.compile(r".*\.jsonl?(?:\.gz)?", re.IGNORECASE)


def is_json(path: str) -> bool:
    """Whether a file is JSON or JSON Lines, by its name."""
    return _JSON_NAME.fullmatch(path) is not None


def pinned(base_path: str, token: bool | str | None = None) -> str:
    """
    A Hub repository at the commit that its branch or tag is at now, so that everything is read from one state of it, and what
    is prepared from another one is not taken for it; any other path as it is.

    Raises:
        `ValueError`: if there is no such repository or revision, or no right to read it.
    """
    if not base_path.startswith("hf://"):
        return base_path
    try:
        uri = parse_hf_uri(base_path.rstrip("/"))
        if uri.is_bucket:
            return base_path
        revision = resolve_revision(uri.id, repo_type=uri.type, revision=uri.revision, token=token)
    except (HfHubHTTPError, HfUriError) as error:
        raise ValueError(f"{base_path}: {' '.join(str(error).split())}") from None
    return replace(uri, revision=revision.resolved).to_uri()


def find_files(
    base_path: str, config: str, released: Mapping[str, str], download_config: datasets.DownloadConfig
) -> DataFilesDict:
    """
    The shards of a configuration by split, or else the released files, as far as they are there.

    Args:
        base_path (`str`):
            Folder or URL.
        config (`str`):
            Name of the configuration, and of the folder of its shards.
        released (`Mapping[str, str]`):
            Names of JSONL files by split.
        download_config ([`datasets.DownloadConfig`]):
            Token and options for remote files.

    Raises:
        `ValueError`: if there is nothing, or not all shards are there.
    """
    found = DataFilesList.from_patterns([f"{config}/*.tar"], base_path, download_config=download_config)
    shards: dict[tuple[str, int], dict[str, tuple[str, ...]]] = defaultdict(dict)
    for name, origin in sorted(zip(found, found.origin_metadata, strict=True)):
        if match := _SHARD_NAME.fullmatch(name):
            shards[match["split"], int(match["count"])][name] = origin
    files = DataFilesDict()
    for (split, count), origins in shards.items():
        if split in files:
            sizes = " and ".join(f"of {size}" for name, size in shards if name == split)
            raise ValueError(f"{base_path}/{config}: {split!r} is there twice, in shards {sizes}; remove the old ones")
        if len(origins) != count:
            problem = f"{len(origins)} of the {count} shards of {split!r} are in {base_path}/{config}"
            raise ValueError(f"{problem}; to read only those, pass them as data_files")
        files[split] = DataFilesList([*origins], [*origins.values()])
    for split, name in released.items():
        if not shards:
            # Not every form and split need be there.
            with contextlib.suppress(FileNotFoundError):
                files[split] = DataFilesList.from_patterns([name], base_path, download_config=download_config)
    if not files:
        wanted = f"{config}/SPLIT-00000-of-00001.tar" + "".join(f" or {name}" for name in released.values())
        raise ValueError(
            f"no shards of configuration {config!r} in {base_path}; expected {wanted} in a folder "
            "or repository (hf://datasets/org/name), or pass data_files"
        )
    return files


def read_json_lines(path: str, max_bad_lines: int) -> Iterator[Record]:
    """
    The records of a JSONL file: records of ours as they are, and those of released entries; a file may have both. Bad lines
    are left out, each with a warning that names line and field.

    Raises:
        `ValueError`: if the file cannot be read at all, or more than `max_bad_lines` of its lines.
    """
    num_bad = 0

    def count(problem: ReadProblem) -> None:
        nonlocal num_bad
        num_bad += 1
        if num_bad > max_bad_lines:
            raise ValueError(f"{problem}; more than max_bad_lines={max_bad_lines} are wrong in this file")
        logger.warning("left out: %s", problem)

    source = Source.of(path, count)
    for entry in read_entries(path, count):
        record = source.attempt(entry.number, _checked_record, entry, within=entry.key or "")
        if record is not None:
            yield record
    if num_bad:
        logger.warning("%s: left out %d lines", path, num_bad)


def _checked_record(entry: Entry) -> Record:
    """The record of an entry, if nothing is wrong with it."""
    record = entry.value if is_ours(entry.value) else read_released(entry)
    for problem in check_record(record):
        # A key need not name files here.
        if problem.is_error and problem.reason != "bad_key":
            raise FieldError(problem.reason, None, problem.message)
    return {name: record.get(name) for name in RECORD_FIELDS}


__all__ = ["find_files", "is_json", "pinned", "read_json_lines"]
