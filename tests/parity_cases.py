"""Parity of the whole model: training step, generation and dense inference as the original's code recorded them."""

# Sub-configs and output fields are optional to the type checker, and always there here.
# mypy: disable-error-code="arg-type, index, union-attr"

import json
import re
from dataclasses import replace
from math import hypot

import torch
from parity_report import (
    BOXES,
    EXACT,
    FEATURES,
    GRADIENT_ELEMENT,
    GRADIENT_NORM,
    GRADIENTS,
    LOSSES,
    OBJECTNESS,
    PIXELS,
    RecordedCase,
    Report,
    Tolerance,
)
from torch import Tensor

from modeling_grove.boxes_grove import boxes_to_pixels
from modeling_grove.checkpoint_map_grove import convert_state_dict, plan_tensor
from modeling_grove.modeling_grove import GroveCausalLMOutputWithPast, GroveForConditionalGeneration
from modeling_grove.original_text_grove import (
    VIDEO_ID,
    collate,
    conversation,
    decode,
    encode_conversation,
    encode_for_other_windows,
    expand_video_tokens,
    labels_per_frame,
    postprocess,
    text_for_other_windows,
)
from modeling_grove.text_grove import QUESTION_TEMPLATES
from modeling_grove.windows_grove import sliding_center_window, sliding_windows

# Frames of each window and tokens that are stored of the intermediate features, where a case does not say which.
PROBED_TIMES = [0, 3, 7]
PROBED_FRAMES = [0, 5]
PROBED_TOKENS = [0, 1, 2, 37, 100, 288, 575, 576]
CLIP_STRIDE, SAM_STRIDE = 4, 8
# A margin is the difference of two logits.
MARGIN = Tolerance(2 * FEATURES.atol, 2 * FEATURES.rtol)


def load_model(case: RecordedCase, report: Report) -> GroveForConditionalGeneration:
    """Our model with the case's converted weights, in eval mode."""
    config, converted = convert_state_dict(case.state_dict, case.config)
    model = GroveForConditionalGeneration(config).eval()
    result = model.load_state_dict(converted, strict=False)
    report.same(
        "state_dict",
        {"missing": result.missing_keys, "unexpected": result.unexpected_keys},
        {"missing": [], "unexpected": []},
    )
    return model


def expand_ids(model: GroveForConditionalGeneration, ids: Tensor) -> Tensor:
    """The original's ids `(B, L)` -> ours, with the video tokens in place of -200."""
    config = model.config
    return torch.tensor(
        [expand_video_tokens(row, config.video_token_id, config.num_video_tokens) for row in ids.tolist()]
    )


def expand_values(values: Tensor, ids: Tensor, count: int, fill: int) -> Tensor:
    """`(B, L)` values beside the original's ids, `count` times `fill` in place of the one at -200."""
    rows = []
    for row, position in zip(values, (ids == VIDEO_ID).int().argmax(1).tolist(), strict=True):
        rows.append(torch.cat([row[:position], row.new_full((count,), fill), row[position + 1 :]]))
    return torch.stack(rows)


def collapse_ids(model: GroveForConditionalGeneration, ids: Tensor) -> list[int]:
    """Our ids `(L,)` -> the original's, with one -200 in place of the video tokens."""
    is_video = ids == model.config.video_token_id
    first = is_video & ~torch.cat([is_video.new_zeros(1), is_video[:-1]])
    return ids.masked_fill(is_video, VIDEO_ID)[first | ~is_video].tolist()


def phrase_positions(model: GroveForConditionalGeneration, ids: Tensor) -> Tensor:
    """Positions that predict the [DET] tokens of one sequence of ours `(L,)`."""
    return (ids[1:] == model.config.det_token_id).nonzero()[:, 0]


def recorded_question(case: RecordedCase, prompt: Tensor) -> str:
    """The question of a recorded prompt `(P,)`; the first template, which inference uses, if it cannot be read."""
    text = decode(case.tokenizer, [token for token in prompt.tolist() if token != VIDEO_ID])
    match = re.search(r"of the video\.\n(.*?) ASSISTANT:", text)
    return match[1] if match else QUESTION_TEMPLATES[0]


