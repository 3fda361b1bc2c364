"""Both video encoders: SAM's windows without their padding, adapters that are open, shut and opened again, and compilation."""

import copy
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionEncoder, SamVisionLayer

from modeling_grove import grounding_grove, pointwise_grove, vision_grove
from modeling_grove.adapter_grove import SpatioTemporalAdapter, closed_adapters
from modeling_grove.grounding_grove import GroveGroundingEncoder, GroveGroundingLayer
from modeling_grove.vision_grove import GroveMultiModalProjector, GroveVisionTower
from tests.tiny import randomize, tiny_config, tiny_model, tiny_pixels

EXACT = {"rtol": 0, "atol": 0}
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def encoder_and_pixels(name: str, adapters_open: bool = True, **overrides) -> tuple[nn.Module, Tensor]:
    """`vision_tower` or `grounding_encoder` of a tiny model, and two windows for it."""
    model = tiny_model(adapters_open=adapters_open, **overrides)
    stream = "pixel_values_videos" if name == "vision_tower" else "grounding_pixel_values_videos"
    return getattr(model.model, name), tiny_pixels(model.config, 2)[stream]


# --- SAM's attention ---


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("image_size", "window_size", "options"),
    [
        (96, 0, {}),  # global
        (96, 3, {}),  # whole windows
        (96, 4, {}),  # two windows and a rest of two, along both sides
        (80, 4, {}),  # a rest of one
        (48, 4, {}),  # a grid smaller than the window
        (96, 5, {"qkv_bias": False}),
        (96, 4, {"use_rel_pos": False}),
        (96, 0, {"use_rel_pos": False, "qkv_bias": False}),
    ],
)
def test_layers_equal_transformers_with_the_padding(image_size, window_size, options, attention, grad):
    config = tiny_config(grounding_config={"image_size": image_size, **options}).grounding_config
    config._attn_implementation = attention
    ours = GroveGroundingLayer(config, window_size).eval()
    randomize(ours)
    pointwise_grove.use_pointwise_linear(ours)
    theirs = SamVisionLayer(config, window_size).eval()
    theirs.attn = SamVisionAttention(config, window_size)
    theirs.load_state_dict(ours.state_dict())
    hidden_states = torch.randn(3, config.grid_size, config.grid_size, config.hidden_size)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(ours(hidden_states), theirs(hidden_states), **CLOSE)
    if grad:
        for layer in (ours, theirs):
            layer(hidden_states).square().mean().backward()
        expected = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("buffer_bytes", [1, 4 * 36 * 36, 3 * 4 * 36 * 36, 5 * 4 * 4 * 36 * 36])
def test_attention_in_parts_of_any_size(buffer_bytes, monkeypatch):
    """The CPU path splits heads, then frames; whatever fits the buffer, the features are the same."""
    encoder, pixels = encoder_and_pixels("grounding_encoder")
    tower, frames = encoder_and_pixels("vision_tower")
    expected, expected_vision = (
        encoder(pixels)[0].detach(),
        tower(frames)[0].detach(),
    )  # with gradients: not the CPU path
    for module in (grounding_grove, pointwise_grove):
        monkeypatch.setattr(module, "CPU_BUFFER_BYTES", buffer_bytes)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels)[0], expected, **CLOSE)
        torch.testing.assert_close(tower(frames)[0], expected_vision, **CLOSE)


@pytest.mark.parametrize("name", ["vision_tower", "grounding_encoder"])
def test_attention_implementations_agree(name):
    encoder, pixels = encoder_and_pixels(name)
    assert encoder.config._attn_implementation == "sdpa"
    expected = encoder(pixels)[0].detach()
    encoder.set_attn_implementation("eager")
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels)[0], expected, **CLOSE)


# --- the encoders without adapters are CLIP and SAM ---


def test_a_vision_tower_with_shut_adapters_is_clip():
    config = tiny_config()
    tower = GroveVisionTower(config).eval()
    randomize(tower, adapters_open=False)
    clip = CLIPVisionModel(config.vision_config).eval()
    weights = {name: value for name, value in tower.state_dict().items() if not name.startswith("adapters")}
    weights = {name.replace("layers.", "encoder.layers.", 1): value for name, value in weights.items()}
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all("layers.4." in name or "post_layernorm" in name for name in missing)  # what is not built
    frames = tiny_pixels(config, 2)["pixel_values_videos"]
    with torch.no_grad():
        expected = clip(frames.flatten(0, 1), output_hidden_states=True).hidden_states
        features, hidden_states = tower(frames, output_hidden_states=True)
    assert len(hidden_states) == 5
    for ours, theirs in zip(hidden_states, expected, strict=False):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(features.flatten(0, 1), expected[-2][:, 1:], **CLOSE)


