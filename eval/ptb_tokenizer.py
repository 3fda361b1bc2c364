"""Penn Treebank tokens in Python, for machines without Java: what the tokenizer of CoreNLP 3.4.1 makes of captions, nearly.

The rules below were found by giving that program text and looking at what came out. As there, the longest of all that
fits a place is taken, and the first of two that are equally long. Quotation marks are not told apart, as caption scores drop
them. How often both agree is measured in tests/eval/test_ptb_tokenizer.py; what is not imitated is rare in captions: phone
numbers with brackets, most emoticons, text in several scripts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

# What ends a line for CoreNLP, besides "\n".
LINE_SEPARATORS = "\r\x0b\x0c\u2028\u2029"

# A letter, what follows it in a word (also the marks that are written over letters), and words with hyphens.
_LETTER = "[^\\W\\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218f]"
_ALNUM = "[^\\W_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218f]"
_PLAIN = f"{_ALNUM}(?:{_ALNUM}|[\u0300-\u036f])*"
_JOINED = f"{_PLAIN}(?:[-_\u2010\u2011]{_PLAIN})*"
_DECIMAL = r"\d*(?:[.,:]\d+)+"
_ENDING = f"'(?:s|m|d|ll|re|ve)(?!{_ALNUM})"

# Their full stop belongs to them, whatever their case; a single letter's too, but before a word that begins a sentence.
_ABBREVIATIONS = """
    ph.d al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd cie col cos cpl
    dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar mfg mme mon mrs mtg neb
    nev nov oct pfc plc pte pty pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis wyo alex ariz assn asst atty
    bldg blvd brig bros capt cmdr colo conn corp dept elec govs insp intl invt kans mich minn mlle mont msgr natl okla penn
    pres prof reps sens sept supt tenn tues univ wisc assoc calif lieut profs thurs messrs
"""
_CAPITALIZED_ABBREVIATIONS = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
_ABBREVIATIONS_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
_BEGINNINGS = """
    A About After An As At But He Her Here However If In It Last Many More Now Once One Other Our She Since Some So Such That
    The Their Then There These They This We What When While Yet You