def video_pixels(case: RecordedCase, report: Report, batch_size: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Both pixel streams, `(B, T, 3, H, W)`."""
    sizes = {"B": batch_size, "C": 3, "T": num_frames}
    names = ("clip_pixel_values", "sam_pixel_values")
    clip, sam = (case.pixels(name, report, **sizes).transpose(1, 2) for name in names)
    return clip, sam


# Training step


def check_full(case: RecordedCase, report: Report) -> None:
    """A training step: every intermediate tensor, boxes, losses and gradients."""
    model = load_model(case, report)
    config, recorded = model.config, case.inputs
    batch_size = len(recorded["input_ids"])
    clip, sam = video_pixels(case, report, batch_size, config.num_frames)
    ids = expand_ids(model, recorded["input_ids"])
    mask = expand_values(recorded["attention_masks"], recorded["input_ids"], config.num_video_tokens, 1)
    labels = expand_values(recorded["labels"], recorded["input_ids"], config.num_video_tokens, -100)
    box_labels, objectness_labels = _grounding_labels(case, batch_size, config.num_frames)
    report.compare("attention_mask_full", mask, EXACT)

    trained = _require_original_gradients(case, model)
    model.train()
    with torch.set_grad_enabled(bool(trained)):
        outputs = model(
            input_ids=ids,
            pixel_values_videos=clip,
            grounding_pixel_values_videos=sam,
            attention_mask=mask,
            labels=labels,
            box_labels=box_labels,
            objectness_labels=objectness_labels,
        )
    with torch.no_grad():
        _check_clip(case, report, model, clip)
        _check_sam(case, report, model, sam)
        _check_language(case, report, model, ids, mask.bool(), outputs)
    for name in ("loss", "giou_loss", "l1_loss"):
        report.compare(name, outputs[name], LOSSES)
    report.compare("ce_loss", outputs.caption_loss, LOSSES)
    if config.use_temporal_objectness:
        report.compare("temp_objectness_loss", outputs.objectness_loss, LOSSES)
    if trained:
        outputs.loss.backward()
        _check_gradients(case, report, model, trained)
    _check_conversations(case, report)


def _grounding_labels(case: RecordedCase, batch_size: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """Padded boxes `(B, T, N, 4)` and objectness `(B, T, N)`; the case stores the boxes of visible objects only."""
    visible = [case.inputs[f"gt_objectness.b{sample}"] for sample in range(batch_size)]
    num_phrases = max(part.shape[1] for part in visible)
    boxes = torch.zeros(batch_size, num_frames, num_phrases, 4)
    objectness = torch.full(boxes.shape[:3], -100.0)
    for sample, part in enumerate(visible):
        objectness[sample, :, : part.shape[1]] = part
        for frame in range(num_frames):
            stored = case.inputs.get(f"gt_boxes.b{sample}.t{frame}", torch.zeros(0, 4))
            boxes[sample, frame, (part[frame] == 1).nonzero()[:, 0]] = stored
    return boxes, objectness


def _check_clip(case: RecordedCase, report: Report, model: GroveForConditionalGeneration, clip: Tensor) -> None:
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    features, states = tower(clip, output_hidden_states=True)
    # The case also has the layers that nothing reads, which our model does not build: they are run in a tower that has them.
    if len(states) <= model.config.vision_config.num_hidden_layers:
        original = case.config | {"clip": case.config["clip"] | {"select_layer": -1}}
        config, converted = convert_state_dict(case.state_dict, original)
        whole = type(tower)(config).eval()
        prefix = "model.vision_tower."
        whole.load_state_dict(
            {name.removeprefix(prefix): part for name, part in converted.items() if name.startswith(prefix)}
        )
        states = states + whole(clip, output_hidden_states=True)[1][len(states) :]
    frames = case.described("clip_hidden_probe", r"frames \[([\d, ]+)\]", PROBED_FRAMES)
    tokens = case.described("clip_hidden_probe", r"tokens \[([\d, ]+)\]", PROBED_TOKENS)
    report.compare("clip_hidden_probe", torch.stack(states)[:, frames][:, :, tokens], FEATURES)
    times = case.described("clip_selected", r"t in \[([\d, ]+)\]", PROBED_TIMES)
    [stride] = case.described("clip_selected", r"every (\d+)(?:st|nd|rd|th) patch", [CLIP_STRIDE])
    report.compare("clip_selected", features[:, times].flatten(0, 1)[:, ::stride], FEATURES)
    report.compare("clip_pooled", projector.pool_features(features), FEATURES)
    report.compare("video_tokens", projector(features), FEATURES)


def _check_sam(case: RecordedCase, report: Report, model: GroveForConditionalGeneration, sam: Tensor) -> None:
    features, states = model.model.grounding_encoder(sam, output_hidden_states=True)
    frames = case.described("sam_block_probe", r"frames \[([\d, ]+)\]", PROBED_FRAMES)
    [stride] = case.described("sam_block_probe", r"stride (\d+)", [SAM_STRIDE])
    report.compare("sam_block_probe", torch.stack(states)[:, frames, ::stride, ::stride], FEATURES)
    features = features.flatten(0, 1)
    stored = case.meta.get("sam_embeddings_frames")  # indices, or "all"
    report.compare("sam_embeddings", features[stored] if isinstance(stored, list) else features, FEATURES)
    flat = features.flatten(1)
    report.compare("sam_embedding_stats", torch.stack([flat.mean(1), flat.std(1)], dim=1), FEATURES)
    report.compare("dense_pe", model.model.box_decoder.dense_positional_encoding(), FEATURES)


def _check_language(
    case: RecordedCase,
    report: Report,
    model: GroveForConditionalGeneration,
    ids: Tensor,
    mask: Tensor,
    outputs: GroveCausalLMOutputWithPast,
) -> None:
    """Embeddings, states, logits, queries and boxes; the language model's where the text is."""
    report.compare("inputs_embeds", model.model.embed_tokens(ids, outputs.video_hidden_states), FEATURES, mask)
    report.compare("last_hidden_state", outputs.last_hidden_state, FEATURES, mask)
    video = case.meta.get("image_pos", int((case.inputs["input_ids"][0] == VIDEO_ID).int().argmax()))
    start = video + model.config.num_video_tokens
    report.compare("logits_text", outputs.logits[:, start:], FEATURES, mask[:, start:])
    queries, phrase_mask = model.model.gather_phrases(ids, outputs.last_hidden_state)
    counts = phrase_mask.sum(1).tolist()
    report.recorded_text("num_det", counts)
    for sample, count in enumerate(counts):
        objectness = outputs.objectness_logits
        report.compare(f"det_positions.b{sample}", phrase_positions(model, ids[sample]), EXACT)
        report.compare(f"det_embeddings.b{sample}", queries[sample, :count], FEATURES)
        report.compare(f"pred_boxes.b{sample}", outputs.pred_boxes[sample, :, :count], BOXES)
        if objectness is not None:
            report.compare(f"objectness_logits.b{sample}", objectness[sample, :, :count], OBJECTNESS)


def _gradient_norms(case: RecordedCase) -> dict[str, float | None]:
    file = case.path / "grad_norms.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _require_original_gradients(case: RecordedCase, model: GroveForConditionalGeneration) -> dict[str, str | None]:
    """Makes exactly the original's trainable parameters require gradients; original name -> ours or `None` if we do without it."""
    recorded = [name.removeprefix("grad.") for name in case.listed_outputs if name.startswith("grad.")]
    names = dict.fromkeys([*_gradient_norms(case), *sorted(recorded)])
    plan = {name: plan_tensor(name, tuple(case.state_dict[name].shape), model.config).target for name in names}
    trained = set(plan.values())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return plan


def _check_gradients(
    case: RecordedCase, report: Report, model: GroveForConditionalGeneration, plan: dict[str, str | None]
) -> None:
    parameters = dict(model.named_parameters())
    gradients = {name: parameters[target].grad if target is not None else None for name, target in plan.items()}
    norms = _gradient_norms(case)
    tolerance = replace(GRADIENTS, atol=GRADIENT_NORM * hypot(*(norm for norm in norms.values() if norm is not None)))
    for name, norm in norms.items():
        gradient = gradients[name]
        if norm is None:
            report.same(f"grad_norm {name}", "no gradient" if gradient is None else "a gradient", "no gradient")
        elif gradient is None:
            report.fail(f"grad_norm {name}", f"missing: our model has no gradient there, recorded {norm}")
        else:
            report.close(f"grad_norm {name}", gradient.double().norm(), norm, tolerance)
    for name, gradient in gradients.items():
        if f"grad.{name}" in case.listed_outputs:
            recorded = case.outputs.get(f"grad.{name}", torch.zeros(1))
            tolerance = replace(GRADIENTS, atol=GRADIENT_ELEMENT * float(recorded.abs().max()))
            report.compare(f"grad.{name}", gradient, tolerance)


def _check_conversations(case: RecordedCase, report: Report) -> None:
    """The recorded conversations give the recorded batch."""
    if "conversations" not in case.meta:
        return
    config = case.config
    batch = collate(case.tokenizer, case.meta["conversations"], num_video_tokens=config["num_video_tokens"])
    for ours, recorded in (("input_ids", "input_ids"), ("labels", "labels"), ("attention_mask", "attention_masks")):
        report.same(f"conversations: {recorded}", batch[ours], case.inputs[recorded])
    report.recorded_text("text_lengths", [int(row.sum()) for row in batch["attention_mask"]])
    report.recorded_text("image_pos", int((case.inputs["input_ids"][0] == VIDEO_ID).int().argmax()))


# Generation


def generation_options(case: RecordedCase) -> dict:
    """Greedy decoding with a cache, as recorded."""
    described = re.search(r"max_new_tokens[ =](\d+)", case.meta.get("official_entry", ""))
    return {
        "max_new_tokens": case.meta.get("max_new_tokens", int(described[1]) if described else 64),
        "do_sample": False,
        "num_beams": 1,
        "use_cache": True,
        "eos_token_id": case.config["llm"].get("eos_token_id", 2),
        "pad_token_id": case.config["llm"].get("pad_token_id", 0),
    }


def kept_boxes(boxes: Tensor, objectness: Tensor | None, threshold: float) -> Tensor:
    """`(T, N)` mask of the boxes that the original keeps; all of them without an objectness head."""
    return torch.ones(boxes.shape[:2], dtype=torch.bool) if objectness is None else objectness.sigmoid() > threshold


@torch.no_grad()
def check_generate(case: RecordedCase, report: Report) -> None:
    """Greedy generation with a cache, and boxes from the states of the generated [DET] tokens."""
    model = load_model(case, report)
    config = model.config
    prompt = case.inputs["input_ids"]
    if len(prompt) != 1:
        raise ValueError(
            f"input_ids has {len(prompt)} rows; expected 1, the original generates for one video at a time."
        )
    clip, sam = video_pixels(case, report, 1, config.num_frames)
    ids = expand_ids(model, prompt)
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=clip,
        return_dict_in_generate=True,
        output_logits=True,
        output_hidden_states=True,
        **generation_options(case),
    )
    sequence = generated.sequences[0]
    new_ids = sequence[ids.shape[1] :]
    report.compare("new_ids", new_ids, EXACT)
    report.compare("output_ids", torch.tensor([collapse_ids(model, sequence)]), EXACT)
    logits = torch.cat(generated.logits)
    report.compare("step_logits", logits, FEATURES)
    best = logits.topk(2).values
    report.recorded_number("top1_top2_margin_min", (best[:, 0] - best[:, 1]).min(), MARGIN)
    states = torch.cat([step[-1] for step in generated.hidden_states], dim=1)
    report.compare("hidden_concat", states, FEATURES)
    report.compare("det_positions", phrase_positions(model, sequence), EXACT)
    report.compare("video_tokens", model.get_video_features(clip), FEATURES)
    features = model.get_grounding_features(sam)
    stored = case.described("sam_embeddings_probe", r"frames \[([\d, ]+)\]", PROBED_TIMES)
    report.compare("sam_embeddings_probe", features[0, stored], FEATURES)

    boxes, objectness, _ = model.model.predict_boxes(sequence[None], states, features)
    boxes, objectness = boxes[0], None if objectness is None else objectness[0]
    report.compare("raw_boxes", boxes, BOXES)
    if objectness is not None:
        report.compare("raw_objectness_logits", objectness, OBJECTNESS)
        _check_smallest_logit(report, objectness)
    keep = kept_boxes(boxes, objectness, case.meta.get("threshold", config.objectness_threshold))
    report.compare("keep", keep, EXACT)
    pixels = boxes_to_pixels(boxes, *case.meta["original_size_wh"])
    for frame in range(len(pixels)):
        report.compare(f"boxes_px.t{frame}", pixels[frame, keep[frame]], PIXELS)

    ended = new_ids[-1] == generation_options(case)["eos_token_id"]
    report.recorded_text("stopped_by", "eos" if ended else "max_new_tokens")
    text_ids = [token for token in collapse_ids(model, sequence) if token != VIDEO_ID]
    report.recorded_text("decoded_raw", decode(case.tokenizer, text_ids))
    question = recorded_question(case, prompt[0])
    report.same("prompt", [encode_conversation(case.tokenizer, conversation(question=question))], prompt)


