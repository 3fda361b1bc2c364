"""GROVE's forward: shapes, losses, gradients, and the same numbers alone, in a batch and behind padding."""

import inspect

import pytest
import torch
from torch import Tensor

from modeling_grove import GroveForConditionalGeneration, outputs_grove
from modeling_grove.box_decoder_grove import GroveBoxDecoder
from modeling_grove.grounding_grove import GroveGroundingEncoder
from modeling_grove.vision_grove import GroveVisionTower
from tests.tiny import DET, VIDEO, VOCAB_SIZE, one_row, tiny_config, tiny_inputs, tiny_model

LOSSES = ("caption_loss", "giou_loss", "l1_loss", "objectness_loss")


@pytest.fixture(scope="module")
def model() -> GroveForConditionalGeneration:
    return tiny_model()


def forward_backward(model: GroveForConditionalGeneration, inputs: dict[str, Tensor]):
    model.zero_grad(set_to_none=True)
    outputs = model(**inputs)
    outputs.loss.backward()
    return outputs, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def assert_same(outputs, row_outputs, inputs: dict[str, Tensor], index: int, tolerance: float = 2e-5):
    """Row `index` of a batch has the numbers that it has alone, and zeros where it has no phrase."""
    real = inputs["attention_mask"][index].bool()
    close = {"rtol": 0, "atol": tolerance}
    torch.testing.assert_close(outputs.logits[index, real], row_outputs.logits[0], **close)
    torch.testing.assert_close(outputs.last_hidden_state[index, real], row_outputs.last_hidden_state[0], **close)
    count = int(row_outputs.phrase_mask.sum())
    assert outputs.phrase_mask[index].tolist() == [True] * count + [False] * (outputs.phrase_mask.shape[1] - count)
    torch.testing.assert_close(outputs.pred_boxes[index, :, :count], row_outputs.pred_boxes[0, :, :count], **close)
    assert not outputs.pred_boxes[index, :, count:].any()
    if outputs.objectness_logits is not None:
        expected = row_outputs.objectness_logits[0, :, :count]
        torch.testing.assert_close(outputs.objectness_logits[index, :, :count], expected, **close)
        assert not outputs.objectness_logits[index, :, count:].any()


# --- what comes out ---


def test_output_shapes_are_the_documented_ones(model):
    inputs = tiny_inputs(model.config, num_phrases=(2, 0, 3))
    outputs = model(**inputs, output_hidden_states=True)
    length = inputs["input_ids"].shape[1]
    for name in ("loss", *LOSSES):
        assert outputs[name].shape == ()
    assert outputs.logits.shape == (3, length, VOCAB_SIZE)
    assert outputs.last_hidden_state.shape == (3, length, 64)
    assert outputs.video_hidden_states.shape == (3, 12, 64)
    assert outputs.pred_boxes.shape == (3, 4, 3, 4)
    assert outputs.objectness_logits.shape == (3, 4, 3)
    assert outputs.phrase_mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert outputs.phrase_mask.dtype == torch.bool
    assert [state.shape for state in outputs.hidden_states] == [(3, length, 64)] * 3
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.last_hidden_state)
    real = outputs.pred_boxes.transpose(1, 2)[outputs.phrase_mask]
    assert (real > 0).all() and (real < 1).all()


def test_loss_is_the_sum_of_its_weighted_parts():
    weights = {
        "caption_loss_weight": 0.5,
        "giou_loss_weight": 3.0,
        "l1_loss_weight": 0.25,
        "objectness_loss_weight": 7.0,
    }
    inputs = tiny_inputs(tiny_config())
    plain = tiny_model(**dict.fromkeys(weights, 1.0))(**inputs)
    weighted = tiny_model(**weights)(**inputs)
    torch.testing.assert_close(weighted.loss, sum(weighted[name] for name in LOSSES))
    for name in LOSSES:
        assert plain[name] > 0.1
        torch.testing.assert_close(weighted[name], weights[f"{name}_weight"] * plain[name])


