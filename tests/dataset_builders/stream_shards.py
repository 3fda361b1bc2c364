"""
Small shards for tests of the stream, and a training-like program that can be killed at any moment.

    python tests/dataset_builders/stream_shards.py OPTIONS.json

reads the options of [`run`] from a file.
"""

import json
import sys
import time
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from dataset_builders.stream import GroundedCaptionStream, StreamSource
from dataset_builders.tar_shards import write_shard
from modeling_grove.grounded_caption import atomic_path
from tests.records import FPS, HEIGHT, WIDTH, make_record
from tests.synthetic_clips import to_bytes

NUM_FRAMES = 50


@cache
def clip() -> bytes:
    """The video of all clips: `NUM_FRAMES` numbered frames."""
    return to_bytes(num_frames=NUM_FRAMES, width=WIDTH, height=HEIGHT, fps=FPS)


def members(video_id: str, clip_id: int, with_video: bool = False, **changes: Any) -> dict[str, bytes]:
    """Fields of a sample; `changes` are made to the record."""
    cut = {"clip": {"first_frame": 0, "num_frames": NUM_FRAMES, "cut": "encode"}}
    record = make_record(video_id, clip_id, metadata=cut if with_video else None)
    content = {"json": json.dumps({**record, **changes}).encode()}
    return {**content, "mp4": clip()} if with_video else content


def write_shards(folder: Path, counts: list[int], with_video: bool = False, prefix: str = "v") -> list[str]:
    """Writes `shard-0.tar`, `shard-1.tar`, ...; returns the keys, which begin with `prefix` and the shard's number."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = []
    for shard, count in enumerate(counts):
        samples = [(f"{prefix}{shard}_{i}", members(f"{prefix}{shard}", i, with_video)) for i in range(count)]
        write_shard(folder / f"shard-{shard}.tar", samples)
        keys += [key for key, _ in samples]
    return keys


def keys_of(samples: list[Any]) -> list[str]:
    """What a batch consists of; made in the workers."""
    return [sample.key for sample in samples]


def run(
    sources: list[dict[str, Any]],
    stream: dict[str, Any],
    loader: dict[str, Any],
    steps: int,
    save_every: int,
    log: str,
    state: str,
    pause: float = 0.0,
) -> None:
    """
    Appends the keys of one batch after the other to the file `log`, and saves the loader's state with the number of the
    step. If there is a state, goes on after it. A step takes `pause` seconds.
    """
    batches = GroundedCaptionStream([StreamSource(**source) for source in sources], **stream).loader(
        collate_fn=keys_of, **loader
    )
    done = 0
    if Path(state).exists():
        saved = json.loads(Path(state).read_text())
        done = saved["step"]
        batches.load_state_dict(saved["loader"])
    lines = Path(log).read_text().splitlines(keepends=True) if Path(log).exists() else []
    with atomic_path(log) as temporary:
        temporary.write_text("".join(lines[:done]))  # the steps after the state are made again
    with open(log, "a") as file:
        for step, keys in enumerate(islice(batches, steps - done), start=done + 1):
            file.write(json.dumps(keys) + "\n")
            file.flush()
            time.sleep(pause)
            if step % save_every == 0:
                with atomic_path(state) as temporary:
                    temporary.write_text(json.dumps({"step": step, "loader": batches.state_dict()}))


if __name__ == "__main__":
    run(**json.loads(Path(sys.argv[1]).read_text()))
