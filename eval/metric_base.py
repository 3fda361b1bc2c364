"""What the `evaluate` modules of the benchmarks share: how clips are given, stored and read again.

`evaluate` keeps what is added in an Arrow file, whose columns have one type. Clips come in several spellings (ours, and those of
the original's files) and a model's boxes of frames in which a phrase is absent are in no record, so a clip is stored as
its JSON text, which loses nothing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from dataset_builders.importers.released import is_ours
from dataset_builders.reading import Entry
from dataset_builders.record import Record, from_record
from modeling_grove.grounded_caption import GroundedCaption

from .results import PROTOCOLS, BenchmarkResult

# A clip, or what the original's files have of one.
Item = GroundedCaption | Mapping[str, Any]

_INPUTS = """
Args:
    predictions (list), references (list):
        One entry a clip in both, `None` for a clip that has no prediction. An entry is a `GroundedCaption`, a record (a row of a
        data set of `dataset_builders`), what `GroundedCaption.to_dict` gives, or an object as in the original's files.
    protocols (tuple of `str`, *optional*, defaults to `("official", "corrected")`):
        What the original code computes, and what the paper's text says.
    per_clip (`bool`, *optional*, defaults to `False`):
        Whether the scores of every clip are returned too.
{options}
Returns:
    `dict`: `headline`, by protocol the row of the paper's table in percent, `metrics`, by protocol everything as fractions,
    `coverage`, `warnings`, and `per_clip` if asked for.
"""
_CITATION = """\
@inproceedings{kazakos2025grove,
  title     = {Large-scale Pre-training for Grounded Video Caption Generation},
  author    = {Evangelos Kazakos and Cordelia Schmid and Josef Sivic},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2025}
}"""


class ClipMetric(evaluate.Metric, ABC):
    """
    A benchmark as an `evaluate` module. What derives from it says what it measures (`description`), which options `compute` has
    beyond those of all (`options`, a part of a docstring), and how clips are scored.
    """

    description: str
    options: str

    @abstractmethod
    def score(
        self, references: list[dict[str, Any]], predictions: list[dict[str, Any]], *, protocols: tuple[str, ...]
    ) -> BenchmarkResult:
        """Scores clips as they were given; what has no prediction is among the references alone."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation=_CITATION,
            inputs_description=_INPUTS.format(options=self.options),
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2503.10781"],
        )

    def add_batch(
        self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None, **kwargs: Any
    ) -> None:
        """Adds clips."""
        both = {"predictions": predictions, "references": references}
        missing = [name for name, items in both.items() if items is None]
        if missing:
            raise ValueError(f"{missing[0]}: missing; give one entry a clip, None for a clip without a prediction")
        texts = {name: [_text(item) for item in items or ()] for name, items in both.items()}
        super().add_batch(**texts, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Adds one clip."""
        super().add(prediction=_text(prediction), reference=_text(reference), **kwargs)

    def _compute(
        self,
        *,
        predictions: Sequence[str],
        references: Sequence[str],
        protocols: Sequence[str] = PROTOCOLS,
        per_clip: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        given = [[item for item in map(json.loads, texts) if item is not None] for texts in (references, predictions)]
        result = self.score(*given, protocols=tuple(protocols), **options)
        return result.to_dict() | ({"per_clip": result.per_clip} if per_clip else {})


def are_ours(references: Sequence[Mapping[str, Any]]) -> bool:
    """Whether annotations are records or captions of ours; else they are the original's."""
    return all(is_ours(item) or item.get("tracks") is not None for item in references)


def as_record(item: dict[str, Any]) -> Record:
    """An annotation whose metadata is needed."""
    if item.get("metadata") is None:
        key = f"{item.get('video_id')}_{item.get('clip_id')}"
        raise ValueError(f"clip {key!r}: metadata: missing from the reference; give the record, which has it")
    return item


def as_caption(item: dict[str, Any]) -> GroundedCaption:
    """The caption of a record, or of what `GroundedCaption.to_dict` gave."""
    return from_record(item) if item.get("tracks") is None else GroundedCaption.from_dict(item)


def as_entry(item: dict[str, Any], number: int) -> Entry:
    """A clip with its key, where it is given as `{key: {...}}`."""
    [(key, value)] = item.items() if len(item) == 1 else [(None, item)]
    return Entry(number, key, value) if isinstance(value, dict) else Entry(number, None, item)


def merged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    The original's document of several that have a clip each: their lists one after another, objects joined by their keys.

    Raises:
        `ValueError`: if two say different things of the same key.
    """
    whole: dict[str, Any] = {}
    for document in documents:
        for name, value in document.items():
            if isinstance(value, list):
                whole.setdefault(name, []).extend(value)
            else:
                _join(whole, name, value)
    return whole


def _join(whole: dict[str, Any], name: str, value: Any) -> None:
    """Adds a value to an object."""
    if isinstance(value, Mapping):
        inside = whole.setdefault(name, {})
        for key, inner in value.items():
            _join(inside, key, inner)
    elif whole.setdefault(name, value) != value:
        raise ValueError(f"{name}: two clips have different ones: {whole[name]!r:.40} and {value!r:.40}")


def _text(item: Item | None) -> str:
    """A clip as JSON; arrays become lists."""
    value = item.to_dict() if isinstance(item, GroundedCaption) else item
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"expected a GroundedCaption or an object for a clip, got {type(value).__name__}")
    return json.dumps(value, default=lambda array: array.tolist())


__all__ = ["ClipMetric", "Item", "are_ours", "as_caption", "as_entry", "as_record", "merged"]
