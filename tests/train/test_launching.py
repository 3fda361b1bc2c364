"""The accelerate configurations start runs: here with two processes and gloo in place of GPUs."""

import importlib.util
import json
import os
import shutil

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from dataset_builders.stream import GroundedCaptionStream
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from tests.train.training_runs import ROOT, losses_of, run_script
from train.checks import check_arguments
from train.collator import GroveCollator
from train.trainer import LOSS_NAMES
from train.training_arguments import DataArguments, GroveTrainingArguments

CONFIGS = ROOT / "train" / "recipes" / "accelerate"
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="no deepspeed")


def environment(name: str) -> dict[str, str]:
    """What `accelerate launch --config_file` gives to the processes."""
    line = ["--config_file", str(CONFIGS / f"{name}.yaml"), "--num_processes", "2", "train/pt.py"]
    before = dict(os.environ)
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(line))
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    env = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    return {key: value for key, value in env.items() if before.get(key) != value and not key.startswith("MASTER_")}


@pytest.fixture(scope="module")
def without_configuration(world, tmp_path_factory, warm_python):
    """Losses of two processes that torchrun alone has started."""
    output = tmp_path_factory.mktemp("alone") / "run"
    result = run_script(warm_python, "pt.py", world.arguments(output, ddp_backend="gloo"), processes=2)
    assert result.returncode == 0, result.stderr
    return {step: losses["loss"] for step, losses in losses_of(output).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", pytest.param("zero2", marks=needs_deepspeed)])
def test_two_processes_train_and_go_on(world, run_folder, without_configuration, name, warm_python):
    # Three clips: one process evaluates two of them, while the other repeats its own.
    shard = world.shards / "default_video" / "validation-00000-of-00002.tar"
    changes = {"ddp_backend": "gloo", "eval_data": shard, "eval_strategy": "steps", "eval_steps": 2}
    changes |= {"per_device_eval_batch_size": 1}
    if name != "fsdp2":
        changes |= {"benchmark_clips": 3, "sample_steps": 4, "sample_clips": 2}
    if name == "zero2":  # which accelerate leaves out where CPUs are asked for
        changes["use_cpu"] = None
    line = world.arguments(run_folder, **changes)
    env = environment(name) | ({"DS_ACCELERATOR": "cpu"} if name == "zero2" else {"ACCELERATE_USE_CPU": "true"})
    script = "pt.py"
    if name == "fsdp2":  # accelerate shards over accelerators only
        script, line = "../tests/train/sharded_on_cpu.py", ["train/pt.py", *line]
    result = run_script(warm_python, script, line, processes=2, env=env)
    assert result.returncode == 0, result.stderr
    if name != "ddp":
        sign = "LlamaDecoderLayer" if name == "fsdp2" else "DeepSpeed"
        assert sign in result.stdout + result.stderr
        shutil.rmtree(run_folder / "checkpoint-4")
        (run_folder / "results.json").unlink()
        result = run_script(warm_python, script, line, processes=2, env=env)
        assert result.returncode == 0 and "goes on from checkpoint-2" in result.stderr, result.stderr

    found = {step: losses["loss"] for step, losses in losses_of(run_folder).items()}
    assert found == pytest.approx(without_configuration, rel=1e-3) and [*found] == [1, 2, 3, 4]
    model = GroveForConditionalGeneration.from_pretrained(run_folder).eval()
    history = json.loads((run_folder / "trainer_state.json").read_text())["log_history"]
    logged = next(logs for logs in reversed(history) if "eval_loss" in logs)
    stream = GroundedCaptionStream(
        shard, num_frames=4, frames="midpoints", repeat=False, shuffle_buffer=0, keep_empty=True
    )
    batch = GroveCollator(GroveProcessor.from_pretrained(run_folder), seed=42)(list(stream))
    assert len(batch.pop("keys")) == 3
    with torch.no_grad():
        alone = model(**batch)
    for loss in ("loss", *LOSS_NAMES):
        assert logged[f"eval_{loss}"] == pytest.approx(float(alone[loss]), rel=1e-4), loss
    if name != "fsdp2":
        assert len(list(run_folder.glob("samples/000004/*.png"))) == 2


def test_every_configuration_leaves_the_precision_to_the_recipe():
    for path in CONFIGS.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["mixed_precision"] == "no"


def test_sharded_models_write_no_captions(world):
    data = DataArguments(train_data=[str(world.shards)], eval_data=str(world.shards))
    args = GroveTrainingArguments(output_dir="run", sample_steps=2, use_cpu=True)
    check_arguments(data, args)

    args.fsdp_plugin_args = {"fsdp_version": 2}
    with pytest.raises(ValueError, match="a model sharded by FSDP cannot write captions"):
        check_arguments(data, args)
