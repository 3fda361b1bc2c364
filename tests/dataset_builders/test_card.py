"""The card: what `load_dataset` makes of it, and that its examples run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Video, load_dataset
from huggingface_hub import DatasetCard

from dataset_builders.__main__ import main
from dataset_builders.card import dataset_card
from dataset_builders.features import sample_features
from dataset_builders.manifest import load_manifest
from dataset_builders.sources import default_config
from dataset_builders.statistics import Statistics
from tests.records import make_record, make_videos

Records = list[dict[str, Any]]


def make_records(names: list[str]) -> Records:
    """
    Records of which the first ones mislead inference: no boxes, then whole numbers; and later ones with fractions.
    """
    records = [make_record(name, i, tagged_caption="<p>A cat</p> sleeps.") for name in names for i in range(4)]
    for record in records[:2]:
        frames = len(record["bboxes"])
        empty: dict[str, Any] = {
            name: [[] for _ in range(frames)] for name in ("bboxes", "labels", "track_ids", "scores")
        }
        record.update(empty)
    for record in records[2:4]:
        record["bboxes"] = [[[round(v) for v in box] for box in boxes] for boxes in record["bboxes"]]
        record["bboxes"] = [
            [[x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)] for x1, y1, x2, y2 in b] for b in record["bboxes"]
        ]
        record["fps"] = 25
    return records


@pytest.fixture(scope="module")
def train() -> Records:
    return make_records(["a", "b"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, train: Records) -> Path:
    """A repository of two configurations and two splits."""
    root = tmp_path_factory.mktemp("card")
    videos = make_videos(root / "videos", ["a", "b", "c"])
    for split, records in (("train", train), ("validation", make_records(["c"]))):
        path = root / f"{split}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        options = ["--split", split, "--videos", str(videos), "--samples-per-shard", "3", "--license", "cc-by-4.0"]
        assert (
            main(["shard", "--annotations", str(path), "--output", str(root / "set"), "--workers", "1", *options]) == 0
        )
    return root / "set"


def assert_equal(ours: dict[str, Any], record: dict[str, Any]) -> None:
    """Floats as float32, which is what their columns hold."""
    for name, value in record.items():
        if name in ("bboxes", "scores"):
            for mine, theirs in zip(ours[name], value, strict=True):
                assert np.array_equal(np.array(mine, np.float32), np.array(theirs, np.float32))
        else:
            assert ours[name] == value, name


def test_statistics_are_those_of_the_records(folder: Path, train: Records) -> None:
    """Of three shards, whose words and videos are counted once."""
    statistics = Statistics()
    for record in train:
        statistics.add(record)
    found, expected = load_manifest(folder)["statistics"], statistics.as_dict()
    assert found["default"]["train"] == found["default_video"]["train"] == pytest.approx(expected)
    assert (expected["videos"], expected["unique_noun_phrases"]) == (2, 1)
    rows = (folder / "README.md").read_text().partition("## Statistics\n\n")[2].partition("\n\n")[0].splitlines()
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert table[0] == ["", "`default`, train", "`default`, validation"]
    assert ["clips", "8", "4"] in table
    length = expected["tube_length"]
    assert length is not None and ["avg tube length (frames)", f"{length:.1f}"] in [row[:2] for row in table]


def test_an_older_manifest_has_no_statistics(folder: Path) -> None:
    manifest = load_manifest(folder)
    del manifest["statistics"]
    assert "## Statistics" not in dataset_card(manifest)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("config", [None, "default", "default_video"])
def test_load_dataset_gives_the_records(
    folder: Path, tmp_path: Path, train: Records, config: str | None, streaming: bool
) -> None:
    options = {} if streaming else {"cache_dir": str(tmp_path)}
    dataset = load_dataset(str(folder), config, split="train", streaming=streaming, **options)
    with_video = config == "default_video"
    assert dataset.features == sample_features(with_video)
    if with_video:
        dataset = dataset.cast_column("mp4", Video(decode=False))
    samples = list(dataset)
    assert [sample["__key__"] for sample in samples] == [f"{r['video_id']}_{r['clip_id']}" for r in train]
    for sample, record in zip(samples, train, strict=True):
        assert ("mp4" in sample) is with_video
        metadata = json.loads(sample["json"]["metadata"])
        assert metadata.pop("clip", {"cut": "copy"})["cut"] == "copy"
        assert_equal({**sample["json"], "metadata": json.dumps(metadata)}, record)


def test_splits(folder: Path) -> None:
    splits = load_dataset(str(folder), streaming=True)
    assert {name: len(list(split)) for name, split in splits.items()} == {"train": 8, "validation": 4}


def test_yaml(folder: Path) -> None:
    data = DatasetCard.load(folder / "README.md").data
    assert (data.license, data.language, data.pretty_name) == ("cc-by-4.0", ["en"], "set")
    assert data.task_categories == ["video-text-to-text"]
    assert data.size_categories == ["n<1K"]
    assert "grounded-video-captioning" in data.tags
    assert [(c["config_name"], c.get("default", False)) for c in data["configs"]] == [
        ("default", True),
        ("default_video", False),
    ]
    info = {entry["config_name"]: entry for entry in data["dataset_info"]}
    counts = {split["name"]: split["num_examples"] for split in info["default_video"]["splits"]}
    assert counts == {"train": 8, "validation": 4}
    for name, with_video in (("default", False), ("default_video", True)):
        assert info[name]["features"] == sample_features(with_video)._to_yaml_list()


def test_the_examples_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", dataset_card(load_manifest(folder), str(folder)), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "<p>A cat</p> sleeps." in printed
    assert "(10, 48, 64, 3) 10" in printed


def test_every_field_is_explained(folder: Path) -> None:
    card = dataset_card(load_manifest(folder))
    for name in sample_features(True)["json"]:
        assert f"`{name}`" in card
    assert 'load_dataset("ORG/set"' in card
    assert "| `default` | train | 8 |" in card
    assert "Left out" not in card


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    records = [make_record("a"), make_record("b"), {**make_record("c"), "fps": 0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    videos = make_videos(tmp_path / "videos", ["a"])
    arguments = [
        "--annotations",
        str(tmp_path / "a.jsonl"),
        "--videos",
        str(videos),
        "--workers",
        "1",
        "--config",
        "raw",
    ]
    assert main(["shard", "--output", str(tmp_path / "out"), *arguments]) == 0
    manifest = load_manifest(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == dataset_card(manifest)
    assert default_config(manifest["configs"]) == "raw"
    assert "`raw`, train: 1 record(s) rejected by the validator as `out_of_range`" in card
    assert "`raw_video`, train: 1 clip(s) whose video was not there" in card
    assert "No licence was given" in card


def test_size_category() -> None:
    def category(*counts: int) -> list[str]:
        splits = {f"split{i}": {"num_records": n, "num_bytes": 1, "shards": []} for i, n in enumerate(counts)}
        counted: dict[str, Any] = {"default": {name: {} for name in splits}}
        manifest = {
            "name": "set",
            "license": None,
            "language": [],
            "configs": {"default": {"with_video": False, "splits": splits}},
            "counts": counted,
            "rejected": {},
            "missing_videos": [],
            "broken_videos": [],
        }
        return DatasetCard(dataset_card(manifest)).data.size_categories

    assert category(999) == ["n<1K"]
    assert category(600, 400) == ["1K<n<10K"]
    assert category(1_000_000) == ["1M<n<10M"]
