"""
Stages 2 and 3 by a language model: prompts from text files, answers read strictly, asked for once more where they cannot be read.

The prompts, with their examples, are in `prompts/`; a record's provenance has their hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from .chat_models import ChatModel, Conversation, TransformersChat
from .phrase_labels import Question
from .stage_files import Dropped
from .video_captions import ClipFacts, VideoCaption

_FOLDER = Path(__file__).parent / "prompts"
_NONE = "None"
_MOST_FRAMES = 40  # eight seconds; Llama-2 reads 4,096 tokens

T = TypeVar("T")


class UnreadableAnswer(ValueError):
    """An answer that is not what was asked for; the message goes back to the language model."""


@cache
def prompt(name: str) -> tuple[str, tuple[dict[str, Any], ...], str]:
    """The instructions of a prompt, its examples, and the hash of both."""
    text = (_FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    lines = (_FOLDER / f"{name}_examples.jsonl").read_text(encoding="utf-8")
    digest = hashlib.sha256(f"{text}\n{lines}".encode()).hexdigest()[:16]
    return text.strip(), tuple(json.loads(line) for line in lines.splitlines()), digest


def conversation(name: str, question: str, asked: Callable[[Mapping[str, Any]], str]) -> list[dict[str, str]]:
    """
    A prompt, its examples as turns, and a question.

    Args:
        name (`str`): of the prompt.
        question (`str`): to be answered.
        asked (`Callable`): makes the question of an example.
    """
    instructions, examples, _ = prompt(name)
    messages = [{"role": "system", "content": instructions}]
    for example in examples:
        messages += [
            {"role": "user", "content": asked(example)},
            {"role": "assistant", "content": json.dumps(example["answer"], ensure_ascii=False)},
        ]
    return [*messages, {"role": "user", "content": question}]


def read_answer(text: str, key: str) -> str:
    """
    The value of the one key of a JSON object.

    Raises:
        [`UnreadableAnswer`]: if the answer is anything else; what stands around the object is passed over.
    """
    match = re.search(r"\{.*?\}", text, re.DOTALL)
    if match is None:
        raise UnreadableAnswer(f"expected a JSON object with the key {key}, got {text.strip()[:200]!r}")
    try:
        answer = json.loads(match[0])
    except ValueError:
        raise UnreadableAnswer(f"expected JSON, got {match[0][:200]!r}") from None
    if [*answer] != [key] or not isinstance(answer[key], str) or not answer[key].strip():
        raise UnreadableAnswer(f"expected the single key {key} with a text, got {match[0][:200]!r}")
    if re.search("[\ud800-\udfff]", answer[key]):
        raise UnreadableAnswer(f"expected whole characters, got {match[0][:200]!r}")
    return " ".join(answer[key].split())


def ask(
    model: ChatModel, conversations: Sequence[Conversation], read: Sequence[Callable[[str], T]]
) -> list[T | UnreadableAnswer]:
    """
    Asks, and once more where an answer cannot be read.

    Args:
        model ([`ChatModel`]): that answers.
        conversations (`Sequence[Conversation]`): to be answered.
        read (`Sequence[Callable]`): reads the answer to each; raises [`UnreadableAnswer`].

    Returns:
        What was read, or what was wrong with the second answer.
    """
    found: list[T | UnreadableAnswer] = []
    again: list[tuple[int, Conversation]] = []
    for number, (answer, reader) in enumerate(zip(model.answer(conversations), read, strict=True)):
        try:
            found.append(reader(answer))
        except UnreadableAnswer as error:
            found.append(error)
            told = {
                "role": "user",
                "content": f"That cannot be used: {error}. Answer again, with the JSON object alone.",
            }
            again.append((number, [*conversations[number], {"role": "assistant", "content": answer or " "}, told]))
    if again:
        for (number, _), answer in zip(again, model.answer([asked for _, asked in again]), strict=True):
            try:
                found[number] = read[number](answer)
            except UnreadableAnswer as error:
                found[number] = error
    return found


class LanguageModelCaptioner:
    """
    Stage 2 by a language model.

    Args:
        model ([`ChatModel`]): that answers.
        whole_captions (`bool`, *optional*, defaults to `False`): give it the captions of frames as they are, not taken apart (a row
            of the paper's ablation).
    """

    def __init__(self, model: ChatModel, whole_captions: bool = False):
        self.model, self.whole_captions = model, whole_captions
        self.prompt = "video_caption_whole" if whole_captions else "video_caption"

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {**self.model.describe(), "prompt": prompt(self.prompt)[2], "whole_captions": self.whole_captions}

    def write(self, clips: Sequence[ClipFacts]) -> list[VideoCaption | Dropped]:
        """A caption for each clip, or what was wrong with the answers."""
        asked = [
            conversation(self.prompt, self._question(clip), lambda example: json.dumps(example["frames"]))
            for clip in clips
        ]
        answers = ask(self.model, asked, [_read_caption] * len(clips))
        return [
            Dropped(clip.clip.key, "unreadable_answer", str(answer)) if isinstance(answer, UnreadableAnswer) else answer
            for clip, answer in zip(clips, answers, strict=True)
        ]

    def _question(self, clip: ClipFacts) -> str:
        frames: list[Any] = [frame.caption for frame in clip.clip.frames]
        if not self.whole_captions:
            frames = [[fact.to_list() for fact in frame] for frame in clip.facts]
        return json.dumps(_thinned(frames), ensure_ascii=False)


def _thinned(frames: list[Any]) -> list[Any]:
    """Frames without those that say what the one before said, and of many as many as a prompt should have, evenly."""
    changed = [frame for number, frame in enumerate(frames) if number == 0 or frame != frames[number - 1]]
    if len(changed) <= _MOST_FRAMES:
        return changed
    return [changed[round(place * (len(changed) - 1) / (_MOST_FRAMES - 1))] for place in range(_MOST_FRAMES)]


def _read_caption(answer: str) -> VideoCaption:
    text = read_answer(answer, "CAPTION")
    try:
        return VideoCaption.from_tagged(text)
    except ValueError as error:
        raise UnreadableAnswer(str(error)) from None


class LanguageModelClassifier:
    """
    Stage 3 by a language model: each distinct phrase of a clip is one conversation.

    Args:
        model ([`ChatModel`]): that answers.
        by_likelihood (`bool`, *optional*, defaults to `False`): take the most likely of the allowed answers instead of having one
            written, which can be none but these; for [`TransformersChat`] alone.

    Raises:
        `ValueError`: if the model gives no likelihoods.
    """

    def __init__(self, model: ChatModel, by_likelihood: bool = False):
        if by_likelihood and not isinstance(model, TransformersChat):
            raise ValueError("likelihoods of answers: only the back end `transformers` gives them")
        self.model, self.by_likelihood = model, by_likelihood

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {**self.model.describe(), "prompt": prompt("phrase_label")[2], "by_likelihood": self.by_likelihood}

    def classify(self, questions: Sequence[Question]) -> list[list[int | None]]:
        """For each question and each of its phrases the number of the label that it is, or none; none too for a useless answer."""
        asked = [(phrase, question.labels) for question in questions for phrase in question.phrases]
        found = iter(self._classify(asked))
        return [[next(found) for _ in question.phrases] for question in questions]

    def _classify(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[int | None]:
        conversations = [conversation("phrase_label", _named(phrase, labels), _example) for phrase, labels in asked]
        if not self.by_likelihood:
            answers = ask(self.model, conversations, [_label_reader(labels) for _, labels in asked])
            return [None if isinstance(answer, UnreadableAnswer) else answer[0] for answer in answers]
        assert isinstance(self.model, TransformersChat)
        allowed = [
            [json.dumps({"CATEGORY": text}, ensure_ascii=False) for text in (*labels, _NONE)] for _, labels in asked
        ]
        best = [values.index(max(values)) for values in self.model.likelihoods(conversations, allowed)]
        return [number if number < len(labels) else None for number, (_, labels) in zip(best, asked, strict=True)]


def _named(phrase: str, labels: Sequence[str]) -> str:
    return json.dumps({"name": phrase, "categories": [*labels]}, ensure_ascii=False)


def _example(example: Mapping[str, Any]) -> str:
    return _named(example["name"], example["categories"])


def _label_reader(labels: Sequence[str]) -> Callable[[str], tuple[int | None]]:
    """Reads the number of a label, or none, in a tuple of its own so that "none" is an answer."""
    numbers: dict[str, int | None] = {_NONE.casefold(): None}
    for number, label in reversed([*enumerate(labels)]):
        numbers[label.casefold()] = number

    def read(answer: str) -> tuple[int | None]:
        text = read_answer(answer, "CATEGORY")
        if text.casefold() not in numbers:
            raise UnreadableAnswer(f"expected one of {[*labels, _NONE]}, got {text!r}")
        return (numbers[text.casefold()],)

    return read


__all__ = [
    "LanguageModelCaptioner",
    "LanguageModelClassifier",
    "UnreadableAnswer",
    "ask",
    "conversation",
    "prompt",
    "read_answer",
]
