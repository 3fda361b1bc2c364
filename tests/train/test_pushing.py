"""What goes to the Hub, and that a stranger's process can use it."""

import json
import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi, list_repo_commits, list_repo_files, snapshot_download
from safetensors.torch import load_file, save_file

from tests.train.test_trainer import make_trainer
from tests.train.training_runs import ROOT
from train.collator import GroveCollator
from train.running import main

# In a fresh process: the model by name, once with this package and once with the code of the repository alone.
READER = """
import json, sys, torch
from safetensors.torch import load_file
name, inputs, code = sys.argv[1:]
from transformers import AutoModel, AutoProcessor
if code == "package":
    import modeling_grove
model = AutoModel.from_pretrained(name, trust_remote_code=code == "remote").eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=code == "remote")
with torch.no_grad():
    outputs = model(**load_file(inputs))
print(json.dumps({"boxes": outputs.pred_boxes.flatten().tolist(), "loss": float(outputs.loss),
                  "module": type(model).__module__, "frames": processor.video_processor.window_size}))
"""


def read_by_name(name, inputs, code, folder, env):
    result = subprocess.run(
        [sys.executable, "-c", READER, name, str(inputs), code],
        capture_output=True, text=True, timeout=300, env=env, cwd=ROOT if code == "package" else folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_trained_model_is_pushed_and_loaded_by_name(world, run_folder, tmp_path, local_hub, hub_repo):
    name = hub_repo("model", create=False)
    trainer = make_trainer(world, run_folder, max_steps=2, hub_model_id=name, report_to="tensorboard")
    trainer.train()
    trainer.save_state()

    trainer.push_to_hub(license="apache-2.0")

    files = set(list_repo_files(name))
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "modeling_grove.py"} <= files
    assert not [
        file for file in files if file.endswith((".bin", ".pth", ".pt")) or "trainer_state" in file or "/" in file
    ]
    folder = snapshot_download(name, local_dir=tmp_path / "copy")
    for path in tmp_path.joinpath("copy").glob("*.*"):
        if path.suffix in (".json", ".md"):
            assert str(tmp_path) not in path.read_text() and str(ROOT) not in path.read_text(), path
    card = (tmp_path / "copy" / "README.md").read_text()
    assert "license: apache-2.0" in card and f'model="{name}"' in card and "[More" not in card
    assert folder

    batch = GroveCollator(trainer.processing_class)(
        [sample for sample, _ in zip(trainer.eval_dataset, range(2), strict=False)]
    )
    batch.pop("keys")
    inputs = tmp_path / "inputs.safetensors"
    save_file({key: value.contiguous() for key, value in batch.items()}, inputs)
    with torch.no_grad():
        expected = trainer.model.eval()(**batch)
    for code in ("package", "remote"):
        env = {**local_hub.env, "HF_MODULES_CACHE": str(tmp_path / "modules")}
        found = read_by_name(name, inputs, code, tmp_path, env)
        torch.testing.assert_close(torch.tensor(found["boxes"]), expected.pred_boxes.flatten(), rtol=1e-5, atol=1e-6)
        assert found["loss"] == pytest.approx(float(expected.loss), rel=1e-5) and found["frames"] == 4
        assert found["module"].startswith("modeling_grove" if code == "package" else "transformers_modules")


def test_checkpoints_are_pushed_on_the_way(world, run_folder, hub_repo):
    name = hub_repo("model", create=False)
    changes = {"push_to_hub": True, "hub_model_id": name, "hub_strategy": "every_save", "hub_always_push": True}
    assert main("pt", world.arguments(run_folder, **changes)) == 0

    titles = [commit.title for commit in list_repo_commits(name)]
    assert {"Training in progress, step 2", "End of training"} <= set(titles)
    files = set(list_repo_files(name))
    assert "results.json" in files and "modeling_grove.py" in files
    assert not files & {"training_args.bin", "run.json", "trainer_state.json", "optimizer.pt", "stream_state_0.json"}
    pushed = load_file(snapshot_download(name) + "/model.safetensors")
    final = load_file(run_folder / "model.safetensors")
    assert all(torch.equal(pushed[key], value) for key, value in final.items())

    # A run whose last push had failed is finished; the same command pushes it.
    HfApi().delete_repo(name)
    assert main("pt", world.arguments(run_folder, **changes)) == 0
    assert {"model.safetensors", "README.md", "results.json"} <= set(list_repo_files(name))


def test_low_rank_weights_of_a_model_that_nobody_else_has_are_not_pushed(world, run_folder, capsys):
    changes = {"push_to_hub": True, "use_peft": True, "hub_model_id": "org/lora"}

    assert main("pt", world.arguments(run_folder, **changes)) == 2
    assert "low-rank weights name the model" in capsys.readouterr().err
