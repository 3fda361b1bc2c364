"""Caption scores: the values that the original's code gave, its traps, and what happens without Java."""

import json
import logging
import math
from pathlib import Path

import pytest

from eval.caption_jars import java_problem
from eval.captions import score_captions

GOLDEN = Path(__file__).parents[1] / "golden" / "eval" / "iground"
TOLERANCE = 1e-9
METRICS = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"}


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def captions_of(truth, predictions, keys):
    return {key: truth[key]["caption"] for key in keys}, {key: predictions[key]["pred_text"] for key in keys}


@pytest.fixture(scope="module")
def recorded():
    """The captions of the recorded clips, in their order, and what the original made of them."""
    expected = golden("expected")["captions"]
    return *captions_of(golden("ground_truth"), golden("predictions"), expected["per_clip"]), expected


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    """A machine without Java: nothing is on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))


def same(scores, expected):
    assert set(scores) == set(expected)
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=TOLERANCE), name


@pytest.mark.java
@pytest.mark.parametrize("clean", [False, True])
def test_recorded_values(recorded, clean):
    references, predictions, expected = recorded
    scores = score_captions(references, predictions, clean=clean)
    assert set(scores.corpus) == METRICS and scores.tokenizer == "corenlp" and not scores.notes
    same(scores.corpus, expected["corpus"])
    assert list(scores.per_clip) == list(expected["per_clip"])
    for key, values in expected["per_clip"].items():
        same(scores.per_clip[key], values)
    assert scores.reference_tokens == expected["ptb_tokens_gt"]
    assert scores.prediction_tokens == expected["ptb_tokens_pred"]


@pytest.mark.java
def test_recorded_edge_cases():
    """All that have captions, shifted ones too."""
    tried, shifted = [], []
    # Most cases are about boxes and have the same captions.
    scored = {}
    for case in golden("edge_cases"):
        expected = case["expected"].get("per_video", {})
        if "captions" not in expected:
            continue
        # The original numbers captions: "v_0" is "v_0_0" there.
        keys = [key for key in case["ground_truth"] if f"{key}_0" in expected["ptb_tokens_pred"]]
        texts = captions_of(case["ground_truth"], case["predictions"], keys)
        if str(texts) not in scored:
            scored[str(texts)] = score_captions(*texts, clean=False)
        scores = scored[str(texts)]
        same(scores.corpus, expected["captions"])
        assert {f"{key}_0": text for key, text in scores.prediction_tokens.items()} == expected["ptb_tokens_pred"]
        tried.append(case["name"])
        if scores.separators:
            shifted.append(case["name"])
            clean = score_captions(*texts)
            assert clean.separators == scores.separators == 1
            assert clean.corpus["METEOR"] == 1.0 and clean.corpus["CIDEr"] == 10.0
    assert len([name for name in tried if name.startswith("caption_")]) == 8 and "single_clip_cider_is_zero" in tried
    assert shifted == ["caption_crlf_in_caption", "caption_unicode_line_separator"]


@pytest.mark.parametrize("java", [pytest.param(True, marks=pytest.mark.java), False])
@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\u2028", "\u2029"])
def test_every_separator_shifts_what_comes_after_it(java, separator, request):
    if not java:
        request.getfixturevalue("no_java")
    references = {"a": "a man holds a cup", "b": "the woman pours water"}
    predictions = {"a": f"a man{separator}holds a cup", "b": "the woman pours water"}
    shifted = score_captions(references, predictions, clean=False, meteor=False)
    assert shifted.prediction_tokens == {"a": "a man", "b": "holds a cup"}
    straight = score_captions(references, predictions, meteor=False)
    assert straight.prediction_tokens == straight.reference_tokens == references
    assert shifted.separators == straight.separators == 1


@pytest.mark.parametrize("java", [pytest.param(True, marks=pytest.mark.java), False])
def test_a_carriage_return_at_the_end_shifts_nothing(java, request):
    """The next line's feed belongs to it."""
    if not java:
        request.getfixturevalue("no_java")
    scores = score_captions({"a": "a cup", "b": "a pan"}, {"a": "a cup\r", "b": "a pan"}, clean=False, meteor=False)
    assert scores.prediction_tokens == {"a": "a cup", "b": "a pan"}