def _check_smallest_logit(report: Report, objectness: Tensor) -> None:
    if objectness.numel():
        report.recorded_number("min_abs_objectness_logit", objectness.abs().min(), OBJECTNESS)


# Dense inference


@torch.no_grad()
def check_dense(case: RecordedCase, report: Report) -> None:
    """Inference over a whole clip: windows, boxes of every window and frame, and texts."""
    model = load_model(case, report)
    config, tokenizer, total = model.config, case.tokenizer, case.meta["T"]
    clip, sam = video_pixels(case, report, 1, total)
    question = recorded_question(case, case.outputs["prompt_ids"][0])
    prompt = encode_conversation(tokenizer, conversation(question=question))
    report.compare("prompt_ids", torch.tensor([prompt]), EXACT)

    def rewrite_caption(sequences: Tensor) -> tuple[Tensor, Tensor]:
        text = text_for_other_windows(tokenizer, collapse_ids(model, sequences[0]))
        ids = expand_ids(model, torch.tensor([encode_for_other_windows(tokenizer, text, question)]))
        return ids, torch.ones_like(ids)

    output = model.generate_grounded(
        input_ids=expand_ids(model, torch.tensor([prompt])),
        pixel_values_videos=clip,
        grounding_pixel_values_videos=sam,
        windows="sliding",
        constrained=False,
        rewrite_caption=rewrite_caption,
        **generation_options(case),
    )
    sequence = collapse_ids(model, output.sequences[0])
    answer, _ = rewrite_caption(output.sequences)
    report.compare("output_ids", torch.tensor([sequence]), EXACT)
    report.compare("answer_ids", torch.tensor([collapse_ids(model, answer[0])]), EXACT)
    _check_windows(case, report, model, clip, sam, output.sequences, answer)

    boxes = output.pred_boxes[0]
    objectness = None if output.objectness_logits is None else output.objectness_logits[0]
    if objectness is not None:
        report.compare("frame_probs", objectness.sigmoid(), OBJECTNESS)
    threshold = case.meta.get("threshold", config.objectness_threshold)
    keep = kept_boxes(boxes, objectness, threshold)
    pixels = boxes_to_pixels(boxes, *case.meta["original_size_wh"])
    for frame in range(total):
        report.compare(f"frame_boxes_px.f{frame}", pixels[frame, keep[frame]], PIXELS)

    text, tagged, phrases = postprocess(tokenizer, sequence)
    report.recorded_text("pred_text", text)
    report.recorded_text("pred_text_tagged", tagged)
    report.recorded_text("pred_phrases", phrases)
    if objectness is not None:
        labels = labels_per_frame(phrases, objectness.numpy(), threshold)
        report.recorded_text("pred_labels_per_frame", labels)


