"""Lemmas of words, behind one function: spaCy, or a table for tests and for numbers that do not depend on a model.

The original asks a CoreNLP 4.5.7 server for the lemma of every word by itself, out of its sentence, and takes that of the first
token of a longer text. Both are so here too; the lemmas are those of spaCy's model, which differ from CoreNLP's for some words
(of proper names, and of words that are verb and noun). A table with CoreNLP's own lemmas gives the original's numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from dataset_builders.reading import read_json

# The lemma of the first word of a text.
Lemmatizer = Callable[[str], str]

DEFAULT_MODEL = "en_core_web_sm"
_TABLE = "table:"


class SpacyLemmatizer:
    """
    Lemmas by a spaCy pipeline, each word by itself, as in the original. Lemmas are kept, so that a word costs once.

    Args:
        model (`str`, *optional*, defaults to `"en_core_web_sm"`):
            Installed package or folder of a pipeline that sets lemmas.

    Raises:
        `ValueError`: if spaCy or the pipeline is not there, with the command that installs it.
    """

    def __init__(self, model: str = DEFAULT_MODEL):
        try:
            import spacy
        except ImportError:
            raise ValueError("lemmas: spaCy is not installed; `pip install spacy`, or give `table:FILE`") from None
        try:
            self._pipeline: Any = spacy.load(model, exclude=["parser", "ner"])
        except OSError:
            command = f"`python -m spacy download {model}`"
            raise ValueError(f"lemmas: no spaCy model {model!r}; {command}, or give `table:FILE`") from None
        self._lemmas: dict[str, str] = {}

    def prepare(self, texts: Iterable[str]) -> None:
        """Looks up many texts at once, which is some times faster than one after the other."""
        words = sorted({first_word(text) for text in texts} - self._lemmas.keys())
        found = {word: tokens[0].lemma_ for word, tokens in zip(words, self._pipeline.pipe(words), strict=True)}
        if not self._lemmas and found and not any(found.values()):
            parts = ", ".join(self._pipeline.pipe_names) or "nothing"
            message = f"the spaCy pipeline sets no lemmas (it has {parts}); expected one with a lemmatizer"
            raise ValueError(f"lemmas: {message}, such as {DEFAULT_MODEL}, or give `table:FILE`")
        # spaCy has no lemma for what no component of the pipeline knows.
        self._lemmas |= {word: lemma or word.lower() for word, lemma in found.items()}

    def __call__(self, text: str) -> str:
        word = first_word(text)
        if word not in self._lemmas:
            self.prepare([word])
        return self._lemmas[word]


class TableLemmatizer:
    """
    Lemmas from a table; a word that is not in it is its own lemma, in lower case.

    Args:
        table (`dict[str, str]`):
            Word, with its case, to lemma.
    """

    def __init__(self, table: dict[str, str]):
        self._table = table

    def __call__(self, text: str) -> str:
        word = first_word(text)
        return self._table.get(word, word.lower())


def table_lemmatizer(path: str | os.PathLike[str]) -> Lemmatizer:
    """
    Lemmas from a JSON file, one object of words and their lemmas (see [`TableLemmatizer`]).

    Raises:
        `ValueError`: if it is no such file.
        `OSError`: if it cannot be opened.
    """
    table = read_json(path)
    if not isinstance(table, dict) or not all(isinstance(lemma, str) for lemma in table.values()):
        raise ValueError(f"{os.fspath(path)}: expected one JSON object of words and their lemmas")
    return TableLemmatizer(table)


def lemmatizer(name: str = "spacy", model: str = DEFAULT_MODEL) -> Lemmatizer:
    """
    The lemmatiser of a name.

    Args:
        name (`str`, *optional*, defaults to `"spacy"`):
            "spacy", or `table:FILE` for [`table_lemmatizer`].
        model (`str`, *optional*, defaults to `"en_core_web_sm"`):
            spaCy's pipeline: a package or a folder.

    Raises:
        `ValueError`: for another name, or if it cannot be loaded.
    """
    if name == "spacy":
        return SpacyLemmatizer(model)
    if name.startswith(_TABLE):
        return table_lemmatizer(name.removeprefix(_TABLE))
    raise ValueError(f"lemmas: no lemmatiser {name!r}; expected 'spacy' or 'table:FILE'")


def first_word(text: str) -> str:
    """
    The first word of a text.

    Raises:
        `ValueError`: if there is none: the original's server has no answer for it, and the original ends there.
    """
    words = text.split()
    if not words:
        raise ValueError(f"expected a word to take the lemma of, got {text!r}")
    return words[0]


__all__ = [
    "DEFAULT_MODEL",
    "Lemmatizer",
    "SpacyLemmatizer",
    "TableLemmatizer",
    "first_word",
    "lemmatizer",
    "table_lemmatizer",
]
