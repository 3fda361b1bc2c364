"""The manifest of a folder of shards: which shards each split has, with checksums, what was counted, and what is missing.

Runs of `shard` into one folder add splits and configurations, possibly at the same time, so that the manifest is changed under
a lock. It is written last, after the dataset card: what it lists exists.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from modeling_grove.grounded_caption import atomic_path

from .card import dataset_card
from .sources import MANIFEST_NAME
from .statistics import Statistics

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

VERSION = 1
CARD_NAME = "README.md"
WORK_FOLDER = ".sharding"  # of unfinished runs, and the lock
_BY_SPLIT = ("counts", "statistics", "rejected")  # by configuration, then by split
_COUNTS = {"clips": "clips", "phrases": "noun_phrases", "frames": "frames", "boxes": "box_instances"}
_SPLIT_ORDER = ("train", "validation", "test")


def video_config(config: str) -> str:
    """The configuration that has the clips beside the records of `config`."""
    return f"{config}_video"


def load_manifest(root: Path) -> Manifest:
    """
    The manifest of a folder, or an empty one.

    Raises:
        `ValueError`: if there is a file of that name that is not a manifest of ours.
    """
    path = root / MANIFEST_NAME
    if not path.exists():
        trees: dict[str, Any] = {"configs": {}, "counts": {}, "statistics": {}, "rejected": {}}
        lists: dict[str, Any] = {"missing_videos": [], "broken_videos": []}
        return {"version": VERSION, "name": root.resolve().name, "license": None, "language": [], **trees, **lists}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise ValueError(f"{path}: expected a manifest of version {VERSION}; choose another --output")
    manifest.setdefault("statistics", {})  # which older ones lack
    return manifest


@contextmanager
def changed_manifest(root: Path) -> Iterator[Manifest]:
    """Gives the manifest of a folder to be changed, then writes the card and the manifest, while others wait."""
    (root / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    with FileLock(root / WORK_FOLDER / "lock"):
        manifest = load_manifest(root)
        yield manifest
        _sort(manifest)
        _write_card(root, manifest)
        with atomic_path(root / MANIFEST_NAME) as temporary:
            text = json.dumps(manifest, ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")


def split_entry(manifest: Manifest, config: str, split: str) -> dict[str, Any] | None:
    """What the manifest says of a split: `num_records`, `num_bytes`, `fingerprint` and `shards`."""
    return manifest["configs"].get(config, {}).get("splits", {}).get(split)


def remove_split(manifest: Manifest, config: str, split: str) -> None:
    """Takes a split out of a configuration and of the one with its videos."""
    for name in (config, video_config(config)):
        for tree in (manifest[tree] for tree in _BY_SPLIT):
            tree.get(name, {}).pop(split, None)
        if split_entry(manifest, name, split) is not None:
            del manifest["configs"][name]["splits"][split]
        for place in ("missing_videos", "broken_videos"):
            manifest[place] = [e for e in manifest[place] if (e["config"], e["split"]) != (name, split)]
    for tree in (manifest[tree] for tree in _BY_SPLIT):
        for name in [name for name, splits in tree.items() if not splits]:
            del tree[name]
    for name in [name for name, entry in manifest["configs"].items() if not entry["splits"]]:
        del manifest["configs"][name]


def add_split(
    manifest: Manifest,
    config: str,
    split: str,
    results: Iterable[Mapping[str, Any]],
    report: Mapping[str, Any],
    fingerprint: str,
) -> None:
    """
    Enters a split that is made.

    Args:
        manifest (`dict`):
            To be changed.
        config (`str`), split (`str`):
            Without `_video`.
        results (`Iterable[Mapping]`):
            What [`shard_jobs.make_shard`] returned for each shard.
        report (`Mapping`):
            Of the validator.
        fingerprint (`str`):
            Of the input and settings.
    """
    remove_split(manifest, config, split)
    results = sorted(results, key=lambda result: result["index"])
    for name in results[0]["shards"]:
        shards = [result["shards"][name] for result in results]
        statistics = Statistics()
        for result in results:
            statistics.merge(Statistics.from_state(result["statistics"][name]))
        entry = manifest["configs"].setdefault(name, {"with_video": name != config, "splits": {}})
        entry["splits"][split] = {
            "num_records": sum(shard["num_samples"] for shard in shards),
            "num_bytes": sum(shard["num_bytes"] for shard in shards),
            "fingerprint": fingerprint,
            "shards": shards,
        }
        found = statistics.as_dict()
        manifest["statistics"].setdefault(name, {})[split] = found
        counts = {ours: found[theirs] for ours, theirs in _COUNTS.items()}
        manifest["counts"].setdefault(name, {})[split] = counts
    manifest["counts"][config][split] |= {
        name: report[name] for name in ("records", "accepted", "rejected", "unreadable")
    }
    manifest["rejected"].setdefault(config, {})[split] = {
        reason: entry["records"] for reason, entry in report["errors"].items()
    }
    missing: Counter[str] = Counter()
    cuts: Counter[str] = Counter()
    for result in results:
        missing.update(result["missing"])
        cuts.update(result["cuts"])
    if split_entry(manifest, video_config(config), split) is not None:
        manifest["counts"][video_config(config)][split] |= {name: cuts[name] for name in ("copied", "encoded")}
    place = {"config": video_config(config), "split": split}
    manifest["missing_videos"] += [{**place, "video": name, "num_records": n} for name, n in missing.items()]
    manifest["broken_videos"] += [{**place, **broken} for result in results for broken in result["broken"]]


def clear_work(root: Path, folder: Path) -> None:
    """Removes the folder of a finished run, and the one of all runs if no other one is going on."""
    with FileLock(root / WORK_FOLDER / "lock"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        if [path.name for path in (root / WORK_FOLDER).iterdir()] == ["lock"]:
            (root / WORK_FOLDER / "lock").unlink()
            (root / WORK_FOLDER).rmdir()


def _sort(manifest: Manifest) -> None:
    """Orders everything, so that the order of the runs does not matter."""

    def place(split: str) -> tuple[int, str]:
        return (_SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else len(_SPLIT_ORDER)), split

    manifest["configs"] = dict(sorted(manifest["configs"].items()))
    for entry in manifest["configs"].values():
        entry["splits"] = {split: entry["splits"][split] for split in sorted(entry["splits"], key=place)}
    for name in _BY_SPLIT:
        tree = manifest[name]
        manifest[name] = {
            config: dict(sorted(splits.items(), key=lambda i: place(i[0]))) for config, splits in sorted(tree.items())
        }
    for name in ("missing_videos", "broken_videos"):
        manifest[name].sort(key=lambda e: (e["config"], place(e["split"]), e["video"], e.get("key", "")))


def _write_card(root: Path, manifest: Manifest) -> None:
    """Writes the card, unless somebody has changed the one that is there."""
    path, text = root / CARD_NAME, dataset_card(manifest)
    if path.exists():
        content = path.read_bytes()
        if content != text.encode() and hashlib.sha256(content).hexdigest() != manifest.get("card_sha256"):
            logger.warning(
                "%s was changed by hand and stays; its `configs` and `dataset_info` may need an update", path
            )
            return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    manifest["card_sha256"] = hashlib.sha256(text.encode()).hexdigest()


__all__ = [
    "CARD_NAME",
    "WORK_FOLDER",
    "Manifest",
    "add_split",
    "changed_manifest",
    "clear_work",
    "load_manifest",
    "remove_split",
    "split_entry",
    "video_config",
]