def test_a_grounding_encoder_without_adapters_is_sam():
    config = tiny_config(grounding_config={"use_adapters": False}).grounding_config
    encoder = GroveGroundingEncoder(config).eval()
    assert len(encoder.adapters) == 0 and encoder.is_frame_wise()
    randomize(encoder)
    sam = SamVisionEncoder(config).eval()
    sam.load_state_dict(encoder.state_dict())
    frames = tiny_pixels(tiny_config(), 2)["grounding_pixel_values_videos"]
    with torch.no_grad():
        expected = sam(frames.flatten(0, 1))
        features, hidden_states = encoder(frames, output_hidden_states=True)
    assert features.shape == (2, 4, 32, 6, 6) and len(hidden_states) == 3
    torch.testing.assert_close(features.flatten(0, 1), expected.last_hidden_state, **CLOSE)


def test_pooling_means_overlapping_bins_of_the_true_grid():
    """Frames, rows, columns: 4 x 4 x 4 -> 2 x 2 x 3, columns in bins of two that share one."""
    projector = GroveMultiModalProjector(tiny_config())
    features = torch.randn(1, 4, 16, 32)
    pooled = projector.pool_features(features)[0]
    cube = features[0].view(4, 4, 4, 32)
    columns = [slice(0, 2), slice(1, 3), slice(2, 4)]
    expected = [
        cube[2 * t : 2 * t + 2, 2 * row : 2 * row + 2, column].mean((0, 1, 2))
        for t, row, column in product(range(2), range(2), columns)
    ]
    torch.testing.assert_close(pooled, torch.stack(expected))


# --- adapters ---


def adapter(alpha: float) -> SpatioTemporalAdapter:
    module = SpatioTemporalAdapter(6)
    randomize(module)
    nn.init.constant_(module.alpha, alpha)
    return module


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_the_adapter_is_its_formula(grad):
    module, features = adapter(-0.7), torch.randn(2, 4, 5, 3, 6)
    with torch.set_grad_enabled(grad):
        out = module(features)
    update = nn.functional.conv3d(
        features.permute(0, 4, 1, 2, 3).contiguous(), module.conv3d.weight, module.conv3d.bias, padding=1
    )
    expected = features + torch.tanh(torch.tensor(-0.7)) * update.clamp(min=0).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(out, expected, **CLOSE)


def test_a_new_adapter_is_the_identity_and_a_new_model_skips_it():
    features = torch.randn(1, 4, 3, 3, 6)
    torch.testing.assert_close(SpatioTemporalAdapter(6)(features), features, **EXACT)
    encoder = GroveGroundingEncoder(tiny_config().grounding_config)
    with torch.no_grad():
        assert closed_adapters(encoder.adapters) == {"1", "2"}
    assert closed_adapters(encoder.adapters) == set(), "their gradients are wanted"
    assert closed_adapters(encoder.requires_grad_(False).adapters) == {"1", "2"}
    assert all(module.conv3d.weight.std() > 0.01 for module in encoder.adapters.values())


@pytest.mark.parametrize("name", ["vision_tower", "grounding_encoder"])
def test_skipping_a_shut_adapter_equals_computing_it(name, monkeypatch):
    encoder, pixels = encoder_and_pixels(name, adapters_open=False)
    calls = []
    for module in encoder.adapters.values():
        module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        skipped = encoder(pixels)[0]
        assert calls == []
        for module in (vision_grove, grounding_grove):
            monkeypatch.setattr(module, "closed_adapters", lambda adapters: set())
        computed = encoder(pixels)[0]
    assert len(calls) == 2
    torch.testing.assert_close(skipped, computed, **EXACT)


@pytest.mark.parametrize("name", ["vision_tower", "grounding_encoder"])
def test_no_graph_before_the_first_part_that_learns(name):
    encoder, pixels = encoder_and_pixels(name)
    encoder.requires_grad_(True)
    recorded = {}
    for index, layer in enumerate(encoder.layers):
        layer.register_forward_hook(lambda module, args, output, i=index: recorded.update({i: output.requires_grad}))
    encoder(pixels)[0].sum().backward()
    assert all(recorded.values())
    gradients = {key: parameter.grad for key, parameter in encoder.adapters.named_parameters()}
    first = min(map(int, encoder.adapters))

    encoder.zero_grad()
    encoder.requires_grad_(False).adapters.requires_grad_(True)
    encoder(pixels)[0].sum().backward()

    assert recorded == {index: index > first for index in recorded}
    for key, parameter in encoder.adapters.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], **CLOSE)


def test_only_the_shut_adapters_are_skipped():
    encoder, pixels = encoder_and_pixels("vision_tower")
    nn.init.zeros_(encoder.adapters["0"].alpha)
    calls = []
    for name, module in encoder.adapters.items():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        encoder(pixels)
    assert calls == ["3"] and not encoder.is_frame_wise()
    encoder(pixels)  # in training all of them run, or the shut one could never open
    assert calls == ["3", "0", "3"]


def opened_by_optimizer(alpha: nn.Parameter) -> None:
    alpha.grad = torch.full_like(alpha, -0.5)
    torch.optim.SGD([alpha], lr=1.0).step()


