"""Where the head of a noun phrase is, the noun that says what it is about: "dog" in "the small brown dog on a sofa"."""

from __future__ import annotations

import re

# What follows one of these in a noun phrase belongs to its head: a cup | of tea, a man | wearing a hat, a dog | that barks.
_AFTER_HEAD = (
    "of in on with without at from to for by near behind under over above below beside between inside into onto next "
    "against around along across through that which who whose wearing holding and or"
)
# Unless it is "of" after one of these: two slices of | bread, both of | the hands.
_QUANTITIES = (
    "all any both bit bunch couple each few group half handful lot lots many most none number one pair pairs part piece "
    "pieces several slice slices some three two"
)
# Or there is no noun yet: the | next cup.
_ARTICLES = "a an the"
_WORD = re.compile("[^\\W_]+(?:['\u2019-][^\\W_]+)*")


def head_part(phrase: str) -> str:
    """
    The beginning of a noun phrase, up to its head: what comes before a preposition or a relative clause. A rule of thumb for
    short English phrases.

    Example:

    ```python
    >>> head_part("Two slices of bread with butter")
    'Two slices of bread'
    ```
    """
    head, end = "", len(phrase)
    for word in _WORD.finditer(phrase):
        text = word[0].lower()
        if text == "of" and head in _QUANTITIES.split():
            continue
        if head and head not in _ARTICLES.split() and text in _AFTER_HEAD.split():
            break
        head, end = text, word.end()
    return phrase[:end]


def head_noun(phrase: str) -> str:
    """The last word of [`head_part`] in lower case: plurals stay, of a compound it is "board" of "a cutting board"."""
    words = _WORD.findall(head_part(phrase).lower())
    return words[-1] if words else ""


__all__ = ["head_noun", "head_part"]
