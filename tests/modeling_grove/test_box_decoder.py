"""The box decoder: one batched call equals a computation row by row, written out from the paper and SAM."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_grove import box_decoder_grove
from modeling_grove.box_decoder_grove import GroveBoxDecoder
from modeling_grove.pointwise_grove import use_pointwise_linear
from tests.tiny import randomize, tiny_config

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def tiny_decoder(use_temporal_objectness: bool = True, **overrides) -> GroveBoxDecoder:
    torch.manual_seed(0)
    decoder = GroveBoxDecoder(tiny_config(grounding_config=overrides).grounding_config, use_temporal_objectness).eval()
    randomize(decoder)
    use_pointwise_linear(decoder)
    return decoder


def attend(attention: nn.Module, query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Multi-head attention of `(rows, C)` tensors, a head at a time."""
    query, key, value = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
    heads = []
    for q, k, v in zip(query.chunk(num_heads, -1), key.chunk(num_heads, -1), value.chunk(num_heads, -1), strict=True):
        heads.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v)
    return attention.out_proj(torch.cat(heads, -1))


def decode_row(decoder: GroveBoxDecoder, query: Tensor, features: Tensor, num_heads: int = 8) -> Tensor:
    """One phrase in one frame: `(C,)` and `(C, H, W)` -> the query's output `(C,)`."""
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, query[None]])
    side = features.shape[-1]
    keys = (features + decoder.no_mask_embed.weight[0][:, None, None]).flatten(1).T
    rows = []
    for y in range(side):
        for x in range(side):
            centre = torch.tensor([2 * (x + 0.5) / side - 1, 2 * (y + 0.5) / side - 1])
            angle = 2 * math.pi * (centre @ decoder.positional_embedding)
            rows.append(torch.cat([angle.sin(), angle.cos()]))
    key_pe, point_pe = torch.stack(rows), tokens
    queries = tokens
    for index, layer in enumerate(decoder.transformer.layers):
        if index == 0:  # SAM's first block replaces the queries
            queries = attend(layer.self_attn, queries, queries, queries, num_heads)
        else:
            with_pe = queries + point_pe
            queries = queries + attend(layer.self_attn, with_pe, with_pe, queries, num_heads)
        queries = layer.layer_norm1(queries)
        attended = attend(layer.cross_attn_token_to_image, queries + point_pe, keys + key_pe, keys, num_heads)
        queries = layer.layer_norm2(queries + attended)
        queries = layer.layer_norm3(queries + layer.mlp.lin2(F.relu(layer.mlp.lin1(queries))))
        attended = attend(layer.cross_attn_image_to_token, keys + key_pe, queries + point_pe, queries, num_heads)
        keys = layer.layer_norm4(keys + attended)
    final = decoder.transformer
    attended = attend(final.final_attn_token_to_image, queries + point_pe, keys + key_pe, keys, num_heads)
    return final.layer_norm_final_attn(queries + attended)[-1]


@pytest.mark.parametrize(
    "mask", [[[1, 1], [1, 0]], [[0, 0], [1, 1]], [[1, 0], [0, 0]]], ids=["ragged", "0 + 2", "1 + 0"]
)
def test_one_call_equals_row_by_row(mask):
    decoder, phrase_mask = tiny_decoder(), torch.tensor(mask).bool()
    phrases, features = torch.randn(2, 2, 32), torch.randn(2, 3, 32, 6, 6)
    with torch.no_grad():
        boxes, objectness = decoder(phrases, features, phrase_mask)
        assert boxes.shape == (2, 3, 2, 4) and objectness.shape == (2, 3, 2)
        for video in range(2):
            for frame in range(3):
                for phrase in range(2):
                    if not phrase_mask[video, phrase]:
                        assert not boxes[video, frame, phrase].any() and objectness[video, frame, phrase] == 0
                        continue
                    token = decode_row(decoder, phrases[video, phrase], features[video, frame])
                    head = decoder.box_head
                    box = torch.sigmoid(head[2](F.relu(head[0](token))))
                    torch.testing.assert_close(boxes[video, frame, phrase], box, **CLOSE)
                    logit = decoder.objectness_head(token)[0]
                    torch.testing.assert_close(objectness[video, frame, phrase], logit, **CLOSE)


