"""The `shard` command: from annotations, and a folder of videos, to WebDataset shards that `load_dataset` reads.

1. Every record is read and validated, once; those that are right are set aside in one file under `OUT/.sharding`.
2. The plan, which record goes into which shard, follows from that file and the settings alone.
3. Each shard is made whole or not at all, then noted as done. A run that was killed goes on with the others, and a finished
   data set is the same byte for byte, however often that happened and however many processes made it.
4. The card and, last, the manifest are written.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import orjson
from filelock import FileLock, Timeout

from modeling_grove.grounded_caption import atomic_path

from .clips import ENCODER_OPTIONS
from .command_line import complain, emit, progress
from .manifest import (
    WORK_FOLDER,
    Manifest,
    add_split,
    changed_manifest,
    clear_work,
    load_manifest,
    remove_split,
    split_entry,
    video_config,
)
from .problems import is_valid
from .reading import ReadProblem, read_records
from .record import record_key
from .shard_jobs import ShardJob, make_shards
from .validation import Validator

logger = logging.getLogger(__name__)

_PLAN_VERSION = 1
_CONFIG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SPLIT = re.compile(r"[A-Za-z0-9]\w*", re.ASCII)  # `datasets` takes no dash in the name of a split
_LOCK = "lock"
_PLAN = "plan.json"
_ANEW = "anew"  # folder for the work of --overwrite, until what it replaces is gone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """\
Writes records as WebDataset shards, OUT/CONFIG/SPLIT-00000-of-00012.tar, and with --videos a second configuration,
CONFIG_video, of the same records with their clips, cut out of the videos frame by frame exact. OUT becomes a repository
that load_dataset reads: README.md has the features, manifest.json the counts, checksums and what was left out.

Records are validated first; bad ones are left out and counted by reason. A record without a usable video is left out
of CONFIG_video only. Run the command again to go on after an interruption; run it with other annotations and
another --split or --config to add to OUT.

example:
  python -m dataset_builders shard --annotations train.jsonl --videos videos --output howto --license cc-by-nc-sa-4.0
  python -m dataset_builders shard --annotations val.jsonl --videos videos --output howto --split validation
"""
    parser.add_argument(
        "--annotations",
        action="append",
        required=True,
        metavar="FILE",
        help="JSONL or JSON of records, of `import` or as released; may be given several times",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder to write to, or to add to")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder with each record's `video_fname`")
    parser.add_argument("--config", default="default", metavar="NAME", help="configuration (default: default)")
    parser.add_argument("--split", default="train", metavar="NAME", help="split (default: train)")
    parser.add_argument(
        "--samples-per-shard", type=int, default=1000, metavar="N", help="records in a shard at most (default: 1000)"
    )
    parser.add_argument(
        "--shuffle", type=int, metavar="SEED", help="mix the records over the shards; by default they keep their order"
    )
    parser.add_argument(
        "--processed", action="store_true", help="write the union of a phrase's boxes in each frame, not its instances"
    )
    parser.add_argument(
        "--rejected", type=Path, metavar="FILE", help="write records with errors here, as `validate` does"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one for each CPU)"
    )
    parser.add_argument("--overwrite", action="store_true", help="make the split anew, whatever is there of it")
    parser.add_argument("--name", help="name of the data set on its card (default: that of OUT)")
    parser.add_argument("--license", metavar="ID", help="licence of the annotations, such as cc-by-nc-sa-4.0")
    parser.add_argument("--language", metavar="CODE", help="language of the captions (default: en)")
    parser.add_argument("--json", action="store_true", help="print the summary as one line of JSON")


def run(args: argparse.Namespace) -> int:
    _check(args)
    root, place = args.output, (args.config, args.split)
    folder = root / WORK_FOLDER / f"{args.config}.{args.split}"
    fingerprint = _fingerprint(args)
    with _only_run(folder):
        _remove_leftovers(folder)
        made = 0
        if args.overwrite or not _is_finished(root, *place, folder, fingerprint):
            set_aside = _set_aside_anew if args.overwrite else _set_aside
            report = set_aside(args, folder, fingerprint)
            jobs = _plan(args, folder)
            results = {job.index: _result(job) for job in jobs}
            missing = [job for job in jobs if results[job.index] is None]
            made = len(missing)
            total = sum(len(job.lines) for job in missing)
            for _ in progress(make_shards(missing, args.workers), "making shards", total):
                pass
            with changed_manifest(root) as manifest:
                _describe(manifest, args)
                add_split(manifest, *place, [_read_result(job) for job in jobs], report, fingerprint)
        else:
            with changed_manifest(root) as manifest:
                _describe(manifest, args)
            if args.rejected:
                logger.warning("%s: the split is there already; --overwrite validates its records again", args.rejected)
        clear_work(root, folder)
    summary = _summary(load_manifest(root), args, made)
    emit(summary, _as_text(summary), as_json=args.json)
    if args.videos and not summary["clips"]:
        return complain(f"none of the {summary['accepted']} clips could be cut; see manifest.json for the reasons")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises for what cannot be meant."""
    for option, name, pattern in (("--config", args.config, _CONFIG), ("--split", args.split, _SPLIT)):
        if not pattern.fullmatch(name):
            raise ValueError(f"{option}: expected letters, digits and underscores, got {name!r}")
    if args.config.endswith("_video"):
        raise ValueError(
            f"--config: {args.config!r} is the name for clips of another configuration; leave out `_video`"
        )
    for option, number in (("--samples-per-shard", args.samples_per_shard), ("--workers", args.workers)):
        if number < 1:
            raise ValueError(f"{option}: expected a positive number, got {number}")
    if args.videos and not args.videos.is_dir():
        raise ValueError(f"--videos: no such folder: {str(args.videos)!r}")


