"""
Stage 2: one caption for a clip, from what was said of its frames.

A back end is a [`VideoCaptioner`]: the rules of [`~pipeline_annotate.rules_captioner`], or a language model. What it answers is
checked here, in one place: a caption is one sentence, of a certain length, has its phrases verbatim, and names nothing that no
frame mentions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dataset_builders.record import record_key
from modeling_grove.text_grove import read_tagged_caption, tag_spans

from .facts import Fact
from .frame_captions import CLIP_FIELDS, CaptionedClip
from .nouns import read_noun
from .stage_files import Dropped

_SENTENCE_END = re.compile(r"[.!?](?=\s+\S)")


@dataclass(frozen=True)
class VideoCaption:
    """
    The caption of a clip.

    Args:
        caption (`str`): plain text.
        spans (`tuple[tuple[int, int], ...]`): its phrases, in order, without overlap.
    """

    caption: str
    spans: tuple[tuple[int, int], ...]

    @property
    def phrases(self) -> list[str]:
        """The texts of the spans."""
        return [self.caption[start:end] for start, end in self.spans]

    @property
    def tagged_caption(self) -> str:
        """The caption with `<p>` and `</p>` around its phrases."""
        return tag_spans(self.caption, self.spans)

    @classmethod
    def from_tagged(cls, text: str) -> VideoCaption:
        """
        Reads a tagged caption.

        Raises:
            `ValueError`: if its tags do not pair, or a phrase is empty.
        """
        caption, phrases = read_tagged_caption(text)
        return cls(caption, tuple(phrase.span for phrase in phrases))


@dataclass(frozen=True)
class ClipFacts:
    """
    What a back end of stage 2 reads of a clip.

    Args:
        clip ([`CaptionedClip`]): all of it.
        facts (`tuple[tuple[Fact, ...], ...]`): of each frame.
    """

    clip: CaptionedClip
    facts: tuple[tuple[Fact, ...], ...]


class VideoCaptioner(Protocol):
    """A back end of stage 2."""

    def describe(self) -> Mapping[str, Any]:
        """What stands in each record's provenance: names, revisions, settings."""
        ...

    def write(self, clips: Sequence[ClipFacts]) -> Sequence[VideoCaption | Dropped]:
        """A caption for each clip, or why there is none."""
        ...


@dataclass(frozen=True)
class CaptionChecks:
    """
    What a caption has to be.

    Args:
        min_words (`int`, *optional*, defaults to 3), max_words (`int`, *optional*, defaults to 40): its length. The paper's have 12
            words on average.
        max_phrases (`int`, *optional*, defaults to 8): phrases at most; one at least.
        known_things (`bool`, *optional*, defaults to `True`): whether every phrase has to be of a kind that some frame mentions.
    """

    min_words: int = 3
    max_words: int = 40
    max_phrases: int = 8
    known_things: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words or self.max_phrases < 1:
            got = f"min_words {self.min_words}, max_words {self.max_words}, max_phrases {self.max_phrases}"
            raise ValueError(f"{got}; expected 1 <= min_words <= max_words, and at least 1 phrase")

    def check(self, caption: VideoCaption, clip: CaptionedClip) -> Dropped | None:
        """What is wrong with a caption of a clip, if anything is."""
        words = len(caption.caption.split())
        if not self.min_words <= words <= self.max_words:
            return Dropped(clip.key, "caption_length", f"{words} words; expected {self.min_words} to {self.max_words}")
        if _SENTENCE_END.search(caption.caption.strip()):
            return Dropped(clip.key, "several_sentences", f"expected one sentence, got {caption.caption!r}")
        if not 1 <= len(caption.spans) <= self.max_phrases:
            return Dropped(
                clip.key, "number_of_phrases", f"{len(caption.spans)} phrases; expected 1 to {self.max_phrases}"
            )
        if self.known_things and (unknown := list(_unknown(caption, clip))):
            return Dropped(clip.key, "unknown_thing", f"no frame mentions {unknown[0]!r}")
        return None


def _unknown(caption: VideoCaption, clip: CaptionedClip) -> Iterator[str]:
    said = {read_noun(phrase.text) for frame in clip.frames for phrase in frame.phrases}
    kinds, people = {noun.kind for noun in said}, any(noun.is_person for noun in said)
    for phrase in caption.phrases:
        noun = read_noun(phrase)
        if not (people if noun.is_person else noun.kind in kinds):
            yield phrase


@dataclass(frozen=True)
class CaptionedVideo:
    """
    A line of stage 2's output: a clip and its caption.

    Args:
        clip (`Mapping`): the clip's own fields, as in [`CaptionedClip`].
        caption ([`VideoCaption`]): of all of it.
        facts (`tuple`): what the back end read, frame by frame, for people to see.
        provenance (`Mapping`): how it was made.
    """

    clip: Mapping[str, Any]
    caption: VideoCaption
    facts: tuple[tuple[Fact, ...], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`{video_id}_{clip_id}`."""
        return record_key(self.clip)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            **self.clip,
            "caption": self.caption.caption,
            "tagged_caption": self.caption.tagged_caption,
            "phrases": self.caption.phrases,
            "facts": [[fact.to_list() for fact in facts] for facts in self.facts],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> CaptionedVideo:
        """
        Reads what `to_dict` wrote, without the facts.

        Raises:
            `ValueError`: if it is no such object.
        """
        if missing := [name for name in (*CLIP_FIELDS, "tagged_caption") if line.get(name) is None]:
            raise ValueError(f"{', '.join(missing)}: missing from the clip's caption")
        for name, kind in (("tagged_caption", str), ("provenance", dict)):
            if not isinstance(line.get(name) or kind(), kind):
                raise ValueError(f"{name}: expected {kind.__name__}, got {line[name]!r:.60}")
        clip = {name: line[name] for name in CLIP_FIELDS}
        return cls(clip, VideoCaption.from_tagged(line["tagged_caption"]), provenance=line.get("provenance") or {})


__all__ = ["CaptionChecks", "CaptionedVideo", "ClipFacts", "VideoCaption", "VideoCaptioner"]
