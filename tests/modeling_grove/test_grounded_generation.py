"""Captions grounded in every frame of videos of any length: windows, chunks, shortcuts and batches agree with plain forwards."""

import pytest
import torch
from torch import Tensor

from modeling_grove import GroveForConditionalGeneration
from modeling_grove.generation_grove import plan_windows
from modeling_grove.outputs_grove import GroveGroundedOutput
from modeling_grove.windows_grove import (
    covering_center_window,
    covering_windows,
    first_occurrence,
    sliding_center_window,
    sliding_windows,
)
from tests.tiny import (
    DET,
    EOS,
    PAD,
    PHRASE_END,
    PHRASE_START,
    VIDEO,
    pad_rows,
    tiny_caption,
    tiny_model,
    tiny_pixels,
    tiny_prompt,
)

CLOSE = {"rtol": 0, "atol": 2e-5}


def eager_to_tag(model: GroveForConditionalGeneration) -> GroveForConditionalGeneration:
    """Louder rows of the head for the tags and the end, so that short captions have phrases."""
    with torch.no_grad():
        for token, gain in ((PHRASE_START, 3.0), (PHRASE_END, 3.0), (DET, 8.0), (EOS, 2.0)):
            model.lm_head.weight[token] *= gain
    return model


@pytest.fixture(scope="module")
def model() -> GroveForConditionalGeneration:
    return eager_to_tag(tiny_model())


def videos(model, lengths: tuple[int, ...], filler: float = torch.nan) -> dict[str, Tensor]:
    """Videos of different length; nothing may ever look at the padding frames."""
    inputs = tiny_pixels(model.config, len(lengths), num_frames=max(lengths))
    inputs["frame_mask"] = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    for stream in ("pixel_values_videos", "grounding_pixel_values_videos"):
        inputs[stream][~inputs["frame_mask"]] = filler
    return inputs


