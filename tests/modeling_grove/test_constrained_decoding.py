"""Constrained decoding: whatever the model wants to write, its caption is `(word | <p> word+ </p> [blank] [DET])*`."""

import re

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from modeling_grove import GroveForConditionalGeneration
from modeling_grove.constrained_decoding_grove import GroundedCaptionLogitsProcessor
from modeling_grove.outputs_grove import GroveGroundedOutput
from tests.tiny import (
    BOS,
    DET,
    EOS,
    PAD,
    PHRASE_END,
    PHRASE_START,
    VOCAB_SIZE,
    pad_rows,
    tiny_model,
    tiny_pixels,
    tiny_prompt,
)

BLANK = 60
LETTERS = {PHRASE_START: "<", PHRASE_END: ">", DET: "D", EOS: "E", BLANK: "b"}
WELL_FORMED = {
    None: re.compile(r"([wb]|<[wb]+>D)*(E\.*)?"),
    BLANK: re.compile(r"([wb]|<b?w[wb]*>b?D)*(E\.*)?"),
}
# Greedy decoding and beams never choose more than a few tokens; sampling does.
DECODING = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True},
    "top-k": {"do_sample": True, "top_k": 3},
    "beams": {"do_sample": False, "num_beams": 3},
    "sampled beams": {"do_sample": True, "num_beams": 2},
}