@pytest.mark.parametrize("num_rows", [1, 2, 5, 9])
def test_rows_in_parts_of_any_size(num_rows, monkeypatch):
    """Inference on the CPU decodes a bounded number of rows at a time, across phrases and frames."""
    decoder, mask = tiny_decoder(), torch.tensor([[True, True], [True, False]])
    arguments = torch.randn(2, 2, 32), torch.randn(2, 3, 32, 6, 6), mask
    expected = [output.detach() for output in decoder(*arguments)]  # with gradients: all rows at once
    sizes: list[int] = []
    decoder.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["point_embeddings"])), with_kwargs=True
    )
    monkeypatch.setattr(box_decoder_grove, "CPU_BUFFER_BYTES", num_rows * 4 * 32 * 6 * 6 + 100)
    with torch.no_grad():
        outputs = decoder(*arguments)
    assert sum(sizes) == 9 and max(sizes) == num_rows
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_no_phrases_give_empty_boxes_and_zero_gradients():
    decoder = tiny_decoder()
    phrases = torch.zeros(2, 0, 32, requires_grad=True)
    features = torch.randn(2, 3, 32, 6, 6, requires_grad=True)
    boxes, objectness = decoder(phrases, features, torch.zeros(2, 0, dtype=torch.bool))
    assert boxes.shape == (2, 3, 0, 4) and objectness.shape == (2, 3, 0)
    (boxes.sum() + objectness.sum()).backward()
    tensors = {"phrases": phrases, "features": features, **dict(decoder.named_parameters())}
    assert [name for name, tensor in tensors.items() if tensor.grad is None] == []
    assert not any(tensor.grad.any() for tensor in tensors.values())


def test_padding_phrases_do_not_matter():
    decoder = tiny_decoder()
    phrases, features = torch.randn(1, 3, 32), torch.randn(1, 2, 32, 6, 6)
    mask = torch.tensor([[True, True, False]])
    with torch.no_grad():
        expected = decoder(phrases, features, mask)
        phrases[0, 2] = torch.nan
        outputs = decoder(phrases, features, mask)
        nothing = decoder(torch.full((1, 2, 32), torch.nan), features, torch.zeros(1, 2, dtype=torch.bool))
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not nothing[0].any() and not nothing[1].any()


def test_without_the_objectness_head():
    with_head, without = tiny_decoder(), tiny_decoder(use_temporal_objectness=False)
    assert {name for name in with_head.state_dict() if name not in without.state_dict()} == {
        "objectness_head.weight",
        "objectness_head.bias",
    }
    arguments = torch.randn(1, 1, 32), torch.randn(1, 2, 32, 6, 6), torch.ones(1, 1, dtype=torch.bool)
    with torch.no_grad():
        boxes, objectness = without(*arguments)
        assert objectness is None
        torch.testing.assert_close(boxes, with_head(*arguments)[0])


def test_mixed_precision_keeps_the_positional_encoding_and_takes_any_features():
    decoder = tiny_decoder()
    exact = decoder.dense_positional_encoding()
    arguments = torch.randn(1, 2, 32), torch.randn(1, 3, 32, 6, 6), torch.ones(1, 2, dtype=torch.bool)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decoder.dense_positional_encoding(), exact)
        # A norm's output is float32 under autocast on GPUs, a linear layer's bfloat16.
        boxes, objectness = decoder(*arguments)
    assert boxes.dtype == objectness.dtype == torch.float32 and boxes.isfinite().all()


def test_the_positional_encoding_can_be_as_coarse_as_the_original():
    exact = tiny_decoder().dense_positional_encoding()
    coarse = tiny_decoder(positional_encoding_dtype="bfloat16").dense_positional_encoding()
    assert exact.shape == coarse.shape == (1, 32, 6, 6) and coarse.dtype == torch.float32
    assert 1e-3 < (exact - coarse).abs().max() < 0.2
    # x varies along the columns, y along the rows: one frequency at a time.
    decoder = tiny_decoder()
    with torch.no_grad():
        decoder.positional_embedding.copy_(torch.tensor([[0.25] * 8 + [0.0] * 8, [0.0] * 8 + [0.25] * 8]))
        encoding = decoder.dense_positional_encoding()[0]
    centres = 2 * (torch.arange(6) + 0.5) / 6 - 1
    torch.testing.assert_close(encoding[0], (math.pi / 2 * centres).sin().expand(6, 6))
    torch.testing.assert_close(encoding[8], (math.pi / 2 * centres).sin()[:, None].expand(6, 6))
    torch.testing.assert_close(encoding[16], (math.pi / 2 * centres).cos().expand(6, 6))
