"""Plain generation: caches, beams, sampling and padding give the same captions, and they depend on the video."""

import pytest
import torch
from torch import Tensor

from modeling_grove import GroveForConditionalGeneration
from tests.tiny import EOS, PAD, VOCAB_SIZE, pad_rows, tiny_model, tiny_pixels, tiny_prompt

NEW_TOKENS = 10


@pytest.fixture(scope="module")
def model() -> GroveForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def inputs(model) -> dict[str, Tensor]:
    """Three prompts of different length, padded on the left."""
    generator = torch.Generator().manual_seed(1)
    input_ids, attention_mask = pad_rows([tiny_prompt(n, model.config, generator) for n in (2, 7, 4)], "left")
    pixels = tiny_pixels(model.config, 3)["pixel_values_videos"]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values_videos": pixels}


def new_tokens(model, inputs: dict[str, Tensor], **options) -> Tensor:
    """`(B, NEW_TOKENS)` generated ids, however early all rows ended."""
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, **options}
    sequences = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    return torch.nn.functional.pad(sequences, (0, NEW_TOKENS - sequences.shape[1]), value=PAD)


def greedy_by_hand(model, inputs: dict[str, Tensor], index: int) -> list[int]:
    """Greedy decoding of one row, without padding, without cache, without `generate`."""
    ids = inputs["input_ids"][index][inputs["attention_mask"][index].bool()][None]
    frames, tokens = inputs["pixel_values_videos"][index : index + 1], []
    while len(tokens) < NEW_TOKENS and EOS not in tokens:
        with torch.no_grad():
            tokens.append(int(model(input_ids=ids, pixel_values_videos=frames).logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([[tokens[-1]]])], dim=1)
    return tokens + [PAD] * (NEW_TOKENS - len(tokens))


def test_a_left_padded_batch_generates_what_each_row_does_alone(model, inputs):
    tokens = new_tokens(model, inputs)
    expected = [greedy_by_hand(model, inputs, index) for index in range(3)]
    assert tokens.tolist() == expected
    assert len(set(map(tuple, expected))) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "dynamic"},
        {"use_cache": False},
        {"num_beams": 3, "cache_implementation": "static"},
        {"num_beams": 3, "use_cache": False},
    ],
    ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()),
)
def test_caches_agree(model, inputs, options):
    plain = {key: value for key, value in options.items() if key == "num_beams"}
    assert torch.equal(new_tokens(model, inputs, **options), new_tokens(model, inputs, **plain))


def test_the_video_decides(model, inputs):
    changed = {**inputs, "pixel_values_videos": inputs["pixel_values_videos"].clone()}
    changed["pixel_values_videos"][1] = torch.randn_like(changed["pixel_values_videos"][1])
    tokens, other = new_tokens(model, inputs), new_tokens(model, changed)
    assert torch.equal(tokens[[0, 2]], other[[0, 2]]) and not torch.equal(tokens[1], other[1])


def test_video_embeddings_replace_the_frames(model, inputs):
    embeds = dict(inputs)
    embeds["video_embeds"] = model.get_video_features(embeds.pop("pixel_values_videos")).detach()
    assert torch.equal(new_tokens(model, embeds), new_tokens(model, inputs))


def test_each_video_is_encoded_once(model, inputs):
    calls = []
    hook = model.model.vision_tower.register_forward_hook(lambda module, args, output: calls.append(args[0].shape[0]))
    try:
        new_tokens(model, inputs)
        new_tokens(model, inputs, num_beams=3)
    finally:
        hook.remove()
    assert len(calls) == 2


def sequence_score(model, inputs: dict[str, Tensor], index: int, tokens: Tensor) -> float:
    """Log probability of one row's new tokens."""
    real = inputs["attention_mask"][index].bool()
    prompt = inputs["input_ids"][index][real]
    length = tokens.tolist().index(EOS) + 1 if EOS in tokens.tolist() else len(tokens)
    ids = torch.cat([prompt, tokens[:length]])[None]
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values_videos=inputs["pixel_values_videos"][index : index + 1]).logits
    scores = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return scores.gather(1, tokens[:length, None]).sum().item()


def test_beams_score_their_own_video(model, inputs):
    """Videos are repeated for the beams; in the wrong order, captions would be scored with other videos."""
    options = {"max_new_tokens": NEW_TOKENS, "num_beams": 4, "length_penalty": 0.0, "do_sample": False}
    outputs = model.generate(**inputs, **options, return_dict_in_generate=True, output_scores=True)
    tokens = outputs.sequences[:, inputs["input_ids"].shape[1] :]
    by_hand = [sequence_score(model, inputs, index, tokens[index]) for index in range(3)]
    assert outputs.sequences_scores.tolist() == pytest.approx(by_hand, abs=1e-4)
    greedy = new_tokens(model, inputs)
    assert sum(by_hand) > sum(sequence_score(model, inputs, index, greedy[index]) for index in range(3)) + 0.1


def test_sampling_repeats_with_its_seed(model, inputs):
    def sample(seed: int, **options) -> Tensor:
        torch.manual_seed(seed)
        return new_tokens(model, inputs, do_sample=True, **options)

    assert torch.equal(sample(3), sample(3))
    assert not torch.equal(sample(3), sample(4))
    assert torch.equal(sample(3), sample(3, cache_implementation="static"))


def test_several_sequences_of_a_video(model, inputs):
    torch.manual_seed(0)
    alone = {name: value[:1] for name, value in inputs.items()}
    sequences = model.generate(**alone, max_new_tokens=5, do_sample=True, num_return_sequences=4)
    assert sequences.shape[0] == 4 and len(set(map(tuple, sequences.tolist()))) > 1


def test_grounding_inputs_do_no_harm(model, inputs):
    """A processor's whole output may be passed to `generate`."""
    grounding = tiny_pixels(model.config, 3)["grounding_pixel_values_videos"]
    calls = []
    hook = model.model.grounding_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        tokens = new_tokens(model, {**inputs, "grounding_pixel_values_videos": grounding})
    finally:
        hook.remove()
    assert torch.equal(tokens, new_tokens(model, inputs)) and calls == []


def test_generation_stops_at_the_end_token(inputs):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[EOS] = 4 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    tokens = new_tokens(model, inputs, do_sample=True, top_k=VOCAB_SIZE)
    ended = (tokens == EOS).any(1)
    assert ended.any()
    for row in tokens[ended].tolist():
        end = row.index(EOS)
        assert set(row[end + 1 :]) <= {PAD}


@pytest.mark.parametrize("split", [1, 8])
def test_a_cache_continues_where_the_prompt_ended(model, inputs, split):
    """Prompt with the video first, the rest from the cache: as one pass."""
    ids = inputs["input_ids"][:, -1:].repeat(1, 12).random_(3, 100)
    whole_ids = torch.cat([inputs["input_ids"], ids], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(ids)], dim=1)
    with torch.no_grad():
        frames = inputs["pixel_values_videos"]
        whole = model(input_ids=whole_ids, attention_mask=mask, pixel_values_videos=frames).logits
        cut = inputs["input_ids"].shape[1] + split
        first = model(
            input_ids=whole_ids[:, :cut], attention_mask=mask[:, :cut], pixel_values_videos=frames, use_cache=True
        )
        positions = (mask.cumsum(-1) - 1)[:, cut:]
        second = model(
            input_ids=whole_ids[:, cut:],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=first.past_key_values,
        )
    torch.testing.assert_close(second.logits, whole[:, cut:], rtol=0, atol=2e-5)
