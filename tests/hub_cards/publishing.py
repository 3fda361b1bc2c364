"""What tests of publishing share: a model that can be spoilt, data sets, and the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from dataset_builders.__main__ import main as dataset_command
from dataset_builders.shapes.world import ShapesConfig
from dataset_builders.shapes.writing import write_shapes
from hub_cards.__main__ import main
from tests.conftest import ROOT

DEMO = ROOT / "checkpoints" / "grove-demo"


def publish(*arguments: object) -> int:
    """`python -m hub_cards publish ...`"""
    return main(["publish", *map(str, arguments)])


def copy_of(checkpoint: Path, folder: Path) -> Path:
    """A model's folder to change."""
    return Path(shutil.copytree(checkpoint, folder))


def change_json(path: Path, **changes: Any) -> None:
    """Sets fields of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def make_shapes(folder: Path, *, videos: bool, clips: int = 3, options: tuple[str, ...] = ()) -> Path:
    """Shards of a few clips of GroundedShapes."""
    world = folder / "world"
    write_shapes(world, {"train": clips}, ShapesConfig(width=64, height=64, seconds=2.0), seed=3)
    arguments = [
        "shard",
        "--annotations",
        str(world / "train.jsonl"),
        "--output",
        str(folder / "shards"),
        "--workers",
        "1",
    ]
    arguments += ["--samples-per-shard", "2", *(["--videos", str(world / "videos")] if videos else []), *options]
    assert dataset_command(arguments) == 0
    return folder / "shards"


def results_of(fingerprint: str | None, name: str = "grove-demo", **changes: Any) -> dict[str, Any]:
    """A `results.json` of a run on four clips."""
    return {
        "benchmark": "iground",
        "headline": {"official": {"AP50": 12.34, "METEOR": None}, "corrected": {"AP50": 23.45, "METEOR": 3.21}},
        "coverage": {"clips": 4, "predicted": 4},
        "model": {"name": name, "revision": None, "fingerprint": fingerprint},
        "data": {"name": "org/clips", "hub_id": "org/clips", "revision": "f" * 40, "config": None, "split": "test"},
        "commit": "0" * 40,
        "time": "2026-11-30T12:00:00+00:00",
    } | changes
