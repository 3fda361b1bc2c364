"""
What a frame's caption says, taken apart: who does what to what, and where (paper, section 3.1: subject-verb-object triples and
adpositional phrases are what the language model of stage 2 reads instead of whole captions).

A spaCy pipeline with a tagger and a parser in ClearNLP's labels does the grammar (`en_core_web_sm` and its larger sisters have
them; those of Universal Dependencies do not fit). Sentences that are no sentences are usual here: of "a man holding a red cup" the
verb hangs on its subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

DEFAULT_SPACY_MODEL = "en_core_web_sm"
_SUBJECTS, _OBJECTS = ("nsubj", "nsubjpass", "csubj"), ("dobj", "attr", "oprd", "dative")
_CLAUSES = ("acl", "relcl", "advcl", "xcomp", "conj", "ccomp")
_NOUNS = ("NOUN", "PROPN", "PRON", "NUM")
_EMPTY_WORDS = ("DET", "SPACE", "PUNCT")


@dataclass(frozen=True)
class Fact:
    """
    One thing that a caption says.

    Args:
        subject (`str`): a noun with its adjectives and numbers, without its article, in lower case: "red cup".
        verb (`str`): its form as it stands ("holding"), with a particle ("picking up"); "is" where there is none.
        object (`str` or `None`): of the verb.
        places (`tuple[tuple[str, str], ...]`): prepositions and what follows them: `(("on", "table"),)`.
        lemma (`str`): of the verb: "hold", "pick up".
    """

    subject: str
    verb: str
    object: str | None
    places: tuple[tuple[str, str], ...]
    lemma: str

    def to_list(self) -> list[Any]:
        """`["man", "holding", "red cup", ["in", "kitchen"]]`, which is what prompts and files have."""
        return [self.subject, self.verb, *([self.object] if self.object else []), *map(list, self.places)]


def load_spacy(model: str = DEFAULT_SPACY_MODEL) -> Any:
    """
    A pipeline for [`facts_of`].

    Args:
        model (`str`, *optional*, defaults to `"en_core_web_sm"`): installed package, or folder.

    Raises:
        `ValueError`: with the command that installs what is missing, or if the pipeline's parser has other labels.
    """
    try:
        import spacy
    except ImportError:
        raise ValueError('spaCy is not installed; `pip install "grove-video[annotate]"`') from None
    try:
        pipeline: Any = spacy.load(model, exclude=["ner"])
    except OSError:
        raise ValueError(f"no spaCy model {model!r}; `python -m spacy download {model}`, or give a folder") from None
    labels = {*pipeline.get_pipe("parser").labels} if "parser" in pipeline.pipe_names else set()
    if not labels:
        parts = ", ".join(pipeline.pipe_names) or "nothing"
        raise ValueError(
            f"the spaCy model {model!r} has no parser (it has {parts}); expected one such as {DEFAULT_SPACY_MODEL}"
        )
    if not labels & {"dobj", "prep", "pobj"}:
        raise ValueError(
            f"the parser of the spaCy model {model!r} has other labels than dobj, prep and pobj (Universal Dependencies?); "
            f"expected ClearNLP's, as {DEFAULT_SPACY_MODEL} has"
        )
    return pipeline


def facts_of(captions: Iterable[str], pipeline: Any) -> Iterator[list[Fact]]:
    """
    The facts of each caption, in the order of their words.

    Args:
        captions (`Iterable[str]`): plain text.
        pipeline (`spacy.Language`): from [`load_spacy`].
    """
    for document in pipeline.pipe(captions):
        yield [fact for token in document for fact in _facts_at(token)]


def _facts_at(token: Any) -> Iterator[Fact]:
    if token.pos_ in ("VERB", "AUX") and token.dep_ not in ("aux", "auxpass"):
        yield from _of_verb(token)
    elif token.pos_ in _NOUNS and (places := _places(token)) and not _is_said_elsewhere(token):
        yield Fact(name_of(token), "is", None, places, "be")


def _of_verb(verb: Any) -> Iterator[Fact]:
    particles = [child.text.lower() for child in verb.children if child.dep_ == "prt"]
    said, lemma = (" ".join([word, *particles]) for word in (verb.text.lower(), (verb.lemma_ or verb.text).lower()))
    subjects, objects, places = _subjects(verb), _children(verb, _OBJECTS), _places(verb)
    agents = [noun for child in verb.children if child.dep_ == "agent" for noun in _children(child, ("pobj",))]
    if agents:  # "a cup is held by a man"
        subjects, objects = agents, subjects
    elif any(child.dep_ == "expl" for child in verb.children):  # "there is a man"
        subjects, objects = objects or subjects, []
        places += tuple(place for subject in subjects for place in _places(subject))
    for subject in subjects:
        for thing in objects or [None]:
            inner = _places(thing) if thing is not None else ()
            yield Fact(name_of(subject), said, None if thing is None else name_of(thing), places + inner, lemma)


def _subjects(verb: Any) -> list[Any]:
    """Who does it: what is said at the verb, or at the one that it is joined to."""
    found = [noun for noun in _children(verb, _SUBJECTS) if noun.text.lower() not in ("who", "that", "which", "whom")]
    if found:
        return found
    head = verb.head
    if head is verb or verb.dep_ not in _CLAUSES:
        return []
    if head.pos_ in _NOUNS:
        return [head]
    return _subjects(head) if head.pos_ in ("VERB", "AUX") else []


def _children(token: Any, labels: Iterable[str]) -> list[Any]:
    """Nouns that hang on a token, and those joined to them by "and"."""
    nouns = [child for child in token.children if child.dep_ in labels and child.pos_ in _NOUNS]
    return [noun for first in nouns for noun in (first, *_joined(first, "conj"))]


def _joined(noun: Any, label: str) -> list[Any]:
    return [other for child in noun.children if child.dep_ == label and child.pos_ in _NOUNS
            for other in (child, *_joined(child, label))]  # fmt: skip


def _places(token: Any) -> tuple[tuple[str, str], ...]:
    """Prepositions at a token with what follows them: "in front of a table" gives `("in front of", "table")`."""
    found = []
    for preposition in token.children:
        if preposition.dep_ not in ("prep", "advmod") or not preposition.is_alpha:
            continue
        for noun in _children(preposition, ("pobj",)):
            chain = [
                (inner.text.lower(), *_children(inner, ("pobj",))) for inner in noun.children if inner.text == "of"
            ]
            if chain and len(chain[0]) > 1 and noun.text.lower() in ("front", "top", "side", "back", "middle"):
                found.append((f"{preposition.text.lower()} {noun.text.lower()} of", name_of(chain[0][1])))
            else:
                found.append((preposition.text.lower(), name_of(noun)))
    return tuple(found)


def _is_said_elsewhere(noun: Any) -> bool:
    """Whether the places of a noun come with the verb that has it as object."""
    return noun.dep_ in _OBJECTS


def name_of(noun: Any) -> str:
    """The noun with what describes it, in lower case: "red cup", "two balls", "man in a blue shirt" is "man"."""
    words = [
        child
        for child in noun.lefts
        if child.dep_ in ("amod", "compound", "nummod", "nmod") and child.pos_ not in _EMPTY_WORDS
    ]
    return " ".join([*(name_of(word) for word in words), noun.text.lower()])


__all__ = ["DEFAULT_SPACY_MODEL", "Fact", "facts_of", "load_spacy", "name_of"]
