"""Whether a folder of shards is what its manifest says, and every record in it right."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.command_line import progress
from dataset_builders.manifest import WORK_FOLDER, Manifest, load_manifest
from dataset_builders.problems import is_valid
from dataset_builders.record import record_metadata
from dataset_builders.sources import MANIFEST_NAME, sample_record
from dataset_builders.tar_shards import iter_shard
from dataset_builders.validation import Validator

from .publication import check_text


@dataclass(frozen=True)
class DatasetFacts:
    """
    What was seen in the records.

    Attributes:
        synthetic (`bool`): whether all are of GroundedShapes, whose videos are made by this project's code.
        noisy (`bool`): whether any was made noisy by `python -m dataset_builders noise`.
        records (`int`): how many there are, over all configurations.
    """

    synthetic: bool
    noisy: bool
    records: int


def read_manifest(folder: Path) -> Manifest:
    """
    The manifest of a folder of shards.

    Raises:
        `ValueError`: if the folder has none, no split is in it, or a run is unfinished.
    """
    if not (folder / MANIFEST_NAME).is_file():
        raise ValueError(
            f"{folder}: no {MANIFEST_NAME}; expected a folder that `python -m dataset_builders shard` wrote"
        )
    if (folder / WORK_FOLDER).exists():
        raise ValueError(f"{folder}: a run of `shard` is unfinished; give its command again, then publish")
    manifest = load_manifest(folder)
    if not manifest["configs"]:
        raise ValueError(f"{folder}: the manifest lists no split; run `python -m dataset_builders shard` first")
    return manifest


def shards_of(manifest: Manifest) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Configuration, split and entry of every shard that a manifest lists."""
    for config, entry in manifest["configs"].items():
        for split, content in entry["splits"].items():
            for shard in content["shards"]:
                yield config, split, shard


def without_videos(manifest: Manifest) -> Manifest:
    """The manifest of the annotations alone: without the configurations that have clips."""
    gone = {name for name, entry in manifest["configs"].items() if entry["with_video"]}
    kept: Manifest = json.loads(json.dumps(manifest))
    for part in ("configs", "counts", "rejected", "statistics"):
        if part in kept:
            kept[part] = {name: value for name, value in kept[part].items() if name not in gone}
    for part in ("missing_videos", "broken_videos"):
        kept[part] = [entry for entry in kept[part] if entry["config"] not in gone]
    kept.pop("card_sha256", None)
    return kept


def check_shards(folder: Path, manifest: Manifest) -> DatasetFacts:
    """
    Compares every shard with the manifest, then reads and validates every record.

    Raises:
        `ValueError`: naming the first shard or record that is wrong, or a tar that the manifest does not list.
    """
    shards = list(shards_of(manifest))
    listed = {shard["name"] for _, _, shard in shards}
    folders = sorted({name.partition("/")[0] for name in listed})
    for path in (path for name in folders for path in sorted((folder / name).rglob("*.tar"))):
        if path.relative_to(folder).as_posix() not in listed:
            raise ValueError(f"{path}: not in {MANIFEST_NAME}; remove it, or make its split again with `shard`")
    for _, _, shard in progress(shards, "comparing checksums", unit="shard"):
        _check_shard(folder / shard["name"], shard)
    kinds: Counter[str] = Counter()
    validators: dict[str, Validator] = {}
    for config, _, shard in progress(shards, "validating", unit="shard"):
        validator = validators.setdefault(config, Validator())
        read = 0
        for sample in iter_shard(folder / shard["name"]):
            read += 1
            check_text(sample.members["json"], f"{shard['name']}: {sample.key}")
            record, problems = validator.admit(sample_record(sample))
            if not is_valid(problems):
                problem = next(problem for problem in problems if problem.is_error)
                raise ValueError(f"{shard['name']}: {sample.key}: {problem.message} ({problem.reason}); see `validate`")
            metadata = record_metadata(record)
            kinds.update(records=1, shapes="shapes" in metadata, noise="noise" in metadata)
        if read != shard["num_samples"]:
            raise ValueError(f"{shard['name']}: {read} samples, the manifest has {shard['num_samples']}; make it again")
    return DatasetFacts(kinds["shapes"] == kinds["records"], kinds["noise"] > 0, kinds["records"])


def peek(folder: Path, manifest: Manifest) -> DatasetFacts:
    """
    What the records seem to be, from the first one of every split; for a card alone.

    Raises:
        `ValueError`: if one cannot be read.
    """
    firsts = {(config, split): shard for config, split, shard in reversed(list(shards_of(manifest)))}
    samples = (next(iter_shard(folder / shard["name"])) for shard in firsts.values())
    found = [record_metadata(sample_record(sample)) for sample in samples]
    total = sum(shard["num_samples"] for _, _, shard in shards_of(manifest))
    return DatasetFacts(all("shapes" in item for item in found), any("noise" in item for item in found), total)


def _check_shard(path: Path, shard: dict[str, Any]) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: missing, though {MANIFEST_NAME} lists it; make its split again with `shard`")
    if path.stat().st_size != shard["num_bytes"]:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, the manifest has {shard['num_bytes']}; make it again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
            raise ValueError(f"{path}: another SHA-256 than in {MANIFEST_NAME}; make its split again with `shard`")


__all__ = ["DatasetFacts", "check_shards", "peek", "read_manifest", "shards_of", "without_videos"]
