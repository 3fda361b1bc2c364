"""A data set by one name: files, folders, patterns, and what the messages say when there is none."""

import json
from pathlib import Path

import pytest

from dataset_builders.record import record_key
from dataset_builders.sources import find_shards, iter_source
from dataset_builders.tar_shards import ShardError, write_shard
from tests.records import make_record

RECORDS = [make_record(f"v{i}", i) for i in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two configurations as the `shard` command lays them out: `raw` with two splits, and `raw_video` with one."""
    manifest: dict = {"version": 1, "configs": {}}
    layout = {"raw": {"train": RECORDS[:4], "test": RECORDS[4:]}, "raw_video": {"train": RECORDS[:4]}}
    for config, splits in layout.items():
        (tmp_path / config).mkdir()
        manifest["configs"][config] = {"with_video": config.endswith("_video"), "splits": {}}
        for split, records in splits.items():
            shards = []
            for number, part in enumerate((records[:2], records[2:])):
                name = f"{config}/{split}-{number:05d}-of-00002.tar"
                members = {"mp4": b"clip"} if config == "raw_video" else {}
                samples = [(record_key(r), {"json": json.dumps(r).encode(), **members}) for r in part]
                shards.append({"name": name, "num_samples": write_shard(tmp_path / name, samples).num_samples})
            manifest["configs"][config]["splits"][split] = {"shards": shards}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_split_of_a_data_set_with_its_counts(folder: Path):
    shards = find_shards(str(folder), "raw", "train")
    assert [Path(shard.url) for shard in shards] == [folder / f"raw/train-0000{i}-of-00002.tar" for i in range(2)]
    assert [shard.num_samples for shard in shards] == [2, 2]


def test_the_first_configuration_without_video_and_an_only_split_are_the_defaults(folder: Path):
    assert find_shards(str(folder), split="test") == find_shards(str(folder), "raw", "test")
    assert find_shards(str(folder), "raw_video") == find_shards(str(folder), "raw_video", "train")


def test_records_come_in_order_with_their_clips(folder: Path):
    assert list(iter_source(str(folder), "raw", "train")) == [(record, None) for record in RECORDS[:4]]
    assert list(iter_source(str(folder), "raw_video", "train")) == [(record, b"clip") for record in RECORDS[:4]]


def test_files_patterns_and_folders_without_a_manifest(folder: Path, tmp_path: Path):
    (folder / "manifest.json").unlink()
    assert [record for record, _ in iter_source(str(folder / "raw/test-00000-of-00002.tar"))] == RECORDS[4:]
    assert [record for record, _ in iter_source(str(folder / "raw/train-*.tar"))] == RECORDS[:4]
    assert [record for record, _ in iter_source(str(folder), "raw", "train")] == RECORDS[:4]
    with pytest.raises(ValueError, match=r"no manifest.json and tars in raw, raw_video; choose one") as caught:
        find_shards(str(folder))
    assert "\n" not in str(caught.value)
    assert len(find_shards(str(folder), "raw")) == len(find_shards(str(folder / "raw"))) == 4
    assert find_shards(str(folder), split="test") == find_shards(str(folder), "raw", "test")  # raw_video has none
    lines = tmp_path / "records.jsonl"
    lines.write_text("\n".join(map(json.dumps, RECORDS)))
    assert list(iter_source(str(lines))) == [(record, None) for record in RECORDS]


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        ("processed", None, "no configuration 'processed'; expected one of raw, raw_video"),
        ("raw", None, "has several splits; choose one of train, test"),
        ("raw", "validation", "no split 'validation'; choose one of train, test"),
    ],
)
def test_what_a_data_set_does_not_have_is_named(folder: Path, config: str, split: str | None, message: str):
    with pytest.raises(ValueError, match=message):
        find_shards(str(folder), config, split)


def test_missing_shards_are_found_without_opening_any(folder: Path):
    (folder / "raw" / "train-00001-of-00002.tar").unlink()
    with pytest.raises(
        ValueError, match=r"1 of the 2 shards that its manifest.json lists are missing, such as raw/train-00001"
    ):
        find_shards(str(folder), "raw", "train")
    assert len(find_shards(str(folder), "raw", "test")) == 2  # another split
    assert len(find_shards(str(folder / "raw" / "train-*.tar"))) == 1  # asked for as they are

    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"1 of the 2 shards of 'train' are there; copy the others"):
        find_shards(str(folder), "raw", "train")
    assert len(find_shards(str(folder), "raw", "test")) == 2


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.tar"])
def test_nothing_at_all_is_an_error(tmp_path: Path, source: str):
    with pytest.raises(ValueError, match="no shards at .*nowhere"):
        find_shards(str(tmp_path / source))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no shards at"):
        find_shards(str(tmp_path / "empty"))


@pytest.mark.parametrize("content", ["", "[]", '{"configs": 3}', '{"configs": {"raw": {}}}', "\x00"])
def test_a_foreign_manifest_is_an_error_in_one_line(folder: Path, content: str):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json is not what `shard` writes") as caught:
        find_shards(str(folder))
    assert "\n" not in str(caught.value)


def test_a_split_without_a_manifest_is_not_a_prefix(tmp_path: Path):
    samples = [("a_0", {"json": b"{}"})]
    names = [
        "test-00000-of-00002.tar",
        "test-00001-of-00002.tar",
        "test_hard-00000-of-00001.tar",
        "testing.tar",
        "val.tar",
    ]
    for name in names:
        write_shard(tmp_path / name, samples)

    def found(split: str | None) -> list[str]:
        return [Path(shard.url).name for shard in find_shards(str(tmp_path), split=split)]

    assert (found("test"), found("test_hard"), found("val")) == (names[:2], names[2:3], names[4:])
    assert found(None) == names
    with pytest.raises(ValueError, match="no shards at"):
        found("tes")
    with pytest.raises(ValueError, match="no shards at"):
        found("te.t")


def test_the_configuration_with_clips_can_be_the_default(folder: Path):
    assert find_shards(str(folder), split="train", prefer_video=True) == find_shards(str(folder), "raw_video", "train")
    assert find_shards(str(folder), split="test", prefer_video=True) == find_shards(str(folder), "raw", "test")
    assert find_shards(str(folder), "raw", "train", prefer_video=True) == find_shards(str(folder), "raw", "train")
    assert {mp4 for _, mp4 in iter_source(str(folder), prefer_video=True)} == {b"clip"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "json: not JSON at character 2"),
        (b"[1]", "json: expected an object, got list"),
        (b"[" * 100_000 + b"]" * 100_000, "json: lists or objects are nested more than 254 levels deep"),
        (b'{"fps": NaN}', "json: fps: NaN is not JSON"),
        (b'{"caption": "\\ud800"}', "json: caption: not JSON"),
        (b'{"caption": "\xff"}', "json: caption: byte 0xff is not UTF-8"),
        (b'{"fps": 1, "fps": 2}', "json: fps: the name appears twice"),
    ],
)
def test_a_sample_that_is_no_record_is_named(tmp_path: Path, content: bytes, message: str):
    shard = tmp_path / "set.tar"
    write_shard(shard, [("good_0", {"json": json.dumps(RECORDS[0]).encode()}), ("bad_1", {"json": content})])
    with pytest.raises(ShardError) as caught:
        list(iter_source(str(shard)))
    error = caught.value
    assert str(error).startswith(f"{shard}: sample 1 ('bad_1'): {message}") and "\n" not in str(error)
    assert (error.shard, error.index, error.key, error.reason) == (str(shard), 1, "bad_1", "bad_json")
