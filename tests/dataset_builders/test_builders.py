"""The builders on shards and JSONL files, and `load_dataset` on the same shards; what `datasets` can do with the rows."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import IterableDataset, interleave_datasets, load_dataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from dataset_builders.benchmark_builders import ActivityNetEntities, GroundingYouTube, VidSTG, YouCookInteractions
from dataset_builders.builders import GroundedCaptions, HowToGround1M, IGround
from dataset_builders.features import sample_features
from dataset_builders.record import RECORD_FIELDS, from_record, record_key
from dataset_builders.tar_shards import write_shard
from tests.records import make_record

BUILDERS = [
    GroundedCaptions,
    HowToGround1M,
    IGround,
    VidSTG,
    ActivityNetEntities,
    YouCookInteractions,
    GroundingYouTube,
]
METHOD = "automatic_annotation_method"


def without_boxes(record: dict[str, Any]) -> dict[str, Any]:
    empty: list[list] = [[] for _ in record["bboxes"]]
    return {**record, "bboxes": empty, "labels": empty, "track_ids": empty, "scores": empty}


def in_integers(record: dict[str, Any]) -> dict[str, Any]:
    boxes = [[[int(x1), int(y1), int(x2) + 1, int(y2) + 1] for x1, y1, x2, y2 in frame] for frame in record["bboxes"]]
    return {**record, "fps": 25, "bboxes": boxes, "scores": [[1 for _ in frame] for frame in record["bboxes"]]}


def make_records(num_shards: int = 4, size: int = 5) -> list[list[dict[str, Any]]]:
    """
    Records shard by shard. Inferred from the first, boxes, scores and frame rates would be integers; in the last shard nothing
    has boxes, so nothing says of what its lists are.
    """
    shards = [[make_record(f"v{shard}", i, seed=shard) for i in range(size)] for shard in range(num_shards)]
    shards[0] = [in_integers(record) for record in shards[0]]
    shards[1] = [
        {**record, "fps": 29.97, "scores": [[0.25] * len(n) for n in record["scores"]]} for record in shards[1]
    ]
    shards[-1] = [without_boxes(record) for record in shards[-1]]
    return shards


def write_config(folder: Path, config: str, splits: dict[str, list[list[dict[str, Any]]]], video: bool = False) -> None:
    (folder / config).mkdir(parents=True)
    for split, shards in splits.items():
        for index, records in enumerate(shards):
            samples = (
                (record_key(r), {"json": json.dumps(r).encode(), **({"mp4": record_key(r).encode()} if video else {})})
                for r in records
            )
            write_shard(folder / config / f"{split}-{index:05}-of-{len(shards):05}.tar", samples)


@pytest.fixture(scope="module")
def shards() -> list[list[dict[str, Any]]]:
    return make_records()


@pytest.fixture(scope="module")
def records(shards) -> list[dict[str, Any]]:
    return [record for shard in shards for record in shard]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shards: list) -> Path:
    """Shards of HowToGround1M's configurations, with a card."""
    folder = tmp_path_factory.mktemp("howtoground1m")
    write_config(folder, METHOD, {"train": shards})
    write_config(folder, f"{METHOD}_video", {"train": shards}, video=True)
    write_config(folder, "model_preds", {"train": shards[:1]})
    configs = [METHOD, f"{METHOD}_video", "model_preds"]
    card = {
        "configs": [
            {
                "config_name": config,
                "data_files": [{"split": "train", "path": f"{config}/train-*.tar"}],
                "default": config == METHOD,
            }
            for config in configs
        ],
        "dataset_info": [
            {"config_name": config, "features": sample_features(config.endswith("_video"))._to_yaml_list()}
            for config in configs
        ],
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    return folder


@pytest.fixture
def stream(folder) -> IterableDataset:
    return HowToGround1M(base_path=folder).as_streaming_dataset(split="train")


def keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [row["__key__"] for row in rows]


def assert_are(rows: Iterable[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """The rows have these records, with every caption as it was."""
    rows = list(rows)
    assert keys(rows) == [record_key(record) for record in records]
    for row, record in zip(rows, records, strict=True):
        assert [*row["json"]] == [*RECORD_FIELDS]
        assert from_record(row["json"]) == from_record(record)
        assert row["json"]["metadata"] == record["metadata"]


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_builder_says_what_it_is(builder: type[GroundedCaptions], tmp_path: Path, shards: list):
    names = [*builder.builder_configs] or ["default", "default_video"]
    for name in names:
        write_config(tmp_path, name, {"train": shards[:1], "test": shards[1:2]}, name.endswith("_video"))
        instance = builder(config_name=name, base_path=tmp_path, cache_dir=tmp_path / "cache")
        assert instance.info.features == sample_features(name.endswith("_video"))
        assert str(instance.info.version) == "1.0.0"
        assert instance.info.description
        assert instance.dataset_name == builder.DATASET_NAME
        if builder is not GroundedCaptions:
            assert instance.info.license
            assert instance.info.homepage.startswith("https://")
            assert "year" in instance.info.citation
            assert instance.config.description
        assert set(instance.as_streaming_dataset()) == {"train", "test"}
    assert builder(base_path=tmp_path, cache_dir=tmp_path / "cache").config.name == names[0]
    assert names[1::2] == [f"{name}_video" for name in names[::2]]


def test_streaming_gives_the_records(stream: IterableDataset, records: list):
    assert stream.features == sample_features(with_video=False)
    assert stream.num_shards == 4
    assert_are(stream, records)


def test_preparing_gives_the_same(folder: Path, records: list, tmp_path: Path):
    builder = HowToGround1M(config_name=METHOD, base_path=folder, cache_dir=tmp_path)
    builder.download_and_prepare(num_proc=2)
    dataset = builder.as_dataset(split="train")
    assert dataset.features == sample_features(with_video=False)
    assert_are(sorted(dataset, key=lambda row: row["__key__"]), sorted(records, key=record_key))
    assert dataset[0]["json"]["bboxes"][0][0] == records[0]["bboxes"][0][0]
    assert sum(len(table) for table in dataset.with_format("arrow").iter(batch_size=7)) == len(records)


def test_clips_come_as_they_are(folder: Path, records: list):
    builder = HowToGround1M(config_name=f"{METHOD}_video", base_path=folder)
    rows = [*builder.as_streaming_dataset(split="train").decode(False)]
    assert_are(rows, records)
    assert [row["mp4"]["bytes"].decode() for row in rows] == keys(rows)


@pytest.mark.parametrize("config", [METHOD, f"{METHOD}_video", "model_preds"])
def test_load_dataset_gives_the_same_rows(folder: Path, config: str, tmp_path: Path):
    builder = HowToGround1M(config_name=config, base_path=folder, cache_dir=tmp_path / "builder")
    ours = builder.as_streaming_dataset(split="train").decode(False)
    loaded = load_dataset(str(folder), config, streaming=True, split="train").decode(False)
    assert loaded.features == ours.features
    assert loaded.num_shards == ours.num_shards
    assert [*loaded] == [*ours]
    builder.download_and_prepare()
    prepared = builder.as_dataset(split="train")
    loaded = load_dataset(str(folder), config, split="train", cache_dir=str(tmp_path / "load"))
    assert loaded.features == prepared.features
    assert [*loaded.with_format("arrow")] == [*prepared.with_format("arrow")]


@pytest.mark.parametrize("source", ["builder", "load_dataset"])
class TestWhatDatasetsCanDo:
    """The traps that were found in `datasets` 5.2, on our features, with the builders and without them."""

    @pytest.fixture
    def rows(self, source: str, folder: Path) -> IterableDataset:
        if source == "builder":
            return HowToGround1M(base_path=folder).as_streaming_dataset(split="train")
        return load_dataset(str(folder), streaming=True, split="train")

    def test_numbers_are_not_truncated(self, rows, records):
        """Inferred features would take the type of the first rows, which are integers."""
        by_key = {row["__key__"]: row["json"] for row in rows}
        assert by_key["v1_0"]["fps"] == 29.97
        assert by_key["v1_0"]["scores"][0][0] == 0.25
        assert by_key["v2_0"]["bboxes"][0] == records[10]["bboxes"][0]
        assert by_key["v3_0"]["bboxes"] == [[]] * len(records[15]["bboxes"])

    def test_ranks_share_the_shards(self, rows, records):
        ranks = [split_dataset_by_node(rows, rank, 2) for rank in range(2)]
        assert [{key.split("_")[0] for key in keys(rank)} for rank in ranks] == [{"v0", "v2"}, {"v1", "v3"}]
        uneven = [key for rank in range(3) for key in keys(split_dataset_by_node(rows, rank, 3))]
        assert sorted(uneven) == sorted(map(record_key, records))

    def test_workers_share_the_shards(self, rows, records):
        seen = []
        for rank in range(2):
            part = split_dataset_by_node(rows, rank, 2).select_columns(["__key__"])
            seen += keys(DataLoader(part, batch_size=None, num_workers=2))
        assert sorted(seen) == sorted(map(record_key, records))

    def test_shuffling_loses_nothing(self, rows, records):
        shuffled = rows.shuffle(seed=3, buffer_size=6)
        first = keys(shuffled)
        assert keys(shuffled) == first
        shuffled.set_epoch(1)
        assert keys(shuffled) != first
        assert sorted(keys(shuffled)) == sorted(first) == sorted(map(record_key, records))

    def test_resuming_in_order_is_exact(self, rows, records):
        position = iter(rows)
        before = keys(next(position) for _ in range(8))
        state = json.loads(json.dumps(rows.state_dict()))
        rows.load_state_dict(state)
        assert before + keys(rows) == [*map(record_key, records)]

    def test_mixing_and_selecting(self, rows, records):
        assert_are(rows.skip(4).take(3), records[4:7])
        assert list(rows.select_columns(["json"]).take(1)) == [{"json": next(iter(rows))["json"]}]
        mixed = interleave_datasets([rows, rows.skip(10)], stopping_strategy="all_exhausted")
        assert {*keys(mixed)} == {*map(record_key, records)}
        assert mixed.features == rows.features
        captions = rows.map(lambda row: {"caption": row["json"]["caption"]}, remove_columns=["json"])
        assert next(iter(captions))["caption"] == records[0]["caption"]
        assert keys(rows.filter(lambda row: row["json"]["video_id"] == "v2")) == [f"v2_{i}" for i in range(5)]

    def test_arrow_tables_of_single_rows(self, rows, records):
        """With larger batches `datasets` 5.2 joins tables of rows whose types it guessed: `Schema at index 1 was different`."""
        tables = [*rows.with_format("arrow").iter(batch_size=1)]
        assert [table["__key__"][0].as_py() for table in tables] == [*map(record_key, records)]
        assert {table.schema for table in tables} == {rows.features.arrow_schema}


class TestJsonLines:
    """Released files, or anybody's records, without shards."""

    @pytest.fixture
    def released(self, records: list) -> list[dict[str, Any]]:
        """The fields of the original release, whose per-frame lists may be empty."""
        return [{name: record[name] for name in RECORD_FIELDS[:13]} for record in records]

    def write(self, path: Path, entries: list[Any]) -> Path:
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def test_released_files_are_read_as_they_are(self, tmp_path: Path, released: list, records: list):
        path = self.write(tmp_path / "HowToGround1M_automatic_annotation_method.jsonl", released)
        by_name = HowToGround1M(data_files=str(path), cache_dir=tmp_path / "cache")
        by_folder = HowToGround1M(base_path=tmp_path, cache_dir=tmp_path / "cache")
        rows = [*by_name.as_streaming_dataset(split="train")]
        assert rows == [*by_folder.as_streaming_dataset(split="train")]
        assert keys(rows) == [*map(record_key, records)]
        assert [from_record(row["json"]).merged() for row in rows] == [
            from_record(entry).merged() for entry in released
        ]
        assert {row["__url__"] for row in rows} == {str(path)}
        by_name.download_and_prepare()
        prepared = by_name.as_dataset(split="train")
        assert prepared.features == sample_features(with_video=False)
        assert [from_record(row["json"]) for row in prepared] == [from_record(row["json"]) for row in rows]

    def test_iground_has_three_files(self, tmp_path: Path, released: list):
        for split in ("train", "val", "test"):
            self.write(tmp_path / f"iGround_{split}_set_raw.jsonl", released[:2])
        self.write(tmp_path / "iGround_val_set_processed.jsonl", released[:1])
        assert set(IGround(config_name="raw", base_path=tmp_path).as_streaming_dataset()) == {
            "train",
            "validation",
            "test",
        }
        assert set(IGround(base_path=tmp_path).as_streaming_dataset()) == {"validation"}

    def test_records_are_read_as_they_are(self, tmp_path: Path, records: list):
        path = self.write(tmp_path / "own.jsonl", records)
        rows = GroundedCaptions(data_files={"test": str(path)}).as_streaming_dataset(split="test")
        assert_are(rows, records)

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_file_may_have_released_ones_and_records(self, tmp_path: Path, released: list, records: list, order: int):
        described = {**released[2], "metadata": '{"source": "x"}'}
        entries = [released[0], records[1], described, {"v0_3": records[3]}][::order]
        path = self.write(tmp_path / "mixed.jsonl", entries)
        rows = [*GroundedCaptions(data_files=str(path), max_bad_lines=0).as_streaming_dataset(split="train")][::order]
        assert keys(rows) == [*map(record_key, records[:4])]
        assert [rows[1]["json"], rows[3]["json"]] == [records[1], records[3]]
        assert rows[2]["json"]["metadata"] == described["metadata"]
        for row, entry in zip(rows[::2], released[:3:2], strict=True):
            assert from_record(row["json"]).merged() == from_record(entry).merged()

    def test_boxes_of_released_ones_are_checked(self, tmp_path: Path, released: list, caplog: pytest.LogCaptureFixture):
        outside, empty = (json.loads(json.dumps(released[0])) for _ in range(2))
        outside["bboxes"][0][0] = [10, 10, 200, 40]
        empty["bboxes"][0][0] = [10, 10, 10, 40]
        path = self.write(tmp_path / "iGround_val_set_raw.jsonl", [outside, released[0], empty])
        with caplog.at_level(logging.WARNING):
            assert len([*GroundedCaptions(data_files=str(path)).as_streaming_dataset(split="train")]) == 1
        messages = [record.getMessage() for record in caplog.records]
        assert f"{path}: line 1: bboxes[0][0]: " in messages[0] and "leaves the frame of 64 x 48" in messages[0]
        assert f"{path}: line 3: bboxes[0][0]: " in messages[1] and "has no area" in messages[1]

    def test_bad_lines_are_counted_and_named(self, tmp_path: Path, records: list, caplog: pytest.LogCaptureFixture):
        bad = [{**records[0], "fps": "fast"}, '{"video_id": ']
        path = self.write(tmp_path / "own.jsonl", [records[0], bad[0], records[1], bad[1], records[2]])
        rows = GroundedCaptions(data_files=str(path)).as_streaming_dataset(split="train")
        with caplog.at_level(logging.WARNING):
            assert_are(rows, records[:3])
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 3
        assert f"{path}: line 2: fps: " in messages[0]
        assert f"{path}: line 4: " in messages[1]
        assert messages[2] == f"{path}: left out 2 lines"
        strict = GroundedCaptions(data_files=str(path), max_bad_lines=1)
        with pytest.raises(ValueError, match="line 4: .*more than max_bad_lines=1"):
            list(strict.as_streaming_dataset(split="train"))

    def test_clips_are_not_in_them(self, tmp_path: Path, records: list):
        path = self.write(tmp_path / "own.jsonl", records)
        builder = GroundedCaptions(config_name="default_video", data_files=str(path))
        with pytest.raises(ValueError, match="JSONL files have no clips; use 'default', or shards"):
            builder.as_streaming_dataset()

    def test_not_mixed_with_shards(self, tmp_path: Path, folder: Path, records: list):
        path = self.write(tmp_path / "own.jsonl", records)
        shard = next((folder / METHOD).iterdir())
        builder = GroundedCaptions(data_files=[str(path), str(shard)])
        with pytest.raises(ValueError, match="1 of 2 files are JSON"):
            builder.as_streaming_dataset()


def test_folders_and_files_are_named_in_several_ways(folder: Path, records: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    by_folder = [
        HowToGround1M(base_path=folder.name),
        HowToGround1M(data_dir=folder),
        HowToGround1M(base_path=folder.parent, data_dir=folder.name),
        HowToGround1M(data_files={"train": f"{folder}/{METHOD}/*.tar"}),
        GroundedCaptions(base_path=folder, config_name=METHOD),
    ]
    for builder in by_folder:
        assert_are(builder.as_streaming_dataset(split="train"), records)
    one = HowToGround1M(base_path=folder, data_files=f"{METHOD}/train-00001-of-00004.tar")
    assert_are(one.as_streaming_dataset(split="train"), records[5:10])


def test_a_changed_shard_is_prepared_anew(tmp_path: Path, shards: list):
    write_config(tmp_path, "default", {"train": shards[:1]})
    sizes = []
    for size in (5, 2):
        if size == 2:
            (tmp_path / "default" / "train-00000-of-00001.tar").unlink()
            (tmp_path / "default").rmdir()
            write_config(tmp_path, "default", {"train": [shards[0][:2]]})
        builder = GroundedCaptions(base_path=tmp_path, cache_dir=tmp_path / "cache")
        builder.download_and_prepare()
        sizes.append(len(builder.as_dataset(split="train")))
    assert sizes == [5, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"config_name": "raw"},
            "HowToGround1M has no configuration 'raw'; expected one of automatic_annotation_method, ",
        ),
        (
            {"config_name": "model_preds_video"},
            "no shards of configuration 'model_preds_video' in .*; expected model_preds_v",
        ),
        ({"base_path": "nowhere"}, "in nowhere; expected .*SPLIT-00000-of-00001.tar or HowToGround1M_automatic"),
    ],
)
def test_errors_say_what_to_do(folder: Path, arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as error:
        HowToGround1M(**{"base_path": folder, **arguments})
    assert "\n" not in str(error.value)


def test_missing_shards_are_an_error(tmp_path: Path, shards: list):
    write_config(tmp_path, "default", {"train": shards})
    (tmp_path / "default" / "train-00002-of-00004.tar").unlink()
    with pytest.raises(
        ValueError, match="3 of the 4 shards of 'train' are in .*default; to read only those, pass them as"
    ):
        GroundedCaptions(base_path=tmp_path)