def loud_model(seed: int) -> GroveForConditionalGeneration:
    """A model that writes little but tags, ends and blanks, in no sensible order."""
    model = tiny_model(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for token in LETTERS:
            model.lm_head.weight[token] = torch.randn(64, generator=generator) * 0.7
    return model


@pytest.fixture(scope="module")
def models() -> list[GroveForConditionalGeneration]:
    return [loud_model(seed) for seed in range(3)]


def request(model: GroveForConditionalGeneration, num_rows: int = 6) -> dict[str, Tensor]:
    """Videos of one window with prompts of different length; one of them has tags in its prompt."""
    generator = torch.Generator().manual_seed(0)
    prompts = [tiny_prompt(1 + index, model.config, generator) for index in range(num_rows)]
    prompts[0][1:1] = [PHRASE_START, PHRASE_START, 7, DET]
    input_ids, attention_mask = pad_rows(prompts, "left")
    return {"input_ids": input_ids, "attention_mask": attention_mask, **tiny_pixels(model.config, num_rows)}


def captions(outputs: GroveGroundedOutput) -> list[str]:
    """A letter a token: `<`, `>`, `D`, `E`nd, `b`lank, `w`ord, and `.` behind the end."""
    texts = []
    for row in outputs.sequences[:, outputs.prompt_length :].tolist():
        text = "".join(LETTERS.get(token, "w") for token in row)
        if "E" in text:
            end = text.index("E") + 1
            assert set(row[end:]) <= {PAD, EOS}
            text = text[:end] + "." * (len(text) - end)
        texts.append(text)
    return texts


def generated(model, seed: int = 0, **options) -> GroveGroundedOutput:
    torch.manual_seed(seed)
    return model.generate_grounded(**request(model), **options)


@pytest.mark.parametrize("blank", [None, BLANK], ids=["no blank", "blank"])
@pytest.mark.parametrize("decoding", DECODING)
def test_captions_are_well_formed(models, decoding, blank):
    num_phrases = num_truncated = 0
    for seed, model in enumerate(models):
        for length in (1, 3, 4, 5, 6, 7, 9, 16):
            outputs = generated(model, seed, blank_token_id=blank, max_new_tokens=length, **DECODING[decoding])
            for index, text in enumerate(captions(outputs)):
                assert WELL_FORMED[blank].fullmatch(text), (seed, length, text)
                assert len(text) <= length
                num_phrases += text.count("<")
                num_truncated += "E" not in text
                # One box a phrase: what the post-processing pairs with the text.
                tags_in_prompt = int(index == 0)
                assert int(outputs.phrase_mask[index].sum()) == text.count("<") + tags_in_prompt
    assert num_phrases > 20 and num_truncated > 5


def test_without_the_constraint_the_same_models_break_the_grammar(models):
    broken = 0
    for seed, model in enumerate(models):
        outputs = generated(model, seed, constrained=False, max_new_tokens=16, do_sample=True)
        broken += sum(not WELL_FORMED[None].fullmatch(text) for text in captions(outputs))
    assert broken > 9


def test_the_blank_stands_between_phrase_and_det(models):
    text = "".join(captions(generated(models[0], blank_token_id=BLANK, max_new_tokens=24, do_sample=True)))
    assert text.count(">bD") > 3 and ">D" not in text


class Only(LogitsProcessor):
    """Wants nothing but these tokens, the first one most."""

    def __init__(self, *tokens: int):
        self.tokens = list(tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        wishes = torch.linspace(30, 20, len(self.tokens))
        return scores.index_copy(1, torch.tensor(self.tokens), wishes.expand(len(scores), -1))


@pytest.mark.parametrize(
    "wish", [PHRASE_START, PHRASE_END, DET, EOS, BLANK], ids=["<p>", "</p>", "[DET]", "</s>", "blank"]
)
@pytest.mark.parametrize("blank", [None, BLANK], ids=["no blank", "blank"])
@pytest.mark.parametrize("length", [4, 5, 6, 7, 8, 20])
def test_an_obsessed_model_stays_within_the_grammar(models, wish, blank, length):
    for second in (PHRASE_START, BLANK):
        outputs = generated(
            models[0],
            blank_token_id=blank,
            max_new_tokens=length,
            do_sample=False,
            logits_processor=[Only(wish, second)],
        )
        assert all(WELL_FORMED[blank].fullmatch(text) for text in captions(outputs)), captions(outputs)


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({}, 20),  # what `generate` does by default
        ({"max_length": "prompt + 9"}, 9),
        ({"generation_config": GenerationConfig(max_new_tokens=11, do_sample=True)}, 11),
        ({"generation_config": None, "max_new_tokens": 7}, 7),
        ({"min_new_tokens": 12, "max_new_tokens": 12}, 12),
    ],
    ids=["default", "max_length", "generation config", "no config", "minimum"],
)
def test_an_open_phrase_is_closed_before_any_limit(models, options, length):
    prompt_length = request(models[0])["input_ids"].shape[1]
    options = {key: prompt_length + 9 if value == "prompt + 9" else value for key, value in options.items()}
    wishes = [Only(PHRASE_START, 9)]  # opens a phrase whenever it can, and never closes it
    outputs = generated(models[0], **options, logits_processor=wishes)
    for text in captions(outputs):
        assert WELL_FORMED[None].fullmatch(text) and text.count("<") >= 1, text
        assert len(text) == length


def test_limits_of_the_models_own_generation_config(models):
    model = loud_model(0)
    model.generation_config.max_new_tokens = 8
    texts = captions(generated(model, logits_processor=[Only(PHRASE_START, 9)]))
    assert {len(text) for text in texts} == {8} and all(WELL_FORMED[None].fullmatch(text) for text in texts)


def test_several_end_tokens_are_all_kept_out_of_phrases(models):
    second_end = 61
    outputs = generated(
        models[0],
        eos_token_id=[EOS, second_end],
        max_new_tokens=12,
        logits_processor=[Only(second_end, PHRASE_START, 9)],
    )
    for row in outputs.sequences[:, outputs.prompt_length :].tolist():
        assert second_end in row
        before = row[: row.index(second_end)]
        assert before.count(PHRASE_START) == before.count(DET)


