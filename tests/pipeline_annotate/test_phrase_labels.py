"""Labels of phrases: the caption's phrase that is meant, or none."""

import numpy as np
import pytest

from pipeline_annotate.phrase_labels import Question, RulesClassifier

LABELS = ("A man in a blue shirt", "a man in a red shirt", "a big red cup", "two balls")


@pytest.mark.parametrize(
    ("phrase", "label"),
    [
        ("a guy in a blue shirt", 0),
        ("a man in red", 1),
        ("a mug", 2),
        ("a blue cup", None),
        ("a ball", 3),
        ("a table", None),
        ("a woman", None),
        ("a hand", 0),  # anybody's; the first one
        ("food on a plate", None),
    ],
)
def test_rules(phrase, label):
    assert RulesClassifier().classify([Question((phrase,), LABELS)]) == [[label]]


def test_questions_are_answered_in_their_order_and_may_have_no_labels():
    questions = [Question(("a cup", "a man"), ("a man",)), Question(("a cup",), ())]
    assert RulesClassifier().classify(questions) == [[None, 0], [None]]


def test_a_plural_is_rather_a_plural():
    labels = ("a red ball", "two red balls")
    assert RulesClassifier().classify([Question(("a red ball", "red balls"), labels)]) == [[0, 1]]


class Alike:
    """Says that meals are food."""

    name = "alike"

    def prepare(self, phrases):
        raise AssertionError

    def __call__(self, first, second):
        return np.array([[0.9 if "meal" in two else 0.95 if "man" in two else 0.1 for two in second] for _ in first])


def test_an_embedding_model_names_what_the_rules_do_not_know_and_no_person_for_a_thing():
    question = Question(("food on plate",), ("a man", "a bowl", "a meal"))
    assert RulesClassifier(Alike()).classify([question]) == [[2]]
    assert RulesClassifier(Alike(), threshold=0.93).classify([question]) == [[None]]
    described = RulesClassifier(Alike(), identity={"model": "org/encoder"}).describe()
    assert described == {"back_end": "rules", "similarity": "alike", "model": "org/encoder", "threshold": 0.8}
