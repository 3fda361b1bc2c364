"""Lemmas: by a real spaCy pipeline (its table is made here, as no model can be downloaded), and from a file."""

import json
from pathlib import Path

import pytest
import spacy
from spacy.lookups import Lookups

from eval.lemmas import SpacyLemmatizer, lemmatizer


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a lemmatiser, saved as any other."""
    nlp, lookups = spacy.blank("en"), Lookups()
    lookups.add_table("lemma_lookup", {"men": "man", "leaves": "leaf"})
    nlp.add_pipe("lemmatizer", config={"mode": "lookup"}).initialize(lookups=lookups)
    folder = tmp_path_factory.mktemp("spacy") / "lookup"
    nlp.to_disk(folder)
    return folder


def test_spacy(pipeline: Path):
    lemma = lemmatizer("spacy", str(pipeline))
    assert [lemma("men"), lemma("leaves on a tree"), lemma("tree")] == ["man", "leaf", "tree"]


def test_words_are_looked_up_at_once_and_kept(pipeline: Path):
    lemma = SpacyLemmatizer(str(pipeline))
    lemma.prepare(["men in hats", "men", "two leaves"])
    assert lemma._lemmas == {"men": "man", "two": "two"}
    assert lemma("men") == "man"


def test_a_pipeline_without_lemmas(tmp_path: Path):
    spacy.blank("en").to_disk(tmp_path / "blank")
    lemma = lemmatizer("spacy", str(tmp_path / "blank"))
    with pytest.raises(
        ValueError, match=r"^lemmas: the spaCy pipeline sets no lemmas \(it has nothing\); .*en_core_web_sm"
    ):
        lemma("men")


def test_a_pipeline_that_is_not_there():
    with pytest.raises(ValueError, match="no spaCy model 'en_none_sm'; `python -m spacy download en_none_sm`, or give"):
        lemmatizer("spacy", "en_none_sm")


def test_a_table(tmp_path: Path):
    path = tmp_path / "lemmas.json"
    path.write_text(json.dumps({"Men": "man", "old": "old"}))
    lemma = lemmatizer(f"table:{path}")
    assert [lemma("Men"), lemma("MEN"), lemma("old chair"), lemma(" Chairs ")] == ["man", "men", "old", "chairs"]
    with pytest.raises(ValueError, match="expected a word to take the lemma of, got ' '"):
        lemma(" ")
    path.write_text("[]")
    with pytest.raises(ValueError, match="lemmas.json: expected one JSON object of words and their lemmas"):
        lemmatizer(f"table:{path}")
    with pytest.raises(ValueError, match="no lemmatiser 'nltk'; expected 'spacy' or 'table:FILE'"):
        lemmatizer("nltk")