def test_only_the_losses_with_labels_are_computed(model):
    inputs = tiny_inputs(model.config)
    boxes = {name: inputs.pop(name) for name in ("box_labels", "objectness_labels")}
    labels = inputs.pop("labels")
    assert model(**inputs).loss is None
    caption = model(**inputs, labels=labels)
    assert caption.giou_loss is None
    torch.testing.assert_close(caption.loss, caption.caption_loss)
    grounding = model(**inputs, **boxes)
    assert grounding.caption_loss is None
    torch.testing.assert_close(grounding.loss, grounding.giou_loss + grounding.l1_loss + grounding.objectness_loss)


def test_without_grounding_frames_it_is_a_plain_video_llm(model):
    inputs = tiny_inputs(model.config, labels=False)
    full = model(**inputs)
    inputs.pop("grounding_pixel_values_videos")
    outputs = model(**inputs)
    assert outputs.pred_boxes is None and outputs.phrase_mask is None and outputs.objectness_logits is None
    torch.testing.assert_close(outputs.logits, full.logits)


def test_precomputed_features_replace_the_frames(model):
    inputs = tiny_inputs(model.config, labels=False)
    expected = model(**inputs)
    video_embeds = model.get_video_features(inputs.pop("pixel_values_videos"))
    grounding_embeds = model.get_grounding_features(inputs.pop("grounding_pixel_values_videos"))
    outputs = model(**inputs, video_embeds=video_embeds, grounding_embeds=grounding_embeds)
    torch.testing.assert_close(outputs.logits, expected.logits)
    torch.testing.assert_close(outputs.pred_boxes, expected.pred_boxes)


def test_logits_to_keep_and_return_dict(model):
    inputs = tiny_inputs(model.config, labels=False)
    full = model(**inputs)
    torch.testing.assert_close(model(**inputs, logits_to_keep=3).logits, full.logits[:, -3:])
    index = torch.tensor([4, 9])
    torch.testing.assert_close(model(**inputs, logits_to_keep=index).logits, full.logits[:, index])
    as_tuple = model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], full.logits)


def test_every_state_before_det_is_the_query_of_its_phrase(model):
    """The state that predicts [DET] is the query: what follows it changes nothing, what it reads changes the boxes."""
    inputs = tiny_inputs(model.config, num_phrases=(2,), labels=False)
    expected = model(**inputs).pred_boxes
    first, second = (inputs["input_ids"][0] == DET).nonzero()[:, 0].tolist()
    for position, changed in ((second + 1, []), (first - 1, [0, 1]), (first, [0, 1]), (second - 1, [1])):
        ids = inputs["input_ids"].clone()
        ids[0, position] = 77
        boxes = model(**{**inputs, "input_ids": ids}).pred_boxes
        if position == first:  # one phrase less: the second one moves up, and reads another text
            assert boxes.shape[2] == 1
            continue
        for phrase in (0, 1):
            difference = (boxes[:, :, phrase] - expected[:, :, phrase]).abs().max()
            assert (difference > 1e-4) == (phrase in changed), (position, phrase, difference)


def test_the_query_is_read_before_det_itself_is():
    """The first phrase cannot know [DET]'s embedding; the second one reads the first one's."""
    model = tiny_model()
    inputs = tiny_inputs(model.config, num_phrases=(2,), labels=False)
    with torch.no_grad():
        expected = model(**inputs).pred_boxes
        model.get_input_embeddings().weight[DET] *= -1
        boxes = model(**inputs).pred_boxes
    torch.testing.assert_close(boxes[:, :, 0], expected[:, :, 0], rtol=0, atol=1e-6)
    assert (boxes[:, :, 1] - expected[:, :, 1]).abs().max() > 1e-3


def test_no_loop_over_frames_or_phrases(model, monkeypatch):
    """Each encoder and the decoder run once a forward, however many rows, frames and phrases there are."""
    calls = []
    for part in (GroveVisionTower, GroveGroundingEncoder, GroveBoxDecoder):
        forward = part.forward
        monkeypatch.setattr(
            part,
            "forward",
            lambda self, *a, _f=forward, _n=part.__name__, **k: (calls.append(_n), _f(self, *a, **k))[1],
        )
    tokens = []
    transformer = type(model.model.box_decoder.transformer)
    forward = transformer.forward
    monkeypatch.setattr(
        transformer, "forward", lambda self, **k: (tokens.append(k["point_embeddings"].shape), forward(self, **k))[1]
    )
    model(**tiny_inputs(model.config, num_phrases=(2, 0, 3)))
    assert sorted(calls) == ["GroveBoxDecoder", "GroveGroundingEncoder", "GroveVisionTower"]
    assert tokens == [(5 * 4, 1, 6, 32)]  # 5 phrases of 3 rows in 4 frames


