"""Parity of text and sampling with recorded tables: tokenizer ids, prompts, post-processing, windows and frame numbers."""

import hashlib
from typing import Any

import numpy as np
from parity_report import RecordedCase, Report

from modeling_grove.original_text_grove import (
    VIDEO_ID,
    collate,
    conversation,
    conversation_labels,
    decode,
    encode,
    encode_conversation,
    encode_for_other_windows,
    labels_per_frame,
    parse_annotations,
    postprocess,
    training_answer,
)
from modeling_grove.text_grove import DET_TOKEN, QUESTION_TEMPLATES, VIDEO_END_TOKEN, VIDEO_START_TOKEN, VIDEO_TOKEN
from modeling_grove.video_grove import sampled_frame_indices
from modeling_grove.windows_grove import segment_midpoints, sliding_center_window, sliding_windows, training_segments

Pairs = dict[str, dict[str, tuple[Any, Any]]]
WINDOW_SIZE = 8


def _put(pairs: Pairs, entry: dict[str, Any], key: str, values: dict[str, Any]) -> None:
    """Notes our values beside the entry's, those that it has."""
    for field, value in values.items():
        if field in entry:
            pairs.setdefault(field, {})[key] = (value, entry[field])


def _write(report: Report, section: str, pairs: Pairs) -> None:
    for field, items in pairs.items():
        report.all_same(f"{section}.{field}", items)


def _unknown_sections(case: RecordedCase, report: Report, known: set[str]) -> None:
    """Sections of a table that nothing is compared with are failures; strings and numbers are remarks."""
    for name, value in case.meta.items():
        if name not in known and isinstance(value, dict | list):
            report.fail(name, "not compared: unknown section")


def check_prompts(case: RecordedCase, report: Report) -> None:
    """Annotations to training ids, batches, the inference prompt, and generated ids to texts."""
    meta, tokenizer = case.meta, case.tokenizer
    _unknown_sections(case, report, {"parse", "padded_batch", "truncated_batch", "inference_prompt", "postprocess"})
    pairs: Pairs = {}
    for entry in meta.get("parse", []):
        key = repr(entry["input_caption"])
        try:
            parsed = parse_annotations(entry["input_caption"], entry["input_tagged_caption"], entry["input_phrases"])
        except ValueError as error:
            _put(pairs, {"raises": "official_raises" in entry}, key, {"raises": True})
            if "official_raises" not in entry:
                report.fail(f"parse {key}", str(error))
            continue
        _put(pairs, {"raises": "official_raises" in entry}, key, {"raises": False})
        answer = training_answer(parsed.caption, parsed.tokens_positive)
        if "question" not in entry:
            continue
        text = conversation(answer, entry["question"])
        ids, labels = encode_conversation(tokenizer, text), conversation_labels(tokenizer, text)
        values = {
            "caption": parsed.caption,
            "labels": parsed.labels,
            "tokens_positive": [list(span) for span in parsed.tokens_positive],
            "answer": answer,
            "conversation": text,
            "conversation_before_wrap": text.replace(VIDEO_START_TOKEN + VIDEO_TOKEN + VIDEO_END_TOKEN, VIDEO_TOKEN),
            "input_ids": ids,
            "label_ids": labels,
            "num_det": ids.count(tokenizer.convert_tokens_to_ids(DET_TOKEN)),
            "supervised_text": decode(tokenizer, [token for token in labels if token >= 0]),
        }
        _put(pairs, entry, key, values)
    _write(report, "parse", pairs)
    if "sha256_video_grounding_questions" in meta:
        digest = hashlib.sha256("\n".join(QUESTION_TEMPLATES).encode()).hexdigest()
        report.same("sha256_video_grounding_questions", digest, meta["sha256_video_grounding_questions"])
    _check_batches(case, report)
    _check_postprocess(case, report)


def _check_batches(case: RecordedCase, report: Report) -> None:
    meta, tokenizer = case.meta, case.tokenizer
    conversations = meta.get("padded_batch", {}).get("conversations", [])
    for section, limit in (("padded_batch", None), ("truncated_batch", "model_max_length")):
        if section not in meta:
            continue
        entry = meta[section]
        length = None if limit is None else entry[limit]
        batch = collate(tokenizer, entry.get("conversations", conversations), model_max_length=length)
        for field, ours in (("input_ids", "input_ids"), ("labels", "labels"), ("attention_masks", "attention_mask")):
            if field in entry:
                report.same(f"{section}.{field}", batch[ours], entry[field])
    if "inference_prompt" in meta:
        entry = meta["inference_prompt"]
        report.same("inference_prompt.prompt_string", conversation(), entry["prompt_string"])
        report.same("inference_prompt.prompt_ids", encode_conversation(tokenizer, conversation()), entry["prompt_ids"])
        answered = encode_for_other_windows(tokenizer, entry["answer_example"])
        report.same("inference_prompt.prompt_with_answer_ids", answered, entry["prompt_with_answer_ids"])


