"""Parity of GLaMM: pictures, features, texts and masks as the official code recorded them."""

# Sub-configs and output fields are optional to the type checker, and always there here.
# mypy: disable-error-code="arg-type, index, union-attr"

import json

import numpy as np
import torch
from parity_report import RecordedCase, Report, Tolerance

from modeling_grove.original_text_grove import VIDEO_ID
from pipeline_annotate.captioners import Frame
from pipeline_annotate.glamm_captioner import GlammCaptioner, encode_glamm, glamm_prompt, prepare_pictures
from pipeline_annotate.glamm_checkpoints import convert_glamm_state, glamm_config, load_glamm_tokenizer
from pipeline_annotate.glamm_model import GlammForConditionalGeneration, full_size_masks
from pipeline_annotate.mask_boxes import MaskBoxes

# Five times the noise between two versions of transformers, as the README of the recorded cases has it.
VISION = Tolerance(1.5e-5)
SAM = Tolerance(1e-5)
STATES = Tolerance(1.5e-4)
QUERIES = Tolerance(1e-4)
MASKS = Tolerance(4e-3)
PICTURES = Tolerance(1e-5)
ROUNDING = Tolerance(2e-4)  # of mask logits: in float64 they are 1e-4 from the recorded ones


def picture(case: RecordedCase) -> np.ndarray:
    """The recorded case's picture, uint8 `(H, W, 3)`, from its formula."""
    formula, (height, width) = case.meta["pixel_formula"], case.meta["original_hw"]
    y, x = np.mgrid[:height, :width]
    k = formula["k"]
    channels = [
        a * x + b * y + (x * y) // d + e * ((x // k) % 2) * ((y // k) % 2)
        for a, b, d, e in zip(formula["a"], formula["b"], formula["d"], formula["e"], strict=True)
    ]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


class RecordedCaptioner(GlammCaptioner):
    """The captioner of a recorded case."""

    def __init__(self, case: RecordedCase, report: Report):
        original = case.config
        hub = {**original["llama"], **original["glamm"]}
        given = {"sam": {"decoder_num_heads": original["sam"]["decoder_num_heads"]}}
        shapes = {name: tuple(tensor.shape) for name, tensor in case.state_dict.items()}
        config = glamm_config(shapes, hub, original["clip"], given)
        model = GlammForConditionalGeneration(config).eval()
        result = model.load_state_dict(convert_glamm_state(case.state_dict, config), strict=False)
        report.same(
            "state_dict", {"missing": result.missing_keys, "unexpected": result.unexpected_keys},
            {"missing": [], "unexpected": []},
        )  # fmt: skip
        tokenizer = load_glamm_tokenizer(case.path / "tokenizer", config)
        self.setup(model, tokenizer, max_new_tokens=case.meta["max_new_tokens"], boxes=MaskBoxes(inclusive=True))


def check_glamm(case: RecordedCase, report: Report) -> None:
    """Everything that the official code was asked for about one picture."""
    captioner = RecordedCaptioner(case, report)
    model, image, meta = captioner.model, picture(case), case.meta
    clip, sam = prepare_pictures([image], *captioner.picture_sizes)
    report.compare("clip_in_ds16", clip[:, 0, :, ::16, ::16], PICTURES)
    report.compare("sam_in_ds32", sam[:, 0, :, ::32, ::32], PICTURES)
    sums = {"clip_sum": clip.double().sum(), "clip_abs_sum": clip.double().abs().sum(),
            "sam_sum": sam.double().sum(), "sam_abs_sum": sam.double().abs().sum()}  # fmt: skip
    for name, value in sums.items():
        report.close(f"meta: {name}", value, meta["preprocess_check"][name], Tolerance(rtol=1e-5))

    with torch.inference_mode():
        features, _ = model.model.vision_tower(clip)
        report.compare("clip_hidden_select", features[:, 0], VISION)
        embeds = model.get_video_features(clip)
        report.compare("image_tokens", embeds, VISION)
        grounding = model.get_grounding_features(sam)
        report.compare("sam_embeddings", grounding[:, 0], SAM)
        encoding = model.model.mask_decoder.dense_positional_encoding()
        report.compare("dense_pe_slice", encoding[:, :, ::8, ::8], SAM)

        tokens = [model.config.video_token_id] * model.config.num_video_tokens
        for name, text in (("prompt", glamm_prompt()), ("conversation", meta["conversation_text"])):
            report.recorded_text(f"{name}_text", text)
            report.same(
                f"inputs: {name}_ids",
                encode_glamm(captioner.tokenizer, text, [VIDEO_ID]),
                case.inputs[f"{name}_ids"][0],
            )
        ids = torch.tensor([encode_glamm(captioner.tokenizer, meta["conversation_text"], tokens)])
        check_teacher_forced(case, report, captioner, ids, embeds, grounding)
        check_generation(case, report, captioner, image)