def test_other_processors_cannot_take_the_last_token_that_is_left(models):
    """Without repeated pairs, the second `</p> [DET]` is forbidden, and nothing else may stand there."""
    for blank in (None, BLANK):
        outputs = generated(
            models[0],
            blank_token_id=blank,
            no_repeat_ngram_size=2,
            max_new_tokens=24,
            logits_processor=[Only(PHRASE_START)],
        )
        texts = captions(outputs)
        assert all(WELL_FORMED[blank].fullmatch(text) for text in texts) and max(t.count("D") for t in texts) > 1, texts


def test_prompts_and_users_processors_are_left_alone(models):
    """A processor list of the caller still runs, is not changed, and tags in the prompt are not the caption's."""
    processors = [Only(9)]
    outputs = generated(models[0], logits_processor=processors, max_new_tokens=6, do_sample=False)
    assert captions(outputs) == ["w" * 6] * 6 and len(processors) == 1


# --- the processor alone ---


def allowed(caption: list[int], left: int, blank: int | None = None) -> set[int]:
    """Tokens with a finite score behind `caption`, with `left` more to come."""
    prompt = [BOS, PHRASE_START, 5]
    processor = GroundedCaptionLogitsProcessor(
        len(prompt), len(prompt) + len(caption) + left, PHRASE_START, PHRASE_END, DET, [EOS], blank
    )
    scores = processor(torch.tensor([prompt + caption]), torch.zeros(1, VOCAB_SIZE))
    return set(scores[0].isfinite().nonzero()[:, 0].tolist())


def test_the_table_of_what_may_follow():
    words = set(range(VOCAB_SIZE)) - {PHRASE_START, PHRASE_END, DET, EOS}
    for caption, left, blank, expected in (
        ([], 20, None, words | {PHRASE_START, EOS}),
        ([5], 20, None, words | {PHRASE_START, EOS}),
        ([5], 4, None, words | {EOS}),  # no room for <p> word </p> [DET] and an end
        ([5], 5, None, words | {PHRASE_START, EOS}),
        ([5], 5, BLANK, words | {EOS}),
        ([5], 6, BLANK, words | {PHRASE_START, EOS}),
        ([PHRASE_START], 20, None, words),
        ([PHRASE_START], 20, BLANK, words),
        ([PHRASE_START, BLANK], 20, BLANK, words - {BLANK}),
        ([PHRASE_START, BLANK], 20, None, words | {PHRASE_END}),
        ([PHRASE_START, 5], 20, None, words | {PHRASE_END}),
        ([PHRASE_START, 5], 3, None, words | {PHRASE_END}),
        ([PHRASE_START, 5], 2, None, {PHRASE_END}),
        ([PHRASE_START, 5], 3, BLANK, {PHRASE_END}),
        ([PHRASE_START, 5, PHRASE_END], 1, None, {DET}),
        ([PHRASE_START, 5, PHRASE_END], 9, None, {DET}),
        ([PHRASE_START, 5, PHRASE_END], 2, BLANK, {BLANK}),
        ([PHRASE_START, 5, PHRASE_END], 1, BLANK, {DET}),
        ([PHRASE_START, 5, PHRASE_END, BLANK], 9, BLANK, {DET}),
        ([PHRASE_START, 5, PHRASE_END, DET], 9, None, words | {PHRASE_START, EOS}),
        ([PHRASE_START, 5, PHRASE_END, DET], 1, None, words | {EOS}),
    ):
        assert allowed(caption, left, blank) == expected, (caption, left, blank)


def test_scores_of_what_is_allowed_are_kept():
    processor = GroundedCaptionLogitsProcessor(0, 20, PHRASE_START, PHRASE_END, DET, [EOS])
    scores = torch.randn(2, VOCAB_SIZE)
    before = scores.clone()
    out = processor(torch.tensor([[5], [PHRASE_START]]), scores)
    assert torch.equal(scores, before)  # the caller's tensor is not written to
    finite = out.isfinite()
    assert torch.equal(out[finite], before[finite]) and (out[~finite] == -torch.inf).all()
