"""Making shards: what one record or one worker does to the others."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from dataset_builders import shard_jobs
from dataset_builders.shard_jobs import ShardJob, make_shard, make_shards
from dataset_builders.tar_shards import iter_shard
from tests.records import make_record, make_videos
from tests.workers import workers_of


def make_jobs(
    folder: Path, records: list[dict[str, Any]], num_shards: int = 1, videos: Path | None = None
) -> list[ShardJob]:
    """The jobs of records that nobody has validated."""
    lines = [orjson.dumps(record) + b"\n" for record in records]
    (folder / "records.jsonl").write_bytes(b"".join(lines))
    lengths = np.array([len(line) for line in lines])
    table = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    for config in ("default", "default_video"):
        (folder / config).mkdir(exist_ok=True)
    return [
        ShardJob(
            index=index,
            num_shards=num_shards,
            lines=part,
            records=folder / "records.jsonl",
            root=folder,
            config="default",
            split="train",
            videos=videos,
            make_processed=False,
            result=folder / f"shard-{index:05d}.json",
        )
        for index, part in enumerate(np.array_split(table, num_shards))
    ]


@pytest.mark.parametrize("metadata", ['{"x": "\\ud800"}', '{"x": 1e999}', '{"x": '])
def test_an_error_names_the_record(tmp_path: Path, metadata: str) -> None:
    (job,) = make_jobs(tmp_path, [make_record("a", 0), {**make_record("b", 7), "metadata": metadata}])
    with pytest.raises(ValueError, match=r"the record 'b_7' cannot be written \(.+\); take it out") as error:
        make_shard(job)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.glob("default/*"), *tmp_path.glob("shard-*")]


def test_names_that_no_file_can_have_are_missing_videos(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", ["a"])
    names = ["x" * 300, "\u5bff" * 100 + ".mp4", "a\0b", "a.mp4/b"]
    records = [make_record("a"), *({**make_record("b", i), "video_fname": name} for i, name in enumerate(names))]
    (job,) = make_jobs(tmp_path, records, videos=videos)
    result = make_shard(job)
    assert result["missing"] == dict.fromkeys(names, 1)
    assert (result["broken"], result["shards"]["default_video"]["num_samples"]) == ([], 1)


def test_a_video_that_the_disk_does_not_give_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file makes a real disk fail on demand, so that the one failing call is a substitute."""
    videos, cut_clip = make_videos(tmp_path / "videos", ["a", "b"]), shard_jobs.cut_clip

    def failing(source: Path, *frames: int) -> Any:
        if source.name == "a.mp4":
            raise OSError(errno.EIO, "Input/output error", str(source))
        return cut_clip(source, *frames)

    monkeypatch.setattr(shard_jobs, "cut_clip", failing)
    (job,) = make_jobs(tmp_path, [make_record("a"), make_record("b")], videos=videos)
    result = make_shard(job)
    assert result["broken"] == [
        {"key": "a_0", "video": "a.mp4", "message": "a.mp4: cannot be read (Input/output error)"}
    ]
    assert [sample.key for sample in iter_shard(tmp_path / job.shard("default_video"))] == ["b_0"]


@pytest.mark.slow
def test_a_worker_that_dies_is_survived_and_parallel_equals_serial(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", ["a", "b"])
    records = [make_record(name, i, start_frame=i) for name in "ab" for i in range(6)]
    folders = [tmp_path / name for name in ("serial", "parallel")]
    for folder in folders:
        folder.mkdir()
    serial, parallel = (make_jobs(folder, records, 4, videos) for folder in folders)
    for job in serial:
        make_shard(job)
    killed = False
    num_done = 0
    for _ in make_shards(parallel, 2):
        num_done += 1
        if not killed:
            workers_of()[0].kill()
            killed = True
    assert killed
    assert num_done == 12
    for ours, theirs in zip(parallel, serial, strict=True):
        assert json.loads(ours.result.read_text()) == json.loads(theirs.result.read_text())
        for config in ("default", "default_video"):
            assert (ours.root / ours.shard(config)).read_bytes() == (theirs.root / theirs.shard(config)).read_bytes()