def texts(model, num_phrases: tuple[int, ...] | None, side: str = "left") -> dict[str, Tensor]:
    """Prompts of different length, with their captions unless `num_phrases` is None."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for index in range(len(num_phrases or (0, 0, 0))):
        rows.append(tiny_prompt(2 + 2 * index, model.config, generator))
        if num_phrases is not None:
            rows[-1] += tiny_caption(num_phrases[index], generator)
    input_ids, attention_mask = pad_rows(rows, side)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def row_of(inputs: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """One video with its text as a call of its own, without any padding."""
    text, frames = inputs["attention_mask"][index].bool(), inputs["frame_mask"][index]
    return {
        "input_ids": inputs["input_ids"][index, text][None],
        "pixel_values_videos": inputs["pixel_values_videos"][index, frames][None],
        "grounding_pixel_values_videos": inputs["grounding_pixel_values_videos"][index, frames][None],
    }


def window_table(total: int, size: int, windows: str) -> tuple[Tensor, int]:
    if windows == "sliding" and total >= size:
        return torch.from_numpy(sliding_windows(total, size)[0]), sliding_center_window(total, size)
    return torch.from_numpy(covering_windows(total, size)), covering_center_window(total, size)


@torch.no_grad()
def ground_by_hand(model, row: dict[str, Tensor], windows: str = "covering") -> tuple[Tensor, Tensor | None]:
    """One plain forward a window: boxes `(T, N, 4)` and objectness `(T, N)`."""
    total = row["pixel_values_videos"].shape[1]
    table, _ = window_table(total, model.config.num_frames, windows)
    boxes, objectness = [], []
    for frames in table:
        outputs = model(
            input_ids=row["input_ids"],
            pixel_values_videos=row["pixel_values_videos"][:, frames],
            grounding_pixel_values_videos=row["grounding_pixel_values_videos"][:, frames],
        )
        boxes.append(outputs.pred_boxes[0])
        objectness.append(outputs.objectness_logits)
    window, slot = torch.from_numpy(first_occurrence(table.numpy())[:total]).unbind(1)
    if objectness[0] is None:
        return torch.stack(boxes)[window, slot], None
    return torch.stack(boxes)[window, slot], torch.cat(objectness)[window, slot]


def assert_grounded(outputs: GroveGroundedOutput, index: int, boxes: Tensor, objectness: Tensor | None) -> None:
    """Video `index` has these numbers, and zeros at its padding."""
    frames, phrases = boxes.shape[:2]
    padded = torch.zeros_like(outputs.pred_boxes[index])
    padded[:frames, :phrases] = boxes
    torch.testing.assert_close(outputs.pred_boxes[index], padded, **CLOSE)
    if objectness is not None:
        padded = torch.zeros_like(outputs.objectness_logits[index])
        padded[:frames, :phrases] = objectness
        torch.testing.assert_close(outputs.objectness_logits[index], padded, **CLOSE)
    assert int(outputs.phrase_mask[index].sum()) == phrases and int(outputs.frame_mask[index].sum()) == frames


# --- grounding a given caption ---


@pytest.mark.parametrize("window_batch_size", [1, 2, 100])
@pytest.mark.parametrize("windows", ["covering", "sliding"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_ground_equals_one_forward_a_window(model, side, windows, window_batch_size):
    lengths, num_phrases = (9, 4, 2), (1, 3, 2)
    inputs = {**texts(model, num_phrases, side), **videos(model, lengths)}
    outputs = model.ground(**inputs, windows=windows, window_batch_size=window_batch_size, prompt_length=7)
    assert outputs.pred_boxes.shape == (3, 9, 3, 4) and outputs.objectness_logits.shape == (3, 9, 3)
    assert outputs.sequences is inputs["input_ids"] and outputs.prompt_length == 7
    for index in range(3):
        assert_grounded(outputs, index, *ground_by_hand(model, row_of(inputs, index), windows))


@pytest.mark.parametrize("num_phrases", [(0, 2), (2, 0), (0, 0)])
def test_rows_without_phrases(model, num_phrases):
    inputs = {**texts(model, num_phrases), **videos(model, (5, 4))}
    outputs = model.ground(**inputs)
    for index in range(2):
        assert_grounded(outputs, index, *ground_by_hand(model, row_of(inputs, index)))


def test_a_video_behind_the_last_phrase_of_the_batch(model):
    """The text is cut behind the last [DET]; a row without any may have its video there."""
    generator = torch.Generator().manual_seed(0)
    prompt = tiny_prompt(2, model.config, generator)
    first = [*prompt, *tiny_caption(1, generator), *[9] * 40]
    input_ids, attention_mask = pad_rows([first, [*prompt, 5, EOS]], "left")
    assert (input_ids[1] == VIDEO).nonzero().max() > (input_ids[0] == DET).nonzero().max()
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **videos(model, (5, 4))}
    outputs = model.ground(**inputs)
    for index in range(2):
        assert_grounded(outputs, index, *ground_by_hand(model, row_of(inputs, index)))


def test_without_the_objectness_head():
    model = tiny_model(use_temporal_objectness=False)
    inputs = {**texts(model, (1, 2)), **videos(model, (5, 4))}
    outputs = model.ground(**inputs)
    assert outputs.objectness_logits is None
    for index in range(2):
        assert_grounded(outputs, index, *ground_by_hand(model, row_of(inputs, index)))


def test_defaults_are_all_frames_and_no_padding(model):
    inputs = {**texts(model, (2,)), **videos(model, (6,))}
    expected = model.ground(**inputs)
    del inputs["frame_mask"], inputs["attention_mask"]
    outputs = model.ground(**inputs)
    torch.testing.assert_close(outputs.pred_boxes, expected.pred_boxes)
    assert outputs.frame_mask.all() and outputs.prompt_length == 0


@pytest.mark.parametrize(("total", "same"), [(8, True), (4, True), (3, True), (12, True), (9, False), (11, False)])
def test_covering_and_sliding_agree_where_the_windows_do(model, total, same):
    inputs = {**texts(model, (2,)), **videos(model, (total,))}
    covering, sliding = (model.ground(**inputs, windows=windows).pred_boxes for windows in ("covering", "sliding"))
    assert torch.allclose(covering, sliding, rtol=0, atol=1e-6) == same


# --- shortcuts and memory ---


def seen_by(module: torch.nn.Module, sizes: list[int]):
    return module.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(args[0] if args else kwargs["inputs_embeds"])), with_kwargs=True
    )


@pytest.mark.parametrize("windows", ["covering", "sliding"])
def test_frames_are_encoded_once_while_no_adapter_mixes_them(windows):
    """With alpha 0 the encoders run frame by frame; with alpha 1e-30 (the same numbers) window by window."""
    outputs, frames = {}, {}
    for alpha in (0.0, 1e-30):
        model = tiny_model(adapters_open=False)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("alpha"):
                    parameter.fill_(alpha)
            encoders = (model.model.vision_tower, model.model.grounding_encoder)
            assert [encoder.is_frame_wise() for encoder in encoders] == [alpha == 0] * 2
        assert not any(encoder.is_frame_wise() for encoder in encoders), "gates that learn are computed"
        sizes: list[int] = []
        seen_by(model.model.grounding_encoder.patch_embed, sizes)
        seen_by(model.model.vision_tower.embeddings, sizes)
        inputs = {**texts(model, (2, 1, 1)), **videos(model, (9, 6, 3))}
        outputs[alpha] = model.ground(**inputs, windows=windows, window_batch_size=2)
        frames[alpha] = sum(sizes)
        assert max(sizes) <= 2 * 4
    torch.testing.assert_close(outputs[0.0].pred_boxes, outputs[1e-30].pred_boxes, **CLOSE)
    torch.testing.assert_close(outputs[0.0].objectness_logits, outputs[1e-30].objectness_logits, **CLOSE)
    num_windows = sum(len(window_table(total, 4, windows)[0]) for total in (9, 6, 3))
    assert frames == {0.0: 2 * (9 + 6 + 3), 1e-30: 2 * 4 * num_windows}


@pytest.mark.parametrize("window_batch_size", [1, 3])
def test_no_more_than_window_batch_size_windows_at_a_time(model, window_batch_size):
    frames: list[int] = []
    rows: list[int] = []
    hooks = [
        seen_by(model.model.grounding_encoder.patch_embed, frames),
        seen_by(model.model.vision_tower.embeddings, frames),
        seen_by(model.model.language_model, rows),
    ]
    try:
        inputs = {**texts(model, (2, 1)), **videos(model, (13, 8))}
        model.ground(**inputs, window_batch_size=window_batch_size)
    finally:
        for hook in hooks:
            hook.remove()
    assert max(rows) == window_batch_size and sum(rows) == 4 + 2
    assert max(frames) == 4 * window_batch_size and sum(frames) == 2 * 4 * (4 + 2)


# --- captions that the model writes ---


def generated(model, inputs: dict[str, Tensor], **options) -> GroveGroundedOutput:
    return model.generate_grounded(**inputs, **{"max_new_tokens": 16, "do_sample": False, **options})


@pytest.mark.parametrize("windows", ["covering", "sliding"])
def test_the_center_window_is_captioned_and_every_window_grounded(model, windows):
    inputs = {**texts(model, None), **videos(model, (9, 12, 3))}
    outputs = generated(model, inputs, windows=windows, constrained=False)
    length = inputs["input_ids"].shape[1]
    assert outputs.prompt_length == length and torch.equal(outputs.sequences[:, :length], inputs["input_ids"])
    assert outputs.phrase_mask.sum() > 3
    for index in range(3):
        row = row_of(inputs, index)
        total = row["pixel_values_videos"].shape[1]
        table, center = window_table(total, 4, windows)
        sequence = model.generate(
            input_ids=row["input_ids"],
            pixel_values_videos=row["pixel_values_videos"][:, table[center]],
            max_new_tokens=16,
            do_sample=False,
        )
        caption = sequence[0, row["input_ids"].shape[1] :]
        assert outputs.sequences[index, length:].tolist()[: len(caption)] == caption.tolist()
        row["input_ids"] = sequence
        assert_grounded(outputs, index, *ground_by_hand(model, row, windows))


@pytest.mark.parametrize("window_batch_size", [1, 2, 100])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"constrained": False}], ids=str)
def test_several_videos_equal_one_at_a_time(model, options, window_batch_size):
    inputs = {**texts(model, None), **videos(model, (9, 4, 6))}
    outputs = generated(model, inputs, window_batch_size=window_batch_size, **options)
    assert outputs.phrase_mask.any(1).sum() >= 2
    for index in range(3):
        alone = generated(model, row_of(inputs, index), **options)
        caption = alone.sequences[0, alone.prompt_length :]
        together = outputs.sequences[index, outputs.prompt_length :]
        assert together[: len(caption)].tolist() == caption.tolist()
        assert set(together[len(caption) :].tolist()) <= {EOS, PAD}
        objectness = alone.objectness_logits[0]
        assert_grounded(outputs, index, alone.pred_boxes[0], objectness)


def test_sampling_repeats_with_its_seed(model):
    inputs = {**texts(model, None), **videos(model, (5, 4, 4))}
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(generated(model, inputs, do_sample=True))
    assert torch.equal(results[0].sequences, results[1].sequences)
    torch.testing.assert_close(results[0].pred_boxes, results[1].pred_boxes)
    assert results[0].sequences.shape != results[2].sequences.shape or not torch.equal(
        results[0].sequences, results[2].sequences
    )


def test_a_caption_without_phrases_needs_no_grounding_encoder(model):
    inputs = {**texts(model, None), **videos(model, (5, 4, 9))}
    calls: list[int] = []
    hook = model.model.grounding_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        outputs = generated(model, inputs, max_new_tokens=2)  # too short for a phrase
    finally:
        hook.remove()
    assert calls == []
    assert outputs.pred_boxes.shape == (3, 9, 0, 4) and outputs.objectness_logits.shape == (3, 9, 0)
    assert outputs.phrase_mask.shape == (3, 0) and outputs.frame_mask.sum() == 18


def test_generate_may_return_a_dict(model):
    inputs = {**texts(model, None), **videos(model, (5, 4, 4))}
    outputs = generated(model, inputs, return_dict_in_generate=True, output_scores=True, logits_processor=None)
    assert torch.equal(outputs.sequences, generated(model, inputs).sequences)


@pytest.mark.parametrize("lengths", [(9, 4), (4, 3)], ids=["some windows are not centre ones", "all of them are"])
def test_a_rewritten_caption_grounds_the_other_windows(model, lengths):
    """The original grounds all windows but the centre one in its re-tokenised text."""
    inputs = {**texts(model, (2, 1)), **videos(model, lengths)}  # continues a text that has phrases
    rewritten = {**inputs, "input_ids": inputs["input_ids"].clone()}
    rewritten["input_ids"][(inputs["input_ids"] > 2) & (inputs["input_ids"] < 60)] = 77

    def rewrite(sequences: Tensor) -> tuple[Tensor, Tensor]:
        assert torch.equal(sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
        return rewritten["input_ids"], inputs["attention_mask"]

    outputs = generated(model, inputs, max_new_tokens=1, rewrite_caption=rewrite)
    for index, total in enumerate(lengths):
        table, center = window_table(total, 4, "covering")
        first = torch.from_numpy(first_occurrence(table.numpy())[:total])
        is_center = first[:, 0] == center
        for source, frames in ((inputs, is_center), (rewritten, ~is_center)):
            boxes, _ = ground_by_hand(model, row_of(source, index))
            found = outputs.pred_boxes[index, :total, : boxes.shape[1]]
            torch.testing.assert_close(found[frames], boxes[frames], **CLOSE)


def test_a_rewritten_caption_that_lost_its_phrases_leaves_zeros(model):
    inputs = {**texts(model, (1,)), **videos(model, (9,))}
    rewrite = inputs["input_ids"].masked_fill(inputs["input_ids"] == DET, 50)
    outputs = generated(model, inputs, max_new_tokens=1, rewrite_caption=lambda _: (rewrite, torch.ones_like(rewrite)))
    table, center = window_table(9, 4, "covering")
    is_center = torch.from_numpy(first_occurrence(table.numpy()))[:, 0] == center
    assert (outputs.pred_boxes[0, is_center] > 0).all() and not outputs.pred_boxes[0, ~is_center].any()


# --- what is refused ---


def test_impossible_requests_are_refused(model):
    inputs = {**texts(model, (1, 1)), **videos(model, (5, 4))}
    no_frames = inputs["frame_mask"].clone()
    no_frames[1] = False
    for changes, message in (
        ({"windows": "dense"}, "windows is 'dense'; expected 'covering'"),
        ({"window_batch_size": 0}, "window_batch_size is 0; expected at least 1"),
        ({"frame_mask": no_frames}, "Video 1 of the batch has no frames"),
        ({"frame_mask": inputs["frame_mask"][:1]}, "Got 2 texts and 1 videos; expected one text a video"),
    ):
        for call in (model.ground, model.generate_grounded):
            with pytest.raises(ValueError, match=message):
                call(**{**inputs, **changes})
    for extra in ({"num_return_sequences": 3}, {"num_beams": 3, "num_return_sequences": 3}):
        with pytest.raises(ValueError, match="num_return_sequences is 3; a video gets one grounded caption"):
            generated(model, inputs, **extra)


def test_the_plan_covers_every_frame_once():
    mask = torch.arange(9) < torch.tensor([9, 2, 5])[:, None]
    plan = plan_windows(mask, 4)
    assert plan.video.tolist() == [0, 0, 0, 1, 2, 2] and plan.center.tolist() == [1, 3, 4]
    window, slot = plan.source.unbind(-1)
    for video in range(3):
        for frame in range(int(mask[video].sum())):
            assert plan.video[window[video, frame]] == video
            assert plan.frames[window[video, frame], slot[video, frame]] == frame
