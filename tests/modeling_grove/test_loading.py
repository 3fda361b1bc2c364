"""Saving, loading, placing, casting, quantising, adapting and checkpointing the tiny model."""

import copy
import types

import pytest
import torch
import transformers.integrations.bitsandbytes as bitsandbytes_integration
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForImageTextToText, BitsAndBytesConfig

from modeling_grove import GroveForConditionalGeneration, GroveModel
from tests.pretend_gpus import PretendGpus, held, pretend_on
from tests.tiny import randomize, tiny_config, tiny_inputs, tiny_model, tiny_pixels

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PARTS = [
    "vision_tower",
    "multi_modal_projector",
    "language_model",
    "grounding_encoder",
    "phrase_projector",
    "box_decoder",
]


@pytest.fixture(scope="module")
def model() -> GroveForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(model) -> dict[str, Tensor]:
    return tiny_inputs(model.config)


def assert_same_outputs(loaded, model, inputs, **tolerance):
    with torch.no_grad():
        outputs, expected = loaded(**inputs), model(**inputs)
    for name in ("loss", "logits", "pred_boxes", "objectness_logits"):
        torch.testing.assert_close(outputs[name].float(), expected[name], **(tolerance or CLOSE))


# --- save and load ---


@pytest.mark.parametrize("auto_class", [GroveForConditionalGeneration, AutoModel, AutoModelForImageTextToText])
def test_save_and_load_give_the_same_model(auto_class, model, checkpoint, inputs):
    loaded, info = auto_class.from_pretrained(checkpoint, output_loading_info=True)
    assert type(loaded) is GroveForConditionalGeneration and not loaded.training
    assert {name: list(keys) for name, keys in info.items() if keys} == {}
    expected = model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert "model.box_decoder.positional_embedding" in expected  # drawn at random: must be saved
    assert_same_outputs(loaded, model, inputs, rtol=0, atol=0)
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id == 2


def test_shards_and_a_second_round_trip(model, inputs, tmp_path):
    model.save_pretrained(tmp_path / "first", max_shard_size="200KB")
    assert len(list((tmp_path / "first").glob("*.safetensors"))) > 2
    GroveForConditionalGeneration.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert_same_outputs(GroveForConditionalGeneration.from_pretrained(tmp_path / "second"), model, inputs)


def test_the_base_model_loads_from_the_full_checkpoint(model, checkpoint, inputs):
    base = GroveModel.from_pretrained(checkpoint)
    arguments = {name: value for name, value in inputs.items() if "labels" not in name}
    with torch.no_grad():
        outputs, expected = base(**arguments), model(**arguments)
    torch.testing.assert_close(outputs.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(outputs.pred_boxes, expected.pred_boxes)


def test_tied_embeddings(tmp_path):
    config = tiny_config(tie_word_embeddings=True, text_config={"tie_word_embeddings": True})
    tied = GroveForConditionalGeneration(config).eval()
    randomize(tied)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    tied.save_pretrained(tmp_path)
    loaded = GroveForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert_same_outputs(loaded, tied, tiny_inputs(config))


def test_the_vocabulary_can_grow_over_the_placeholder(inputs):
    """The placeholder of a video token (id 128) becomes a row of the table, which must not change anything."""
    model = tiny_model()
    expected = model(**inputs)
    model.resize_token_embeddings(136)
    outputs = model(**inputs)
    assert outputs.logits.shape[-1] == 136 and model.config.text_config.vocab_size == 136
    torch.testing.assert_close(outputs.logits[..., :128], expected.logits, **CLOSE)
    torch.testing.assert_close(outputs.pred_boxes, expected.pred_boxes, **CLOSE)


def test_fresh_weights_have_the_declared_spread():
    """SAM's own config initialises with a spread of 1e-10: a model from scratch would be all zeros."""
    torch.manual_seed(0)
    model = GroveForConditionalGeneration(tiny_config(vision_config={"initializer_factor": 1.0}))
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        starts_at_zero = name.endswith(("bias", "alpha")) or "rel_pos" in name or "pos_embed" in name
        assert starts_at_zero or parameter.std() > 1e-3 or "norm" in name, name
    assert 0.7 < model.model.box_decoder.positional_embedding.std() < 1.3
    assert model.model.language_model.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.1)


