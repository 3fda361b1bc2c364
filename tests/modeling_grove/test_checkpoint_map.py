"""The map from the original's tensors to ours: the full-size model on paper, resizing, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modeling_grove.checkpoint_config_grove import describe_original
from modeling_grove.checkpoint_io_grove import CheckpointError, TensorInfo
from modeling_grove.checkpoint_map_grove import (
    config_from_original,
    extend_vocabulary,
    name_in_grove,
    plan_tensor,
    resize_position_embedding,
    resize_relative_positions,
)
from modeling_grove.checkpoint_plan_grove import (
    ConversionPlan,
    SourceTensor,
    expected_tensors,
    fresh_tensor,
    make_plan,
    merge_checkpoints,
    report_rows,
    totals,
)
from modeling_grove.configuration_grove import GroveConfig
from tests.original_checkpoints import load_case


@pytest.fixture(scope="module")
def manifest(golden_dir: Path) -> dict[str, Any]:
    return json.loads((golden_dir / "full_size_manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_size(manifest: dict[str, Any]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tuple(entry["shape"]), torch.bfloat16) for name, entry in manifest["tensors"].items()}


def shapes_of(tensors: dict[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in tensors.items()}


def sources_of(tensors: dict[str, TensorInfo]) -> list[SourceTensor]:
    return merge_checkpoints({"source": ("grove", tensors)})


@pytest.fixture(scope="module")
def full_config(full_size: dict[str, TensorInfo]) -> GroveConfig:
    original, _ = describe_original(shapes_of(full_size), {}, {}, {})
    return config_from_original(original, torch.bfloat16)


@pytest.fixture(scope="module")
def full_plan(full_size: dict[str, TensorInfo], full_config: GroveConfig) -> ConversionPlan:
    return make_plan(sources_of(full_size), full_config)


# The full-size model


def test_every_tensor_of_the_full_size_model_is_accounted_for(full_plan, manifest):
    sums = totals(full_plan)
    assert sums["source_tensors"] == 1369 == sums["converted_tensors"] + sums["dropped_tensors"]
    # The manifest counts parameters; the random frequencies of the positional encoding (2 x 128) are a buffer.
    assert sums["source_parameters"] == manifest["total_parameters"] + 256 == 8_420_595_521
    assert (sums["target_tensors"], sums["target_parameters"]) == (1257, 8_108_082_577)
    assert (sums["dropped_tensors"], sums["dropped_parameters"]) == (112, 312_512_944)
    assert sums["fresh_tensors"] == sums["superseded_tensors"] == 0


def test_exactly_the_tensors_are_dropped_that_the_original_never_uses(full_plan, manifest):
    assert {tensor.source.name for tensor in full_plan.dropped} == set(manifest["never_used_in_forward"])


def test_the_shapes_alone_give_the_default_config(full_config):
    # The defaults are the released sizes at the corrected behaviour; what the converter sets differently is the original's.
    default = GroveConfig(
        vision_adapter_grid=(16, 36),
        freeze_vision_adapters=True,
        grounding_config={"positional_encoding_dtype": "bfloat16"},
    )
    assert expected_tensors(full_config) == expected_tensors(GroveConfig())
    ours, expected = full_config.to_dict(), default.to_dict()
    for config in (ours, expected):
        config["video_pool_size"] = tuple(config["video_pool_size"])
        config["vision_adapter_grid"] = tuple(config["vision_adapter_grid"])
        config["grounding_config"]["global_attn_indexes"] = tuple(config["grounding_config"]["global_attn_indexes"])
    assert ours == expected


def test_parameters_of_each_part_are_those_of_the_original(full_plan):
    counts: dict[str, int] = {}
    for row in report_rows(full_plan):
        if row.status == "converted":
            counts[row.module] = counts.get(row.module, 0) + row.parameters
    clip_layer = 4 * (1024 * 1024 + 1024) + 2 * 2 * 1024 + 2 * 4096 * 1024 + 4096 + 1024
    assert counts == {
        "language_model.embed_tokens": 131_112_960,
        "lm_head": 131_112_960,
        "language_model": 6_476_271_616,
        "vision_tower": 303_507_456 - clip_layer - 2 * 1024,  # neither layer 23 nor the final norm
        "vision_tower.adapters": 226_500_616,
        "multi_modal_projector": 20_979_712,
        "grounding_encoder": 633_052_928,
        "grounding_encoder.adapters": 176_952_324,
        "phrase_projector": 17_830_144,
        # The two-way transformer, 1 + 4 tokens, the vector for no mask, the 256 random frequencies.
        "box_decoder": 3_291_264 + 5 * 256 + 256 + 256,
        "box_decoder.box_head": 66_820,
        "box_decoder.objectness_head": 257,
    }


def test_trainable_parameters_keep_their_number(full_plan, manifest):
    entries = manifest["tensors"]
    assert sum(torch.Size(e["shape"]).numel() for e in entries.values() if e["trainable"]) == 708_614_133
    trained = sum(t.numel for t in full_plan.targets if t.source is not None and entries[t.source.name]["trainable"])
    # Less the mask heads, which have no gradient.
    assert trained == 708_614_133 - manifest["trainable_without_gradient"]["mask head parts unused by the box heads"]


@pytest.mark.parametrize("grid", [32, 64])
def test_glamm_at_full_size_becomes_a_model_to_train(full_size, grid):
    glamm = {}
    for name, info in full_size.items():
        shape = info.shape
        if "vision_tower" in name or "adapters" in name or "bbox_prediction_head" in name or "objectness" in name:
            continue
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            shape = (32007, 4096)
        elif name.endswith("pos_embed"):
            shape = (1, grid, grid, 1280)
        elif "rel_pos" in name and shape[0] == 63:
            shape = (2 * grid - 1, 80)
        glamm[name] = TensorInfo(shape, torch.bfloat16)
    prefix = "model.vision_tower.vision_tower."
    clip = {
        name.removeprefix(prefix): info
        for name, info in full_size.items()
        if name.startswith(prefix) and "adapters" not in name
    }
    sources = merge_checkpoints({"source": ("grove", glamm), "clip": ("clip", clip)})
    shapes = {source.name_in_grove: source.info.shape for source in sources}
    original, notes = describe_original(shapes, {"num_attention_heads": 32}, {}, {}, new_tokens=True)
    assert original["sam"]["global_attn_indexes"] == [7, 15, 23, 31]
    assert any("clip.num_attention_heads" in note for note in notes)
    config = config_from_original(original, torch.bfloat16, original_behaviour=False)
    plan = make_plan(sources, config, fresh=True)
    sums = totals(plan)
    assert sums["target_parameters"] == 8_108_082_577
    # 42 tensors are new (GLaMM reference): 8 + 4 adapters of 3, two layers of the box head, the objectness head.
    assert (sums["fresh_tensors"], sums["fresh_parameters"]) == (42, 403_520_017)
    resized = {t.name for t in plan.targets if t.source is not None and t.shape != t.source.info.shape}
    assert len(resized) == (2 if grid == 32 else 11)  # both vocabulary tables; SAM's nine position tables
    assert (config.vision_adapter_grid, config.freeze_vision_adapters) == (None, False)
    assert config.to_dict()["grounding_config"]["positional_encoding_dtype"] == "float32"


# Sizes


@pytest.mark.parametrize("case", ["full_a", "full_b"])
def test_the_shapes_agree_with_the_recorded_sizes(case):
    state, recorded = load_case(case)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    # Heads of CLIP and the language model cannot be seen in a shape.
    stated = {key: {"num_attention_heads": recorded[key]["num_attention_heads"]} for key in ("clip", "llm")}
    stated["llm"]["max_position_embeddings"] = recorded["llm"]["max_position_embeddings"]
    stated["clip"]["projection_dim"] = recorded["clip"]["projection_dim"]
    original, _ = describe_original(shapes, {}, {}, stated)
    assert config_from_original(original).to_dict() == config_from_original(recorded).to_dict()


def test_assumed_sizes_are_said_and_must_fit():
    state, recorded = load_case("full_a")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    _, notes = describe_original(shapes, {}, {}, {})
    assert "llm.num_attention_heads is taken as 32, as released: no configuration file states it" in notes
    _, notes = describe_original(shapes, {"num_attention_heads": 4, "rms_norm_eps": 1e-6}, {}, {})
    assert not any("llm.num_attention_heads" in note or "rms_norm_eps" in note for note in notes)
    with pytest.raises(CheckpointError, match="llm.num_attention_heads is 7, which does not divide the width 64"):
        describe_original(shapes, {"num_attention_heads": 7}, {}, {})
    with pytest.raises(CheckpointError, match="config.json says hidden_size 99"):
        describe_original(shapes, {"hidden_size": 99}, {}, {})
    with pytest.raises(CheckpointError, match="rope_scaling"):
        describe_original(shapes, {"rope_scaling": {"type": "linear"}}, {}, {})
    wrong = recorded | {"special_token_ids": recorded["special_token_ids"] | {"[DET]": 3}}
    with pytest.raises(CheckpointError, match="original_config.json gives vocab_size 458 and the ids"):
        describe_original(shapes, {}, {}, wrong)
    with pytest.raises(CheckpointError, match="'clip' = 3; expected an object"):
        describe_original(shapes, {}, {}, {"clip": 3})
    del shapes["model.embed_tokens.weight"]
    with pytest.raises(
        CheckpointError, match="has no 'model.embed_tokens.weight', so the size of the model is unknown"
    ):
        describe_original(shapes, {}, {}, {})


def test_a_checkpoint_without_the_objectness_head_gives_a_model_without_it():
    state, recorded = load_case("full_a")
    state = {name: tensor for name, tensor in state.items() if "objectness" not in name}
    original, _ = describe_original({name: tuple(t.shape) for name, t in state.items()}, {}, {}, recorded)
    config = config_from_original(original)
    assert not config.use_temporal_objectness
    infos = {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in state.items()}
    assert totals(make_plan(sources_of(infos), config))["target_tensors"] == 281


# Names and transforms


@pytest.mark.parametrize(
    ("name", "origin", "expected"),
    [
        ("vision_model.embeddings.class_embedding", "clip", "vision_model.embeddings.class_embedding"),
        ("embeddings.class_embedding", "clip", "vision_model.embeddings.class_embedding"),
        ("encoder.layers.3.mlp.fc1.bias", "clip", "vision_model.encoder.layers.3.mlp.fc1.bias"),
    ],
)
def test_both_namings_of_clip_are_known(name, origin, expected):
    assert name_in_grove(name, origin) == f"model.vision_tower.vision_tower.{expected}"


def test_other_names(full_config):
    assert (
        name_in_grove("mask_decoder.iou_token.weight", "sam") == "model.grounding_encoder.mask_decoder.iou_token.weight"
    )
    assert name_in_grove("lm_head.weight", "grove") == "lm_head.weight"
    for name in ("logit_scale", "text_model.embeddings.position_ids", "visual_projection.weight"):
        assert plan_tensor(name_in_grove(name, "clip"), (1,), full_config).reason.startswith("unused: the text half")
    with pytest.raises(
        ValueError, match="'mystery.weight' of shape \\(2, 2\\) that is neither part of GROVE nor known"
    ):
        plan_tensor(name_in_grove("mystery.weight", "clip"), (2, 2), full_config)
    with pytest.raises(ValueError, match="the config has 4 adapters there"):
        plan_tensor("model.grounding_encoder.image_encoder.adapters.4.alpha", (1,), full_config)


def test_position_tables_are_resized_as_recorded(golden_dir):
    folder = golden_dir / "components"
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    assert torch.equal(resize_position_embedding(inputs["pos_embed_64"], 32), outputs["pos_embed_32"])
    for side in "hw":
        resized = resize_relative_positions(inputs[f"rel_pos_{side}_127"], 63)
        torch.testing.assert_close(resized, outputs[f"rel_pos_{side}_63"], rtol=0, atol=1e-6)


def test_resizing_keeps_the_ends_and_the_precision():
    positions = torch.randn(127, 80, generator=torch.Generator().manual_seed(1))
    resized = resize_relative_positions(positions, 63)
    # Aligned corners: 127 -> 63 keeps the ends and the middle, which is the distance 0.
    torch.testing.assert_close(resized[[0, 31, 62]], positions[[0, 63, 126]])
    assert resize_relative_positions(positions.bfloat16(), 63).dtype == torch.bfloat16


def test_new_tokens_get_the_mean_row():
    table = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    extended = extend_vocabulary(table, 10)
    assert torch.equal(extended[:7], table)
    torch.testing.assert_close(extended[7:], table.mean(0).expand(3, -1))


def test_fresh_tensors_depend_on_the_seed_and_the_name_only(full_config):
    _, recorded = load_case("full_a")
    config = config_from_original(recorded)
    name = "model.grounding_encoder.adapters.1.conv3d.weight"
    weight = fresh_tensor(name, config, seed=3)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    assert torch.equal(weight, fresh_tensor(name, config, seed=3))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(weight, fresh_tensor(name, config, seed=4))
    assert not torch.equal(weight, fresh_tensor(name.replace(".1.", ".3."), config, seed=3))
    bound = 1 / (32 * 27) ** 0.5  # of PyTorch's own initialisation of a convolution
    assert 0.9 * bound < weight.abs().max() <= bound
    assert fresh_tensor(name.replace("conv3d.weight", "alpha"), config, seed=3).tolist() == [0.0]
    assert not fresh_tensor(name.replace("weight", "bias"), config, seed=3).any()
    head = fresh_tensor("model.box_decoder.box_head.0.weight", config, seed=3)
    assert head.shape == (32, 32) and 0.01 < head.std() < 0.03


# What is refused


def failing(tensors: dict[str, TensorInfo], config: GroveConfig, **options: bool) -> str:
    with pytest.raises(CheckpointError) as caught:
        make_plan(sources_of(tensors), config, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unexplained_tensor_is_refused(full_size, full_config):
    extra = full_size | {name: TensorInfo((3,), torch.float32) for name in ("model.extra.weight", "model.extra.bias")}
    message = failing(extra, full_config)
    assert (
        "source: The checkpoint has a tensor 'model.extra.weight' of shape (3,)" in message
        and "(and 1 more)" in message
    )


def test_a_missing_tensor_is_refused_with_the_remedy(full_size, full_config):
    without = {name: info for name, info in full_size.items() if "input_layernorm" not in name}
    message = failing(without, full_config)
    assert "No checkpoint supplies 'model.language_model.layers.0.input_layernorm.weight' of shape (4096,)" in message
    assert "(and 31 more)" in message and "--base" in message
    without = {name: info for name, info in full_size.items() if "vision_tower" not in name}
    assert "openai/clip-vit-large-patch14-336 with --clip" in failing(without, full_config)
    without = {name: info for name, info in full_size.items() if "adapters" not in name}
    assert "--init-from-glamm" in failing(without, full_config)


def test_a_wrong_shape_is_refused(full_size, full_config):
    wrong = full_size | {"model.mm_projector.0.weight": TensorInfo((4096, 1023), torch.bfloat16)}
    assert (
        "source: 'model.mm_projector.0.weight' has shape (4096, 1023); expected (4096, 1024) for "
        "'model.multi_modal_projector.linear_1.weight'." in failing(wrong, full_config)
    )
    wrong = full_size | {
        "model.grounding_encoder.image_encoder.pos_embed": TensorInfo((1, 64, 64, 1279), torch.bfloat16)
    }
    assert "((1, 32, 32, 1279) after resizing); expected (1, 32, 32, 1280)" in failing(wrong, full_config)
    wrong = full_size | {"model.mm_projector.0.weight": TensorInfo((4096, 1024), torch.int64)}
    assert "has torch.int64; expected floating point" in failing(wrong, full_config)


def test_a_tensor_that_the_model_has_no_place_for_is_refused(full_size, full_config):
    extra = full_size | {"model.layers.32.input_layernorm.weight": TensorInfo((4096,), torch.bfloat16)}
    assert "'model.layers.32.input_layernorm.weight' would become" in failing(extra, full_config)


def test_two_names_for_one_tensor_are_refused(full_config):
    name = "pre_layrnorm.bias"
    clip = {name: TensorInfo((1024,), torch.float32), f"vision_model.{name}": TensorInfo((1024,), torch.float32)}
    with pytest.raises(CheckpointError, match="clip has both 'pre_layrnorm.bias' and 'vision_model.pre_layrnorm.bias'"):
        make_plan(merge_checkpoints({"clip": ("clip", clip)}), full_config)


def test_the_first_of_several_checkpoints_is_used(full_size, full_config):
    sources = merge_checkpoints({"source": ("grove", full_size), "base": ("grove", full_size)})
    plan = make_plan(sources, full_config)
    assert totals(plan)["superseded_tensors"] == 1369
    assert {target.source.checkpoint for target in plan.targets if target.source} == {"source"}
