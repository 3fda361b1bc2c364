"""Any data set by one name: a JSONL file, a shard, a folder or Hub repository of shards, or a pattern of these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from .reading import JsonError, parse_json, read_records
from .record import Record
from .tar_shards import RawSample, ShardError, iter_shard

MANIFEST_NAME = "manifest.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_NUMBERED = re.compile(r"(?P<split>.*)-\d+-of-(?P<count>\d+)\.tar")
RECORD_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


@dataclass(frozen=True)
class ShardFile:
    """
    A shard and what is known about it without opening it.

    Attributes:
        url (`str`): local path, or anything that fsspec opens (`hf://`, `http://`, ...).
        num_samples (`int` or `None`): from the data set's manifest, if it has one.
    """

    url: str
    num_samples: int | None = None


def locate(source: str) -> str:
    """
    Where data is: local data as it is, that of the Hub (`hf://datasets/org/name`, or `org/name` if there is no such path) at the
    commit that its branch is at now.

    Raises:
        `ValueError`: if there is no such repository or revision.
    """
    if "://" not in source and not url_to_fs(source)[0].exists(source) and _HUB_ID.fullmatch(source):
        source = f"hf://datasets/{source}"
    if not source.startswith("hf://"):
        return source
    from .builder_files import pinned  # which takes the `datasets` library, and seconds

    return pinned(source)


def find_shards(
    source: str, config: str | None = None, split: str | None = None, *, prefer_video: bool = False
) -> list[ShardFile]:
    """
    The shards of a data set, in the order of their names.

    Args:
        source (`str`):
            A tar, a pattern of tars, or a folder or repository as `python -m dataset_builders shard` writes it (local, or
            `hf://datasets/org/name`). A folder without a manifest may have its tars in one folder for each configuration.
        config (`str`, *optional*):
            Configuration; by default that of [`default_config`]. Without a manifest, the name of the folder with the tars,
            needed where there are several.
        split (`str`, *optional*):
            Split; needed where the configuration has several. Without a manifest, the tars named `{split}.tar` or
            `{split}-00000-of-00012.tar`, by default all of them.
        prefer_video (`bool`, *optional*, defaults to `False`):
            Whether the default is the configuration with the clips of that one, where the split has them.

    Raises:
        `ValueError`: if there is nothing, the configuration or split does not exist or has to be chosen, or shards of a folder
            are missing: those that its manifest lists, or that its shards count by their names.
    """
    filesystem, path = url_to_fs(source)
    if not filesystem.isdir(path):
        found = filesystem.glob(path) if any(c in path for c in "*?[") else [path] if filesystem.exists(path) else []
        shards = [ShardFile(filesystem.unstrip_protocol(name)) for name in sorted(map(str, found))]
    elif filesystem.exists(f"{path}/{MANIFEST_NAME}"):
        try:
            configs = parse_json(filesystem.cat_file(f"{path}/{MANIFEST_NAME}"))["configs"]
            entries = _split_of(configs, source, config, split, prefer_video)["shards"]
            _check_complete(filesystem, path, [entry["name"] for entry in entries], source)
            root = filesystem.unstrip_protocol(path)
            return [ShardFile(_local(f"{root}/{entry['name']}"), int(entry["num_samples"])) for entry in entries]
        except (JsonError, KeyError, TypeError, AttributeError) as error:
            problem = f"{source}/{MANIFEST_NAME} is not what `shard` writes ({type(error).__name__}: {error})"
            raise ValueError(f"{problem}; write the data set again, or remove the file to take every tar") from error
    else:
        tars = sorted(map(str, filesystem.glob(f"{path}/{config or '**'}/*.tar")))
        names = _only_folder(_of_split(tars, split), path, source)
        _check_counted(names, source)
        shards = [ShardFile(filesystem.unstrip_protocol(name)) for name in names]
    if not shards:
        raise ValueError(f"no shards at {source!r}; expected a tar, a pattern of tars, or a folder that `shard` wrote")
    return [ShardFile(_local(shard.url)) for shard in shards]


def iter_source(
    source: str, config: str | None = None, split: str | None = None, *, prefer_video: bool = False
) -> Iterator[tuple[Record, bytes | None]]:
    """
    Yields the records of any data set, each with the mp4 of its clip where the shards have one.

    Args:
        source (`str`):
            A JSONL or JSON file of records, or what [`find_shards`] takes.
        config (`str`, *optional*), split (`str`, *optional*), prefer_video (`bool`, *optional*):
            As for [`find_shards`].

    Raises:
        `ValueError`: as [`find_shards`], or naming file and line, or shard and sample, of the first thing that is wrong.
    """
    if source.endswith(RECORD_SUFFIXES):
        for record in read_records(source):
            yield record, None
        return
    for shard in find_shards(source, config, split, prefer_video=prefer_video):
        for sample in iter_shard(shard.url):
            yield sample_record(sample), sample.members.get("mp4")


def sample_record(sample: RawSample) -> Record:
    """
    The record of a sample, read as strictly as a line of a file (see `reading`); whether it is right is for `from_record` and
    the validator to say.

    Raises:
        [`ShardError`]: with the reason `bad_json`, naming shard and sample, if its `json` is not one JSON object.
    """
    try:
        record = parse_json(sample.members["json"])
        if isinstance(record, dict):
            return record
        problem = f"json: expected an object, got {type(record).__name__}"
    except JsonError as error:
        problem = f"json: {f'{error.field}: ' if error.field else ''}{error}"
    # What follows `?` in a URL may be a signature that nobody should find in a log.
    place = f"{sample.shard.split('?')[0]}: sample {sample.index} ({sample.key!r})"
    raise ShardError(f"{place}: {problem}", sample.shard, sample.index, sample.key, "bad_json")


def default_config(configs: Mapping[str, Any]) -> str | None:
    """The configuration of a manifest to take if none is named: one without videos, `default` if there is one."""
    names = [name for name, entry in configs.items() if not entry["with_video"]]
    return "default" if "default" in names else next(iter(names), None)


def _split_of(
    configs: dict[str, Any], source: str, config: str | None, split: str | None, prefer_video: bool
) -> dict[str, Any]:
    """The manifest's entry of a split."""
    if config is None:
        config = default_config(configs)
        with_video = configs.get(f"{config}_video")
        if prefer_video and with_video and (split is None or split in with_video["splits"]):
            config = f"{config}_video"
    if config not in configs:
        raise ValueError(f"{source!r} has no configuration {config!r}; expected one of {', '.join(configs)}")
    splits = configs[config]["splits"]
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        problem = "has several splits" if split is None else f"has no split {split!r}"
        raise ValueError(f"configuration {config!r} of {source!r} {problem}; choose one of {', '.join(splits)}")
    return splits[split]