@pytest.mark.java
@pytest.mark.parametrize("empty", ["", " ", "...", "\n"])
def test_captions_without_words(empty):
    references = {"a": "a cup", "b": "a pan", "c": "a bowl"}
    scores = score_captions(references, {"a": "a cup", "b": empty, "c": empty}, clean=False)
    assert scores.prediction_tokens == {"a": "a cup", "b": "", "c": ""}
    assert scores.per_clip["b"] == {
        **dict.fromkeys(METRICS, 0.0),
        **{f"Bleu_{n}": scores.per_clip["b"][f"Bleu_{n}"] for n in range(1, 5)},
    }
    assert scores.per_clip["b"]["Bleu_1"] < 1e-5
    nothing = score_captions(references, dict.fromkeys(references, empty))
    assert all(value < 1e-5 for value in nothing.corpus.values())


def test_without_java(recorded, no_java, caplog):
    references, predictions, expected = recorded
    with caplog.at_level(logging.WARNING):
        scores = score_captions(references, predictions)
    assert scores.tokenizer == "python"
    (note,) = scores.notes
    assert "METEOR is left out" in note and "install" in note and note in caplog.text
    # All but METEOR is what it is with Java, as the tokens are.
    same(scores.corpus, {name: value for name, value in expected["corpus"].items() if name != "METEOR"})
    assert scores.reference_tokens == expected["ptb_tokens_gt"]
    assert scores.prediction_tokens == expected["ptb_tokens_pred"]


@pytest.mark.java
def test_values_do_not_depend_on_the_locale(recorded, monkeypatch):
    references, predictions, expected = recorded
    monkeypatch.setenv("LC_ALL", "C")
    scores = score_captions(references, predictions, meteor=False)
    assert "METEOR" not in scores.corpus and not scores.notes
    assert any(not text.isascii() for text in scores.prediction_tokens.values())
    assert scores.prediction_tokens == expected["ptb_tokens_pred"]


def test_the_order_of_predictions_does_not_matter(no_java):
    references = {"a": "a man holds a cup", "b": "the woman pours water", "c": "two balls roll"}
    predictions = {"c": "two balls roll", "a": "a man has a cup", "b": "the woman"}
    scores = score_captions(references, predictions)
    assert list(scores.per_clip) == ["a", "b", "c"] and scores.prediction_tokens["c"] == "two balls roll"
    assert scores.per_clip["c"]["ROUGE_L"] == 1.0 and scores.per_clip["c"]["CIDEr"] < 10
    assert math.isclose(scores.corpus["CIDEr"], sum(clip["CIDEr"] for clip in scores.per_clip.values()) / 3)


@pytest.mark.parametrize(
    ("references", "predictions", "said"),
    [
        ({}, {}, "got no clips"),
        ({"v_0": "a"}, {}, "clip 'v_0': caption: there is no prediction"),
        ({"v_0": "a"}, {"v_0": "a", "w_0": "b"}, "clip 'w_0': caption: there is no reference"),
        ({"v_0": "a"}, {"v_0": None}, "clip 'v_0': caption of the prediction: got None, expected a string"),
        ({"v_0": 3}, {"v_0": "a"}, "clip 'v_0': caption of the reference: got 3, expected a string"),
        ({"v_0": "a"}, {"v_0": "a \ud83d cup"}, "clip 'v_0': caption of the prediction: got half of a surrogate pair"),
        ({"v_0": "...", "w_0": ""}, {"v_0": "a", "w_0": "a"}, "no clip has a reference with a word"),
    ],
)
def test_bad_captions_are_refused_in_one_line(references, predictions, said):
    with pytest.raises(ValueError, match=said) as error:
        score_captions(references, predictions, meteor=False)
    assert "\n" not in str(error.value)


def test_java_that_does_not_run_is_said_to_be_so(monkeypatch, tmp_path):
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Unable to locate a Java Runtime." in java_problem()
    assert score_captions({"a": "a cup"}, {"a": "a cup"}).tokenizer == "python"
