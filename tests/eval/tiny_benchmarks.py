"""Tiny data of every benchmark, imported from the original's formats: two clips each, of numbered videos of 64 x 48."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.importers.pointing import import_pointing
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.record import Record
from tests.records import FPS, HEIGHT, WIDTH, make_record, make_videos

BENCHMARKS = ("iground", "vidstg", "activitynet_entities", "youcook_interactions", "grounding_youtube")
VIDEOS = ["first", "second"]
NUM_FRAMES = 50
SIZE = {"fps": FPS, "width": WIDTH, "height": HEIGHT}


def write_benchmark(folder: Path, benchmark: str) -> tuple[Path, Path]:
    """Writes `records.jsonl` and a folder of videos; returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in _records(folder, benchmark)), encoding="utf-8")
    videos = folder / "videos"
    if not videos.exists():
        make_videos(videos, VIDEOS, NUM_FRAMES)
    return records, videos


def _records(folder: Path, benchmark: str) -> Iterator[Record]:
    if benchmark == "iground":
        yield from (make_record(video, seed=n, instances=2, end_frame=NUM_FRAMES - 1) for n, video in enumerate(VIDEOS))
    elif benchmark == "vidstg":
        yield from import_vidstg(_written(folder, _vidstg()))
    elif benchmark == "activitynet_entities":
        yield from import_activitynet_entities([_written(folder, _activitynet())])
    else:
        name = {"youcook_interactions": "youcook", "grounding_youtube": "groundingyoutube"}[benchmark]
        yield from import_pointing(_written(folder, _pointing(name)))


def _written(folder: Path, value: Any) -> Path:
    path = folder / "original.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _vidstg() -> dict[str, Any]:
    """Tubes from frame 10 to 31, of which 10, 15, 20 and 25 are scored, in segments that are longer."""
    videos = [
        {
            **SIZE, "video_id": f"v{n}", "original_video_id": video, "start_frame": 0, "end_frame": NUM_FRAMES - 1,
            "tube_start_frame": 10, "tube_end_frame": 31, "target_id": 0,
            "qtype": ("declarative", "interrogative")[n], "caption": ("a man cuts an onion", "What does the man hold?")[n],
        }
        for n, video in enumerate(VIDEOS)
    ]  # fmt: skip
    boxes = {str(frame): {"bbox": [8, 6, 30, 20]} for frame in range(10, 31)}
    return {"videos": videos, "trajectories": {video: {"0": boxes} for video in VIDEOS}}


def _activitynet() -> dict[str, Any]:
    segment = {
        "timestamps": [0.0, 1.9],
        "tokens": ["A", "man", "cuts", "an", "onion", "."],
        "process_idx": [[1], [4]],
        "process_clss": [["man"], ["onion"]],
        "process_bnd_box": [[90, 90, 500, 400], [10, 20, 300, 200]],
        "frame_ind": [2, 7],
    }
    return {"annotations": {v: {**SIZE, "num_frames": NUM_FRAMES, "segments": {"0": segment}} for v in VIDEOS}}


def _pointing(name: str) -> list[dict[str, Any]]:
    return [
        {
            **SIZE, "video_id": video, f"segment_{name}_idx": n, "caption": "cut the onion",
            "segment_bboxes": [[4, 4, 60, 44], [] if n else [1, 2, 3, 4]],
        }
        for n, video in enumerate(VIDEOS)
    ]  # fmt: skip
