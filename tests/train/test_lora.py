"""Low-rank weights in the language model: what is saved beside them, merging, and loading again."""

import importlib.util
import json
import shutil
from itertools import islice

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from dataset_builders.stream import GroundedCaptionStream, StreamSource
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from tests.tiny import tiny_inputs, tiny_model
from tests.train.training_runs import losses_of
from train.__main__ import main as train_command
from train.collator import GroveCollator
from train.lora import add_lora, saved_modules
from train.parameter_groups import freeze, parameter_groups
from train.running import main
from train.training_arguments import ModelArguments

LORA = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "trainable": "paper"}


def adapted(**changes):
    """A tiny model with low-rank layers that do something."""
    model = tiny_model()
    args = ModelArguments(**{**LORA, **changes})
    freeze(model, args.trainable)
    model = add_lora(model, args)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_what_the_policy_trains_whole_is_saved_with_the_low_rank_weights():
    model = tiny_model()
    names = saved_modules(model, "paper")

    assert "lm_head" in names and "model.phrase_projector" in names and "model.box_decoder.transformer" in names
    assert "model.grounding_encoder.adapters.1" in names and "model.vision_tower.adapters.0" in names
    assert "model.box_decoder" not in names, "SAM's prompt embedding is frozen"
    assert not any("language_model.layers" in name for name in names)
    freeze(model, "paper")
    covered = {n for n, p in model.named_parameters() if any(n.startswith(f"{name}.") for name in names)}
    assert covered == {n for n, p in model.named_parameters() if p.requires_grad}


def test_low_rank_layers_are_in_the_language_model_only():
    model = adapted()
    layers = {name for name, _ in model.named_parameters() if "lora_" in name}

    assert layers and all("language_model.layers" in name for name in layers)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in layers} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    groups = {group.name: group for group in parameter_groups(model, 1e-4, {})}
    assert groups["lora"].trained == groups["lora"].parameters > 0
    assert groups["language_model"].trained == 0 and groups["box_decoder"].trained > 0


def test_every_low_rank_and_saved_weight_gets_a_gradient():
    model = adapted().train()
    model(**tiny_inputs(model.config)).loss.backward()

    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_merged_weights_give_the_same_outputs():
    model = adapted()
    inputs = tiny_inputs(model.config)
    with torch.no_grad():
        expected = model(**inputs)
        merged = model.merge_and_unload()(**inputs)

    for name in ("logits", "pred_boxes", "objectness_logits", "loss"):
        torch.testing.assert_close(merged[name], expected[name], rtol=1e-4, atol=1e-5)


def test_unknown_layers_are_named():
    with pytest.raises(ValueError, match="no layer 'fc1' in the language model"):
        adapted(lora_target_modules=["fc1"])


def test_a_policy_that_peft_cannot_save():
    with pytest.raises(ValueError, match="trains .*pos.* but not all of the module that it is in"):
        adapted(trainable="paper+grounding_positions")


def test_a_run_with_lora_is_resumed_merged_and_loaded(world, tmp_path, capsys):
    arguments = world.arguments(tmp_path / "run", **LORA, max_steps=4)
    assert main("pt", arguments) == 0
    expected = losses_of(tmp_path / "run")
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert any("lora_A" in name for name in weights) and any("box_decoder.transformer" in name for name in weights)
    assert not any("language_model.layers" in name and "lora" not in name for name in weights)

    # Killed behind the first checkpoint.
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    for name in ("trainer_state.json", "results.json"):
        (tmp_path / "run" / name).unlink()
    assert main("pt", arguments) == 0
    assert losses_of(tmp_path / "run") == expected

    capsys.readouterr()
    assert train_command(["merge", str(tmp_path / "run"), "--output", str(tmp_path / "merged"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] > 0
    base = GroveForConditionalGeneration.from_pretrained(world.start)
    unmerged = PeftModel.from_pretrained(base, tmp_path / "run").eval()
    merged = GroveForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    source = StreamSource(world.shards, "default_video", "validation")
    stream = GroundedCaptionStream(source, num_frames=4, frames="midpoints", repeat=False, keep_empty=True)
    batch = GroveCollator(GroveProcessor.from_pretrained(tmp_path / "merged"))([*islice(stream, 2)])
    batch.pop("keys")
    with torch.no_grad():
        found, wanted = merged(**batch), unmerged(**batch)
    for name in ("logits", "pred_boxes", "objectness_logits", "loss"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="no bitsandbytes")
def test_a_quantised_language_model_is_trained_and_merged(world, tmp_path):
    assert main("pt", world.arguments(tmp_path / "run", **LORA, load_in_4bit=True, max_steps=2)) == 0

    groups = json.loads((tmp_path / "run" / "results.json").read_text())["groups"]
    packed = next(group for group in groups if group["name"] == "language_model")
    assert train_command(["merge", str(tmp_path / "run"), "--output", str(tmp_path / "merged")]) == 0
    merged = GroveForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config") and merged.dtype == torch.float32
    assert sum(p.numel() for p in merged.model.language_model.layers.parameters()) > 1.5 * packed["parameters"]


def test_merging_something_else(world, tmp_path, capsys):
    assert train_command(["merge", str(world.start), "--output", str(tmp_path / "merged")]) == 2

    assert "no adapter_config.json" in capsys.readouterr().err
