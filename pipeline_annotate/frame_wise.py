"""What stages 2 and 3 are measured against: no stages 2 and 3. The caption of one frame, and labels that are the same words."""

from __future__ import annotations

from collections.abc import Sequence

from .phrase_labels import Question
from .stage_files import Dropped
from .video_captions import ClipFacts, VideoCaption


class MiddleFrameCaptioner:
    """The caption of the middle one of the frames that name something, as it is."""

    def describe(self) -> dict[str, str]:
        """For provenance."""
        return {"back_end": "middle frame"}

    def write(self, clips: Sequence[ClipFacts]) -> list[VideoCaption | Dropped]:
        """A caption for each clip."""
        return [self._write(clip) for clip in clips]

    def _write(self, facts: ClipFacts) -> VideoCaption | Dropped:
        named = [frame for frame in facts.clip.frames if frame.phrases]
        if not named:
            return Dropped(facts.clip.key, "nothing_named", "no frame has a phrase")
        frame = named[len(named) // 2]
        return VideoCaption(frame.caption, tuple(phrase.span for phrase in frame.phrases))


class SameWordsClassifier:
    """A phrase is the label that has its words, whatever their case, and none otherwise."""

    def describe(self) -> dict[str, str]:
        """For provenance."""
        return {"back_end": "same words"}

    def classify(self, questions: Sequence[Question]) -> list[list[int | None]]:
        """For each question and each of its phrases the number of the label that it is, or none."""
        found = []
        for question in questions:
            numbers = {label.lower(): number for number, label in reversed([*enumerate(question.labels)])}
            found.append([numbers.get(phrase.lower()) for phrase in question.phrases])
        return found


__all__ = ["MiddleFrameCaptioner", "SameWordsClassifier"]
