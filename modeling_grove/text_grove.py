"""Text of GROVE: the prompt, tagged captions, and the tolerant reading of generated text.

A *tagged caption* marks its noun phrases. Data sets write `a <p>man</p> runs`; the model reads and writes
`a <p> man </p> [DET] runs`, where the [DET] after a phrase asks the box decoder for the boxes of that phrase. Spans
are `(start, end)` character offsets into the plain caption, end excluded. Nothing here needs a tokenizer; the
original's own text handling, defects included, is in `original_text_grove.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

VIDEO_TOKEN = "<video>"
VIDEO_START_TOKEN = "<vid_start>"
VIDEO_END_TOKEN = "<vid_end>"
PHRASE_START_TOKEN = "<p>"
PHRASE_END_TOKEN = "</p>"
DET_TOKEN = "[DET]"
EOS_TOKEN = "</s>"

SYSTEM_PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
# The wording, "the this video" included, is what released checkpoints were trained on. Training draws one at random,
# inference uses the first.
QUESTION_TEMPLATES = (
    (
        "Could you please give me a description of the video? "
        "Please respond with interleaved bounding boxes for the corresponding parts of the answer."
    ),
    (
        "Can you provide a description of the this video? "
        "Please output with interleaved bounding boxes for the corresponding phrases."
    ),
    (
        "Please describe the contents of the video. "
        "Please respond with interleaved bounding boxes for the corresponding parts of the answer."
    ),
    (
        "Could you give an explanation of what can be found within this video? "
        "Please output with interleaved bounding boxes for the corresponding phrases."
    ),
    (
        "Could you give me an explanation of this video? "
        "Please respond with interleaved bounding boxes for the corresponding phrases."
    ),
    (
        "Could you provide me with an analysis of this video? "
        "Please output with interleaved bounding boxes for the corresponding parts of the answer."
    ),
)

Span = tuple[int, int]

# Everything that is a token of the vocabulary and never a word of a caption.
_MARKER = re.compile(
    r"<p>|</p>|\[DET\]|\[SEG\]|</?s>|<unk>|<pad>|<video>|<vid_start>|<vid_end>|<im_start>|<im_end>|<bbox>|<point>"
)
_DATASET_TAG = re.compile(r"</?p>")
# Where a marker left a blank that the language does not have: before closing punctuation, inside hyphenated words,
# before "'s".
_NO_BLANK_BEFORE = re.compile(r"""[.,;:!?%)}]|['"](?!\w)|'(?:s|re|ll|ve|d|m|t)\b|[-/]\w""")
_NO_BLANK_AFTER = re.compile(r"""[({]$|(?:^|\s)['"]$|\w[-/]$""")
# Never join what a marker separates when the two sides could spell another marker ("<" <p> "p>").
_MARKER_BEGINNING = re.compile(r"[<\[][^\s>\]]*$")


class Phrase(NamedTuple):
    """A noun phrase and its `(start, end)` span in the plain caption: `caption[start:end] == text`."""

    text: str
    span: Span


@dataclass(frozen=True)
class ParsedCaption:
    """A generated text, read.

    Args:
        caption (`str`): plain caption, without tags, double blanks, or blanks that only the tags caused.
        phrases (`list[Phrase]`): phrases in caption order, never empty, never overlapping.
        det_phrase (`list[int | None]`): for the i-th [DET] of the text, the index of its phrase; `None` where it has
            none.
    """

    caption: str
    phrases: list[Phrase]
    det_phrase: list[int | None]

    @property
    def phrase_det(self) -> list[int | None]:
        """For each phrase, the index of its [DET] among those of the text, `None` where the phrase has none."""
        det_of = {phrase: det for det, phrase in enumerate(self.det_phrase) if phrase is not None}
        return [det_of.get(index) for index in range(len(self.phrases))]


def build_prompt(question: str = QUESTION_TEMPLATES[0], caption: str | None = None) -> str:
    """The conversation that the language model reads; its `<video>` stands for the video tokens.

    Args:
        question (`str`): the instruction, by default the one of inference.
        caption (`str`, *optional*): the answer as `format_training_answer` or `tag_caption` write it, for training
            and teacher forcing. Without it the text ends at "ASSISTANT:", ready for generation.
    """
    video = f"{VIDEO_START_TOKEN}{VIDEO_TOKEN}{VIDEO_END_TOKEN}"
    prompt = f"{SYSTEM_PROMPT} USER: The {video} provides an overview of the video.\n{question} ASSISTANT:"
    return prompt if caption is None else f"{prompt} {caption}{EOS_TOKEN}"


def format_training_answer(caption: str, spans: Sequence[Span]) -> str:
    """Writes the caption as the model is trained to: lower-cased, each phrase as `<p> phrase </p> [DET]`.

    The [DET] tokens come in caption order whatever the order of `spans`. Unlike the original, every mention is
    wrapped at its own place, so two mentions of "man" do not nest.

    Args:
        caption (`str`): plain caption.
        spans (sequence of `(start, end)`): where its phrases are.

    Raises:
        ValueError: a span is empty or outside the caption, two spans overlap or are equal, or a tag is in the caption.
    """
    if marker := _MARKER.search(caption):
        raise ValueError(
            f"a plain caption cannot hold {marker.group()!r}: remove the tags, or give the text to tag_caption"
        )
    text, position, pieces = _lower(caption), 0, []
    for start, end in sorted(spans):
        if not 0 <= start < end <= len(text):
            raise ValueError(f"span {(start, end)} is not inside the caption of {len(text)} characters, or is empty")
        if start < position:
            raise ValueError(
                f"span {(start, end)} ({caption[start:end]!r}) overlaps the phrase that ends at {position}: "
                "give each mention once and keep one of two nested phrases"
            )
        pieces += [text[position:start], f"{PHRASE_START_TOKEN} {text[start:end]} {PHRASE_END_TOKEN} {DET_TOKEN}"]
        position = end
    return "".join(pieces) + text[position:]


def read_tagged_caption(tagged_caption: str) -> tuple[str, list[Phrase]]:
    """Splits a well-formed tagged caption (`a <p>man</p> runs`) into the plain caption and its phrases.

    Blanks just inside the tags and [DET] tokens do not count. For what a model generated use `parse_grounded_text`,
    which takes any text.

    Raises:
        ValueError: a tag is unclosed, nested, unopened or empty.
    """
    text = re.sub(rf" *{re.escape(DET_TOKEN)}", "", tagged_caption)
    caption, phrases, position, opened = "", [], 0, False
    for tag in _DATASET_TAG.finditer(text):
        piece = text[position : tag.start()]
        position = tag.end()
        if opened == (tag.group() == PHRASE_START_TOKEN):
            problem = "opens a phrase inside another" if opened else "closes no phrase"
            raise ValueError(f"{tag.group()} at character {tag.start()} {problem} in tagged caption {tagged_caption!r}")
        if opened:
            piece = piece.strip()
            if not piece:
                raise ValueError(f"empty phrase before character {tag.start()} in tagged caption {tagged_caption!r}")
            phrases.append(Phrase(piece, (len(caption), len(caption) + len(piece))))
        caption += piece
        opened = not opened
    if opened:
        raise ValueError(f"unclosed <p> in tagged caption {tagged_caption!r}")
    return caption + text[position:], phrases


def tag_spans(caption: str, spans: Iterable[Span]) -> str:
    """The caption with `<p>` and `</p>` around its spans, which do not overlap: what `read_tagged_caption` reads."""
    for start, end in sorted(spans, reverse=True):
        caption = f"{caption[:start]}{PHRASE_START_TOKEN}{caption[start:end]}{PHRASE_END_TOKEN}{caption[end:]}"
    return caption


def find_phrase_spans(caption: str, tagged_caption: str, phrases: Sequence[str]) -> list[Span]:
    """Finds each phrase in the caption, where the tagged caption marks it.

    Case is ignored. A phrase that is listed twice takes its successive tagged mentions. The two captions may differ
    by white space, and by what surrounds the shorter one (quotes, for instance).

    Args:
        caption (`str`): plain caption; the spans refer to it.
        tagged_caption (`str`): the caption with `<p>phrase</p>`.
        phrases (sequence of `str`): phrases in any order.

    Returns:
        `list[tuple[int, int]]`: one span a phrase, in the order of `phrases`.

    Raises:
        ValueError: a phrase has no (further) tagged mention, or the two captions are different texts.
    """
    rest = _tagged_mentions(caption, tagged_caption)
    spans = []
    for phrase in phrases:
        mention = next((m for m in rest if _lower(m[0]) == _lower(phrase.strip())), None)
        if mention is None:
            raise ValueError(
                f"phrase {phrase!r} is listed {phrases.count(phrase)} time(s), more often than it is tagged in "
                f"{tagged_caption!r}: tag every mention, or list the phrase less often"
            )
        rest.remove(mention)
        if mention[1] is None:
            raise ValueError(f"phrase {phrase!r} is tagged in a part of {tagged_caption!r} that is not in {caption!r}")
        spans.append(mention[1])
    return spans


def locate_phrases(caption: str, tagged_caption: str, phrases: Sequence[str]) -> list[Span]:
    """Finds each phrase in the caption as well as an annotation allows: tagged, else at word boundaries, else anywhere.

    The lenient counterpart of `find_phrase_spans`: a phrase that the tagged caption does not mark is searched for in
    the caption, and a tagged caption that is malformed or of another text marks nothing.

    Args:
        caption, tagged_caption, phrases: As for `find_phrase_spans`; `tagged_caption` may be empty.

    Returns:
        `list[tuple[int, int]]`: one span a phrase, in the order of `phrases`; none overlaps another.

    Raises:
        ValueError: a phrase is empty or has no (further) mention.
    """
    try:
        marked = [span for _, span in _tagged_mentions(caption, tagged_caption) if span is not None]
    except ValueError:
        marked = []
    found: dict[int, Span] = {}
    for index, phrase in enumerate(phrases):
        wanted = _lower(phrase.strip())
        span = next((span for span in marked if _lower(caption[slice(*span)]) == wanted), None)
        if span is not None:
            marked.remove(span)
            found[index] = span
    rest = [index for index in range(len(phrases)) if index not in found]
    searched = _search(caption, [phrases[index] for index in rest], list(found.values()), inside_words=True)
    found.update(zip(rest, searched, strict=True))
    return [found[index] for index in range(len(phrases))]


def read_caption(caption: str, phrases: Sequence[str] | None = None) -> tuple[str, list[Phrase]]:
    """Reads a caption that a user gives, in either form, keeping its case.

    Args:
        caption (`str`): `a <p>man</p> runs`, or a plain caption when `phrases` is given.
        phrases (sequence of `str`, *optional*): phrases to find in the plain caption, in any order, ignoring case, at
            word boundaries. The longest are placed first, so "knife" never lands in "butter knife"; a phrase that is
            listed twice takes successive mentions.

    Returns:
        `tuple[str, list[Phrase]]`: plain caption and phrases in caption order.

    Raises:
        ValueError: no phrase at all, a phrase that is not in the caption, or malformed tags.
    """
    plain, tagged_phrases = read_tagged_caption(caption)
    if phrases is None:
        if not tagged_phrases:
            raise ValueError(f"no <p>phrase</p> in the caption {caption!r}: tag its phrases or pass them as `phrases`")
        return plain, tagged_phrases
    spans = find_phrase_spans(plain, caption, phrases) if tagged_phrases else _search(plain, phrases)
    if not spans:
        raise ValueError("`phrases` is empty: name at least one phrase of the caption")
    return plain, [Phrase(plain[start:end], (start, end)) for start, end in sorted(spans)]


def tag_caption(caption: str, phrases: Sequence[str] | None = None) -> str:
    """The text to teacher-force for a given caption, lower-cased as in training.

    Arguments and errors are those of `read_caption`; the i-th [DET] belongs to the i-th phrase that it returns.

    Example:

    ```python
    >>> tag_caption("A <p>man</p> runs.")
    'a <p> man </p> [DET] runs.'
    >>> tag_caption("A man hands a man a cup.", ["cup", "man", "man"])
    'a <p> man </p> [DET] hands a <p> man </p> [DET] a <p> cup </p> [DET].'
    ```
    """
    plain, found = read_caption(caption, phrases)
    return format_training_answer(plain, [phrase.span for phrase in found])


def parse_grounded_text(text: str) -> ParsedCaption:
    """Reads a text that the model generated, whatever is missing, doubled or nested in it. Never raises.

    Each [DET] goes to the nearest closed phrase before it that has none yet. Of two <p> without a </p> between them
    the later one opens the phrase; an unclosed <p>, a </p> that closes nothing and an empty phrase leave only their
    words. Other special tokens are dropped, and so is a quote around the whole caption (the original drops it too);
    any other "<" is text.

    Args:
        text (`str`): the generated answer, decoded with its special tokens.

    Returns:
        `ParsedCaption`: plain caption, phrases with exact spans, and which phrase each [DET] belongs to.
    """
    caption = ""
    spans: list[Span] = []
    with_det: set[int] = set()
    det_phrase: list[int | None] = []
    blank = marked = opened = closed = False  # what lies between the caption so far and the next word
    phrase_start: int | None = None
    position = 0

    for marker in [*_MARKER.finditer(text), None]:
        piece = text[position : marker.start() if marker else len(text)]
        words = " ".join(piece.split())
        if words:
            # Blanks just inside a phrase belong to its tags.
            blank = blank or (piece[0].isspace() and not (opened and phrase_start is None))
            caption += _separator(caption[-16:], words, blank, marked)  # no marker is longer
            if opened and phrase_start is None:
                phrase_start = len(caption)
            caption += words
            blank, marked, closed = piece[-1].isspace(), False, False
        elif piece and not (opened and phrase_start is None):
            blank = True
        if marker is None:
            break
        position = marker.end()
        if marker.group() == PHRASE_START_TOKEN:
            opened, phrase_start = True, None
        elif marker.group() == PHRASE_END_TOKEN:
            if phrase_start is not None:
                spans.append((phrase_start, len(caption)))
                blank, closed = False, True
            opened, phrase_start = False, None
        elif marker.group() == DET_TOKEN:
            if closed:  # the blank between </p> and [DET] belongs to the tags
                blank, closed = False, False
            free = [index for index in range(len(spans)) if index not in with_det]
            det_phrase.append(free[-1] if free else None)
            with_det.update(free[-1:])
        marked = True

    caption, spans = _strip_outer_quotes(caption, spans)
    return ParsedCaption(caption, [Phrase(caption[start:end], (start, end)) for start, end in spans], det_phrase)


def _separator(before: str, after: str, blank: bool, marked: bool) -> str:
    """What to write between two pieces of a caption, given whether white space and a marker lay between them."""
    if not before:
        return ""
    if not marked:
        return " " if blank else ""
    if _MARKER_BEGINNING.search(before):
        return " "
    if blank:
        return "" if _NO_BLANK_BEFORE.match(after) or _NO_BLANK_AFTER.search(before) else " "
    # A decoder may drop the blanks around tags ("a<p>man</p>[DET]is"), and words never touch across a tag.
    return " " if after[0].isalnum() and (before[-1].isalnum() or before[-1] in ",;:!?.)") else ""


def _strip_outer_quotes(caption: str, spans: list[Span]) -> tuple[str, list[Span]]:
    """Drops a quote that opens the caption, with the one that then closes it, unless a phrase holds them."""
    if caption.startswith("'") and not (spans and spans[0][0] == 0):
        kept = caption[1:].lstrip()
        shift = len(caption) - len(kept)
        caption, spans = kept, [(start - shift, end - shift) for start, end in spans]
        if caption.endswith("'") and not (spans and spans[-1][1] == len(caption)):
            caption = caption[:-1].rstrip()
    return caption, spans


def _lower(text: str) -> str:
    """Lower case of the same length, so that spans stay valid (one capital I with a dot becomes two characters)."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _tagged_mentions(caption: str, tagged_caption: str) -> list[tuple[str, Span | None]]:
    """The phrases of a tagged caption with their spans in `caption`, `None` for those in a part that `caption` lacks.

    Raises:
        ValueError: the tags are malformed, or the two captions are different texts.
    """
    plain, mentions = read_tagged_caption(tagged_caption)
    # Both captions without white space: the n-th letter of one is the n-th letter of the other, moved by `shift`.
    letters = [index for index, character in enumerate(caption) if not character.isspace()]
    squeezed, squeezed_plain = ("".join(_lower(text).split()) for text in (caption, plain))
    if squeezed_plain in squeezed:
        shift = squeezed.find(squeezed_plain)
    elif squeezed in squeezed_plain:
        shift = -squeezed_plain.find(squeezed)
    else:
        raise ValueError(f"the tagged caption without its tags is {plain!r}, which is not the caption {caption!r}")
    located: list[tuple[str, Span | None]] = []
    for text, (start, _) in mentions:
        first = shift + len("".join(plain[:start].split()))
        last = first + len("".join(text.split())) - 1
        inside = first >= 0 and last < len(letters)
        located.append((text, (letters[first], letters[last] + 1) if inside else None))
    return located


def _search(caption: str, phrases: Sequence[str], taken: Sequence[Span] = (), inside_words: bool = False) -> list[Span]:
    """One span a phrase, none overlapping another or one of `taken`; with `inside_words`, where words allow none."""
    spans: dict[int, Span] = {}
    # Longer phrases first, so that "knife" cannot take the place of "butter knife".
    for index in sorted(range(len(phrases)), key=lambda index: -len(phrases[index])):
        spans[index] = _locate(caption, phrases[index], [*taken, *spans.values()], inside_words)
    return [spans[index] for index in range(len(phrases))]


def _locate(caption: str, phrase: str, taken: Sequence[Span], inside_words: bool) -> Span:
    """First mention of a phrase at word boundaries that overlaps no span of `taken`."""
    text, wanted = _lower(caption), _lower(phrase.strip())
    if not wanted:
        raise ValueError(f"phrase {phrase!r} is empty")
    starts = [start for start in range(len(text)) if text.startswith(wanted, start)]
    mentions = [(start, start + len(wanted)) for start in starts]
    free = [span for span in mentions if all(span[1] <= start or end <= span[0] for start, end in taken)]
    whole = [span for span in free if not _splits_word(text, span[0]) and not _splits_word(text, span[1])]
    found = whole or (free if inside_words else [])
    if not found:
        raise ValueError(f"phrase {phrase!r} has no (further) mention of its own in the caption {caption!r}")
    return found[0]


def _splits_word(text: str, index: int) -> bool:
    """Whether a word goes on at `index`. Scripts without case put no blanks between words: there no place splits one."""
    around = text[max(index - 1, 0) : index + 1]
    return len(around) == 2 and all(c.isdecimal() or c.lower() != c.upper() for c in around)