def _check_postprocess(case: RecordedCase, report: Report) -> None:
    tokenizer, pairs = case.tokenizer, Pairs()
    prompt = encode_conversation(tokenizer, conversation())
    det = tokenizer.convert_tokens_to_ids(DET_TOKEN)
    for index, entry in enumerate(case.meta.get("postprocess", [])):
        text, tagged, phrases = postprocess(tokenizer, prompt + entry["generated_ids"])
        count = entry["generated_ids"].count(det)
        logits = np.array(entry["objectness_logits"], dtype=np.float32).reshape(len(entry["objectness_logits"]), count)
        values = {
            "num_det": count,
            "pred_text": text,
            "pred_text_tagged": tagged,
            "pred_phrases": phrases,
            "pred_labels_per_frame": labels_per_frame(phrases, logits),
        }
        _put(pairs, entry, f"{index} {entry['generated_text']!r}", values)
    _write(report, "postprocess", pairs)


def check_tokenizer(case: RecordedCase, report: Report) -> None:
    """Ids, pieces and decoded text of the original's slow tokenizer."""
    tokenizer, pairs = case.tokenizer, Pairs()
    for entry in case.meta["examples"]:
        ids = encode(tokenizer, entry["text"])
        values = {
            "ids_with_bos": ids,
            "ids_no_special": encode(tokenizer, entry["text"], add_bos=False),
            "tokens": tokenizer.convert_ids_to_tokens(ids),
            "decoded": decode(tokenizer, ids),
        }
        _put(pairs, entry, repr(entry["text"]), values)
    _write(report, "examples", pairs)
    added = case.meta["pretrained_true"]["ids"]
    report.all_same(
        "pretrained_true.ids",
        {token: (tokenizer.convert_tokens_to_ids(token), index) for token, index in added.items()},
    )
    report.same("final_vocab_size", len(tokenizer), case.meta["final_vocab_size"])
    report.same("pad_token", tokenizer.pad_token, case.meta["pad_token"])
    report.same("video id is no token", VIDEO_ID in tokenizer.added_tokens_decoder, False)


def check_sampling(case: RecordedCase, report: Report) -> None:
    """Windows, segments and frame numbers. Clips shorter than a window are left out: there ours differ on purpose."""
    _unknown_sections(case, report, {"by_T", "edge_T_below_8", "frame_ids", "quirks"})
    pairs: Pairs = {}
    for key, entry in case.meta.get("by_T", {}).items():
        total = int(key)
        size = len(entry["windows"][0]) if entry.get("windows") else WINDOW_SIZE
        if total < size:
            continue
        windows, masks = sliding_windows(total, size)
        values = {
            "centre_frames": segment_midpoints(total, size).tolist(),
            "windows": windows.tolist(),
            "masks": masks.astype(int).tolist(),
            "last_all_ones": int(np.flatnonzero(masks.all(1))[-1]),
            "centre_window": sliding_center_window(total, size),
            "uncovered": sorted(set(range(total)) - set(windows[masks].tolist())),
            "n_outputs": int(masks.sum()),
            "train_segments": [list(segment) for segment in training_segments(total, size)],
        }
        _put(pairs, entry, f"T={total}", values)
    _write(report, "by_T", pairs)
    pairs = {}
    for entry in case.meta.get("frame_ids", []):
        fps, start, end, target = (entry[name] for name in ("fps", "start_frame", "end_frame", "target_fps"))
        frames = sampled_frame_indices(fps, start, end, target)
        step = max(1, int(fps / target))
        # The inference-only packaging of the original also takes sources that are slower than the target rate.
        values = {
            "frame_ids": frames,
            "grove_transformers_frame_ids": frames,
            "step": step,
            "effective_fps": fps / step,
        }
        _put(pairs, entry, f"fps={fps} {start}..{end}", values)
    _write(report, "frame_ids", pairs)
