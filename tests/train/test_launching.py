"""The accelerate configurations start runs: here with two processes and gloo in place of GPUs."""

import importlib.util
import os
import shutil

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from modeling_grove import GroveForConditionalGeneration
from tests.train.training_runs import ROOT, losses_of, run_script

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
def without_configuration(world, tmp_path_factory):
    """Losses of two processes that torchrun alone has started."""
    output = tmp_path_factory.mktemp("alone") / "run"
    result = run_script("pt.py", world.arguments(output, ddp_backend="gloo"), processes=2)
    assert result.returncode == 0, result.stderr
    return {step: losses["loss"] for step, losses in losses_of(output).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", pytest.param("zero2", marks=needs_deepspeed)])
def test_two_processes_train_and_go_on(world, run_folder, without_configuration, name):
    changes = {"ddp_backend": "gloo", "eval_data": world.shards, "eval_strategy": "steps", "eval_steps": 2}
    if name != "fsdp2":
        changes |= {"benchmark_clips": 3, "sample_steps": 4, "sample_clips": 2}
    if name == "zero2":  # which accelerate leaves out where CPUs are asked for
        changes["use_cpu"] = None
    line = world.arguments(run_folder, **changes)
    env = environment(name) | ({"DS_ACCELERATOR": "cpu"} if name == "zero2" else {"ACCELERATE_USE_CPU": "true"})
    script = "pt.py"
    if name == "fsdp2":  # accelerate shards over accelerators only
        script, line = "../tests/train/sharded_on_cpu.py", ["train/pt.py", *line]
    result = run_script(script, line, processes=2, env=env)
    assert result.returncode == 0, result.stderr
    if name != "ddp":
        sign = "LlamaDecoderLayer" if name == "fsdp2" else "DeepSpeed"
        assert sign in result.stdout + result.stderr
        shutil.rmtree(run_folder / "checkpoint-4")
        (run_folder / "results.json").unlink()
        result = run_script(script, line, processes=2, env=env)
        assert result.returncode == 0 and "goes on from checkpoint-2" in result.stderr, result.stderr

    found = {step: losses["loss"] for step, losses in losses_of(run_folder).items()}
    assert found == pytest.approx(without_configuration, rel=1e-3) and [*found] == [1, 2, 3, 4]
    assert GroveForConditionalGeneration.from_pretrained(run_folder).config.num_frames == 4


def test_every_configuration_leaves_the_precision_to_the_recipe():
    for path in CONFIGS.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["mixed_precision"] == "no"


def test_sharded_models_write_no_captions(world, run_folder):
    line = world.arguments(run_folder, eval_data=world.shards, sample_steps=2)
    result = run_script("pt.py", line, env={"ACCELERATE_USE_FSDP": "true"})

    assert result.returncode == 2 and "a model sharded by FSDP cannot write captions" in result.stderr


def test_accelerate_launch_starts_one_process(world, run_folder):
    import subprocess
    import sys

    line = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"]
    result = subprocess.run(
        [*line, str(ROOT / "train" / "pt.py"), *world.arguments(run_folder, max_steps=1)],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert (run_folder / "model.safetensors").exists()
