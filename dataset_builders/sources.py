"""Any data set by one name: a JSONL file, a shard, a folder or Hub repository of shards, or a pattern of these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from .reading import read_records
from .record import Record
from .tar_shards import iter_shard

MANIFEST_NAME = "manifest.json"
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


def find_shards(source: str, config: str | None = None, split: str | None = None) -> list[ShardFile]:
    """
    The shards of a data set, in the order of their names.

    Args:
        source (`str`):
            A tar, a pattern of tars, or a folder or repository as `python -m dataset_builders shard` writes it (local, or
            `hf://datasets/org/name`). In a folder without a manifest every tar below it counts.
        config (`str`, *optional*):
            Configuration; by default that of [`default_config`].
        split (`str`, *optional*):
            Split; needed where the configuration has several.

    Raises:
        `ValueError`: if there is nothing, or the configuration or split does not exist or has to be chosen.
    """
    filesystem, path = url_to_fs(source)
    if not filesystem.isdir(path):
        found = filesystem.glob(path) if any(c in path for c in "*?[") else [path] if filesystem.exists(path) else []
        shards = [ShardFile(filesystem.unstrip_protocol(name)) for name in sorted(map(str, found))]
    elif filesystem.exists(f"{path}/{MANIFEST_NAME}"):
        try:
            configs = json.loads(filesystem.cat_file(f"{path}/{MANIFEST_NAME}"))["configs"]
            entries = _split_of(configs, source, config, split)["shards"]
            root = filesystem.unstrip_protocol(path)
            return [ShardFile(_local(f"{root}/{entry['name']}"), int(entry["num_samples"])) for entry in entries]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            problem = f"{source}/{MANIFEST_NAME} is not what `shard` writes ({type(error).__name__}: {error})"
            raise ValueError(f"{problem}; write the data set again, or remove the file to take every tar") from error
    else:
        pattern = f"{path}/{config or '**'}/{split or ''}*.tar"
        shards = [ShardFile(filesystem.unstrip_protocol(name)) for name in sorted(map(str, filesystem.glob(pattern)))]
    if not shards:
        raise ValueError(f"no shards at {source!r}; expected a tar, a pattern of tars, or a folder that `shard` wrote")
    return [ShardFile(_local(shard.url)) for shard in shards]


def iter_source(
    source: str, config: str | None = None, split: str | None = None
) -> Iterator[tuple[Record, bytes | None]]:
    """
    Yields the records of any data set, each with the mp4 of its clip where the shards have one.

    Args:
        source (`str`):
            A JSONL or JSON file of records, or what [`find_shards`] takes.
        config (`str`, *optional*), split (`str`, *optional*):
            As for [`find_shards`].

    Raises:
        `ValueError`: as [`find_shards`], or naming file and line, or shard and sample, of the first thing that is wrong.
    """
    if source.endswith(RECORD_SUFFIXES):
        for record in read_records(source):
            yield record, None
        return
    for shard in find_shards(source, config, split):
        for sample in iter_shard(shard.url):
            yield json.loads(sample.members["json"]), sample.members.get("mp4")


def default_config(configs: Mapping[str, Any]) -> str | None:
    """The configuration of a manifest to take if none is named: one without videos, `default` if there is one."""
    names = [name for name, entry in configs.items() if not entry["with_video"]]
    return "default" if "default" in names else next(iter(names), None)


def _split_of(configs: dict[str, Any], source: str, config: str | None, split: str | None) -> dict[str, Any]:
    """The manifest's entry of a split."""
    if config is None:
        config = default_config(configs)
    if config not in configs:
        raise ValueError(f"{source!r} has no configuration {config!r}; expected one of {', '.join(configs)}")
    splits = configs[config]["splits"]
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        problem = "has several splits" if split is None else f"has no split {split!r}"
        raise ValueError(f"configuration {config!r} of {source!r} {problem}; choose one of {', '.join(splits)}")
    return splits[split]


def _local(url: str) -> str:
    """A plain path in place of `file://`."""
    return url.removeprefix("file://")


__all__ = ["MANIFEST_NAME", "RECORD_SUFFIXES", "ShardFile", "default_config", "find_shards", "iter_source"]
