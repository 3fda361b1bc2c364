"""The original GROVE's text handling, reproduced with its defects.

Released checkpoints were trained on exactly these strings and ids, so parity and reproducible data need them.
Everything here was matched with numbers recorded from the original code (slow `LlamaTokenizer`, `legacy=False`,
transformers 4.46). The correct counterparts are in `text_grove.py`. Quirk numbers are those of section 7 of the
project's reference of the original code.

Ids: the tokenizer holds the base pieces, then `<im_start> <im_end> <bbox> <point> [SEG] <p> </p>` as ordinary added
tokens, then `<vid_start> <vid_end> [DET]` as special tokens; with the 32000-piece base <p> is 32005, </p> 32006 and
[DET] 32009. The video is the id -200 in the original's sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from .text_grove import (
    DET_TOKEN,
    EOS_TOKEN,
    PHRASE_END_TOKEN,
    PHRASE_START_TOKEN,
    QUESTION_TEMPLATES,
    VIDEO_TOKEN,
    Span,
    build_prompt,
)

VIDEO_ID = -200
IGNORE_ID = -100
ANSWER_PREFIX = "ASSISTANT:"
WORD_START = "\u2581"  # SentencePiece's mark for a blank
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class OriginalAnnotations(NamedTuple):
    """What the original's data sets keep of a caption.

    Args:
        caption (`str`): lower-cased caption.
        labels (`list[str]`): lower-cased phrases, sorted by `tokens_positive`.
        tokens_positive (`list[tuple[int, int]]`): character span of each label in `caption`.
    """

    caption: str
    labels: list[str]
    tokens_positive: list[Span]


def parse_annotations(caption: str, tagged_caption: str, phrases: Sequence[str]) -> OriginalAnnotations:
    """Finds the phrases of an annotation as the original does.

    Keeps quirk 17: every phrase maps to its first tagged mention, so duplicates share one span, and a phrase that is
    not tagged takes the span of the phrase listed before it. Captions lose outer double quotes, then outer white
    space.

    Raises:
        ValueError: the first listed phrase is not tagged (the original fails with UnboundLocalError).
    """
    plain, tagged = (text.strip('"').strip().lower() for text in (caption, tagged_caption))
    found: list[tuple[Span, str]] = []
    span: Span | None = None
    for label in (phrase.lower() for phrase in phrases):
        start = tagged.find(f"{PHRASE_START_TOKEN}{label}{PHRASE_END_TOKEN}")
        if start >= 0:
            start -= sum(len(tag) for tag in re.findall("</?p>", tagged[:start]))
            span = (start, start + len(label))
        if span is None:
            raise ValueError(
                f"the first phrase, {label!r}, is not tagged in {tagged_caption!r}, where the original fails too: "
                "list a tagged phrase first"
            )
        found.append((span, label))
    found.sort(key=lambda item: item[0])  # stable: labels that share a span keep their order
    return OriginalAnnotations(plain, [label for _, label in found], [span for span, _ in found])


def training_answer(caption: str, tokens_positive: Sequence[Span]) -> str:
    """Writes `<p> phrase </p> [DET]` into the caption from the last span to the first.

    Keeps quirk 17: equal spans cut into the tags that were just written ("<p> <p> </p> [DET] man </p> [DET]").
    """
    for start, end in sorted(tokens_positive, reverse=True):
        phrase = f"{PHRASE_START_TOKEN} {caption[start:end]} {PHRASE_END_TOKEN} {DET_TOKEN}"
        caption = caption[:start] + phrase + caption[end:]
    return caption


def conversation(answer: str | None = None, question: str = QUESTION_TEMPLATES[0]) -> str:
    """The original's conversation, with its answer and "</s>", or up to "ASSISTANT:": no quirk, `build_prompt`'s."""
    return build_prompt(question, answer)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, add_bos: bool = True) -> list[int]:
    """Ids of the original slow tokenizer.

    Keeps quirk 10: a text gets a leading blank piece unless it starts with a *special* token, and blanks before tags
    stay as pieces of their own. A fast `LlamaTokenizer` differs in the leading piece only: it omits it before a blank
    or a non-special token.
    """
    ids: list[int] = []
    if text:
        ids = tokenizer.encode(WORD_START + text.replace(WORD_START, " "), add_special_tokens=False)
        special = set(tokenizer.all_special_ids)
        if len(ids) > 1 and ids[0] == tokenizer.convert_tokens_to_ids(WORD_START) and ids[1] in special:
            ids = ids[1:]
    return [tokenizer.bos_token_id, *ids] if add_bos else ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """Text of the original slow tokenizer, special tokens included.

    Keeps quirk 10: the runs between added tokens are converted apart and joined with one blank, so a text comes back
    with additional blanks around tags ("a  <p> man  </p> [DET]"), while <s>, </s> and <unk> stay glued to their run.
    """
    glued = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    added = set(tokenizer.added_tokens_decoder) - glued
    parts: list[str] = []
    run: list[str] = []
    ids = [int(i) for i in ids]
    for token_id, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if token_id not in added:
            run.append(token)
            continue
        if text := _run_to_text(run, tokenizer):
            parts.append(text)
        parts.append(token)
        run = []
    if run:  # kept even when empty, unlike the runs before a token
        parts.append(_run_to_text(run, tokenizer))
    return " ".join(parts)


def _run_to_text(run: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """Text of the pieces between two added tokens; the run's first blank is the one that encoding put there."""
    special = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token}
    text, pieces = "", list(run)
    if pieces and pieces[0].startswith(WORD_START):
        pieces[0] = pieces[0][1:]
    pending = bytearray()  # byte pieces in a row make one UTF-8 string
    for index, piece in enumerate(pieces):
        if index == 1 and pieces[0] in special and piece not in special and not piece.startswith(WORD_START):
            text += " "
        if match := _BYTE_PIECE.fullmatch(piece):
            pending.append(int(match.group(1), 16))
            continue
        text += _utf8(pending) + piece.replace(WORD_START, " ")
        pending = bytearray()
    return text + _utf8(pending)


