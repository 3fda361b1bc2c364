"""Models by name and revision from the Hub, and the commit that records say they were made with."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from dataset_builders.reading import read_entries
from pipeline_annotate.__main__ import main
from pipeline_annotate.back_ends import load_captioner, load_classifier, load_language_model, load_tracker
from pipeline_annotate.stage_settings import NO_CAPTIONER, StageSettings
from tests.conftest import ROOT

from . import tiny_models

GROVE = ROOT / "checkpoints" / "grove-tiny"
ENCODER = ROOT / "tests" / "golden" / "eval" / "iground" / "tiny_bert"


@pytest.fixture
def publish(hub_repo):
    """Pushes a folder as `v1`, and something else after it: the name, the commit of `v1`, and the latest commit."""

    def push(folder: Path) -> tuple[str, str, str]:
        name, api = hub_repo(), HfApi()
        first = api.upload_folder(repo_id=name, folder_path=folder).oid
        api.create_tag(name, tag="v1")
        later = api.upload_file(repo_id=name, path_or_fileobj=b"changed\n", path_in_repo="notes.txt").oid
        return name, first, later

    return push


def test_records_name_the_commit_of_the_model_that_was_asked_for(publish, frames, shapes, spacy_folder, tmp_path):
    name, first, later = publish(GROVE)
    for number, (model, commit) in enumerate(((f"{name}@v1", first), (name, later))):
        output = tmp_path / f"{number}.jsonl"
        line = ["stage2", str(frames), "--video-captioner", f"grove:{model}", "--videos", str(shapes / "videos")]
        assert main([*line, "--spacy", str(spacy_folder), "--allow-unknown-things", "--output", str(output)]) == 0
        found = [entry.value["provenance"]["stage2"] for entry in read_entries(str(output))]
        assert {(one["model"], one["revision"], one["fingerprint"]) for one in found} == {(name, commit, None)}


@pytest.mark.parametrize("kind", ["llama", "kosmos2", "sam2", "encoder"])
def test_every_kind_of_model_knows_its_commit(kind, publish, tmp_path):
    name, first, later = publish(ENCODER if kind == "encoder" else getattr(tiny_models, kind)(tmp_path / kind))
    for model, commit in ((f"{name}@v1", first), (name, later)):
        loaded = {
            "llama": lambda model: load_language_model(f"transformers:{model}"),
            "kosmos2": lambda model: load_captioner(f"kosmos2:{model}"),
            "sam2": lambda model: load_tracker(f"sam2:{model}", tmp_path),
            "encoder": lambda model: load_classifier(StageSettings(NO_CAPTIONER, similarity=model)),
        }[kind](model)
        described = loaded.describe()
        assert (described["model"], described["revision"], described["fingerprint"]) == (name, commit, None)


def test_a_revision_that_is_not_there_is_one_line(publish, frames, spacy_folder, tmp_path, capsys):
    name, *_ = publish(tiny_models.llama(tmp_path / "llama"))
    line = ["stage2", str(frames), "--language-model", f"transformers:{name}@v2", "--spacy", str(spacy_folder)]
    assert main([*line, "--output", str(tmp_path / "captions.jsonl")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert name in error[-1] and "v2" in error[-1] and "Traceback" not in "".join(error)