def check_teacher_forced(case, report, captioner, ids, embeds, grounding) -> None:
    """The recorded conversation through the model."""
    model = captioner.model
    states = model.model(input_ids=ids, video_embeds=embeds).last_hidden_state
    report.same("meta: tf_expanded_length", ids.shape[1], case.meta["tf_expanded_length"])
    start = ids.shape[1] - case.outputs["tf_logits"].shape[1]
    report.compare("tf_last_hidden", states[:, start:], STATES)
    report.compare("tf_logits", model.lm_head(states)[:, start:], STATES)
    positions = (ids[0, 1:] == model.config.det_token_id).nonzero()[:, 0]
    report.same("meta: seg_expanded_positions", positions, case.meta["seg_expanded_positions"])
    queries, mask = model.model.gather_phrases(ids, states)
    report.compare("tf_seg_embeddings", queries[mask], QUERIES)
    (logits,), (ious,) = model.masks(ids, states, grounding)
    report.same("meta: n_masks", len(logits), case.meta["n_masks"])
    if len(logits):
        report.compare("tf_low_res_mask_logits", logits, MASKS)
        report.compare("tf_iou_pred", ious[:, None], MASKS)
        side, resized, original = (
            model.config.grounding_config.image_size,
            *(tuple(case.meta[f"{name}_hw"]) for name in ("resize", "original")),
        )
        report.compare("tf_mask_logits_ds8", full_size_masks(logits, resized, original, side)[:, ::8, ::8], MASKS)
        recorded = case.outputs["tf_seg_embeddings"]
        exact, _ = model.model.mask_decoder.decode_masks(
            recorded, case.outputs["sam_embeddings"].expand(len(recorded), -1, -1, -1)
        )
        report.close("masks of recorded queries", exact, case.outputs["tf_low_res_mask_logits"], ROUNDING)


def check_generation(case, report, captioner, image) -> None:
    """What the captioner says of the picture by itself."""
    new, masks = captioner.answer([image])
    prompt = case.inputs["prompt_ids"][0].tolist()
    report.used.add("generated_ids")
    report.same("generated_ids", [*prompt, *new[0]], case.outputs["generated_ids"][0])
    if "mask_logits_ds8" in case.outputs:
        report.compare("mask_logits_ds8", masks[0][:, ::8, ::8], MASKS)
    (found,) = captioner.caption([Frame("case", 0, 0.0, image)])
    # The official text has a blank before the full stop where a [SEG] stood.
    report.same("meta: caption", found.caption, case.meta["caption"].replace(" .", "."))
    report.same("meta: phrases", [phrase.text for phrase in found.phrases], case.meta["phrases"])
    boxes = [phrase.boxes[0].tolist() if len(phrase.boxes) else None for phrase in found.phrases]
    report.same("meta: bbox_xyxy_inclusive_pixels", boxes, case.meta.get("bbox_xyxy_inclusive_pixels", []))


def check_tokenization(case: RecordedCase, report: Report) -> None:
    """Ids of the same strings as under transformers 4.28, with which GLaMM was trained."""
    folder = next(path for path in sorted(case.path.parent.iterdir()) if (path / "tokenizer").is_dir())
    original = json.loads((folder / "original_config.json").read_text(encoding="utf-8"))
    tokenizer = load_glamm_tokenizer(folder / "tokenizer", vocabulary(original["llama"]["vocab_size"]))
    recorded = case.meta["by_transformers_version"]["4.28.1"]["glamm"]
    for name in ("prompt", "conversation"):
        report.same(
            f"{name}_ids", encode_glamm(tokenizer, recorded[f"{name}_text"], [VIDEO_ID]), recorded[f"{name}_ids"]
        )
    pairs = {text: (encode_glamm(tokenizer, text)[1:], ids) for text, ids in recorded["strings"].items()}
    report.all_same("strings", pairs)


def vocabulary(size: int):
    """A config of which only the size of the vocabulary counts."""
    from types import SimpleNamespace

    return SimpleNamespace(text_config=SimpleNamespace(vocab_size=size))