def _fingerprint(args: argparse.Namespace) -> str:
    """Stands for everything that the bytes of the shards follow from, apart from the videos."""
    digests = []
    for path in args.annotations:
        with fsspec.open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    settings = {
        "version": _PLAN_VERSION,
        "annotations": digests,
        "samples_per_shard": args.samples_per_shard,
        "shuffle": args.shuffle,
        "processed": args.processed,
        "videos": ENCODER_OPTIONS if args.videos else None,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Refuses a second run that would make the same split at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK, timeout=0):
            yield
    except Timeout:
        raise ValueError(f"{folder.name}: another run is making this split; wait for it") from None


def _remove_leftovers(folder: Path) -> None:
    """Removes what a run that was killed, or refused, was in the middle of."""
    for path in folder.glob(".*.tmp*"):
        path.unlink()
    if (folder / _ANEW).exists():
        shutil.rmtree(folder / _ANEW)


def _shards_on_disk(root: Path, config: str, split: str) -> list[Path]:
    names = (config, video_config(config))
    return sorted(path for name in names for path in (root / name).glob(f"{split}-*-of-*.tar"))


def _is_whole(root: Path, shard: dict[str, Any]) -> bool:
    """Whether a shard is there, and as long as it was made."""
    path = root / shard["name"]
    return path.is_file() and path.stat().st_size == shard["num_bytes"]


def _clear(root: Path, config: str, split: str, folder: Path) -> None:
    """Forgets a split, then removes it, so that the manifest never lists what is not there."""
    if split_entry(load_manifest(root), config, split) is not None:
        with changed_manifest(root) as manifest:
            remove_split(manifest, config, split)
    for path in (*_shards_on_disk(root, config, split), *folder.iterdir()):
        if path.name not in (_LOCK, _ANEW):
            path.unlink()