# --- batches and padding ---


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("num_phrases", [(2, 1), (0, 3), (2, 0, 1), (0, 0)])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_a_batch_gives_the_numbers_of_its_rows(model, num_phrases, padding_side, grad):
    inputs = tiny_inputs(model.config, num_phrases, padding_side, labels=False)
    assert (inputs["attention_mask"] == 0).any()
    with torch.set_grad_enabled(grad):
        outputs = model(**inputs)
        for index in range(len(num_phrases)):
            row = one_row(inputs, index)
            assert row["attention_mask"].all()
            assert_same(outputs, model(**row), inputs, index)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_on_either_side_changes_nothing(attention):
    model = tiny_model()
    model.set_attn_implementation(attention)
    inputs = {side: tiny_inputs(model.config, (2, 1), side) for side in ("left", "right")}
    for side, padded in inputs.items():  # what is in the padding must not matter either
        padded["input_ids"] = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, 55)
        alone = [model(**one_row(padded, index)) for index in range(2)]
        outputs = model(**padded)
        for index in range(2):
            assert_same(outputs, alone[index], padded, index)
        assert outputs.loss.isfinite(), side
    left, right = (model(**inputs[side]) for side in ("left", "right"))
    for name in ("loss", *LOSSES):
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-5)


def test_batch_losses_are_the_count_weighted_means_of_the_rows(model):
    inputs = tiny_inputs(model.config, (2, 0, 3))
    batch = model(**inputs)
    rows = [one_row(inputs, index) for index in range(3)]
    counts = {
        "caption_loss": [(row["labels"][:, 1:] != -100).sum() for row in rows],
        "giou_loss": [(row["objectness_labels"] == 1).sum() for row in rows],
        "l1_loss": [(row["objectness_labels"] == 1).sum() for row in rows],
        "objectness_loss": [(row["objectness_labels"] != -100).sum() for row in rows],
    }
    outputs = [model(**row) for row in rows]
    for name, weights in counts.items():
        expected = sum(w * out[name] for w, out in zip(weights, outputs, strict=True)) / sum(weights)
        torch.testing.assert_close(batch[name], expected, rtol=1e-5, atol=1e-5)


def test_two_videos_do_not_mix(model):
    inputs = tiny_inputs(model.config, (2, 2), labels=False)
    expected = model(**inputs)
    for name in ("pixel_values_videos", "grounding_pixel_values_videos"):
        changed = dict(inputs)
        changed[name] = inputs[name].clone()
        changed[name][1] += 1
        outputs = model(**changed)
        torch.testing.assert_close(outputs.pred_boxes[0], expected.pred_boxes[0])
        assert (outputs.pred_boxes[1] - expected.pred_boxes[1]).abs().max() > 1e-3


# --- gradients ---


@pytest.mark.parametrize("freeze", [False, True], ids=["adapters learn", "tower frozen"])
def test_gradients_reach_every_trainable_parameter(freeze):
    model = tiny_model(freeze_vision_adapters=freeze).train()
    outputs, grads = forward_backward(model, tiny_inputs(model.config))
    assert outputs.loss.isfinite()
    for name, grad in grads.items():
        if freeze and "vision_tower" in name:
            assert grad is None, name
        elif name.endswith("k_proj.bias"):  # softmax does not see a shift of all scores
            assert grad.abs().max() < 1e-5, name
        else:
            assert grad.abs().max() > 1e-6, name


def test_shut_adapters_can_still_open():
    """With alpha 0 the convolution gets no gradient, but alpha does: an adapter that was skipped in training could not learn."""
    model = tiny_model(adapters_open=False).train()
    _, grads = forward_backward(model, tiny_inputs(model.config))
    alphas = {name: grad for name, grad in grads.items() if name.endswith("alpha")}
    assert len(alphas) == 4
    assert all(grad.abs() > 1e-6 for grad in alphas.values())