def _check_windows(
    case: RecordedCase,
    report: Report,
    model: GroveForConditionalGeneration,
    clip: Tensor,
    sam: Tensor,
    generated: Tensor,
    answer: Tensor,
) -> None:
    """The windows, and all boxes of each grounded on its own: the centre one with the generated ids, the others with `answer`."""
    total, size = clip.shape[1], model.config.num_frames
    windows, masks = sliding_windows(total, size)
    center = sliding_center_window(total, size)
    report.compare("windows", torch.from_numpy(windows), EXACT)
    report.compare("masks", torch.from_numpy(masks), EXACT)
    report.recorded_text("centre_window", center)
    others = [index for index in range(len(windows)) if index != center]
    report.recorded_text("window_processing_order", [center, *others])
    logits = []
    for index, frames in enumerate(windows):
        ids = generated if index == center else answer
        window = model.ground(ids, clip[:, frames], sam[:, frames], windows="sliding")
        report.compare(f"window_boxes.w{index}", window.pred_boxes[0], BOXES)
        if window.objectness_logits is not None:
            report.compare(f"window_objectness.w{index}", window.objectness_logits[0], OBJECTNESS)
            logits.append(window.objectness_logits.flatten())
    if logits:
        _check_smallest_logit(report, torch.cat(logits))