# --- dtypes ---


def test_loading_in_bfloat16(model, checkpoint, inputs):
    loaded = AutoModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        outputs = loaded(**inputs)
    # Results are finer than the weights, and the frequencies of the positional encoding stay as trained.
    assert outputs.pred_boxes.dtype == torch.float32 and outputs.loss.isfinite()
    frequencies = loaded.model.box_decoder.positional_embedding
    torch.testing.assert_close(frequencies, model.model.box_decoder.positional_embedding, rtol=0, atol=0)
    assert_same_outputs(loaded, model, inputs, rtol=0.05, atol=0.12)
    loaded.train()(**inputs).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loaded.parameters())


def test_bfloat16_generates_and_grounds(checkpoint):
    loaded = AutoModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    pixels = tiny_pixels(loaded.config, 2, num_frames=6)
    ids = tiny_inputs(loaded.config, labels=False)["input_ids"]
    pixels = {name: value.bfloat16() for name, value in pixels.items()}
    grounded = loaded.ground(ids, **pixels)
    assert grounded.pred_boxes.isfinite().all() and grounded.pred_boxes.dtype == torch.float32
    coarse = grounded.pred_boxes.bfloat16().float()
    assert (grounded.pred_boxes != coarse).any()


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_autocast(model, inputs, grad):
    """Mixed precision as the Trainer runs it: float32 weights, bfloat16 products."""
    model = copy.deepcopy(model)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        outputs = model(**inputs)
    torch.testing.assert_close(outputs.loss, model(**inputs).loss, rtol=0.03, atol=0.03)
    if grad:
        outputs.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# --- devices ---


@pytest.mark.parametrize("device_map", ["auto", "cpu", {f"model.{part}": "cpu" for part in PARTS} | {"lm_head": "cpu"}])
def test_device_maps(device_map, model, checkpoint, inputs):
    loaded = AutoModel.from_pretrained(checkpoint, device_map=device_map)
    assert_same_outputs(loaded, model, inputs)


@pytest.mark.parametrize(
    "offloaded", [["vision_tower", "multi_modal_projector"], ["grounding_encoder", "box_decoder"], PARTS]
)
def test_parts_may_live_on_disk(offloaded, model, checkpoint, inputs, tmp_path):
    """What `device_map="auto"` does when memory is short: weights come in when their module runs, and only then."""
    device_map = {f"model.{part}": "disk" if part in offloaded else "cpu" for part in PARTS} | {"lm_head": "cpu"}
    loaded = AutoModel.from_pretrained(checkpoint, device_map=device_map, offload_folder=tmp_path)
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert_same_outputs(loaded, model, inputs)
    pixels = tiny_pixels(model.config, 2, num_frames=7)
    outputs, expected = (m.ground(inputs["input_ids"], **pixels) for m in (loaded, model))
    torch.testing.assert_close(outputs.pred_boxes, expected.pred_boxes, **CLOSE)


@pytest.mark.parametrize("adapters_open", [False, True], ids=["frame-wise", "mixing frames"])
@pytest.mark.parametrize("windows", ["covering", "sliding"])
@pytest.mark.parametrize("second", [[], ["multi_modal_projector"], ["grounding_encoder", "box_decoder"]], ids=len)
def test_parts_may_live_on_several_gpus(second, windows, adapters_open):
    """The parts named are on another GPU than the inputs; results stay with the parts, masks with the inputs."""
    model = tiny_model(adapters_open=adapters_open)
    inputs = tiny_inputs(model.config, labels=False)
    inputs |= tiny_pixels(model.config, 2, num_frames=7)
    inputs["frame_mask"] = torch.arange(7) < torch.tensor([[7], [3]])
    expected = model.ground(**inputs, windows=windows)
    for name, part in [*model.model.named_children(), ("lm_head", model.lm_head)]:
        pretend_on(part, "cuda:1" if name in second else "cuda:0")
    # Called by itself too, not only by its parent.
    pretend_on(model.model.language_model.embed_tokens, "cuda:0")
    with PretendGpus():
        moved = {name: value.to("cuda:0") for name, value in inputs.items()}
        outputs = model.ground(**moved, windows=windows)
        assert outputs.phrase_mask.device == outputs.frame_mask.device == torch.device("cuda:0")
        # Pixels of a long video may stay in main memory.
        pixels = {name: value for name, value in inputs.items() if name.endswith("pixel_values_videos")}
        from_memory = model.ground(**{**moved, **pixels}, windows=windows)
    for name in ("pred_boxes", "objectness_logits", "phrase_mask", "frame_mask"):
        torch.testing.assert_close(held(outputs[name]), expected[name], **CLOSE)
        torch.testing.assert_close(held(from_memory[name]), expected[name], **CLOSE)


