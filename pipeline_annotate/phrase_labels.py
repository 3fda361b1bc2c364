"""
Stage 3, first half: every phrase of a frame becomes one of the phrases of the clip's caption, or none ("tracking by language",
paper, section 3.1).

Each distinct phrase of a clip is asked about once, not once a frame. A back end is a [`PhraseClassifier`]: rules, here, or a
language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eval.text_similarity import TextSimilarity

from .nouns import can_be_same, read_noun, similarity


@dataclass(frozen=True)
class Question:
    """
    The distinct phrases of a clip's frames, and the labels that they can have.

    Args:
        phrases (`tuple[str, ...]`): of frames, in lower case.
        labels (`tuple[str, ...]`): phrases of the clip's caption.
    """

    phrases: tuple[str, ...]
    labels: tuple[str, ...]


class PhraseClassifier(Protocol):
    """A back end of stage 3."""

    def describe(self) -> Mapping[str, Any]:
        """What stands in each record's provenance."""
        ...

    def classify(self, questions: Sequence[Question]) -> Sequence[list[int | None]]:
        """For each question and each of its phrases the number of the label that it is, or none."""
        ...


class RulesClassifier:
    """
    The back end `rules`: of the labels that a phrase can be (a person is no thing, kinds and colours are the same, words of one
    row of the synonym table are one kind), the one with which it shares most words. A plural is rather a plural.

    Args:
        similarity ([`~eval.text_similarity.TextSimilarity`], *optional*): an embedding model's; a phrase that can be none of the
            labels is then the nearest of them that it gives `threshold` or more.
        threshold (`float`, *optional*, defaults to 0.8): for `similarity`.
        identity (`Mapping`, *optional*): of its encoder (see [`~pipeline_annotate.model_identity.model_identity`]), for provenance.
    """

    def __init__(
        self,
        similarity: TextSimilarity | None = None,
        threshold: float = 0.8,
        identity: Mapping[str, Any] | None = None,
    ):
        self.similarity, self.threshold, self._identity = similarity, threshold, dict(identity or {})

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        if self.similarity is None:
            return {"back_end": "rules"}
        settings = {"similarity": self.similarity.name, **self._identity, "threshold": self.threshold}
        return {"back_end": "rules", **settings}

    def classify(self, questions: Sequence[Question]) -> list[list[int | None]]:
        """For each question and each of its phrases the number of the label that it is, or none."""
        return [[self._label(phrase, question.labels) for phrase in question.phrases] for question in questions]

    def _label(self, phrase: str, labels: Sequence[str]) -> int | None:
        noun = read_noun(phrase)
        scores = {}
        for number, text in enumerate(labels):
            label = read_noun(text)
            if can_be_same(noun, label):
                scores[number] = similarity(noun, label) + (noun.is_plural == label.is_plural)
        if not scores and self.similarity is not None:
            near = self.similarity([phrase], labels)[0].tolist()
            scores = {
                number: value
                for number, (text, value) in enumerate(zip(labels, near, strict=True))
                if value >= self.threshold and read_noun(text).is_person == noun.is_person
            }
        return max(scores, key=lambda number: (scores[number], -number), default=None)


__all__ = ["PhraseClassifier", "Question", "RulesClassifier"]
