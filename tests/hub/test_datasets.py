"""Data sets and metrics on the Hub, through `datasets`: pushed, streamed and prepared, by name and by revision."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Features, List, Value, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import DatasetCard, HfApi

COUNT = 40
FEATURES = Features({"caption": Value("string"), "boxes": List(List(Value("float32"), length=4))})


def rows(start: int = 0) -> list[dict]:
    return [
        {"caption": f"number {index}", "boxes": [[0.5, 1.25, index, index + 0.125]] * (index % 3)}
        for index in range(start, start + COUNT)
    ]


def shard(samples: list[dict]) -> bytes:
    """A tar with a JSON member for each sample."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for sample in samples:
            content = json.dumps(sample).encode()
            member = tarfile.TarInfo(f"{sample['caption'].replace(' ', '_')}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def sharded(local_hub, hub_repo, tmp_path) -> str:
    """A repository of two shards, tagged `v1`, after which a third was added."""
    repo_id = hub_repo("dataset")
    api = HfApi()
    config = {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.tar"}]}
    columns = Features({"__key__": Value("string"), "__url__": Value("string"), "json": FEATURES})
    info = {"config_name": "default", "features": columns._to_yaml_list()}
    card = {"license": "cc-by-4.0", "configs": [config], "dataset_info": [info]}
    folder = tmp_path / "shards"
    (folder / "data").mkdir(parents=True)
    # JSON is YAML too.
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    for index in range(2):
        (folder / f"data/{index}.tar").write_bytes(shard(rows(index * COUNT)))
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset")
    api.create_tag(repo_id, tag="v1", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=shard(rows(2 * COUNT)), path_in_repo="data/2.tar", repo_id=repo_id, repo_type="dataset"
    )
    return repo_id


def test_shards_stream_by_name(sharded):
    assert get_dataset_config_names(sharded) == ["default"]
    stream = load_dataset(sharded, split="train", streaming=True)
    assert stream.num_shards == 3
    samples = list(stream)
    assert [sample["json"] for sample in samples] == rows() + rows(COUNT) + rows(2 * COUNT)
    assert samples[0]["__url__"].startswith("hf://datasets/") and samples[0]["__url__"].endswith("data/0.tar")
    old = load_dataset(sharded, split="train", streaming=True, revision="v1")
    assert [sample["json"] for sample in old] == rows() + rows(COUNT)


def test_shards_prepared_by_name(sharded):
    data = load_dataset(sharded, split="train", revision="v1")
    assert data.features["json"] == dict(FEATURES) and len(data) == 2 * COUNT
    assert data[COUNT + 4]["json"] == rows()[0] | rows(COUNT)[4]


def test_push_to_hub(local_hub, hub_repo):
    repo_id = hub_repo(create=False)
    splits = {
        "train": Dataset.from_list(rows(), features=FEATURES),
        "test": Dataset.from_list(rows(7), features=FEATURES),
    }
    DatasetDict(splits).push_to_hub(repo_id, private=True)
    splits["test"].push_to_hub(repo_id, config_name="other", split="test")
    for name, token in ((repo_id, False), ("org/no-such-data-set", None)):
        with pytest.raises(DatasetNotFoundError):
            load_dataset(name, token=token)
    assert get_dataset_config_names(repo_id) == ["default", "other"]
    assert load_dataset(repo_id, split="train").to_list() == rows()
    assert list(load_dataset(repo_id, "other", split="test", streaming=True)) == rows(7)
    card = DatasetCard.load(repo_id)
    assert [info["config_name"] for info in card.data.dataset_info] == ["default", "other"]


PUSH = """
import sys
from datasets import Dataset
repo_id, name = sys.argv[1:]
Dataset.from_dict({"number": list(range(10))}).push_to_hub(repo_id, config_name=name)
"""


def test_two_processes_push_configurations(local_hub, hub_repo):
    """
    Both write the same card: the one that comes second, if it read too early, is refused, and nothing of the first is lost.
    `datasets` 5.2 means to read again and go on, but looks for another exception than huggingface_hub 2.4 raises.
    """
    repo_id = hub_repo("dataset")

    def push(*names: str) -> dict[str, tuple[int, str]]:
        command = [sys.executable, "-c", PUSH, repo_id]
        pushing = {
            name: subprocess.Popen([*command, name], env=local_hub.env, stderr=subprocess.PIPE, text=True)
            for name in names
        }
        errors = {name: process.communicate(timeout=120)[1] for name, process in pushing.items()}
        return {name: (process.returncode, errors[name]) for name, process in pushing.items()}

    refused = {name: errors for name, (status, errors) in push("one", "two").items() if status}
    assert len(refused) < 2, refused
    for name, errors in refused.items():
        assert "412 Precondition Failed" in errors
        assert get_dataset_config_names(repo_id) == [{"one": "two", "two": "one"}[name]]
        assert push(name)[name][0] == 0
    assert sorted(get_dataset_config_names(repo_id)) == ["one", "two"]
    for name in ("one", "two"):
        assert list(load_dataset(repo_id, name, split="train")["number"]) == list(range(10))


def test_metric_as_a_space(local_hub, hub_repo, tmp_path):
    """What `evaluate.load("org/metric")` reads: a space with a module and a card."""
    repo_id = hub_repo("space", space_sdk="gradio")
    name = repo_id.partition("/")[2]
    (tmp_path / f"{name}.py").write_text("import evaluate\n")
    (tmp_path / "README.md").write_text("---\ntitle: Grounding\nsdk: gradio\ntags: [evaluate, metric]\n---\n")
    HfApi().upload_folder(repo_id=repo_id, folder_path=tmp_path, repo_type="space")
    info = HfApi().space_info(repo_id)
    assert (info.sdk, info.tags, info.card_data.title) == ("gradio", ["evaluate", "metric"], "Grounding")
    path = HfApi().hf_hub_download(repo_id, f"{name}.py", repo_type="space")
    assert Path(path).read_text() == "import evaluate\n"