def _of_split(tars: list[str], split: str | None) -> list[str]:
    """The tars that `shard` may have written for a split: those of `test_hard` are not those of `test`."""
    name = re.compile(r".*" if split is None else rf"{re.escape(split)}(-\d+-of-\d+)?\.tar")
    return [tar for tar in tars if name.fullmatch(PurePosixPath(tar).name)]


def _only_folder(tars: list[str], root: str, source: str) -> list[str]:
    """The tars, if they lie in one folder: several are configurations, which may hold the same clips."""
    folders = sorted({str(PurePosixPath(tar).parent).removeprefix(root).strip("/") or "." for tar in tars})
    if len(folders) > 1:
        listed = ", ".join(folders)
        raise ValueError(f"{source!r} has no {MANIFEST_NAME} and tars in {listed}; choose one of them as configuration")
    return tars


def _check_complete(filesystem: AbstractFileSystem, root: str, names: Sequence[str], source: str) -> None:
    """Looks for the shards of a manifest by listing their folders, since a run that opens them in turn needs the last one late."""
    there: set[tuple[str, str]] = set()
    for folder in {str(PurePosixPath(name).parent) for name in names}:
        if filesystem.isdir(f"{root}/{folder}"):
            there |= {
                (folder, PurePosixPath(str(path)).name) for path in filesystem.ls(f"{root}/{folder}", detail=False)
            }
    missing = [name for name in names if (str(PurePosixPath(name).parent), PurePosixPath(name).name) not in there]
    if missing:
        raise ValueError(
            f"{source!r}: {len(missing)} of the {len(names)} shards that its {MANIFEST_NAME} lists are missing, such as "
            f"{missing[0]}; copy them, or name those that are there by a pattern"
        )


def _check_counted(tars: Sequence[str], source: str) -> None:
    """Compares shards without a manifest with the count in their names."""
    found = Counter((match["split"], int(match["count"])) for tar in tars if (match := _NUMBERED.fullmatch(tar)))
    for (split, count), number in found.items():
        if number != count:
            raise ValueError(
                f"{source!r}: {number} of the {count} shards of {PurePosixPath(split).name!r} are there; copy the others, or name "
                "these by a pattern"
            )


def _local(url: str) -> str:
    """A plain path in place of `file://`."""
    return url.removeprefix("file://")


__all__ = [
    "MANIFEST_NAME",
    "RECORD_SUFFIXES",
    "ShardFile",
    "default_config",
    "find_shards",
    "iter_source",
    "locate",
    "sample_record",
]
