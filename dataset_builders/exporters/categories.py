"""Classes for tools that want them: phrases are free text, and a detector's classes are a numbered list."""

from __future__ import annotations

import re
from typing import Literal, get_args

from dataset_builders.head_nouns import head_noun

CategoryKind = Literal["phrase", "head", "single"]
CATEGORY_KINDS: tuple[CategoryKind, ...] = get_args(CategoryKind)

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text in one line, without the characters that XML cannot hold, escaped or not."""
    return " ".join(_NOT_XML.sub(" ", text).split())


def head_word(phrase: str) -> str:
    """
    The noun that a phrase is about, in lower case: "dog" of "the small brown dog on a sofa".

    It is found as [`head_noun`] does; of a phrase without a word it is the phrase.

    Example:

    ```python
    >>> head_word("two slices of bread with butter")
    'bread'
    ```
    """
    return head_noun(phrase) or xml_text(phrase.lower())


class Categories:
    """
    Categories of phrases, numbered from 0 in the order in which they are first asked for.

    Args:
        kind (`"phrase"`, `"head"` or `"single"`):
            One category for every phrase (up to case and white space), for every head word (see [`head_word`]), or one
            for all, "object".

    Raises:
        `ValueError`: if `kind` is none of these.
    """

    def __init__(self, kind: CategoryKind = "phrase"):
        if kind not in CATEGORY_KINDS:
            raise ValueError(f"categories: expected one of {', '.join(CATEGORY_KINDS)}, got {kind!r}")
        self.kind = kind
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Names by number."""
        return list(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, phrase: str) -> str:
        """Name of a phrase's category."""
        if self.kind == "single":
            return "object"
        return head_word(phrase) if self.kind == "head" else xml_text(phrase.lower())

    def number(self, phrase: str) -> int:
        """Number of a phrase's category."""
        return self._numbers.setdefault(self.name(phrase), len(self._numbers))


__all__ = ["CATEGORY_KINDS", "Categories", "CategoryKind", "head_word", "xml_text"]