def _is_finished(root: Path, config: str, split: str, folder: Path, fingerprint: str) -> bool:
    """
    Whether the split is there. If not, `folder` has nothing or the same run's work.

    Raises:
        `ValueError`: if something else is there.
    """
    manifest = load_manifest(root)
    again = "choose another --config, --split or --output, or replace it with --overwrite"
    entry = split_entry(manifest, config, split)
    if entry is not None:
        if entry["fingerprint"] != fingerprint:
            raise ValueError(f"{root} has {config}/{split} from other annotations or settings; {again}")
        with_video = split_entry(manifest, video_config(config), split) or {"shards": []}
        if lost := [shard for shard in entry["shards"] + with_video["shards"] if not _is_whole(root, shard)]:
            what = f"{lost[0]['name']} of the manifest is not there with its {lost[0]['num_bytes']} bytes"
            raise ValueError(f"{root}: {what}; make the split again with --overwrite")
        return True
    plan = folder / _PLAN
    planned = json.loads(plan.read_text(encoding="utf-8"))["fingerprint"] if plan.exists() else None
    if planned != fingerprint:
        if found := _shards_on_disk(root, config, split):
            if planned is None:
                raise ValueError(f"{found[0]} is there, and no manifest says from where; {again}")
            raise ValueError(f"{root} has an unfinished {config}/{split} from other annotations or settings; {again}")
        for path in (plan, *folder.glob("shard-*.json")):
            path.unlink(missing_ok=True)
    return False


def _set_aside_anew(args: argparse.Namespace, folder: Path, fingerprint: str) -> dict[str, Any]:
    """As [`_set_aside`], whatever is there of the split; that is removed, but not for annotations without a usable record."""
    anew = folder / _ANEW
    anew.mkdir()
    report = _set_aside(args, anew, fingerprint)
    _clear(args.output, args.config, args.split, folder)
    for path in sorted(anew.iterdir(), key=lambda path: path.name == _PLAN):  # the plan last: it stands for the others
        path.rename(folder / path.name)
    anew.rmdir()
    return report


def _set_aside(args: argparse.Namespace, folder: Path, fingerprint: str) -> dict[str, Any]:
    """
    Writes the valid records of the annotations, in the order of the shards, into `folder`; the validator's report.

    Raises:
        `ValueError`: if no record is valid.
    """
    plan = folder / _PLAN
    if not plan.exists():
        _validate(args, folder, fingerprint)
    if args.rejected:
        with atomic_path(args.rejected) as temporary:
            shutil.copyfile(folder / "rejected.jsonl", temporary)
    report = json.loads(plan.read_text(encoding="utf-8"))["report"]
    if not report["accepted"]:
        reasons = ", ".join(f"{reason} {entry['records']}" for reason, entry in report["errors"].items())
        raise ValueError(f"none of the {report['records']} records can be used ({reasons or 'there is none'})")
    return report