"""

# Two words that are written as one: CoreNLP cuts them after three letters.
_CUT = {"cannot", "gonna", "gotta", "wanna", "lemme", "gimme"}


def _any(words: str) -> str:
    return "|".join(map(re.escape, words.split()))


# Group 1, where there is one, is the token, and the rest only has to follow. Matched without regard to case, but for (?-i:...).
_RULES = [
    # Contractions: "don't" is "do n't", "he's" is "he 's".
    f"(y'){_LETTER}+",
    f"({_LETTER}+?)n't(?!{_LETTER})",
    f"n't(?!{_LETTER})",
    f"({_JOINED}){_ENDING}",
    _ENDING,
    f"('t)(?:is|was)(?!{_ALNUM})",
    # Words that have an apostrophe, and those that begin with one.
    f"(?-i:[A-HJ-XZndlj])'{_LETTER}{{2,}}",
    f"{_LETTER}*[aeiouy]'(?-i:[aeiouA-Z]){_LETTER}*",
    f"qu'{_LETTER}+|o'clock|c'mon|s'mores|li'l|ol'(?!{_LETTER})|nor'easter|cont'd",
    f"([dlj]'){_LETTER}",
    rf"'n'|'(?:n|em|cause|till?)(?!{_ALNUM})|(?<!\d)'\d\ds?(?!{_ALNUM})",
    # Numbers, and words with hyphens and strokes.
    rf"[-+]?(?:{_DECIMAL}|\d+)",
    _JOINED,
    rf"\d+(?:[.,]\d+)+(?:-{_PLAIN})+",
    f"{_JOINED}(?:[/\u2044]{_JOINED}){{1,2}}",
    r"\d{1,4}[ \u00a0]\d{1,4}/\d{1,4}(?![\w/])",
    # Abbreviations, and sentences without a blank between them, which CoreNLP takes for a name.
    f"{_LETTER}\\.(?!\\s+(?-i:{_any(_BEGINNINGS)})(?!{_ALNUM}))",
    rf"(?:{_LETTER}\.){{2,}}(?:-{_JOINED})?",
    f"(?:{_any(_ABBREVIATIONS)})\\.",
    f"(?-i:{_any(_CAPITALIZED_ABBREVIATIONS)}|{_any(_CAPITALIZED_ABBREVIATIONS.upper())})\\.",
    rf"(?:{_any(_ABBREVIATIONS_BEFORE_NUMBERS)})\.(?=\s*\d)",
    f"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)+",
    r"(?-i:[A-Z]+&[A-Z]+)|C\+\+|[CF]#|(?-i:[A-Z]{1,2}\$)",
    r"\(\d{3}\) ?\d{3}-\d{4}",
    # Addresses, tags and what is said with punctuation.
    r"(?:https?://|www\.)[^\s<>\"(){}|]*[^\s<>\"(){}|.,!?;:']",
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    r"@[a-z_]\w*|#[a-z_]+",
    r"</?[a-z][^<>\n]*>|<!--[^\n]*?-->",
    f"[:;=]-?[()dp](?!{_ALNUM})",
    r"[?!]{2,}|''|\*+|_+|-+",
    r"&(?:amp|lt|gt|quot|apos|nbsp);",
    r".",
]
_PATTERNS = [re.compile(rule, re.IGNORECASE) for rule in _RULES]
# Most words of most captions; the rules would say the same.
_SIMPLE = re.compile(r"[a-zA-Z]{2,}(?=\s|$)")
_BLANK = re.compile(r"[^\S\n]+")
_NEW_LINE = re.compile(f"\r\n|[{LINE_SEPARATORS}]")

# Before: other forms of the same character. \x80 to \x9f are those of Windows-1252, where U+0085 is an ellipsis.
_CHARACTERS = str.maketrans(
    {
        "\u00ad": "", "\u2019": "'", "\x92": "'", "\u2018": "`", "\u201b": "`", "\x91": "`", "\u2026": " ... ", "\x85": " ... ",
        "\u2013": " -- ", "\u2014": " -- ", "\u2015": " -- ", "\x96": " -- ", "\x97": " -- ", "\u20ac": " $ ", "\x80": " $ ",
        "\u00a4": " $ ", "\u20a0": " $ ", "\u00a3": " # ", "\u00a2": " cents ",
        **dict.fromkeys("\u201c\u201d\u00ab\u00bb\x93\x94", '"'), **dict.fromkeys("\u2039\u203a", "'"),
    }
)  # fmt: skip
# After: tokens that are written in another way.
_WRITTEN = {
    '"': "''", "\u2010": "", "\u2011": "", "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "",
}  # fmt: skip
_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})


def python_tokens(captions: Sequence[str]) -> list[str]:
    """
    Lines of lower-cased tokens with blanks between them, as [`~eval.caption_jars.jar_tokens`] has.

    Args:
        captions (`Sequence[str]`): Without `"\\n"`. Other line separators make more lines than there are captions.
    """
    text = _NEW_LINE.sub("\n", "\n".join(captions)).translate(_CHARACTERS)
    lines: list[list[str]] = [[]]
    for token in _tokens(text):
        if token == "\n":
            lines.append([])
        else:
            lines[-1].append(token)
    return [" ".join(line) for line in lines]


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        if blank := _BLANK.match(text, place):
            place = blank.end()
        elif (word := _SIMPLE.match(text, place)) and word[0].lower() not in _CUT:
            yield word[0].lower()
            place = word.end()
        elif text[place] == "\n":
            yield "\n"
            place += 1
        else:
            token = _longest(text, place)
            place += len(token)
            yield from _written(token)


def _longest(text: str, place: int) -> str:
    """The token that begins at a place."""
    matches = [match for pattern in _PATTERNS if (match := pattern.match(text, place))]
    longest = max(matches, key=lambda match: match.end())
    return longest[longest.lastindex or 0]


def _written(token: str) -> Iterator[str]:
    """A token as CoreNLP writes it: nothing for what it does not know, two for words that are cut."""
    word = token.lower()
    if word in _CUT:
        yield word[:3]
        yield word[3:]
    elif len(word) == 1 and (ord(word) > 0xFFFF or unicodedata.category(word)[0] in "CM"):
        return
    elif word.startswith("<") and len(word) > 1:
        yield word.replace(" ", "\u00a0")
    elif word := _WRITTEN.get(word, word):
        yield "--" if len(word) > 1 and not word.strip("-") else word.translate(_BRACKETS).replace(" ", "\u00a0")


__all__ = ["LINE_SEPARATORS", "python_tokens"]
