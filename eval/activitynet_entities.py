"""ActivityNet-Entities: are the objects of a sentence named, and are they boxed in the one frame where each is annotated?

The official protocol (the benchmark's scorer as GROVE's code has it), for generated sentences:

- A box is right if its IoU with an annotated box of the same frame is above 0.5. Coordinates are those of pixels: a side is
  `x2 - x1 + 1` long, in float32. A predicted box of a single pixel is never right.
- Precision looks at every predicted object. One whose class is, letter by letter, a class of the sentence is right if it hits a
  box of the *first* word of that class. Another one is ignored if the lemma of its *first* word is the lemma of a word of the
  sentence that is no object. What is left is wrong in the mode *all* and ignored in the mode *loc*.
- Recall looks at every annotated word. If its class is among the predicted ones, the *first* prediction of it has to hit a box of
  the word; if not, the word is missed in *all* and ignored in *loc*. Words of a segment that has no prediction are missed in both.
- Class scores: the shares of right objects, and of found words, are summed over classes and divided by the number of classes
  that occur in segments with a prediction; F1 is that of the two means, and NaN where both are 0.
- Sentence scores: shares and their F1 are summed over annotated segments with a prediction, and divided by the number of *all*
  predicted segments, those without annotation and of other splits too, less the segments whose words are all ignored.

For sentences that are given (GT mode) a prediction says which word it is of: the share of words whose first prediction hits, as
a mean over classes.

`corrected` differs in:

- IoU is that of the boxes, in float64, without the added pixel: the score does not depend on the size of the video.
- A phrase has the class that its head noun has: its lemma is compared with the classes and their lemmas, and with those of the
  other words, so that "the young men" is a "man"; "a group of people" is a "group" where people are no class. The official
  comparison was made for models that choose from a list of classes; a model that writes phrases never has "the young men" counted.
- A phrase that is right about any word of its class is right, and a word that any phrase of its class hits is found: which of
  two mentions comes first says nothing about the boxes.
- A word has one class, that of its first box, also where classes are counted.
- Classes are those annotated in the split, and sentences the annotated segments of it, so that no prediction changes what the
  sum is divided by (in *loc*, sentences with a word whose class is predicted). A segment without a prediction has score 0, in the
  sentence scores too.
- What a phrase that is wrong costs is the same as officially, but it is the class of its head noun that pays (in *all*): a
  phrase of a class that other sentences of the split have is wrong for that class, and one that is no class of the split is
  felt by the sentence scores alone.
- Where nothing is right F1 is 0, not NaN.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dataset_builders.head_nouns import head_noun
from dataset_builders.importers.activitynet_entities import NUM_FRAMES
from dataset_builders.record import Record
from modeling_grove.grounded_caption import GroundedCaption

from .activitynet_segments import (
    AnnotatedSegment,
    PredictedSegment,
    annotated_segment,
    predicted_segment,
    read_original_activitynet_entities,
)
from .boxes import iou
from .clips import by_key
from .lemmas import Lemmatizer, SpacyLemmatizer, first_word
from .results import PROTOCOLS, BenchmarkResult, check_protocols, coverage_of

BENCHMARK = "activitynet_entities"
MODES = ("generated", "gt")
_IOU = 0.5
_LOC_MODES = ("all", "loc")


class Decision(NamedTuple):
    """Whether a predicted object, or an annotated word, of a class is right; `named`: it counts in the mode *loc* too."""

    name: str
    right: bool
    named: bool


class Decisions(NamedTuple):
    """Those of a segment: on predicted objects and on annotated words."""

    precision: list[Decision]
    recall: list[Decision]


def score_activitynet_entities(
    references: Iterable[AnnotatedSegment | Record],
    predictions: Iterable[PredictedSegment | GroundedCaption],
    *,
    mode: str = "generated",
    lemma: Lemmatizer | None = None,
    protocols: tuple[str, ...] = PROTOCOLS,
) -> BenchmarkResult:
    """
    Scores predictions.

    Args:
        references (iterable of records or [`AnnotatedSegment`]):
            Segments of the split; those without a box are passed over, as officially. Records as
            `dataset_builders.importers.activitynet_entities` makes them have words and classes in their metadata.
        predictions (iterable of [`GroundedCaption`] or [`PredictedSegment`]):
            Of any segments.
        mode (`str`, *optional*, defaults to `"generated"`):
            "generated" for sentences of the model, "gt" for objects whose words of the annotated sentence are known.
        lemma ([`~eval.lemmas.Lemmatizer`], *optional*):
            Needed for generated sentences.
        protocols (`tuple[str, ...]`, *optional*):
            Of "official" and "corrected".

    Returns:
        [`~eval.results.BenchmarkResult`]: `metrics[protocol]["generated"]` has `prec_all`, `recall_all`, `f1_all`, the same with
        `_per_sent`, all of them with `loc`, and `classes`: for every class `{"all": {"precision": [right, number], "recall":
        ...}, "loc": ...}`, and `vocab_in_split`. `metrics[protocol]["gt"]` has `grounding_accuracy` and `classes`, to `[right,
        number]`. The headline has F1_all, F1_all_per_sent, F1_loc and F1_loc_per_sent (in GT mode, grounding accuracy) in
        percent. A row of `per_clip` has, by protocol, every decision as `[class, right]`, and the segment's own F1.

    Raises:
        `ValueError`: naming clip and field of a prediction that cannot be scored, or if no annotated segment has a prediction.
    """
    check_protocols(protocols)
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; expected one of {', '.join(MODES)}")
    given = by_key(
        "annotated segment", (s if isinstance(s, AnnotatedSegment) else annotated_segment(s) for s in references)
    )
    annotated = {key: segment for key, segment in given.items() if len(segment.frames)}
    predicted = by_key(
        "predicted segment", (s if isinstance(s, PredictedSegment) else predicted_segment(s) for s in predictions)
    )
    if not annotated.keys() & predicted.keys():
        first, other = next(iter(given)), next(iter(predicted))
        raise ValueError(
            f"no annotated segment has a prediction: the first ones are {first!r} and {other!r}; are the predictions for "
            "another split?"
        )
    if not any(segment.word_classes for key, segment in annotated.items() if key in predicted):
        raise ValueError(
            "process_clss: no annotated segment with a prediction has a class; expected the classes of its boxes"
        )
    result = BenchmarkResult(BENCHMARK, {}, {}, coverage_of(list(annotated), set(predicted)))
    result.per_clip = [{"key": key} for key in annotated]
    result.warnings = _warnings(given, annotated, predicted)
    if mode == "generated":
        if lemma is None:
            raise ValueError("lemma: generated sentences cannot be scored without a lemmatiser; see eval.lemmas")
        _prepare(lemma, annotated, predicted)
    for protocol in protocols:
        if mode == "generated":
            assert lemma is not None
            _score_generated(result, protocol, annotated, predicted, lemma)
        else:
            _score_gt(result, protocol, annotated, predicted)
    return result


def _score_generated(
    result: BenchmarkResult,
    protocol: str,
    annotated: Mapping[str, AnnotatedSegment],
    predicted: Mapping[str, PredictedSegment],
    lemma: Lemmatizer,
) -> None:
    """Adds the scores of generated sentences."""
    official = protocol == "official"
    counted = [segment for key, segment in annotated.items() if not official or key in predicted]
    if official:
        names = sorted({name for segment in counted for classes in segment.classes for name in classes})
        decisions = {key: official_decisions(s, predicted.get(key), lemma) for key, s in annotated.items()}
    else:
        names = sorted({name for segment in counted for name in segment.word_classes.values()})
        class_of = _class_of_head(names, lemma)
        decisions = {key: corrected_decisions(s, predicted.get(key), lemma, class_of) for key, s in annotated.items()}
    metrics: dict[str, Any] = {}
    classes: dict[str, dict[str, Any]] = defaultdict(dict)
    for loc_mode in _LOC_MODES:
        shown = {key: _shown(d, loc_mode) for key, d in decisions.items()}
        sums = [_by_class(d[n] for d in shown.values()) for n in (0, 1)]
        precision, recall = (sum(right / number for right, number in s.values()) / len(names) for s in sums)
        for kind, by_class in zip(("precision", "recall"), sums, strict=True):
            for name, (right, number) in by_class.items():
                classes[name].setdefault(loc_mode, {})[kind] = [right, number]
        if official:
            scored = [shown[key] for key in annotated if key in predicted]
            number = len(predicted) - sum(not d.recall for d in scored)
            scored = [d for d in scored if d.recall]
        else:
            scored = [d for d in shown.values() if d.recall]
            number = len(scored)
        sentences = np.array([_of_sentence(d) for d in scored]).reshape(-1, 3).sum(axis=0).tolist()
        f1 = _ratio(2 * precision * recall, precision + recall, math.nan if official else 0.0)
        for name, value, total in zip(("prec", "recall", "f1"), (precision, recall, f1), sentences, strict=True):
            metrics[f"{name}_{loc_mode}"] = float(value)
            metrics[f"{name}_{loc_mode}_per_sent"] = _ratio(total, number, math.nan if official else 0.0)
        for row in result.per_clip:
            own = row.setdefault(protocol, {})
            d = shown[row["key"]]
            own[loc_mode] = {"precision": [[n, int(r)] for n, r, _ in d.precision]}
            own[loc_mode]["recall"] = [[n, int(r)] for n, r, _ in d.recall]
            own[f"F1_{loc_mode}_per_sent"] = _of_sentence(d)[2] if d.recall else math.nan
    metrics["classes"], metrics["vocab_in_split"] = dict(sorted(classes.items())), names
    result.metrics[protocol] = {"generated": metrics}
    result.headline[protocol] = {
        f"F1_{name}": 100 * metrics[f"f1_{name}"] for name in ("all", "all_per_sent", "loc", "loc_per_sent")
    }


def _score_gt(
    result: BenchmarkResult,
    protocol: str,
    annotated: Mapping[str, AnnotatedSegment],
    predicted: Mapping[str, PredictedSegment],
) -> None:
    """Adds the accuracy for sentences that are given."""
    hits_of = official_hits if protocol == "official" else corrected_hits
    decisions: dict[str, list[Decision]] = {}
    for key, segment in annotated.items():
        prediction = predicted.get(key)
        hits = None if prediction is None else hits_of(segment, prediction)
        decisions[key] = []
        for word, name in segment.word_classes.items():
            found = [] if prediction is None else [n for n, of in enumerate(prediction.words) if of == word]
            tested = found[:1] if protocol == "official" else found
            right = hits is not None and any(hits(n, segment.boxes_of(word)) for n in tested)
            decisions[key].append(Decision(name, right, True))
    classes = _by_class(decisions.values())
    accuracy = sum(right / number for right, number in classes.values()) / len(classes)
    result.metrics[protocol] = {
        "gt": {
            "grounding_accuracy": accuracy,
            "classes": {name: list(counts) for name, counts in sorted(classes.items())},
        }
    }
    result.headline[protocol] = {"grounding accuracy": 100 * accuracy}
    for row in result.per_clip:
        own = decisions[row["key"]]
        row[protocol] = {
            "grounding": [[name, int(right)] for name, right, _ in own],
            "grounding_accuracy": _ratio(sum(d.right for d in own), len(own), math.nan),
        }


# Whether the n-th predicted object hits one of some annotated boxes, given by their indices.
Hits = Callable[[int, Sequence[int]], bool]


def official_decisions(
    reference: AnnotatedSegment, prediction: PredictedSegment | None, lemma: Lemmatizer
) -> Decisions:
    """What the original decides about a segment."""
    words = reference.word_classes
    if prediction is None:
        return Decisions([], [Decision(name, False, True) for name in words.values()])
    hits = official_hits(reference, prediction)
    # The word of a class that counts; a word of two classes counts for both here, and for that of its first box below.
    first_of: dict[str, int] = {}
    for indices, classes in zip(reference.words, reference.classes, strict=True):
        for word, name in zip(indices, classes, strict=True):
            first_of[name] = min(word, first_of.get(name, word))
    others = {n: token for n, token in enumerate(reference.tokens) if n not in words and token}
    for n, token in others.items():
        if not token.strip():
            raise ValueError(
                f"clip {reference.key!r}: tokens[{n}]: expected a word, got {token!r}; the original ends here"
            )
    excluded = {lemma(token) for token in others.values()}
    precision = []
    for n, name in enumerate(prediction.classes):
        if name in first_of:
            precision.append(Decision(name, hits(n, reference.boxes_of(first_of[name])), True))
        elif not name.strip():
            raise ValueError(f"clip {reference.key!r}: clss[{n}]: expected a class, got {name!r}; leave it out")
        elif lemma(name) not in excluded:
            precision.append(Decision(name, False, False))
    recall = []
    for word, name in words.items():
        known = name in prediction.classes
        right = known and hits(prediction.classes.index(name), reference.boxes_of(word))
        recall.append(Decision(name, right, known))
    return Decisions(precision, recall)


def corrected_decisions(
    reference: AnnotatedSegment,
    prediction: PredictedSegment | None,
    lemma: Lemmatizer,
    class_of: Mapping[str, str],
) -> Decisions:
    """What `corrected` decides about a segment; `class_of` is the class of a lemma."""
    words = reference.word_classes
    if prediction is None:
        return Decisions([], [Decision(name, False, True) for name in words.values()])
    hits = corrected_hits(reference, prediction)
    excluded = {lemma(token) for n, token in enumerate(reference.tokens) if n not in words and token.strip()}
    boxes_of = {
        name: [n for w, c in words.items() if c == name for n in reference.boxes_of(w)] for name in words.values()
    }
    precision = []
    found: dict[str, list[int]] = defaultdict(list)
    for n, phrase in enumerate(prediction.classes):
        name = _class_of_phrase(phrase, lemma, class_of)
        if name in boxes_of:
            found[name].append(n)
            precision.append(Decision(name, hits(n, boxes_of[name]), True))
        elif name not in excluded:
            precision.append(Decision(name, False, False))
    recall = [
        Decision(name, any(hits(n, reference.boxes_of(word)) for n in found[name]), bool(found[name]))
        for word, name in words.items()
    ]
    return Decisions(precision, recall)


def _class_of_head(names: Iterable[str], lemma: Lemmatizer) -> dict[str, str]:
    """The class of a word, for every class and its lemma; of two classes with one lemma, that which is the lemma itself."""
    class_of: dict[str, str] = {}
    for name in names:
        class_of.setdefault(lemma(name), name)
    return class_of | {name: name for name in names}


def _class_of_phrase(phrase: str, lemma: Lemmatizer, class_of: Mapping[str, str]) -> str:
    """The class of a phrase; if it has none, the lemma of its head noun."""
    whole, head = phrase.casefold(), head_noun(phrase)
    if not head or whole in class_of:
        return class_of.get(whole, whole)
    name = class_of.get(head) or class_of.get(lemma(head))
    if name is None and (measure := head_noun(whole.partition(" of ")[0])) != head:
        name = class_of.get(measure) or class_of.get(lemma(measure)) if measure else None
    return name or lemma(head)


def official_hits(reference: AnnotatedSegment, prediction: PredictedSegment) -> Hits:
    """The original's test of a box: float32, sides a pixel longer, a NaN anywhere in an object's frames spoils it."""
    truth, frames = reference.boxes.astype(np.float32), reference.frames

    def best(tubes: np.ndarray) -> np.ndarray:
        sides = tubes[..., 2:] - tubes[..., :2] + 1
        truth_sides = truth[:, 2:] - truth[:, :2] + 1
        low = np.maximum(tubes[:, :, None, :2], truth[:, :2])
        high = np.minimum(tubes[:, :, None, 2:], truth[:, 2:])
        common = np.maximum(high - low + 1, 0).prod(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap = common / (sides.prod(axis=-1)[..., None] + truth_sides.prod(axis=-1) - common)
        overlap[:, :, (truth_sides == 1).all(axis=-1)] = 0
        overlap[(sides == 1).all(axis=-1)] = -1
        return (overlap * (np.arange(NUM_FRAMES)[:, None] == frames)).max(axis=1)

    return _hits(reference, prediction, best, np.float32)


def corrected_hits(reference: AnnotatedSegment, prediction: PredictedSegment) -> Hits:
    """The test of a box: IoU above 0.5 in the frame of the annotated one."""
    frames = reference.frames

    def best(tubes: np.ndarray) -> np.ndarray:
        return iou(tubes[:, frames.clip(0, NUM_FRAMES - 1)], reference.boxes) * (
            frames == frames.clip(0, NUM_FRAMES - 1)
        )

    return _hits(reference, prediction, best, np.float64)


def _hits(
    reference: AnnotatedSegment, prediction: PredictedSegment, best: Callable[[np.ndarray], np.ndarray], kind: type
) -> Hits:
    """`best` gives the overlaps `(P, N)` of tubes `(P, 10, 4)` with the annotated boxes."""
    usable = [n for n, tube in enumerate(prediction.boxes) if len(tube) == NUM_FRAMES]
    overlaps: dict[int, np.ndarray] = {}
    if usable:
        tubes: np.ndarray = np.stack([prediction.boxes[n] for n in usable]).astype(kind)
        overlaps = dict(zip(usable, best(tubes), strict=True))

    def hits(index: int, boxes: Sequence[int]) -> bool:
        if index not in overlaps:
            number = len(prediction.boxes[index]) if index < len(prediction.boxes) else 0
            where = f"clip {reference.key!r}: bbox_for_all_frames[{index}]"
            raise ValueError(f"{where}: expected boxes in exactly {NUM_FRAMES} frames, got {number}")
        return bool(overlaps[index][list(boxes)].max() > _IOU)

    return hits


def _shown(decisions: Decisions, loc_mode: str) -> Decisions:
    """Those that count in a mode."""
    if loc_mode == "all":
        return decisions
    return Decisions([d for d in decisions.precision if d.named], [d for d in decisions.recall if d.named])


def _by_class(decisions: Iterable[Iterable[Decision]]) -> dict[str, tuple[int, int]]:
    """For every class how many are right, and how many there are."""
    right: Counter[str] = Counter()
    number: Counter[str] = Counter()
    for own in decisions:
        for decision in own:
            right[decision.name] += decision.right
            number[decision.name] += 1
    return {name: (right[name], count) for name, count in number.items()}


def _of_sentence(decisions: Decisions) -> tuple[float, float, float]:
    """Precision, recall and F1 of a sentence; 0 where there is nothing to share."""
    precision, recall = (_ratio(sum(d.right for d in own), len(own), 0.0) for own in decisions)
    return precision, recall, _ratio(2 * precision * recall, precision + recall, 0.0)


def _ratio(value: float, number: float, otherwise: float) -> float:
    return value / number if number else otherwise


def _prepare(
    lemma: Lemmatizer, annotated: Mapping[str, AnnotatedSegment], predicted: Mapping[str, PredictedSegment]
) -> None:
    """Looks up all words at once."""
    if isinstance(lemma, SpacyLemmatizer):
        phrases = {phrase for segment in predicted.values() for phrase in segment.classes}
        texts = {token for segment in annotated.values() for token in segment.tokens} | phrases
        texts |= {head_noun(phrase) for phrase in phrases}
        texts |= {name for segment in annotated.values() for classes in segment.classes for name in classes}
        lemma.prepare(first_word(text) for text in texts if text.strip())


def _warnings(
    given: Mapping[str, AnnotatedSegment],
    annotated: Mapping[str, AnnotatedSegment],
    predicted: Mapping[str, PredictedSegment],
) -> Counter[str]:
    """What the original says nothing of."""
    tubes: list[np.ndarray] = [tube for key, segment in predicted.items() if key in annotated for tube in segment.boxes]
    found = {
        "segments_not_predicted": len(annotated.keys() - predicted.keys()),
        "predicted_segments_without_annotation": len(predicted.keys() - annotated.keys()),
        "annotated_segments_without_boxes": len(given) - len(annotated),
        "tubes_with_boxes_that_are_not_finite": sum(not np.isfinite(tube).all() for tube in tubes),
        "tubes_with_inverted_boxes": sum(bool((tube[:, 2:] < tube[:, :2]).any()) for tube in tubes),
    }
    return Counter({name: count for name, count in found.items() if count})


__all__ = [
    "AnnotatedSegment",
    "PredictedSegment",
    "annotated_segment",
    "predicted_segment",
    "read_original_activitynet_entities",
    "score_activitynet_entities",
]