def _validate(args: argparse.Namespace, folder: Path, fingerprint: str) -> None:
    """Writes the records, valid and not, where the valid ones are, and last the plan."""
    validator = Validator()
    lines = array("q")  # offset and length, one pair after another
    order: list[bytes] = []
    with (
        atomic_path(folder / "records.jsonl") as records_path,
        atomic_path(folder / "rejected.jsonl") as rejected_path,
        records_path.open("wb") as records,
        rejected_path.open("w", encoding="utf-8", errors="backslashreplace") as rejected,
    ):

        def reject(record: Any, problems: list[Any]) -> None:
            entry = {"record": record, "problems": [dataclasses.asdict(problem) for problem in problems]}
            rejected.write(json.dumps(entry, ensure_ascii=False) + "\n")

        def on_line(problem: ReadProblem) -> None:
            reject(None, [validator.count_unreadable(str(problem))])

        found = (record for path in args.annotations for record in read_records(path, on_problem=on_line))
        for record in progress(found, "validating"):
            problems = validator.check(record)
            if not is_valid(problems):
                reject(record, problems)
                continue
            line = orjson.dumps(record)
            lines.extend((records.tell(), len(line)))
            records.write(line + b"\n")
            if args.shuffle is not None:
                # Not `random.shuffle`: what one record is worth must depend on nothing but its key and the seed.
                order.append(hashlib.blake2b(f"{args.shuffle} {record_key(record)}".encode(), digest_size=16).digest())
    table = np.array(lines, dtype=np.int64).reshape(-1, 2)
    if order:
        table = table[sorted(range(len(table)), key=order.__getitem__)]
    with atomic_path(folder / "lines.npy") as temporary:
        np.save(temporary, table)
    with atomic_path(folder / _PLAN) as temporary:
        text = json.dumps({"fingerprint": fingerprint, "report": validator.report}, ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _plan(args: argparse.Namespace, folder: Path) -> list[ShardJob]:
    """The shards of a split, of sizes that differ by one at most."""
    lines = np.load(folder / "lines.npy", allow_pickle=False)
    num_shards = -(-len(lines) // args.samples_per_shard)
    for name in (args.config, video_config(args.config))[: 2 if args.videos else 1]:
        (args.output / name).mkdir(parents=True, exist_ok=True)
    return [
        ShardJob(
            index=index,
            num_shards=num_shards,
            lines=part,
            records=folder / "records.jsonl",
            root=args.output,
            config=args.config,
            split=args.split,
            videos=args.videos,
            make_processed=args.processed,
            result=folder / f"shard-{index:05d}.json",
        )
        for index, part in enumerate(np.array_split(lines, num_shards))
    ]


def _read_result(job: ShardJob) -> dict[str, Any]:
    return json.loads(job.result.read_text(encoding="utf-8"))


def _result(job: ShardJob) -> dict[str, Any] | None:
    """What is noted of a shard that is done, if it is, and still there."""
    if not job.result.exists():
        return None
    result = _read_result(job)
    return result if all(_is_whole(job.root, shard) for shard in result["shards"].values()) else None


def _describe(manifest: Manifest, args: argparse.Namespace) -> None:
    """Takes over what the command line says of the whole data set."""
    manifest["name"] = args.name or manifest["name"]
    manifest["license"] = args.license or manifest["license"]
    manifest["language"] = [args.language] if args.language else manifest["language"] or ["en"]


def _summary(manifest: Manifest, args: argparse.Namespace, made: int) -> dict[str, Any]:
    """What the run came to, as JSON types."""
    config, split, with_video = args.config, args.split, video_config(args.config)
    entry, counts = split_entry(manifest, config, split) or {}, manifest["counts"][config][split]
    clips = manifest["counts"].get(with_video, {}).get(split, {})
    absent, broken = (
        [e for e in manifest[name] if (e["config"], e["split"]) == (with_video, split)]
        for name in ("missing_videos", "broken_videos")
    )
    return {
        "output": str(args.output),
        "config": config,
        "split": split,
        "shards": len(entry["shards"]),
        "made": made,
        **{name: counts[name] for name in ("records", "accepted", "rejected", "unreadable", "frames", "boxes")},
        "rejected_by_reason": manifest["rejected"][config][split],
        "clips": clips.get("clips", 0),
        "copied": clips.get("copied", 0),
        "encoded": clips.get("encoded", 0),
        "missing": sum(e["num_records"] for e in absent),
        "missing_videos": len(absent),
        "broken": len(broken),
        "examples": [f"{e['key']}: {e['message']}" for e in broken[:3]],
    }


def _as_text(summary: dict[str, Any]) -> str:
    reasons = {reason: n for reason, n in summary["rejected_by_reason"].items() if reason != "unreadable"}
    rejected = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    lines = [
        f"{summary['output']}: {summary['config']}/{summary['split']} has {summary['accepted']} records with "
        f"{summary['boxes']} boxes in {summary['shards']} shards, {summary['made']} of them made now",
        f"left out: {summary['rejected']} of {summary['records']} records{f' ({rejected})' if rejected else ''}, "
        f"{summary['unreadable']} unreadable lines",
    ]
    if summary["clips"] or summary["missing"] or summary["broken"]:
        lines += [
            f"{video_config(summary['config'])}: {summary['clips']} clips, {summary['copied']} copied and "
            f"{summary['encoded']} encoded; {summary['missing']} without a video ({summary['missing_videos']} videos "
            f"missing), {summary['broken']} that cannot be cut",
            *(f"  {example}" for example in summary["examples"]),
        ]
    if summary["missing"] or summary["broken"]:
        lines.append("once videos were added or repaired, --overwrite tries again")
    return "\n".join(lines)