@pytest.mark.parametrize("use_temporal_objectness", [True, False])
def test_a_batch_without_phrases_trains(use_temporal_objectness):
    model = tiny_model(use_temporal_objectness=use_temporal_objectness).train()
    outputs, grads = forward_backward(model, tiny_inputs(model.config, (0, 0)))
    assert outputs.pred_boxes.shape == (2, 4, 0, 4)
    assert outputs.giou_loss == 0 and outputs.l1_loss == 0
    assert (outputs.objectness_loss == 0) if use_temporal_objectness else (outputs.objectness_loss is None)
    torch.testing.assert_close(outputs.loss, outputs.caption_loss)
    # Data-parallel training waits for every gradient, also on the rank that saw no phrase.
    assert [name for name, grad in grads.items() if grad is None] == []
    grounding = [name for name in grads if "box_decoder" in name or "grounding" in name or "phrase_projector" in name]
    assert not any(grads[name].any() for name in grounding)


def test_phrases_without_a_visible_or_annotated_frame_train(model):
    inputs = tiny_inputs(model.config)
    inputs["box_labels"] = torch.full_like(inputs["box_labels"], torch.nan)
    inputs["objectness_labels"] = torch.zeros_like(inputs["objectness_labels"])
    outputs, grads = forward_backward(model, inputs)
    assert outputs.giou_loss == 0 and outputs.l1_loss == 0 and outputs.objectness_loss > 0
    inputs["objectness_labels"] = torch.full_like(inputs["objectness_labels"], -100)
    outputs, grads = forward_backward(model, inputs)
    assert outputs.objectness_loss == 0
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())


def test_boxes_of_a_truncated_text_are_ignored(model):
    inputs = tiny_inputs(model.config, (2, 1))
    expected = model(**inputs)
    for name in ("box_labels", "objectness_labels"):
        extra = torch.ones_like(inputs[name][:, :, :1])
        inputs[name] = torch.cat([inputs[name], extra], dim=2)
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.loss, expected.loss)
    assert outputs.pred_boxes.shape[2] == 2


# --- what is refused ---


def test_contradicting_inputs_are_refused(model):
    inputs = tiny_inputs(model.config)
    frames, grounding = inputs["pixel_values_videos"], inputs["grounding_pixel_values_videos"]
    fewer = {name: inputs[name][:, :, :1] for name in ("box_labels", "objectness_labels")}
    one_video_token_less = inputs["input_ids"].clone()
    one_video_token_less[0, (one_video_token_less[0] == VIDEO).nonzero()[0]] = 5
    embeds = torch.zeros(2, 5, 64)
    for changes, message in (
        ({"inputs_embeds": embeds}, "both or neither of input_ids and inputs_embeds"),
        ({"input_ids": None}, "both or neither of input_ids and inputs_embeds"),
        ({"video_embeds": embeds}, "both pixel_values_videos and video_embeds"),
        ({"grounding_embeds": embeds}, "both grounding_pixel_values_videos and grounding_embeds"),
        ({"pixel_values_videos": frames[:, :3]}, r"pixel_values_videos has shape \(2, 3, .*\(B, 4, 3, 56, 56\)"),
        ({"pixel_values_videos": grounding}, r"pixel_values_videos has shape .*generate_grounded"),
        ({"grounding_pixel_values_videos": grounding[:, :3]}, r"grounding_pixel_values_videos has shape \(2, 3"),
        ({"input_ids": one_video_token_less}, "tokens: 23, features: 24"),
        (fewer, r"box_labels has shape \(2, 4, 1, 4\).*at least the 2 phrases"),
        ({"objectness_labels": inputs["objectness_labels"][:, :, :1]}, r"objectness_labels \(2, 4, 1\)"),
        ({"objectness_labels": None}, "box_labels without objectness_labels"),
        ({"grounding_pixel_values_videos": None}, "box_labels without grounding_pixel_values_videos"),
        (
            {"input_ids": None, "inputs_embeds": embeds, "pixel_values_videos": None, "attention_mask": None},
            "Boxes need input_ids",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model(**{**inputs, **changes})


def test_every_output_field_is_documented():
    for output in (outputs_grove.GroveModelOutputWithPast, outputs_grove.GroveCausalLMOutputWithPast):
        text = inspect.getdoc(output) + inspect.getdoc(outputs_grove.GroveModelOutputWithPast)
        assert [name for name in output.__dataclass_fields__ if name not in text] == []