def _utf8(data: bytes | bytearray) -> str:
    """Decodes UTF-8 with one U+FFFD for each invalid byte, as SentencePiece does (Python merges some)."""
    text = ""
    while data:
        try:
            return text + data.decode("utf-8")
        except UnicodeDecodeError as error:
            text += data[: error.start].decode("utf-8") + "\ufffd"
            data = data[error.start + 1 :]
    return text


def encode_conversation(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a conversation, -200 at each `<video>`.

    Keeps quirk 10: the pieces around `<video>` are tokenised apart (the BOS of all but the first is dropped), so the
    second one starts a text of its own.
    """
    first, *others = text.split(VIDEO_TOKEN)
    ids = encode(tokenizer, first)
    for piece in others:
        ids += [VIDEO_ID, *encode(tokenizer, piece, add_bos=False)]
    return ids


def conversation_labels(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Next-token labels of one conversation: its ids after "ASSISTANT:", -100 up to and including it.

    Raises:
        ValueError: not exactly one " ASSISTANT: ", or a literal `<unk>`, which is the padding id (quirk 21). Both stop
            the original with an assertion.
    """
    parts = text.removesuffix(EOS_TOKEN).split(f" {ANSWER_PREFIX} ")
    if len(parts) != 2:
        raise ValueError(f"expected one ' {ANSWER_PREFIX} ' in a conversation, got {len(parts) - 1}: {text!r}")
    ids = encode_conversation(tokenizer, text)
    if tokenizer.pad_token_id in ids:
        raise ValueError(
            f"the conversation holds the padding token {tokenizer.pad_token!r}: remove it from the caption"
        )
    num_masked = len(encode_conversation(tokenizer, f"{parts[0]} {ANSWER_PREFIX}"))
    return [IGNORE_ID] * num_masked + ids[num_masked:]


def collate(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[str],
    model_max_length: int | None = None,
    num_video_tokens: int = 576,
) -> dict[str, np.ndarray]:
    """Batch of conversations, right-padded, then cut.

    Keeps quirk 28: the cut may remove [DET] tokens whose boxes stay in the batch, and leaves no "</s>".

    Args:
        tokenizer (`PreTrainedTokenizerBase`): its padding token is <unk>, id 0.
        conversations (sequence of `str`): training conversations.
        model_max_length (`int`, *optional*, defaults to the tokenizer's): length limit after the video is expanded.
        num_video_tokens (`int`, *optional*, defaults to 576): video tokens that take the place of the one -200.

    Returns:
        `dict[str, np.ndarray]`: int64 arrays of shape `(batch_size, length)`, length at most
        `model_max_length - (num_video_tokens - 1)`: `input_ids`, `labels` (-100 on padding), `attention_mask` (1 on
        text).
    """
    limit = (tokenizer.model_max_length if model_max_length is None else model_max_length) - (num_video_tokens - 1)
    ids = [encode_conversation(tokenizer, text) for text in conversations]
    labels = [conversation_labels(tokenizer, text) for text in conversations]
    shape = (len(ids), max(len(row) for row in ids))
    input_ids = np.full(shape, tokenizer.pad_token_id, dtype=np.int64)
    label_ids = np.full(shape, IGNORE_ID, dtype=np.int64)
    for row, (row_ids, row_labels) in enumerate(zip(ids, labels, strict=True)):
        input_ids[row, : len(row_ids)] = row_ids
        label_ids[row, : len(row_labels)] = row_labels
    input_ids, label_ids = input_ids[:, :limit], label_ids[:, :limit]
    attention_mask = (input_ids != tokenizer.pad_token_id).astype(np.int64)
    return {"input_ids": input_ids, "labels": label_ids, "attention_mask": attention_mask}


def expand_video_tokens(ids: Sequence[int], video_token_id: int, num_video_tokens: int) -> list[int]:
    """Turns the original's ids into ours: each -200 becomes `num_video_tokens` times `video_token_id`."""
    expanded: list[int] = []
    for token_id in ids:
        expanded += [video_token_id] * num_video_tokens if token_id == VIDEO_ID else [int(token_id)]
    return expanded


def text_for_other_windows(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    """The text that the original reads off a generated sequence, and conditions every other window on.

    Keeps quirk 16: the answer is what follows the last "ASSISTANT: ", so when the first generated piece has no
    leading blank the whole prompt becomes the answer. Newlines vanish, double blanks are halved once, and "</s>"
    stays.

    Args:
        ids (iterable of `int`): the whole sequence, prompt included; -200 and padding are dropped.
    """
    kept = [int(i) for i in ids if i not in (VIDEO_ID, tokenizer.pad_token_id)]
    return decode(tokenizer, kept).replace("\n", "").replace("  ", " ").split(f"{ANSWER_PREFIX} ")[-1]


def encode_for_other_windows(
    tokenizer: PreTrainedTokenizerBase, text: str, question: str = QUESTION_TEMPLATES[0]
) -> list[int]:
    """Ids of the prompt with the text of `text_for_other_windows` as its answer.

    Keeps quirk 11: the answer is tokenised again, and as it already ends with "</s>" the ids end with two.
    """
    return encode_conversation(tokenizer, conversation(text, question))


def postprocess(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> tuple[str, str, list[str]]:
    """Caption, tagged caption and phrases of a generated sequence.

    Keeps quirks 12 and 16: anything in angle brackets is cut from the caption (" < b and c > "), an unclosed <p> runs
    into the next phrase, blanks before punctuation stay, and the tagged caption keeps "</s>".

    Args:
        ids (iterable of `int`): the whole sequence, prompt included.

    Returns:
        `tuple[str, str, list[str]]`: caption without tags, caption with <p> and </p>, phrases in order of appearance.
    """
    text = text_for_other_windows(tokenizer, ids)
    phrases = [phrase.strip() for phrase in re.findall(r"<p>(.*?)</p>", text)]
    return _tidy(re.sub(r"<.*?>", "", text)), _tidy(text), phrases


def _tidy(text: str) -> str:
    return " ".join(text.replace(DET_TOKEN, "").split()).strip("'").strip()


def labels_per_frame(phrases: Sequence[str], objectness_logits: np.ndarray, threshold: float = 0.5) -> list[list[str]]:
    """Phrases of the kept boxes of each frame.

    Keeps quirk 12: the i-th [DET] is labelled with the i-th phrase, so a phrase without [DET] shifts all later
    labels, and a kept box whose index has no phrase gets no label. The comparison with the threshold is strict.

    Args:
        phrases (sequence of `str`): from `postprocess`.
        objectness_logits (`np.ndarray` of shape `(num_frames, num_dets)`): before the sigmoid.
        threshold (`float`, *optional*, defaults to 0.5): probability above which a box is kept.
    """
    logits = np.asarray(objectness_logits, dtype=np.float32)
    with np.errstate(over="ignore"):
        kept = 1 / (1 + np.exp(-logits)) > threshold
    return [[phrases[det] for det in np.flatnonzero(frame).tolist() if det < len(phrases)] for frame in kept]
