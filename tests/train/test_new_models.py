"""New models: their tokenizer, their sizes, and the folder that `train new` writes."""

import json

import pytest
import torch

from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.text_grove import QUESTION_TEMPLATES, build_prompt, format_training_answer, parse_grounded_text
from tests.train.training_runs import SIZES
from train.__main__ import main as train_command
from train.new_models import new_config, new_model, prompt_sentences, train_tokenizer

CAPTIONS = ["A man in a red shirt pushes a blue box to the left.", "Two women walk behind a brick wall."] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS, 400)


def test_prompts_are_a_handful_of_tokens(tokenizer):
    for question in QUESTION_TEMPLATES:
        ids = tokenizer(build_prompt(question))["input_ids"]
        assert len(ids) == 7
        assert tokenizer.decode(ids) == build_prompt(question)
    assert len(tokenizer(build_prompt("What happens?"))["input_ids"]) > 7


def test_words_and_tags_come_back(tokenizer):
    answer = format_training_answer("A man in a red shirt pushes a blue box.", [(0, 20), (28, 38)])
    ids = tokenizer(build_prompt(caption=answer))["input_ids"]
    prompt = tokenizer(build_prompt())["input_ids"]

    assert ids[: len(prompt)] == prompt, "labels begin where the prompt ends"
    parsed = parse_grounded_text(tokenizer.decode(ids[len(prompt) :]))
    assert parsed.caption == "a man in a red shirt pushes a blue box."
    assert [phrase.text for phrase in parsed.phrases] == ["a man in a red shirt", "a blue box"]


def test_unknown_words_are_spelled(tokenizer):
    assert tokenizer.unk_token_id not in tokenizer("A zebra, naïve: 猫")["input_ids"]
    assert tokenizer.decode(tokenizer("猫")["input_ids"], skip_special_tokens=True) == "猫"


def test_the_placeholder_of_videos_has_no_embedding(tokenizer):
    config = new_config("tiny", tokenizer)

    assert config.video_token_id == config.text_config.vocab_size == len(tokenizer) - 1
    assert len(prompt_sentences()) == len(set(prompt_sentences())) == 9


def test_the_same_seed_gives_the_same_weights(tokenizer):
    first, second, other = (new_model("tiny", tokenizer, seed, **SIZES)[0] for seed in (0, 0, 1))

    names = [name for name, _ in first.named_parameters()]
    assert all(torch.equal(first.get_parameter(name), second.get_parameter(name)) for name in names)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_tiny_fits_into_ten_megabytes_as_float16(tokenizer):
    model, _ = new_model("tiny", train_tokenizer(CAPTIONS, 1024))

    # The captions of GroundedShapes need 600 pieces more than these, of 160 numbers.
    assert 2 * (sum(p.numel() for p in model.parameters()) + 600 * 160) < 10e6


def test_unknown_presets(tokenizer):
    with pytest.raises(ValueError, match="--preset: expected one of tiny, got 'huge'"):
        new_config("huge", tokenizer)


def test_the_command_writes_a_whole_model(world, tmp_path, capsys):
    records = world.folder / "shapes" / "train.jsonl"
    line = ["new", "--captions", str(records), "--config-overrides", json.dumps(SIZES), "--json"]
    assert train_command([*line, "--output", str(tmp_path / "model")]) == 0

    printed = json.loads(capsys.readouterr().out)
    model = GroveForConditionalGeneration.from_pretrained(tmp_path / "model")
    GroveProcessor.from_pretrained(tmp_path / "model")
    assert printed["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.config.num_frames == 4

    assert train_command([*line, "--output", str(tmp_path / "model")]) == 2
    assert "exists and is not an empty directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vocab-size", "100"], "--vocab-size: expected at least 260"),
        (["--config-overrides", "[]"], "--config-overrides: expected a JSON object"),
        (["--config-overrides", '{"num_frames": 0}'], "num_frames is 0"),
    ],
)
def test_bad_options(world, tmp_path, capsys, options, message):
    line = ["new", "--captions", str(world.folder / "shapes" / "train.jsonl"), "--output", str(tmp_path / "model")]

    assert train_command([*line, *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "model").exists()