def test_no_module_that_must_stay_whole_is_unknown(model):
    """`_no_split_modules` goes by class name: a renamed class would silently be split over devices."""
    names = {type(module).__name__ for module in model.modules()}
    assert set(model._no_split_modules) <= names


# --- attention ---


@pytest.mark.parametrize("part", ["text_config", "vision_config", "grounding_config"])
def test_attention_is_selected_for_each_part(part, model, checkpoint, inputs):
    loaded = AutoModel.from_pretrained(checkpoint, attn_implementation={part: "eager"})
    chosen = {
        name: getattr(loaded.config, name)._attn_implementation
        for name in ("text_config", "vision_config", "grounding_config")
    }
    assert chosen == {name: "eager" if name == part else "sdpa" for name in chosen}
    assert_same_outputs(loaded, model, inputs)


def test_eager_attention_everywhere(model, checkpoint, inputs):
    loaded = AutoModel.from_pretrained(checkpoint, attn_implementation="eager")
    assert_same_outputs(loaded, model, inputs)
    outputs = loaded(**inputs, output_attentions=True)
    length = inputs["input_ids"].shape[1]
    assert [attention.shape for attention in outputs.attentions] == [(2, 4, length, length)] * 2
    assert loaded.model.box_decoder.transformer.config._attn_implementation == "eager"


def test_flash_attention_is_refused_where_it_cannot_work(checkpoint):
    """SAM adds a bias to its scores, which FlashAttention does not know; the language model needs the package."""
    with pytest.raises(ValueError, match="does not support Flash Attention"):
        AutoModel.from_pretrained(checkpoint, attn_implementation={"grounding_config": "flash_attention_2"})


# --- quantisation ---

KEPT = [f"model.{part}" for part in PARTS if part != "language_model"] + ["lm_head"]


