"""
The data of `grove-tiny` and the studies: GroundedShapes as stills, as noisy clips for pre-training, as clean ones for fine-tuning.

    python -m train world --output outputs/tiny/world --pretraining 9000 --finetuning 8000
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from itertools import islice
from pathlib import Path

from dataset_builders.command_line import emit
from eval.result_files import write_json
from modeling_grove.grounded_caption import atomic_path

from .running import main as train

logger = logging.getLogger(__name__)

# Worlds of different seeds have no clip in common.
PRETRAINING_SEED, FINETUNING_SEED = 0, 1
STILLS_PER_CLIP = 6


def run_command(package: str, *arguments: str | Path) -> None:
    """
    Runs a command of this project, `python -m PACKAGE ...`; for "pt" and "ft" one of the two scripts. What it prints goes to
    standard error.

    Raises:
        `ValueError`: if it fails; what it said stands above.
    """
    line = [str(argument) for argument in arguments]
    logger.info("$ %s %s", package, " ".join(line))
    with redirect_stdout(sys.stderr):
        is_script = package in ("pt", "ft")
        status = train(package, line) if is_script else import_module(f"{package}.__main__").main(line)
    gc.collect()
    if status:
        raise ValueError(
            f"`{package} {' '.join(line)}` ended with status {status}; the same command goes on from there"
        )


def make_world(
    folder: Path, clips: Sequence[int], finetuning: int, stills: int, workers: int = 2, shards: int = 12
) -> None:
    """
    Writes what is not there yet: `stills`, `noisy-N` for every number of clips, and `clean`, each a folder of shards.

    Args:
        folder (`Path`):
            For all of it.
        clips (`Sequence[int]`):
            Numbers of pre-training clips; smaller sets are parts of larger ones.
        finetuning (`int`):
            Number of clean clips.
        stills (`int`):
            Pre-training clips of which single frames are taken; 0 for no stills.
        workers (`int`):
            Processes.
        shards (`int`):
            That each set is cut into, at least.

    Raises:
        `ValueError`: if the folder has a world of other numbers.
    """
    asked = {"pretraining": [*clips], "finetuning": finetuning, "stills": stills}
    plan, stamp = folder / "plan.json", folder / "world.json"
    if plan.exists():
        there = json.loads(plan.read_text(encoding="utf-8"))
        stills = asked["stills"] = stills or there["stills"]  # more than what is asked for does no harm
        if there != asked:
            raise ValueError(f"{folder}: is a world of {there}, and {asked} was asked for; give another --output")
    if stamp.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(plan, asked)
    most = max(*clips, stills)
    shapes, clean = folder / "shapes", folder / "shapes-clean"
    for output, count, seed in ((shapes, most, PRETRAINING_SEED), (clean, finetuning, FINETUNING_SEED)):
        run_command(
            "dataset_builders", "shapes", "--output", output, "--split", f"train={count}", "--seed", str(seed),
            "--workers", str(workers),
        )  # fmt: skip
    _shard(clean / "train.jsonl", folder / "clean", finetuning, shards, workers, clean / "videos")
    noisy = folder / "noisy.jsonl"
    if not noisy.exists():
        run_command("dataset_builders", "noise", shapes / "train.jsonl", "--output", noisy, "--seed", "0")
    for count in clips:
        part = _first_lines(noisy, count, folder / f"noisy-{count}.jsonl")
        _shard(part, folder / f"noisy-{count}", count, shards, workers, shapes / "videos")
    if stills:
        _stills(folder, shapes, stills, shards, workers)
    write_json(stamp, asked)


def _stills(folder: Path, shapes: Path, stills: int, shards: int, workers: int) -> None:
    """Single frames of the first clips, and their shards."""
    of_stills = folder / "stills.jsonl"
    if not of_stills.exists():
        part = _first_lines(shapes / "train.jsonl", stills, folder / "stills-clips.jsonl")
        frames = _first_lines(shapes / "train.frames.jsonl", stills, folder / "stills-clips.frames.jsonl")
        run_command(
            "dataset_builders", "stills", part, "--frames", frames, "--per-clip", str(STILLS_PER_CLIP),
            "--output", of_stills,
        )  # fmt: skip
    _shard(of_stills, folder / "stills", stills * STILLS_PER_CLIP, shards, workers, None)


def _shard(records: Path, output: Path, count: int, shards: int, workers: int, videos: Path | None) -> None:
    """Shards of records; with their clips, if there are videos."""
    size = max(1, min(1000, count // shards))
    options: list[str | Path] = [] if videos is None else ["--videos", videos]
    run_command(
        "dataset_builders", "shard", "--annotations", records, *options, "--output", output, "--split", "train",
        "--samples-per-shard", str(size), "--workers", str(workers),
    )  # fmt: skip


def _first_lines(source: Path, count: int, target: Path) -> Path:
    """The first lines of a file as another file."""
    if not target.exists():
        with source.open(encoding="utf-8") as lines, atomic_path(target) as temporary:
            temporary.write_text("".join(islice(lines, count)), encoding="utf-8")
    return target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for all of it")
    parser.add_argument(
        "--pretraining", type=int, nargs="+", default=[9000], metavar="N",
        help="clips with pseudo-labels, one or several numbers of them (default: 9000)",
    )  # fmt: skip
    parser.add_argument("--finetuning", type=int, default=8000, metavar="N", help="clean clips (default: %(default)s)")
    parser.add_argument(
        "--stills",
        type=int,
        metavar="N",
        help="clips whose single frames are taken; 0 for none (default: all of pre-training)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Makes what is missing."""
    stills = max(args.pretraining) if args.stills is None else args.stills
    for name, value, least in (
        ("finetuning", args.finetuning, 1), ("stills", stills, 0), ("pretraining", min(args.pretraining), 1),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"--{name}: expected at least {least} clips, got {value}")
    make_world(args.output, args.pretraining, args.finetuning, stills, args.workers)
    folders = sorted(path.parent.name for path in args.output.glob("*/manifest.json"))
    emit({"world": str(args.output), "shards": folders}, f"{args.output}: {', '.join(folders)}", args.json)
    return 0


__all__ = ["FINETUNING_SEED", "PRETRAINING_SEED", "make_world", "run_command"]
