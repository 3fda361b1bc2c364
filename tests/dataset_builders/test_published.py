"""Shards on a Hub: pushed with the real client, streamed back by name, from other processes, at a revision, by the builders."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import HfApi, HfFileSystem

from dataset_builders.__main__ import main
from dataset_builders.builders import HowToGround1M, IGround
from dataset_builders.clips import clip_frames
from dataset_builders.features import sample_features
from dataset_builders.record import RECORD_FIELDS, from_record, record_key, record_metadata
from dataset_builders.tar_shards import iter_shard
from modeling_grove.video_grove import read_video
from tests.conftest import ROOT
from tests.records import make_record, make_videos

REPOSITORY = "org/howtoground1m"
METHOD = "automatic_annotation_method"
# What a rank of a training run does.
STREAMING = """
import json, sys
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

name, rank = sys.argv[1], int(sys.argv[2])
rows = split_dataset_by_node(load_dataset(name, streaming=True, split="train"), rank, 2)
for row in DataLoader(rows, batch_size=None, num_workers=2):
    print(json.dumps(row["json"]))
"""


def shard(output: Path, annotations: Path, *options: str) -> None:
    arguments = ["--annotations", str(annotations), "--output", str(output), "--workers", "1", *options]
    assert main(["shard", *arguments, "--license", "cc-by-nc-sa-4.0", "--name", "HowToGround1M"]) == 0


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def published(local_hub, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """
    A repository whose tag v1.0 has ten clips in four shards, with their videos, and a second set of labels; on its main branch
    the second set has been made anew.
    """
    folder = tmp_path_factory.mktemp("published")
    records = [make_record(f"v{i % 5}", i, seed=i, start_frame=5 * i, end_frame=5 * i + 24) for i in range(8)]
    old, new = ([make_record("v9", i, seed=seed) for i in range(3)] for seed in (1, 2))
    videos = make_videos(folder / "videos", [f"v{i}" for i in range(5)], num_frames=75)
    shards = folder / "shards"
    annotations = write_records(folder / "method.jsonl", records)
    shard(shards, annotations, "--config", METHOD, "--videos", str(videos), "--samples-per-shard", "2")
    shard(shards, write_records(folder / "old.jsonl", old), "--config", "model_preds")
    api = HfApi()
    api.create_repo(REPOSITORY, repo_type="dataset")
    api.upload_folder(repo_id=REPOSITORY, repo_type="dataset", folder_path=shards)
    api.create_tag(REPOSITORY, tag="v1.0", repo_type="dataset")
    shard(shards, write_records(folder / "new.jsonl", new), "--config", "model_preds", "--overwrite")
    api.upload_folder(repo_id=REPOSITORY, repo_type="dataset", folder_path=shards)
    return SimpleNamespace(records=records, old=old, new=new, shards=shards, videos=videos)


def assert_are(rows: Iterable[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """The rows have these records, with every caption as it was."""
    rows = list(rows)
    assert [row["__key__"] for row in rows] == [record_key(record) for record in records]
    for row, record in zip(rows, records, strict=True):
        assert [*row["json"]] == [*RECORD_FIELDS]
        assert from_record(row["json"]) == from_record(record)


def test_by_name(published):
    rows = load_dataset(REPOSITORY, streaming=True, split="train")
    assert rows.features == sample_features(with_video=False)
    assert rows.num_shards == 4
    assert_are(rows, published.records)


def test_by_name_of_a_configuration_and_revision(published):
    assert_are(load_dataset(REPOSITORY, "model_preds", streaming=True)["train"], published.new)
    assert_are(load_dataset(REPOSITORY, "model_preds", streaming=True, revision="v1.0")["train"], published.old)


def test_with_clips(published):
    rows = load_dataset(REPOSITORY, f"{METHOD}_video", streaming=True, split="train", revision="v1.0").decode(False)
    assert rows.features.keys() == sample_features(with_video=True).keys()
    rows = [*rows]
    assert_are(rows, published.records)
    for row, record in zip(rows, published.records, strict=True):
        clip = record_metadata(row["json"])["clip"]
        assert clip["first_frame"] <= record["clip_start_frame"]
        frames = read_video(row["mp4"]["bytes"], target_fps=None).frames
        assert len(frames[clip_frames(row["json"])]) == len(record["bboxes"])


def test_from_two_processes_with_two_workers_each(published, local_hub):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", STREAMING, REPOSITORY, str(rank)],
            env=local_hub.env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [[json.loads(line) for line in rank.communicate(timeout=120)[0].splitlines()] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert [len(rows) for rows in found] == [4, 4]
    by_key = {record_key(row): row for rows in found for row in rows}
    assert {key: from_record(row) for key, row in by_key.items()} == {
        record_key(record): from_record(record) for record in published.records
    }


def test_downloaded(published, tmp_path: Path):
    rows = load_dataset(REPOSITORY, METHOD, split="train", cache_dir=str(tmp_path))
    assert rows.features == sample_features(with_video=False)
    assert_are(rows, published.records)


def test_builders_read_repositories(published, tmp_path: Path):
    builder = HowToGround1M(base_path=f"hf://datasets/{REPOSITORY}", cache_dir=tmp_path)
    streamed = builder.as_streaming_dataset(split="train")
    assert streamed.num_shards == 4
    assert_are(streamed, published.records)
    assert [row["json"] for row in streamed] == [
        row["json"] for row in load_dataset(REPOSITORY, streaming=True, split="train")
    ]
    builder.download_and_prepare()
    assert_are(builder.as_dataset(split="train"), published.records)
    clips = HowToGround1M(config_name=f"{METHOD}_video", base_path=f"hf://datasets/{REPOSITORY}@v1.0")
    assert_are(clips.as_streaming_dataset(split="train").decode(False), published.records)


def test_builders_stay_with_one_commit(published, hub_repo, tmp_path: Path):
    """What is pushed while a repository is read belongs to the next builder, streamed and prepared."""
    repository, api = hub_repo("dataset"), HfApi()
    prepared, streamed = [], []
    for records in (published.old, published.new):
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        shard(tmp_path / "shards", write_records(tmp_path / "records.jsonl", records), "--config", "model_preds")
        api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=tmp_path / "shards")
        builder = HowToGround1M(
            config_name="model_preds", base_path=f"hf://datasets/{repository}", cache_dir=tmp_path / "cache"
        )
        builder.download_and_prepare()
        prepared.append(builder.as_dataset(split="train"))
        streamed.append(builder.as_streaming_dataset(split="train"))
    for rows in (prepared, streamed):
        assert_are(rows[0], published.old)
        assert_are(rows[1], published.new)


def test_released_files_are_streamed_from_a_repository(published, hub_repo, tmp_path: Path):
    repository = hub_repo("dataset")
    released = [{name: record[name] for name in RECORD_FIELDS[:13]} for record in published.records]
    write_records(tmp_path / "iGround_val_set_raw.jsonl", released)
    HfApi().upload_folder(repo_id=repository, repo_type="dataset", folder_path=tmp_path)
    rows = IGround(config_name="raw", base_path=f"hf://datasets/{repository}").as_streaming_dataset(split="validation")
    assert_are(rows, released)


@pytest.mark.parametrize("place", ["org/none", f"{REPOSITORY}@v9", "none"])
def test_repositories_that_are_not_there(published, place: str):
    with pytest.raises(ValueError, match=f"hf://datasets/{place}: ") as error:
        HowToGround1M(base_path=f"hf://datasets/{place}")
    assert "\n" not in str(error.value)


def test_other_tools_read_the_files(published):
    files = HfFileSystem()
    root = f"datasets/{REPOSITORY}"
    manifest = json.loads(files.read_text(f"{root}/manifest.json"))
    entries = manifest["configs"][METHOD]["splits"]["train"]["shards"]
    assert len(entries) == 4
    for entry in entries:
        assert hashlib.sha256(files.read_bytes(f"{root}/{entry['name']}")).hexdigest() == entry["sha256"]
    samples = [sample for entry in entries for sample in iter_shard(f"hf://{root}/{entry['name']}")]
    assert [from_record(json.loads(sample.members["json"])) for sample in samples] == [
        from_record(record) for record in published.records
    ]