def linears_that_bitsandbytes_replaces(config, skip, monkeypatch) -> set[str]:
    """Runs transformers' own replacement of layers, with a stand-in for the layer class of the package."""

    class Linear4bit(nn.Linear):
        def __init__(self, in_features, out_features, bias, *args, **kwargs):
            super().__init__(in_features, out_features, bias)

    stand_in = types.SimpleNamespace(nn=types.SimpleNamespace(Linear4bit=Linear4bit))
    monkeypatch.setattr(bitsandbytes_integration, "bnb", stand_in, raising=False)
    model = GroveForConditionalGeneration(config)
    quantization = types.SimpleNamespace(
        quantization_method=lambda: "nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=False,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_quant_storage=torch.uint8,
    )
    bitsandbytes_integration.replace_with_bnb_linear(model, skip, quantization)
    return {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def test_quantisers_find_the_linear_layers_of_the_language_model(monkeypatch):
    """bitsandbytes' loader replaces what is exactly `nn.Linear`: a subclass would stay at full size without a word."""
    config = tiny_config()
    linears = {
        f"model.language_model.layers.{index}.{name}"
        for index in range(2)
        for name in (
            *(f"self_attn.{letter}_proj" for letter in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    }
    # `from_pretrained` writes this before it builds the model.
    config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    assert linears_that_bitsandbytes_replaces(config, KEPT, monkeypatch) == linears
    everywhere = linears_that_bitsandbytes_replaces(config, ["lm_head"], monkeypatch)
    assert linears < everywhere and any("grounding_encoder" in name for name in everywhere)


def test_a_config_with_quantisation_builds_plain_layers():
    config = tiny_config()
    config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    quantised, plain = GroveForConditionalGeneration(config), GroveForConditionalGeneration(tiny_config())
    assert {type(m) for m in quantised.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert list(quantised.state_dict()) == list(plain.state_dict())


# --- LoRA ---


def test_lora_trains_and_merges(inputs):
    peft = pytest.importorskip("peft")
    model = tiny_model()
    with torch.no_grad():
        before = model(**inputs)
    lora = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=4,
            target_modules=r".*language_model.*\.(q_proj|v_proj)",
            modules_to_save=["box_decoder", "phrase_projector"],
        ),
    )
    wrapped = [name for name, module in lora.named_modules() if isinstance(module, peft.tuners.lora.Linear)]
    assert len(wrapped) == 4 and all("language_model" in name for name in wrapped)
    with torch.no_grad():
        torch.testing.assert_close(lora(**inputs).loss, before.loss, **CLOSE)
    optimizer = torch.optim.SGD([p for p in lora.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):  # the second step moves lora_A too
        optimizer.zero_grad()
        lora(**inputs).loss.backward()
        trained = {name: p for name, p in lora.named_parameters() if p.requires_grad}
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
        optimizer.step()
    assert any("lora_A" in name for name in trained) and any("box_head" in name for name in trained)
    with torch.no_grad():
        expected = lora(**inputs)
        assert expected.loss < before.loss - 0.02
        merged = lora.merge_and_unload()
        assert type(merged) is GroveForConditionalGeneration
        outputs = merged(**inputs)
    for name in ("loss", "logits", "pred_boxes"):
        torch.testing.assert_close(outputs[name], expected[name], rtol=1e-4, atol=1e-4)


def test_lora_everywhere_keeps_the_window_padding_right(inputs):
    """Layers wrapped by LoRA still project SAM's zero padding to their bias."""
    peft = pytest.importorskip("peft")
    model = tiny_model()
    expected = model(**inputs)
    lora = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules="all-linear"))
    assert any("grounding_encoder.layers.0.attn.qkv.lora_A" in name for name, _ in lora.named_parameters())
    torch.testing.assert_close(lora(**inputs).loss, expected.loss, **CLOSE)


# --- activation checkpointing ---


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_gradient(reentrant, inputs):
    plain, checkpointed = tiny_model().train(), tiny_model().train()
    checkpointed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        checkpointed.enable_input_require_grads()
    assert checkpointed.is_gradient_checkpointing
    runs: dict[str, int] = {}

    def count(name):
        return lambda *_: runs.update({name: runs.get(name, 0) + 1})

    layers = {
        "text": checkpointed.model.language_model.layers[0].mlp,
        "vision": checkpointed.model.vision_tower.layers[0].mlp,
        "grounding": checkpointed.model.grounding_encoder.layers[0].mlp,
    }
    for name, module in layers.items():
        module.register_forward_pre_hook(count(name))
    losses = [model(**inputs, use_cache=False).loss for model in (plain, checkpointed)]
    torch.testing.assert_close(losses[1], losses[0])
    assert runs == {"text": 1, "vision": 1, "grounding": 1}
    for loss in losses:
        loss.backward()
    assert runs == {"text": 2, "vision": 2, "grounding": 2}  # each block was run again on the way back
    expected = dict(plain.named_parameters())
    for name, parameter in checkpointed.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6, msg=name)
    checkpointed.gradient_checkpointing_disable()
    assert not checkpointed.is_gradient_checkpointing


def test_evaluation_does_not_checkpoint(inputs):
    model = tiny_model()
    model.gradient_checkpointing_enable()
    model.eval()
    with torch.no_grad():
        assert model(**inputs).past_key_values is not None
    torch.testing.assert_close(model(**inputs).loss, tiny_model()(**inputs).loss)
