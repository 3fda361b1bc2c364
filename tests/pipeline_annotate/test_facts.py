"""Facts: who does what to what, and where."""

import re

import pytest
import spacy
from spacy.tokens import Doc

from pipeline_annotate.facts import facts_of, load_spacy


def parsed(pipeline, rows):
    """A document whose grammar is given: (word, part of speech, label, head, lemma)."""
    words, pos, labels, heads, lemmas = zip(*rows, strict=True)
    return Doc(
        pipeline.vocab, words=list(words), pos=list(pos), deps=list(labels), heads=list(heads), lemmas=list(lemmas)
    )


class Given:
    """A pipeline that gives documents as they are."""

    def __init__(self, *documents):
        self.documents = documents

    def pipe(self, texts):
        return iter(self.documents)


def found(*rows):
    return [fact.to_list() for fact in next(facts_of([""], Given(parsed(spacy.blank("en"), rows))))]


def test_a_verb_that_hangs_on_its_subject():
    assert found(
        ("a", "DET", "det", 1, "a"), ("man", "NOUN", "ROOT", 1, "man"), ("picking", "VERB", "acl", 1, "pick"),
        ("up", "ADP", "prt", 2, "up"), ("two", "NUM", "nummod", 6, "two"), ("toy", "NOUN", "compound", 6, "toy"),
        ("cars", "NOUN", "dobj", 2, "car"), ("near", "ADP", "prep", 2, "near"), ("tables", "NOUN", "pobj", 7, "table"),
    ) == [["man", "picking up", "two toy cars", ["near", "tables"]]]  # fmt: skip


def test_the_passive_says_who_did_it():
    assert found(
        ("cup", "NOUN", "nsubjpass", 2, "cup"), ("is", "AUX", "auxpass", 2, "be"), ("held", "VERB", "ROOT", 2, "hold"),
        ("by", "ADP", "agent", 2, "by"), ("women", "NOUN", "pobj", 3, "woman"), ("and", "CCONJ", "cc", 4, "and"),
        ("men", "NOUN", "conj", 4, "man"),
    ) == [["women", "held", "cup"], ["men", "held", "cup"]]  # fmt: skip


def test_joined_verbs_share_their_subject_and_relative_clauses_have_that_of_their_noun():
    assert found(
        ("man", "NOUN", "nsubj", 1, "man"), ("cuts", "VERB", "ROOT", 1, "cut"), ("bread", "NOUN", "dobj", 1, "bread"),
        ("and", "CCONJ", "cc", 1, "and"), ("eats", "VERB", "conj", 1, "eat"),
    ) == [["man", "cuts", "bread"], ["man", "eats"]]  # fmt: skip
    assert found(
        ("dog", "NOUN", "ROOT", 0, "dog"), ("that", "PRON", "nsubj", 2, "that"), ("barks", "VERB", "relcl", 0, "bark"),
    ) == [["dog", "barks"]]  # fmt: skip


def test_there_is_and_in_front_of():
    assert found(
        ("there", "PRON", "expl", 1, "there"), ("is", "VERB", "ROOT", 1, "be"), ("cup", "NOUN", "attr", 1, "cup"),
        ("in", "ADP", "prep", 2, "in"), ("front", "NOUN", "pobj", 3, "front"), ("of", "ADP", "prep", 4, "of"),
        ("books", "NOUN", "pobj", 5, "book"),
    )[0] == ["cup", "is", ["in front of", "books"]]  # fmt: skip


def test_captions_of_frames(pipeline):
    """The trained pipeline, on captions as a captioner of pictures writes them."""
    captions = [
        "a man in a blue shirt holding a red cup, a woman walking on the floor and two balls on the grass",
        "A guy kicks two balls and pushes a box.",
        "a toy car is pulled by a woman",
        "",
    ]
    first, second, third, nothing = ([fact.to_list() for fact in facts] for facts in facts_of(captions, pipeline))
    assert ["man", "holding", "red cup"] in first and ["woman", "walking", ["on", "floor"]] in first
    assert ["two balls", "is", ["on", "grass"]] in first
    assert second == [["guy", "kicks", "two balls"], ["guy", "pushes", "box"]]
    assert third == [["woman", "pulled", "toy car"]] and nothing == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda nlp: None, "no spaCy model"),
        (lambda nlp: nlp, "has no parser (it has nothing)"),
        (lambda nlp: nlp.add_pipe("parser").add_label("nsubj"), "has other labels than dobj, prep and pobj"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_one_line(tmp_path, make, message):
    nlp = spacy.blank("en")
    if make(nlp) is not None:
        if nlp.pipe_names:
            nlp.initialize()
        nlp.to_disk(tmp_path / "model")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_spacy(str(tmp_path / "model"))
    assert message in str(error.value)
    if message == "no spaCy model":
        assert f"python -m spacy download {tmp_path / 'model'}" in str(error.value)