WAYS_TO_OPEN = {
    "in place": lambda module: module.alpha.requires_grad_(False).fill_(0.5).requires_grad_(True),
    "through .data": lambda module: module.alpha.data.fill_(0.5),
    "through numpy": lambda module: module.alpha.detach().numpy().fill(0.5),
    "optimizer": lambda module: opened_by_optimizer(module.alpha),
    "new parameter": lambda module: setattr(module, "alpha", nn.Parameter(torch.full((1,), 0.5))),
    "new storage": lambda module: setattr(module.alpha, "data", torch.full((1,), 0.5)),
    "load_state_dict": lambda module: module.load_state_dict({"alpha": torch.full((1,), 0.5)}, strict=False),
    "assigned": lambda module: module.load_state_dict({"alpha": torch.full((1,), 0.5)}, strict=False, assign=True),
    "other dtype and back": lambda module: (module.double(), module.alpha.data.fill_(0.5), module.float()),
}


@pytest.mark.parametrize("inference_mode", [False, True], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("way", WAYS_TO_OPEN)
@pytest.mark.parametrize("name", ["vision_tower", "grounding_encoder"])
def test_an_adapter_that_opens_is_noticed(name, way, inference_mode):
    """No answer about the gates may outlive the weights that it was given for."""
    encoder, pixels = encoder_and_pixels(name, adapters_open=False)
    no_gradients = torch.inference_mode if inference_mode else torch.no_grad
    with no_gradients():
        shut = encoder(pixels)[0].clone()
        assert encoder.is_frame_wise()
    opened = next(iter(encoder.adapters.values()))
    WAYS_TO_OPEN[way](opened)
    expected = encoder(pixels)[0].detach()
    with no_gradients():
        assert not encoder.is_frame_wise()
        features = encoder(pixels)[0].clone()
    torch.testing.assert_close(features, expected, **CLOSE)
    assert (features - shut).abs().max() > 1e-3
    opened.alpha.data.zero_()
    with no_gradients():
        torch.testing.assert_close(encoder(pixels)[0].clone(), shut, **EXACT)


def test_an_adapter_built_and_opened_under_inference_mode_is_noticed():
    with torch.inference_mode():
        encoder, pixels = encoder_and_pixels("grounding_encoder", adapters_open=False)
        shut = encoder(pixels)[0]
        encoder.adapters["2"].alpha.fill_(0.5)
        assert closed_adapters(encoder.adapters) == {"1"}
        assert not torch.equal(encoder(pixels)[0], shut)


def test_the_adapter_grid_can_fold_the_patches():
    """The original sees 24 x 24 patches as 16 x 36; folded and true grid are different models, shut adapters make them one."""
    features = {}
    for grid in (None, (4, 4), (2, 8)):
        for is_open in (True, False):
            tower, frames = encoder_and_pixels("vision_tower", is_open, vision_adapter_grid=grid)
            with torch.no_grad():
                features[grid, is_open] = tower(frames)[0]
    torch.testing.assert_close(features[None, True], features[(4, 4), True], **EXACT)
    torch.testing.assert_close(features[None, False], features[(2, 8), False], **EXACT)
    assert (features[None, True] - features[(2, 8), True]).abs().max() > 0.05


@pytest.mark.parametrize("name", ["vision_tower", "grounding_encoder"])
def test_only_open_adapters_mix_the_frames_of_a_window(name):
    for is_open in (True, False):
        encoder, pixels = encoder_and_pixels(name, is_open)
        changed = pixels.clone()
        changed[0, 1] += 1.0
        with torch.no_grad():
            difference = (encoder(pixels)[0] - encoder(changed)[0]).abs().flatten(2).amax(-1)  # (B, T)
        assert difference[0, 1] > 1e-2
        assert difference[1].max() == 0  # never between windows
        assert (difference[0, [0, 2]] > 1e-4).all() if is_open else difference[0, [0, 2, 3]].max() == 0


# --- compilation ---


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["vision_tower", "grounding_encoder"])
def test_compiled_encoders_agree(name, backend):
    encoder, pixels = encoder_and_pixels(name)
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend=backend, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels)[0], encoder(pixels)[0], rtol=0, atol=1e-4)


def test_a_compiled_encoder_notices_an_adapter_that_opens():
    encoder, pixels = encoder_and_pixels("grounding_encoder", adapters_open=False)
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels)[0], encoder(pixels)[0], **CLOSE)
        for value in (0.5, -0.5):
            encoder.adapters["1"].alpha.fill_(value)
            torch.testing.assert_close(compiled(pixels)[0], encoder(pixels)[0], **CLOSE)


def test_copies_are_independent():
    encoder, pixels = encoder_and_pixels("grounding_encoder", adapters_open=False)
    with torch.no_grad():
        expected = encoder(pixels)[0]
        twin = copy.deepcopy(encoder)
        twin.adapters["1"].alpha.fill_(0.5)
        assert not torch.equal(twin(pixels)[0], expected)
        torch.testing.assert_close(encoder(pixels)[0], expected, **EXACT)
