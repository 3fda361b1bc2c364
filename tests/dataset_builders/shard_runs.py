"""Runs of the `shard` command for tests, and what they wrote."""

import hashlib
import json
from pathlib import Path
from typing import Any

from dataset_builders.__main__ import main
from dataset_builders.tar_shards import iter_shard
from tests.records import make_record

Records = list[dict[str, Any]]


def write_jsonl(path: Path, records: Records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def shard(annotations: Path | str, output: Path, *options: object) -> int:
    return main(
        ["shard", "--annotations", str(annotations), "--output", str(output), "--workers", "1", *map(str, options)]
    )


def files(folder: Path) -> dict[str, str]:
    """Checksum of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(folder: Path, config: str, split: str = "train") -> list[tuple[str, dict[str, Any], bytes | None]]:
    samples = [sample for path in sorted((folder / config).glob(f"{split}-*.tar")) for sample in iter_shard(path)]
    return [(sample.key, json.loads(sample.members["json"]), sample.members.get("mp4")) for sample in samples]


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def make_records() -> Records:
    """Three clips of each of five videos; the first and the second frame of a video begin a clip that can be copied."""
    ranges = [(0, 49), (3, 29), (20, 45)]
    return [
        make_record(name, number, start_frame=start, end_frame=end, instances=2)
        for name in ("a", "b", "c", "absent", "broken")
        for number, (start, end) in enumerate(ranges)
    ]
