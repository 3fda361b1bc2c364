"""Models from the Hub by name, through `transformers`: pushed, loaded in fresh processes with and without this package, trained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoModel, AutoProcessor, Trainer, TrainingArguments

from modeling_grove import GroveForConditionalGeneration, add_remote_code, save_with_remote_code
from tests.tiny import tiny_inputs, tiny_model

ROOT = Path(__file__).parents[2]

# The repository is installed in development mode, so its root is taken off the path before anything is imported.
WITHOUT_PACKAGE = f"""
import sys
sys.path = [entry for entry in sys.path if entry not in ("", {str(ROOT)!r})]
import importlib.util
assert importlib.util.find_spec("modeling_grove") is None
"""
WITH_PACKAGE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import modeling_grove
"""
CAPTION = """
from transformers import pipeline
captioner = pipeline("grounded-video-captioning", model={repo_id!r}, {options})
assert type(captioner.model).__module__.startswith({module!r}), type(captioner.model)
result = captioner({clip!r}, end_time=1.5, caption="A <p>dog</p> runs.")
import json
print(json.dumps(result.to_dict()["tracks"][0]["boxes"]))
"""


@pytest.fixture(scope="module")
def repository(local_hub, demo_checkpoint, tmp_path_factory) -> str:
    """The demo model as it is published, with its code."""
    folder = tmp_path_factory.mktemp("published") / "grove"
    model = GroveForConditionalGeneration.from_pretrained(demo_checkpoint)
    save_with_remote_code(folder, model, AutoProcessor.from_pretrained(demo_checkpoint))
    api = HfApi()
    repo_id = api.create_repo("org/grove-demo", exist_ok=True).repo_id
    api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="GROVE")
    return repo_id


@pytest.fixture(scope="module")
def pinned(local_hub, repository, tmp_path_factory) -> str:
    """A repository whose tag `v1.0` has the demo model, and whose newest commit has a config of which nothing can be made."""
    api = HfApi()
    repo_id = api.create_repo("org/grove-moved-on", exist_ok=True).repo_id
    api.upload_folder(repo_id=repo_id, folder_path=api.snapshot_download(repository))
    api.create_tag(repo_id, tag="v1.0")
    api.upload_file(path_or_fileobj=b'{"model_type": "none"}', path_in_repo="config.json", repo_id=repo_id)
    return repo_id


def run(script: str, folder: Path, environment: dict[str, str]) -> list:
    """What the script prints as JSON on its last line, in a new interpreter with a cache of its own."""
    environment = {**environment, "HF_HOME": str(folder), "HF_MODULES_CACHE": str(folder / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pipeline_by_name(local_hub, repository, example_clip, tmp_path):
    script = CAPTION.format(repo_id=repository, options="", module="modeling_grove.", clip=str(example_clip))
    boxes = run(WITH_PACKAGE + script, tmp_path, local_hub.env)
    assert len(boxes) > 0 and all(len(box) == 4 for box in boxes if box is not None)


def test_remote_code_by_name_and_tag(local_hub, pinned, example_clip, tmp_path):
    """Where this package is not installed: the code comes from the Hub, of the revision of the weights, and only when trusted."""
    options = "revision='v1.0', trust_remote_code=True"
    script = CAPTION.format(repo_id=pinned, options=options, module="transformers_modules.", clip=str(example_clip))
    auto = f"""
from transformers import AutoConfig, AutoModel, AutoProcessor
try:
    AutoModel.from_pretrained({pinned!r}, revision="v1.0", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise SystemExit("code that nobody trusted has run")
for auto in (AutoConfig, AutoModel, AutoProcessor):
    loaded = auto.from_pretrained({pinned!r}, {options})
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
"""
    assert run(WITHOUT_PACKAGE + auto + script, tmp_path, local_hub.env)


def test_auto_classes_and_revisions(local_hub, pinned, demo_checkpoint):
    with pytest.raises(ValueError, match="none"):
        AutoConfig.from_pretrained(pinned)
    model = AutoModel.from_pretrained(pinned, revision="v1.0")
    expected = GroveForConditionalGeneration.from_pretrained(demo_checkpoint).state_dict()
    assert type(model) is GroveForConditionalGeneration
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    first = HfApi().list_repo_refs(pinned).tags[0].target_commit
    assert AutoConfig.from_pretrained(pinned, revision=first).to_dict() | {"_commit_hash": None} == {
        **model.config.to_dict(),
        "_commit_hash": None,
    }
    assert type(AutoProcessor.from_pretrained(pinned, revision="v1.0")).__name__ == "GroveProcessor"
    with pytest.raises(OSError, match="v9.9 is not a valid git identifier"):
        AutoModel.from_pretrained(pinned, revision="v9.9")
    with pytest.raises(OSError, match="org/no-such-model is not a local folder"):
        AutoModel.from_pretrained("org/no-such-model")


def test_push_to_hub(local_hub, hub_repo, demo_checkpoint):
    repo_id = hub_repo(create=False)
    model = GroveForConditionalGeneration.from_pretrained(demo_checkpoint)
    model.push_to_hub(repo_id, private=True)
    AutoProcessor.from_pretrained(demo_checkpoint).push_to_hub(repo_id)
    assert HfApi().model_info(repo_id).private
    files = HfApi().list_repo_files(repo_id)
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= set(files)
    loaded = AutoModel.from_pretrained(repo_id)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    with pytest.raises(OSError, match="is not a local folder"):
        AutoModel.from_pretrained(repo_id, token=False, cache_dir=local_hub.folder / "nobody")


def test_trainer_pushes_what_it_trained(local_hub, hub_repo, demo_checkpoint, tmp_path):
    repo_id = hub_repo(create=False)
    model = tiny_model()
    before = model.lm_head.weight.detach().clone()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        hub_model_id=repo_id,
        push_to_hub=True,
        max_steps=2,
        save_steps=1,
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=lambda rows: rows[0],
        train_dataset=[tiny_inputs(model.config, seed=seed) for seed in range(2)],
        processing_class=AutoProcessor.from_pretrained(demo_checkpoint),
    )
    trainer.train()
    trainer.push_to_hub(commit_message="End of training")
    files = set(HfApi().list_repo_files(repo_id))
    assert {"model.safetensors", "config.json", "processor_config.json", "training_args.bin", "README.md"} <= files
    trained = AutoModel.from_pretrained(repo_id)
    assert torch.equal(trained.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(trained.lm_head.weight, before)
    assert HfApi().list_repo_commits(repo_id)[0].title == "End of training"


def test_what_the_trainer_pushed_gets_its_code(local_hub, hub_repo, demo_checkpoint, tmp_path):
    """`Trainer` does not push code; `add_remote_code` on a snapshot makes the repository complete."""
    repo_id = hub_repo()
    HfApi().upload_folder(repo_id=repo_id, folder_path=demo_checkpoint)
    folder = HfApi().snapshot_download(repo_id, local_dir=tmp_path / "snapshot")
    add_remote_code(folder)
    HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
    config = AutoConfig.from_pretrained(repo_id)
    assert config.auto_map["AutoModel"].endswith("modeling_grove.GroveForConditionalGeneration")
