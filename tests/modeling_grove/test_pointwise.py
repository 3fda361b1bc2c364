"""PointwiseLinear is `nn.Linear`: the same numbers on every path, the same type, names and adapters."""

import pytest
import torch
from torch import nn

from modeling_grove import pointwise_grove
from modeling_grove.pointwise_grove import PointwiseLinear, QuickGELU, map_rows, use_pointwise_linear
from tests.tiny import tiny_inputs, tiny_model


def pair(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[PointwiseLinear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias, dtype=dtype)
    fast = PointwiseLinear(24, 40, bias=bias, dtype=dtype)
    fast.load_state_dict(plain.state_dict())
    return fast, plain


@pytest.fixture
def convolutions(monkeypatch) -> list[torch.Size]:
    """The shapes that took the path through a convolution."""
    shapes: list[torch.Size] = []
    conv2d = torch.nn.functional.conv2d

    def record(image, *args, **kwargs):
        shapes.append(image.shape)
        return conv2d(image, *args, **kwargs)

    monkeypatch.setattr(pointwise_grove.F, "conv2d", record)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "is_fast"),
    [
        *[((24,), False), ((0, 24), False), ((3, 0, 24), False), ((1, 1, 1, 24), False), ((15, 24), False)],
        *[((16, 24), True), ((300, 24), True), ((2, 50, 24), True), ((2, 3, 5, 24), True)],
    ],
)
def test_inference_equals_linear(shape, is_fast, bias, convolutions):
    fast, plain = pair(bias)
    features = torch.randn(shape)
    with torch.inference_mode():
        out = fast(features)
        torch.testing.assert_close(out, plain(features), rtol=1e-5, atol=1e-6)
    assert out.shape == (*shape[:-1], 40) and out.is_contiguous()
    assert bool(convolutions) == (is_fast and torch.backends.mkldnn.is_available())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(24, 50).t(),
        lambda: torch.randn(50, 4, 24).transpose(0, 1),
        lambda: torch.randn(2, 24, 5, 5).permute(0, 2, 3, 1),
        lambda: torch.randn(50, 48)[:, ::2],
        lambda: torch.randn(1, 1, 24).expand(4, 8, 24),
    ],
)
def test_strided_inputs(make):
    fast, plain = pair()
    features = make()
    before = features.clone()
    with torch.no_grad():
        torch.testing.assert_close(fast(features), plain(features), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features, before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_linear_itself(dtype, convolutions):
    fast, plain = pair(dtype=dtype)
    features = torch.randn(32, 24, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(fast(features), plain(features))
    assert convolutions == []


def test_training_is_linear_itself(convolutions):
    fast, plain = pair()
    features = torch.randn(32, 24)
    for layer in (fast, plain):
        layer(features).square().sum().backward()
    assert torch.equal(fast.weight.grad, plain.weight.grad)
    assert torch.equal(fast.bias.grad, plain.bias.grad)
    assert convolutions == []


def test_wrong_width_is_refused_on_both_paths():
    fast, _ = pair()
    for rows in (2, 64):
        with torch.no_grad(), pytest.raises(RuntimeError):
            fast(torch.randn(rows, 25))


def test_autocast_computes_in_its_dtype():
    fast, plain = pair()
    features = torch.randn(64, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = fast(features)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out, plain(features), rtol=2e-2, atol=2e-2)


def test_plain_layers_are_converted_in_place_and_nothing_else():
    class Special(nn.Linear):
        pass

    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2)), Special(2, 2))
    weights, names = [p.data_ptr() for p in module.parameters()], list(module.state_dict())
    use_pointwise_linear(module)
    assert [type(layer) for layer in module.modules() if isinstance(layer, nn.Linear)] == [
        PointwiseLinear,
        PointwiseLinear,
        Special,
    ]
    assert [p.data_ptr() for p in module.parameters()] == weights
    assert list(module.state_dict()) == names


def test_the_model_uses_it_everywhere_and_keeps_linear_names():
    model = tiny_model()
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {type(module) for module in linears.values()} == {PointwiseLinear}
    assert "model.language_model.layers.0.self_attn.q_proj" in linears and "lm_head" in linears


def test_inference_of_the_model_equals_its_training_path():
    model = tiny_model()
    inputs = tiny_inputs(model.config, labels=False)
    expected = model(**inputs)
    with torch.inference_mode():
        outputs = model(**inputs)
    for name in ("logits", "pred_boxes", "objectness_logits"):
        torch.testing.assert_close(outputs[name], expected[name].detach(), rtol=1e-5, atol=2e-5)


def test_quick_gelu():
    features = torch.linspace(-8, 8, 101)
    kept = features.clone()
    expected = features * torch.sigmoid(1.702 * features)
    torch.testing.assert_close(QuickGELU()(features), expected)
    with torch.no_grad():
        torch.testing.assert_close(QuickGELU()(features), expected)
    assert torch.equal(features, kept)


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (3, [3]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_map_rows_bounds_what_a_call_sees(rows, sizes, monkeypatch):
    monkeypatch.setattr(pointwise_grove, "CPU_BUFFER_BYTES", 4 * 100)
    seen = []

    def double(part):
        seen.append(len(part))
        return 2 * part

    features = torch.randn(rows, 3)
    torch.testing.assert_close(map_rows(double, features, 100), 2 * features)
    assert seen == sizes
