"""Which predicted phrase stands for which annotated one, over a whole clip: what presence, tube overlap and flicker compare.

The paper matches boxes frame by frame; that says nothing about phrases that should have no box in a frame, and nothing over time.
Here the phrases of a clip are paired once. The boxes of a phrase in a frame are united first, so that two cups of "two cups" are
one phrase in raw and in processed annotations; a label that a caption has twice is one phrase too, as the original's files do not
tell its mentions apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.optimize import linear_sum_assignment

from .boxes import clipped, iou
from .clips import PredictedClip, ReferenceClip

# Of the texts of a pair, inclusive: that of the original's recall.
MIN_SIMILARITY = 0.5

Similarity = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class PhraseTubes:
    """
    The P distinct phrases of a clip, in alphabetical order, over its T annotated frames.

    Attributes:
        phrases (`tuple[str, ...]`): one spelling of each.
        boxes (`np.ndarray`): `(P, T, 4)` float64 xyxy in pixels, inside the frame; zeros where the phrase is absent.
        presence (`np.ndarray`): `(P, T)` bool.
    """

    phrases: tuple[str, ...]
    boxes: np.ndarray
    presence: np.ndarray


@dataclass(frozen=True)
class PairedPhrases:
    """
    A clip's annotated and predicted phrases.

    Attributes:
        key (`str`): of the clip.
        truth ([`PhraseTubes`]): P annotated phrases.
        predicted ([`PhraseTubes`]): Q predicted phrases, none if the clip was not predicted.
        asked (`np.ndarray`): `(T,)` bool, the frames that the model was asked about; nothing is present in the others.
        similarities (`np.ndarray`): `(P, Q)`, of the texts.
        tube_ious (`np.ndarray`): `(P, Q)`, see [`tube_ious`].
        pairs (`np.ndarray`): `(K, 2)` int64, indices of annotated and predicted phrases, each in one pair at most.
    """

    key: str
    truth: PhraseTubes
    predicted: PhraseTubes
    asked: np.ndarray
    similarities: np.ndarray
    tube_ious: np.ndarray
    pairs: np.ndarray


def phrase_name(phrase: str) -> str:
    """What two labels of the same phrase have in common."""
    return phrase.strip().casefold()


def phrase_tubes(
    boxes: Sequence[np.ndarray | None],
    labels: Sequence[Sequence[str]],
    size: tuple[int, int],
    phrases: Iterable[str] = (),
) -> PhraseTubes:
    """
    The tubes of a clip from the boxes of its frames, which are cut at the border of the frame.

    Args:
        boxes (`Sequence[np.ndarray or None]`): T times `(n, 4)` xyxy in pixels, or nothing.
        labels (`Sequence[Sequence[str]]`):
            T times the phrases of the boxes. A box without a label, or with one that is no string, belongs to no phrase.
        size (`tuple[int, int]`): Width and height of the frame, in pixels.
        phrases (`Iterable[str]`, *optional*): Phrases that may have no box at all.
    """
    num_frames = len(boxes)
    kept, frames, names = [], [], []
    for n, (frame_boxes, frame_labels) in enumerate(zip(boxes, labels, strict=True)):
        if frame_boxes is None or not len(frame_boxes):
            continue
        usable = [i for i, label in enumerate(frame_labels[: len(frame_boxes)]) if isinstance(label, str)]
        kept.append(frame_boxes[usable])
        frames.append(np.full(len(usable), n))
        names += [frame_labels[i] for i in usable]
    spellings: dict[str, str] = {}
    for label in chain(phrases, names):
        name = phrase_name(label)
        spellings[name] = min(spellings.get(name, label), label)
    order = {name: index for index, name in enumerate(sorted(spellings))}
    shape = (len(order), num_frames)
    low, high = np.full((*shape, 2), np.inf), np.full((*shape, 2), -np.inf)
    if names:
        flat = clipped(np.concatenate(kept).astype(np.float64), *size)
        places = np.array([order[phrase_name(name)] for name in names]), np.concatenate(frames)
        np.minimum.at(low, places, flat[:, :2])
        np.maximum.at(high, places, flat[:, 2:])
    presence = np.isfinite(low[..., 0])
    united = np.where(presence[..., None], np.concatenate([low, high], axis=-1), 0.0)
    return PhraseTubes(tuple(spellings[name] for name in order), united, presence)


def tube_ious(first: PhraseTubes, second: PhraseTubes) -> np.ndarray:
    """
    Overlap of every two tubes, `(P, Q)` in [0, 1]: the mean IoU of their boxes over the frames that have either, 0 where only one
    is there (the vIoU of VidSTG, Zhang et al. 2020). 0 for two phrases that are never there.
    """
    either = (first.presence[:, None] | second.presence[None]).sum(axis=-1)
    # Boxes of absent phrases have no area.
    common = iou(first.boxes[:, None], second.boxes[None]).sum(axis=-1)
    return np.divide(common, either, out=np.zeros(either.shape), where=either > 0)


def best_pairs(similarities: np.ndarray, overlaps: np.ndarray, min_similarity: float = MIN_SIMILARITY) -> np.ndarray:
    """
    One-to-one pairs with the greatest sum of text similarity and tube IoU, none below `min_similarity`.

    Args:
        similarities (`np.ndarray`), overlaps (`np.ndarray`): `(P, Q)`.

    Returns:
        `np.ndarray`: `(K, 2)` int64, ordered by the first index.
    """
    # A pair that may not be is worth as much as none, so it never keeps another from being.
    worth = np.where(similarities >= min_similarity, similarities + overlaps, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return np.stack([rows, columns], axis=1)[worth[rows, columns] > 0].reshape(-1, 2)


def pair_phrases(
    references: Mapping[str, ReferenceClip],
    predictions: Mapping[str, PredictedClip],
    similarity: Similarity,
    min_similarity: float = MIN_SIMILARITY,
) -> list[PairedPhrases]:
    """
    Pairs the phrases of all annotated clips, in their order; predictions of other clips are passed over.

    Args:
        references (`Mapping[str, ReferenceClip]`), predictions (`Mapping[str, PredictedClip]`):
            By key. A clip without a prediction has no predicted phrases. Predicted frames beyond the annotated ones are passed
            over, annotated frames beyond the predicted ones have no predicted box.
        similarity ([`TextSimilarity`]):
            Similarities of phrases. If it has a `prepare`, that gets all phrases first.
        min_similarity (`float`, *optional*, defaults to 0.5):
            Least similarity of a pair, inclusive.
    """
    tubes = [_tubes(reference, predictions.get(key)) for key, reference in references.items()]
    prepare = getattr(similarity, "prepare", None)
    if prepare is not None:
        prepare(
            dict.fromkeys(chain.from_iterable((*truth.phrases, *predicted.phrases) for truth, predicted, _ in tubes))
        )
    paired = []
    for key, (truth, predicted, asked) in zip(references, tubes, strict=True):
        if truth.phrases and predicted.phrases:
            similarities = np.asarray(similarity(truth.phrases, predicted.phrases), dtype=np.float64)
        else:
            similarities = np.zeros((len(truth.phrases), len(predicted.phrases)))
        overlaps = tube_ious(truth, predicted)
        pairs = best_pairs(similarities, overlaps, min_similarity)
        paired.append(PairedPhrases(key, truth, predicted, asked, similarities, overlaps, pairs))
    return paired


def _tubes(reference: ReferenceClip, prediction: PredictedClip | None) -> tuple[PhraseTubes, PhraseTubes, np.ndarray]:
    """Annotated and predicted tubes, and which frames the model was asked about."""
    count, size = reference.num_frames, (reference.width, reference.height)
    boxes: list[np.ndarray | None] = [] if prediction is None else list(prediction.boxes[:count])
    labels = [] if prediction is None else list(prediction.labels[:count])
    asked = np.array([box is not None for box in boxes] + [True] * (count - len(boxes)), dtype=bool)
    boxes += [np.zeros((0, 4))] * (count - len(boxes))
    labels = (labels + [()] * count)[:count]
    annotated = [box if there else None for box, there in zip(reference.boxes, asked, strict=True)]
    annotated_labels = [*reference.labels, *[()] * count][:count]
    return (
        phrase_tubes(annotated, annotated_labels, size, _all_phrases(reference)),
        phrase_tubes(boxes, labels, size, () if prediction is None else _all_phrases(prediction)),
        asked,
    )


def _all_phrases(clip: ReferenceClip | PredictedClip) -> list[str]:
    """The phrases of a clip: of its caption, where it is known which they are, and of the boxes of all its frames."""
    phrases = [] if clip.source is None else clip.source.phrases
    for boxes, labels in zip(clip.boxes, clip.labels, strict=False):
        phrases += [label for label in labels[: 0 if boxes is None else len(boxes)] if isinstance(label, str)]
    return phrases


__all__ = [
    "MIN_SIMILARITY",
    "PairedPhrases",
    "PhraseTubes",
    "Similarity",
    "best_pairs",
    "pair_phrases",
    "phrase_name",
    "phrase_tubes",
    "tube_ious",
]
