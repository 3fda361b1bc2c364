"""Data sets on the local Hub: checked against their manifest, record by record, and with videos only where these may go."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi, hf_hub_download

from tests.dataset_builders.shard_runs import files, shard, write_jsonl
from tests.hub_cards.publishing import make_shapes, publish
from tests.records import make_record, make_videos

LICENSE = ("--license", "cc-by-4.0")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """GroundedShapes with their clips, in two shards a configuration."""
    return make_shapes(tmp_path_factory.mktemp("shapes"), videos=True)


@pytest.fixture
def records(tmp_path):
    """Shards of three records that are not of GroundedShapes, with clips."""
    source = write_jsonl(tmp_path / "records.jsonl", [make_record(name) for name in ("a", "b", "c")])
    videos = make_videos(tmp_path / "videos", ["a", "b", "c"])
    assert shard(source, tmp_path / "shards", "--videos", videos, "--samples-per-shard", 2) == 0
    return tmp_path / "shards"


def refused(folder, hub_repo, capsys, *options: object, name: str | None = None) -> str:
    """Why a data set is not published, in one line; nothing is there afterwards."""
    repo = name or hub_repo("dataset", create=False)
    assert publish("dataset", folder, "--repo", repo, *options) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and not HfApi().repo_exists(repo, repo_type="dataset")
    return said[0]


def test_a_data_set_is_published_and_streams(shapes, hub_repo, capsys):
    name, before = hub_repo("dataset", create=False), files(shapes)
    assert publish("dataset", shapes, "--repo", name, *LICENSE, "--tag", "v1.0", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {"every shard has the checksum of the manifest", "6 records are valid"} <= set(told["checks"])
    assert files(shapes) == before
    rows = list(load_dataset(name, "default", split="train", streaming=True))
    assert len(rows) == 3 and rows[0]["json"]["bboxes"]
    card = DatasetCard.load(name)
    assert (card.data.license, card.data.annotations_creators) == ("cc-by-4.0", ["machine-generated"])
    assert [config["config_name"] for config in card.data.configs] == ["default", "default_video"]
    assert f'load_dataset("{name}", "default"' in card.text and "GroundedShapes: a synthetic world" in card.text
    card.validate()

    assert publish("dataset", shapes, "--repo", name, *LICENSE, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 0


def test_shards_that_are_not_those_of_the_manifest_are_refused(records, hub_repo, capsys):
    options = (*LICENSE, "--leave-out-videos")
    path = next(records.glob("default/*.tar"))
    content = path.read_bytes()
    path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    assert "another SHA-256 than in manifest.json" in refused(records, hub_repo, capsys, *options)
    path.write_bytes(content[:-512])
    assert f"{len(content) - 512} bytes, the manifest has {len(content)}" in refused(
        records, hub_repo, capsys, *options
    )
    path.unlink()
    assert "missing, though manifest.json lists it" in refused(records, hub_repo, capsys, *options)
    path.write_bytes(content)
    (records / "default" / "extra.tar").write_bytes(content)
    assert "extra.tar: not in manifest.json" in refused(records, hub_repo, capsys, *options)
    (records / "default" / "extra.tar").unlink()
    (records / ".sharding").mkdir()
    assert "a run of `shard` is unfinished" in refused(records, hub_repo, capsys, *options)
    (records / "manifest.json").unlink()
    assert "no manifest.json; expected a folder" in refused(records, hub_repo, capsys, *options)


def test_records_are_checked_once_more(tmp_path, hub_repo, capsys):
    """A shard that was made by other means may hold anything."""
    secret = make_record("a", metadata={"source": "/home/somebody/a.mp4"})
    assert shard(write_jsonl(tmp_path / "a.jsonl", [secret]), tmp_path / "one") == 0
    told = refused(tmp_path / "one", hub_repo, capsys, *LICENSE)
    assert "a_0, line 1: a path of a machine ('/home/somebody')" in told
    again = write_jsonl(tmp_path / "b.jsonl", [make_record("a")])
    for split in ("train", "test"):
        assert shard(again, tmp_path / "two", "--split", split) == 0
    assert "an earlier record has it (duplicate_key)" in refused(tmp_path / "two", hub_repo, capsys, *LICENSE)


def test_clips_of_other_peoples_videos_go_only_when_somebody_says_so(records, hub_repo, capsys):
    told = refused(records, hub_repo, capsys, *LICENSE)
    assert "default_video has clips of videos that are not GroundedShapes: --leave-out-videos publishes" in told
    name = hub_repo("dataset", create=False)
    assert publish("dataset", records, "--repo", name, *LICENSE, "--leave-out-videos") == 0
    there = HfApi().list_repo_files(name, repo_type="dataset")
    assert sum(file.startswith("default/") for file in there) == 2 and not any("_video" in file for file in there)
    manifest = json.loads(Path(hf_hub_download(name, "manifest.json", repo_type="dataset")).read_text())
    assert list(manifest["configs"]) == ["default"]
    card = DatasetCard.load(name)
    assert [config["config_name"] for config in card.data.configs] == ["default"]
    assert "The videos are not here" in card.text
    assert len(list(load_dataset(name, split="train", streaming=True))) == 3
    assert publish("dataset", records, "--repo", name, *LICENSE, "--videos-may-be-published") == 0
    assert any("default_video/" in file for file in HfApi().list_repo_files(name, repo_type="dataset"))
    capsys.readouterr()

    assert publish("dataset", records, "--repo", name, *LICENSE, "--leave-out-videos") == 2
    assert "has 2 shard(s) that this folder lacks" in capsys.readouterr().err
    assert publish("dataset", records, "--repo", name, *LICENSE, "--leave-out-videos", "--delete") == 0
    assert not any("_video" in file for file in HfApi().list_repo_files(name, repo_type="dataset"))


def test_released_annotations_keep_their_licence(records, hub_repo, capsys):
    """They are known by what they are said to be derived from, or by the name that they are given."""
    options = (*LICENSE, "--leave-out-videos")
    told = refused(records, hub_repo, capsys, *options, "--dataset", "ekazakos/HowToGround1M")
    assert "made of 'ekazakos/HowToGround1M', which is under cc-by-nc-sa-4.0" in told
    assert "made of 'ekazakos/iGround'" in refused(records, hub_repo, capsys, *options, name="org/my-iground")
    assert publish("dataset", records, "--repo", "org/my-iground", "--leave-out-videos") == 0
    card = DatasetCard.load("org/my-iground")
    assert (card.data.license, card.data.source_datasets) == ("cc-by-nc-sa-4.0", ["ekazakos/iGround"])
    assert "captions and boxes made by hand" in card.text
    assert "no licence: give --license" in refused(records, hub_repo, capsys, "--leave-out-videos")


def test_a_card_that_somebody_wrote_has_to_fit_the_shards(records, hub_repo, capsys):
    name = hub_repo("dataset", create=False)
    options = ("--repo", name, *LICENSE, "--leave-out-videos")
    assert publish("dataset", records, *options) == 0
    card = DatasetCard.load(name)
    (records / "README.md").write_text(str(card).replace("## Limits", "## Our limits"))
    assert publish("dataset", records, *options) == 0
    assert "## Our limits" in DatasetCard.load(name).text
    (records / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nMine.\n")
    assert publish("dataset", records, *options) == 2
    assert "its `configs` are not those of the shards" in capsys.readouterr().err


def test_a_branch_is_made_and_the_main_one_left_alone(records, hub_repo, capsys):
    name = hub_repo("dataset")
    options = ("--repo", name, *LICENSE, "--leave-out-videos", "--revision", "next", "--message", "Second try")
    assert publish("dataset", records, *options) == 0
    assert HfApi().list_repo_files(name, repo_type="dataset") == [".gitattributes"]
    commits = HfApi().list_repo_commits(name, repo_type="dataset", revision="next")
    assert commits[0].title == "Second try"
    assert len(list(load_dataset(name, split="train", streaming=True, revision="next"))) == 3


def test_somebody_who_may_only_read_is_told_so(records, hub_repo, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    told = refused(records, hub_repo, capsys, *LICENSE, "--leave-out-videos")
    assert "cannot be published: " in told and "the same command" not in told
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert publish("dataset", records, "--repo", "org/x", *LICENSE, "--leave-out-videos") == 2
    assert "error: the Hub cannot be used: Invalid user token" in capsys.readouterr().err
