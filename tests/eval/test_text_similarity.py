"""Similarity of phrases: the recorded values of the original's formula, batching, the head-word rule, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.text_similarity import EncoderSimilarity, text_similarity

GOLDEN = Path(__file__).parents[1] / "golden" / "eval" / "iground"
TINY_BERT = str(GOLDEN / "tiny_bert")
ENCODERS = ["bert", "sentence"]


@pytest.fixture(scope="module")
def recorded():
    return json.loads((GOLDEN / "expected.json").read_text())["bert_similarity"]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("name", ENCODERS)
def test_recorded_similarities(recorded, name, batch_size):
    similarity = text_similarity(name, TINY_BERT, batch_size=batch_size)
    assert similarity.name == name
    similarity.prepare([phrase for *pair, _ in recorded for phrase in pair])
    got = np.array([similarity([first], [second])[0, 0] for first, second, _ in recorded])
    expected = np.array([value for *_, value in recorded])
    assert len(expected) > 300
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    # No pair changes sides.
    assert np.array_equal(got >= 0.5, expected >= 0.5)


def test_every_phrase_goes_through_the_encoder_once():
    similarity = EncoderSimilarity("bert", TINY_BERT, "cpu", batch_size=4)
    seen: list[int] = []
    similarity._model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    phrases = [f"cup number {n}" for n in range(10)]
    similarity.prepare(phrases + phrases)
    assert seen == [4, 4, 2]
    matrix = similarity(phrases, [*phrases, "a new one"])
    assert seen == [4, 4, 2, 1]
    assert matrix.shape == (10, 11) and matrix.dtype == np.float64
    np.testing.assert_allclose(np.diag(matrix), 1.0, atol=1e-12)
    similarity(phrases, phrases)
    assert sum(seen) == 11


def test_is_the_mean_over_all_tokens_without_padding():
    """The formula written out: one phrase at a time, `[CLS]` and `[SEP]` count."""
    similarity = EncoderSimilarity("bert", TINY_BERT, "cpu")
    phrases = ["a cup", "the very small white bowl on the table", "", "A Cup"]
    matrix = similarity(phrases, phrases)
    means = []
    for phrase in phrases:
        tokens = similarity._tokenizer(phrase, return_tensors="pt")
        assert tokens["input_ids"].shape[1] >= 2
        with torch.no_grad():
            means.append(similarity._model(**tokens).last_hidden_state.mean(1))
    means = torch.cat(means)
    expected = torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=-1)
    np.testing.assert_allclose(matrix, expected.numpy(), atol=1e-5)
    # The tokenizer is one of lower case; nothing else lowers it.
    assert matrix[0, 3] == pytest.approx(1.0)


def test_endless_phrases_are_cut():
    similarity = text_similarity("bert", TINY_BERT)
    assert np.isfinite(similarity(["a cup " * 2000], ["a cup"])).all()


@pytest.mark.gpu
def test_the_same_on_a_gpu(recorded):
    similarity = text_similarity("bert", TINY_BERT, "cuda")
    assert similarity.device == "cuda"
    got = [similarity([first], [second])[0, 0] for first, second, _ in recorded]
    np.testing.assert_allclose(got, [value for *_, value in recorded], atol=1e-5, rtol=0)


def test_head_words():
    similarity = text_similarity("head-word")
    similarity.prepare(["a cup"])
    got = similarity(["a red Cup", "", "  ", "cup holder"], ["the cup", "\t", "HOLDER"])
    np.testing.assert_array_equal(got, [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert got.dtype == np.float64 and similarity.name == "head-word"


@pytest.mark.parametrize("name", ["bert", "head-word"])
def test_no_phrases(name):
    similarity = text_similarity(name, None if name == "head-word" else TINY_BERT)
    similarity.prepare([])
    assert similarity([], ["a"]).shape == (0, 1) and similarity(["a"], []).shape == (1, 0)
    assert similarity([], []).shape == (0, 0)


@pytest.mark.parametrize("name", ["bert", "head-word"])
@pytest.mark.parametrize("phrase", [None, 3, ["a cup"]])
def test_what_is_no_string_raises(name, phrase):
    similarity = text_similarity(name, None if name == "head-word" else TINY_BERT)
    with pytest.raises(TypeError, match="expected a string"):
        similarity(["a cup"], [phrase])


def test_bad_names_and_models_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="got 'word2vec'; expected one of bert, sentence, head-word"):
        text_similarity("word2vec")
    with pytest.raises(ValueError, match="'head-word' has no model"):
        text_similarity("head-word", TINY_BERT)
    # Neither a folder without a model, nor the default one where the Hub has none or cannot be reached.
    for model in (str(tmp_path), None):
        with pytest.raises(ValueError, match="cannot be loaded .*--text-model.*head-word") as error:
            text_similarity("bert", model)
        assert "\n" not in str(error.value)


def test_a_model_without_text_encoder_is_one_line():
    folder = str(Path(__file__).parents[2] / "checkpoints" / "grove-demo")
    with pytest.raises(ValueError, match="cannot be loaded on cpu .*hidden_size.*head-word") as error:
        text_similarity("bert", folder, "cpu")
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(ValueError, match="cannot be loaded on cuda:77") as error:
        text_similarity("bert", TINY_BERT, "cuda:77")
    assert "\n" not in str(error.value)


def test_weights_that_are_cut_off_are_one_line(tmp_path):
    shutil.copytree(TINY_BERT, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded on cpu") as error:
        text_similarity("bert", str(tmp_path / "cut"), "cpu")
    assert "\n" not in str(error.value)
