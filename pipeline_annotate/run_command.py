"""
`python -m pipeline_annotate run`: videos in, shards that `load_dataset` streams out.

    python -m pipeline_annotate run videos --captioner glamm:checkpoints/glamm --output annotated

In the output folder: `parts/` with what each stage said of each part, `records.jsonl`, `dropped.jsonl`, `stats.json`, `shards/`.
The same command goes on where a run was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dataset_builders.__main__ import main as dataset_command
from dataset_builders.command_line import emit, progress
from eval.provenance import describe_machine
from eval.result_files import write_json
from modeling_grove.grounded_caption import atomic_path

from .back_ends import load_pipeline
from .clusters import add_cluster_arguments, check_cluster, run_on_cluster
from .engine import STAGES, AnnotateParts, ResilientExecutor, part_counts, part_folder, write_requests
from .stage1 import requested
from .stage3 import box_counts
from .stage_files import dropped_path, summary
from .stage_settings import (
    add_language_model_argument,
    add_stage1_arguments,
    add_stage2_arguments,
    add_stage3_arguments,
    settings_of,
)

_FOLDERS = ("modeling_grove", "dataset_builders", "eval", "pipeline_annotate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("videos", type=Path, metavar="DIR", help="folder of the videos")
    parser.add_argument(
        "--clips", type=Path, metavar="FILE", help="table of clips, see `stage1 --help` (default: all videos)"
    )
    parser.add_argument("--window", type=float, metavar="SECONDS", help="cut clips into windows of this length")
    parser.add_argument("--held-back", type=Path, metavar="FILE", help="ids of videos to leave out, one a line")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    add_stage1_arguments(parser)
    add_language_model_argument(parser)
    add_stage2_arguments(parser)
    add_stage3_arguments(parser)
    parser.add_argument(
        "--clips-per-part", type=int, default=100, metavar="N", help="clips of a task (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    add_cluster_arguments(parser)
    parser.add_argument("--split", default="train", help="of the data set (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Annotates, collects, and writes the shards."""
    if args.workers < 1 or args.clips_per_part < 1:
        raise ValueError(
            f"--workers {args.workers}, --clips-per-part {args.clips_per_part}; expected at least 1 of each"
        )
    if not args.videos.is_dir():
        raise ValueError(f"{args.videos}: no such folder of videos")
    check_cluster(args)
    settings = settings_of(args)
    requests = requested(args.videos, args.clips, args.held_back, args.window)
    load_pipeline(settings.spacy)  # what cannot be loaded is known before a process is started
    output = args.output.resolve()
    listed = hashlib.sha256(repr(requests).encode()).hexdigest()[:16]
    plan = {
        # A batch may become smaller where memory ran out.
        "settings": {name: value for name, value in settings.to_dict().items() if name != "batch_size"},
        "videos": str(args.videos.resolve()),
        "requested": len(requests),
        "list_of_clips": listed,
        "clips_per_part": args.clips_per_part,
    }
    _claim(output, json.loads(json.dumps(plan)))
    write_requests(output, requests)
    parts = math.ceil(len(requests) / args.clips_per_part)
    block = AnnotateParts(str(output), str(args.videos.resolve()), settings, args.clips_per_part)
    if args.executor == "local":
        _run_here(block, parts, args.workers, output)
    elif not run_on_cluster(args, block, parts, output):
        text = f"{output}: {parts} parts; the same command collects them when they are finished"
        emit({"output": str(output), "parts": parts, "finished": False}, text, args.json)
        return 0
    stats, device = collect(output, parts), "cuda" if torch.cuda.is_available() else "cpu"
    _write_shards(output, args.videos, args.split)
    write_json(output / "stats.json", {**stats, **plan, **describe_machine(device, _FOLDERS)})
    dropped = {reason: count for reason, count in stats["clips"].items() if reason != "annotated"}
    text = f"{output}: {summary({**dropped, 'written': stats['clips']['annotated']})}"
    emit({"output": str(output), **stats}, text, args.json)
    return 0


def _claim(output: Path, plan: dict[str, Any]) -> None:
    """Makes the folder this run's; that of another run is refused."""
    path = output / "plan.json"
    if path.exists() and (there := json.loads(path.read_text(encoding="utf-8"))) != plan:
        both = {**plan, **plan["settings"]}, {**there, **there["settings"]}
        changed = [name for name in both[0] if name != "settings" and both[0][name] != both[1].get(name)]
        raise ValueError(f"{output}: is a run with other {', '.join(changed)}; give another --output")
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, plan)


def _run_here(block: AnnotateParts, parts: int, workers: int, output: Path) -> None:
    executor = ResilientExecutor(
        [block], tasks=parts, workers=workers, logging_dir=str(output / "logs"), gpus=torch.cuda.device_count()
    )
    left = len(executor.get_incomplete_ranks(skip_completed=True))
    for _ in progress(executor.finished_parts(), "annotating", left, unit="part"):
        pass


def collect(output: Path, parts: int) -> dict[str, Any]:
    """
    Puts the parts together: `records.jsonl` and `dropped.jsonl`, in the order of the list.

    Returns:
        `dict`: `clips` annotated and dropped, and `boxes`, by reason.
    """
    clips, boxes = Counter[str](), Counter[str]()
    with (
        atomic_path(output / "records.jsonl") as records,
        atomic_path(output / "dropped.jsonl") as dropped,
        records.open("wb") as record_file,
        dropped.open("wb") as dropped_file,
    ):
        for rank in range(parts):
            folder = part_folder(output, rank)
            record_file.write((folder / "records.jsonl").read_bytes())
            clips.update(part_counts(folder))
            boxes.update(box_counts(folder / "records.jsonl"))
            for stage in STAGES:
                dropped_file.write(dropped_path(folder / f"{stage}.jsonl").read_bytes())
    return {"clips": dict(clips), "boxes": dict(boxes)}


def _write_shards(output: Path, videos: Path, split: str) -> None:
    if not (output / "records.jsonl").stat().st_size:
        raise ValueError(f"{output}: no clip was annotated; dropped.jsonl says why")
    line: Sequence[str] = [
        "shard", "--annotations", str(output / "records.jsonl"), "--videos", str(videos), "--output", str(output / "shards"),
        "--split", split,
    ]  # fmt: skip
    if dataset_command([*line]):
        raise ValueError(
            f"{output}/shards: could not be written; what was said stands above, and the same command goes on"
        )


__all__ = ["collect"]
