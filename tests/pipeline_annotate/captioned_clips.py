"""Clips with captions of frames, written down in short."""

from __future__ import annotations

import re

import numpy as np

from modeling_grove.text_grove import read_tagged_caption
from pipeline_annotate.facts import Fact
from pipeline_annotate.frame_captions import CaptionedClip, FrameCaption, FramePhrase
from pipeline_annotate.video_captions import ClipFacts


def frame(
    index: int, tagged_caption: str, *boxes: tuple[float, float, float, float] | None, score: float = 0.9
) -> FrameCaption:
    """A frame of a tagged caption; a box, or none, for each of its phrases in order."""
    caption, phrases = read_tagged_caption(tagged_caption)
    given = [*boxes, *[(0, 0, 10, 10)] * (len(phrases) - len(boxes))]
    return FrameCaption(
        index,
        index / 5,
        caption,
        tuple(
            FramePhrase(phrase.text, phrase.span, np.array([] if box is None else [box]), np.array([] if box is None else [score]))
            for phrase, box in zip(phrases, given, strict=True)
        ),
    )  # fmt: skip


def clip(*frames: FrameCaption | str, name: str = "video") -> CaptionedClip:
    """A clip of frames, or of their tagged captions."""
    made = [frame(index, one) if isinstance(one, str) else one for index, one in enumerate(frames)]
    return CaptionedClip(name, 0, f"{name}.mp4", 5.0, 100, 100, 0, 99, tuple(made))


def fact(text: str) -> Fact:
    """ "man: hold: red cup: on table" as a fact; the object may be empty."""
    subject, lemma, thing, *places = [part.strip() for part in text.split(":")]
    pairs = tuple(tuple(re.split(r"\s+", place, maxsplit=1)) for place in places if place)
    return Fact(subject, f"{lemma}ing", thing or None, pairs, lemma)


def facts(clip: CaptionedClip, *frames: tuple[str, ...]) -> ClipFacts:
    """A clip with the facts of its frames."""
    return ClipFacts(clip, tuple(tuple(fact(text) for text in of_frame) for of_frame in frames))
