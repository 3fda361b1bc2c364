"""
What two noun phrases have in common: their head noun, whether they name people, and what else is said of them.

The rules of stages 2 and 3 compare phrases with it: "a man in a blue shirt" and "the guy" may be one and the same, "a red cup" and
"a blue cup" are not, and people are never things (paper, Figure 13).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from dataset_builders.head_nouns import head_noun, head_part
from dataset_builders.noise import SYNONYMS

_PEOPLE = (
    "person people man men woman women child children boy boys girl girls kid kids guy guys lady ladies someone somebody "
    "baby babies adult adults chef cook worker player dancer teacher student musician"
)
_BODY_PARTS = "hand hands finger fingers palm palms"
_GROUPS = "people men women children boys girls kids guys ladies"
_COLORS = "red orange yellow green blue purple pink brown black white gray grey silver golden gold beige"
_ARTICLES_AND_SUCH = "a an the some this that these those his her their its of in on with and at to from"

# Hands are their owner's, as the paper's examples have it.
PEOPLE = frozenset(f"{_PEOPLE} {_BODY_PARTS}".split())
COLORS = frozenset(_COLORS.split())
_STOP_WORDS = frozenset(_ARTICLES_AND_SUCH.split())
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
# People of whom no more is said than that they are people: anybody can be meant.
_ANYBODY = frozenset(f"person someone somebody people {_BODY_PARTS}".split())
_IRREGULAR = {"men": "man", "women": "woman", "children": "child", "people": "person", "knives": "knife", "shelves": "shelf",
              "leaves": "leaf", "glasses": "glass", "dishes": "dish", "boxes": "box", "brushes": "brush", "tomatoes": "tomato",
              "potatoes": "potato"}  # fmt: skip


def singular(noun: str) -> str:
    """The singular of a noun, by rule of thumb."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "shes", "ches", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) else noun


@dataclass(frozen=True)
class Noun:
    """
    A phrase taken apart.

    Args:
        head (`str`): the head noun in the singular; "car" of "two toy cars".
        kind (`str`): the same for all words of one row of the synonym table.
        is_person (`bool`): whether it names people, or their hands.
        is_plural (`bool`): whether it names several.
        colors (`frozenset[str]`): of the thing itself; those of what somebody wears are among `words` alone.
        words (`frozenset[str]`): everything that is said, without articles.
    """

    head: str
    kind: str
    is_person: bool
    is_plural: bool
    colors: frozenset[str]
    words: frozenset[str]


@lru_cache(maxsize=65536)
def read_noun(phrase: str) -> Noun:
    """Takes a phrase apart."""
    text = phrase.lower()
    before = _WORD.findall(head_part(text))
    noun = head_noun(text)
    head = singular(noun)
    words = frozenset(_WORD.findall(text)) - _STOP_WORDS
    number = bool(words & {"two", "three", "four", "several", "many", "both"})
    is_plural = number or noun != head or noun in _GROUPS.split()
    return Noun(head, _kinds().get(head, head), noun in PEOPLE or head in PEOPLE, is_plural, COLORS & {*before}, words)


@lru_cache(maxsize=1)
def _kinds() -> dict[str, str]:
    """For the last word of every entry of the synonym table what stands for its row; words of several rows stand alone."""
    found: dict[str, set[str]] = {}
    for row in SYNONYMS:
        kind = singular(row[0].split()[-1])
        for entry in row:
            found.setdefault(singular(entry.split()[-1]), set()).add(kind)
    return {word: next(iter(kinds)) for word, kinds in found.items() if len(kinds) == 1}


def can_be_same(one: Noun, other: Noun) -> bool:
    """Whether two phrases can mean the same thing: no person and a thing, no two kinds, and no two colours."""
    if one.is_person != other.is_person:
        return False
    if one.colors and other.colors and not one.colors & other.colors:
        return False
    if one.is_person and (one.head in _ANYBODY or other.head in _ANYBODY):
        return True
    return one.kind == other.kind


def similarity(one: Noun, other: Noun) -> float:
    """How much of what two phrases say is the same, in [0, 1]; a shared head noun counts like two words."""
    shared, either = one.words & other.words, one.words | other.words
    same_head = 2 * (one.kind == other.kind)
    return (len(shared) + same_head) / (len(either) + 2)


__all__ = ["COLORS", "PEOPLE", "Noun", "can_be_same", "read_noun", "similarity", "singular"]
