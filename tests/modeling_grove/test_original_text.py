"""The original's text handling, against strings and ids recorded from the original code."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from modeling_grove.original_text_grove import (
    collate,
    conversation,
    conversation_labels,
    decode,
    encode,
    encode_conversation,
    encode_for_other_windows,
    expand_video_tokens,
    labels_per_frame,
    parse_annotations,
    postprocess,
    text_for_other_windows,
    training_answer,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "grove"
PROMPTS = json.loads((GOLDEN / "prompts.json").read_text())
TOKENIZER_IDS = json.loads((GOLDEN / "tokenizer" / "ids.json").read_text())
READABLE = [entry for entry in PROMPTS["parse"] if "official_raises" not in entry]
# Recorded from the slow LlamaTokenizer of transformers 4.46.3 on the same files: what ids.json does not touch.
# fmt: off
SLOW_ENCODED = [
    ('<unk>man,',
     [1, 0, 307, 430]),
    (' e\u0301<p></p></p>\n12[SEG]',
     [1, 400, 349, 207, 132, 453, 454, 454, 13, 439, 433, 452]),
    ('\u2581><unk>\u2581\u200b',
     [1, 400, 400, 65, 0, 400, 229, 131, 142]),
    ('<unk><unk>\xa0',
     [1, 0, 0, 197, 163]),
    ("<video>ASSISTANT:\u3000'",
     [1, 400, 63, 311, 65, 431, 427, 427, 436, 427, 428, 431, 444, 428, 435, 230, 131, 131, 429]),
    ('\u2581<video>man',
     [1, 400, 400, 63, 311, 65, 307]),
    ('\xa0\u2581 man</p>.[SEG]a>',
     [1, 400, 197, 163, 400, 321, 454, 417, 452, 403, 65]),
]
SLOW_DECODED = [
    ([19, 219, 455, 1, 456, 240], '\x10\ufffd <vid_start> <s> <vid_end> \ufffd'),
    ([71, 196, 453, 193, 455, 164], 'D\ufffd <p> \ufffd <vid_start> \ufffd'),
    ([63, 351, 352, 165, 225, 175, 134, 173], '< l t\ufffd\u07ac\ufffd\ufffd'),
    ([245, 373, 1, 0, 2], '\ufffd pro<s><unk></s>'),
    ([168, 151, 305, 453, 400], '\ufffd\ufffdas <p> '),
    ([1, 433, 179, 448, 456, 1], '<s> 2\ufffd <im_start> <vid_end> <s>'),
    ([1, 137, 200, 82, 136, 400], '<s> \ufffd\ufffdO\ufffd '),
]
# fmt: on


def read_meta(case):
    return json.loads((GOLDEN / case / "meta.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / "final")


@pytest.fixture(scope="module", params=["as released", "saved again"])
def any_tokenizer(request, tokenizer, tmp_path_factory):
    """Also the tokenizer after save_pretrained, which writes tokenizer.json in place of tokenizer.model."""
    if request.param == "as released":
        return tokenizer
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("example", TOKENIZER_IDS["examples"], ids=lambda e: repr(e["text"]))
def test_tokenizer_examples(any_tokenizer, example):
    ids = encode(any_tokenizer, example["text"])
    assert ids == example["ids_with_bos"]
    assert encode(any_tokenizer, example["text"], add_bos=False) == example["ids_no_special"]
    assert any_tokenizer.convert_ids_to_tokens(ids) == example["tokens"]
    assert decode(any_tokenizer, ids) == example["decoded"]


def test_slow_tokenizer(any_tokenizer):
    for text, ids in SLOW_ENCODED:
        assert encode(any_tokenizer, text) == ids, text
    for ids, text in SLOW_DECODED:
        assert decode(any_tokenizer, ids) == text, ids


def test_added_token_ids(tokenizer):
    ids = TOKENIZER_IDS["pretrained_true"]["ids"]
    assert tokenizer.convert_tokens_to_ids(list(ids)) == list(ids.values())


@pytest.mark.parametrize("entry", READABLE, ids=lambda e: e["input_caption"].strip())
def test_annotation_to_ids(tokenizer, entry):
    parsed = parse_annotations(entry["input_caption"], entry["input_tagged_caption"], entry["input_phrases"])
    assert parsed.caption == entry["caption"]
    assert parsed.labels == entry["labels"]
    assert [list(span) for span in parsed.tokens_positive] == entry["tokens_positive"]

    answer = training_answer(parsed.caption, parsed.tokens_positive)
    assert answer == entry["answer"]
    text = conversation(answer, entry["question"])
    assert text == entry["conversation"]
    assert text.replace("<vid_start><video><vid_end>", "<video>") == entry["conversation_before_wrap"]

    ids, labels = encode_conversation(tokenizer, text), conversation_labels(tokenizer, text)
    assert ids == entry["input_ids"]
    assert labels == entry["label_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("[DET]")) == entry["num_det"]
    assert decode(tokenizer, [i for i in labels if i != -100]) == entry["supervised_text"]


def test_unreadable_annotation():
    (entry,) = [entry for entry in PROMPTS["parse"] if "official_raises" in entry]
    with pytest.raises(ValueError, match="'hammer', is not tagged"):
        parse_annotations(entry["input_caption"], entry["input_tagged_caption"], entry["input_phrases"])


def test_padded_batch(tokenizer):
    expected = PROMPTS["padded_batch"]
    batch = collate(tokenizer, expected["conversations"])
    assert batch["input_ids"].tolist() == expected["input_ids"]
    assert batch["labels"].tolist() == expected["labels"]
    assert batch["attention_mask"].tolist() == expected["attention_masks"]


def test_truncated_batch(tokenizer):
    expected = PROMPTS["truncated_batch"]
    batch = collate(tokenizer, PROMPTS["padded_batch"]["conversations"], model_max_length=expected["model_max_length"])
    assert batch["input_ids"].tolist() == expected["input_ids"]
    assert batch["labels"].tolist() == expected["labels"]


@pytest.mark.parametrize("case", ["full_a", "full_b"])
def test_training_batches(tokenizer, case):
    inputs = load_file(GOLDEN / case / "inputs.safetensors")
    batch = collate(tokenizer, read_meta(case)["conversations"])
    np.testing.assert_array_equal(batch["input_ids"], inputs["input_ids"])
    np.testing.assert_array_equal(batch["labels"], inputs["labels"])


def test_inference_prompt(tokenizer):
    expected = PROMPTS["inference_prompt"]
    assert conversation() == expected["prompt_string"]
    assert encode_conversation(tokenizer, conversation()) == expected["prompt_ids"]
    assert encode_for_other_windows(tokenizer, expected["answer_example"]) == expected["prompt_with_answer_ids"]


@pytest.mark.parametrize("entry", PROMPTS["postprocess"], ids=lambda e: e["generated_text"])
def test_postprocess(tokenizer, entry):
    sequence = PROMPTS["inference_prompt"]["prompt_ids"] + entry["generated_ids"] + [tokenizer.pad_token_id]
    text, tagged, phrases = postprocess(tokenizer, sequence)
    assert text == entry["pred_text"]
    assert tagged == entry["pred_text_tagged"]
    assert phrases == entry["pred_phrases"]
    logits = np.array(entry["objectness_logits"])
    assert logits.shape == (8, entry["num_det"])
    assert labels_per_frame(phrases, logits) == entry["pred_labels_per_frame"]


@pytest.mark.parametrize("case", ["generate_a", "generate_b"])
def test_generated_text(tokenizer, case):
    prompt = load_file(GOLDEN / case / "inputs.safetensors")["input_ids"][0]
    assert encode_conversation(tokenizer, conversation()) == prompt.tolist()
    output = load_file(GOLDEN / case / "outputs.safetensors")["output_ids"][0]
    assert decode(tokenizer, [i for i in output.tolist() if i != -200]) == read_meta(case)["decoded_raw"]


def test_dense_inference(tokenizer):
    meta, outputs = read_meta("dense_a"), load_file(GOLDEN / "dense_a" / "outputs.safetensors")
    assert encode_conversation(tokenizer, conversation()) == outputs["prompt_ids"][0].tolist()
    sequence = outputs["output_ids"][0]
    text, tagged, phrases = postprocess(tokenizer, sequence)
    assert text == meta["pred_text"]
    assert tagged == meta["pred_text_tagged"]
    assert phrases == meta["pred_phrases"]
    answer_ids = encode_for_other_windows(tokenizer, text_for_other_windows(tokenizer, sequence))
    assert answer_ids == outputs["answer_ids"][0].tolist()
    logits = np.log(outputs["frame_probs"] / (1 - outputs["frame_probs"]))
    assert labels_per_frame(phrases, logits) == meta["pred_labels_per_frame"]


def test_expand_video_tokens(tokenizer):
    ids = encode_conversation(tokenizer, conversation())
    expanded = expand_video_tokens(ids, video_token_id=7, num_video_tokens=576)
    video = ids.index(-200)
    assert len(expanded) == len(ids) + 575
    assert expanded == ids[:video] + [7] * 576 + ids[video + 1 :]


def test_objectness_threshold_is_strict():
    assert labels_per_frame(["man"], np.array([[0.0], [1e-3], [-200.0]])) == [[], ["man"], []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (conversation("a <unk> runs"), "padding token '<unk>'"),
        (conversation(), "expected one ' ASSISTANT: '"),
        (conversation("a ASSISTANT: b"), "expected one ' ASSISTANT: '"),
    ],
)
def test_labels_refuse_what_the_original_asserts(tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        conversation_labels(tokenizer, text)
