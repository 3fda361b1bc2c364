"""What a result came from: told truly, and without a path of this machine."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import upload_file

from eval.provenance import describe_machine, describe_model, files_fingerprint


def test_machine():
    machine = describe_machine("cpu", ("eval",))
    assert machine["versions"]["torch"] == torch.__version__
    assert machine["hardware"]["torch_threads"] == torch.get_num_threads()
    assert {"commit", "uncommitted_changes", "time", "platform"} <= {*machine}
    assert str(Path.home()) not in json.dumps(machine)


def test_the_model_of_a_folder_is_known_by_its_content(demo_checkpoint, tmp_path):
    there = describe_model(str(demo_checkpoint))
    assert there["name"] == "grove-demo" and there["revision"] is None
    copied = tmp_path / "grove-demo"
    shutil.copytree(demo_checkpoint, copied)
    assert describe_model(f"{copied}/") == there
    weights = copied / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert describe_model(str(copied))["fingerprint"] != there["fingerprint"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json in the folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: expected an object in JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
            "config.json: model_type: expected 'grove', got 'llama'",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    ],
)
def test_a_folder_of_no_model_says_what_is_wrong(change, message, demo_checkpoint, tmp_path):
    copied = tmp_path / "grove-demo"
    shutil.copytree(demo_checkpoint, copied)
    change(copied)
    with pytest.raises(ValueError, match=rf"^--model: 'grove-demo': {message}[^\n]*; [^\n]+$"):
        describe_model(str(copied))


def test_a_fingerprint_sees_names(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert files_fingerprint([tmp_path / "a"]) != files_fingerprint([tmp_path / "b"])


def test_the_model_of_the_hub_is_known_by_its_commit(hub_repo):
    repo = hub_repo("model")
    commit = upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=repo).oid
    assert describe_model(repo) == {"name": repo, "revision": commit, "fingerprint": None}
    with pytest.raises(ValueError, match=r"^--model: neither a folder nor a model of the Hub: 'org/there-is-none'"):
        describe_model("org/there-is-none")


@pytest.mark.parametrize("model", ["checkpoints/there-is-none", "there-is-none", "there/is/none"])
def test_a_model_that_is_nowhere(model):
    """A name with one slash could be of the Hub, which is asked."""
    with pytest.raises(ValueError, match=rf"^--model: neither a folder nor a model of the Hub: '{model}' [^\n]*$"):
        describe_model(model)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    """As it is without network: the client then raises an error of another class."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"^--model: neither a folder nor a model of the Hub: 'a/b' [^\n]*$"):
        describe_model("a/b")


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "clips.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"^--model: 'clips.jsonl' is a file; expected the folder"):
        describe_model(str(tmp_path / "clips.jsonl"))
