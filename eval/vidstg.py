"""
VidSTG: how well the object of a sentence is followed while the sentence holds; declarative sentences and questions apart.

The time in which the sentence holds (the *tube*) is given, so what is measured is the place alone. A video's score is the mean
over the sampled frames of the tube of the IoU of predicted and annotated box; msIoU is the mean of that over the sentences,
vIoU@0.3 and vIoU@0.5 are the shares of sentences whose score is above the threshold. The paper reports msIoU, of declarative
sentences in Table 3 and of interrogative ones in Table 4.

What the original does (`official`)
- Frames are `range(tube_start, tube_end - 1, int(fps / 5))`. The end of a tube is not part of it, so the last annotated frame
  is never scored, and a tube of one frame scores 0. A rate below 5 stops it.
- The first box of a frame counts, 0 if a frame has none or only zeros. IoU is plain, but the area of the predicted box is in
  float32, and areas have a sign: an inverted box has a positive area, and 0/0 is NaN, as is the IoU of a box with a NaN.
  NaN goes on into the mean.
- Thresholds are strict: exactly 0.5 is not above 0.5.
- The type of a sentence is that of the prediction. Predictions of unknown videos are ignored; of duplicate frames the first wins.
- A missing video or frame, a frame of the tube without an annotated box, or lists of unequal length, stop it.
- (Of two sentences with one key, the later one replaces the first. Here they are an error, under both protocols.)

What `corrected` does instead
- All frames of the tube are scored, the last one too: it is annotated. (Answers of the original's own inference may lack it;
  it is then a missing frame.) A rate below 5 gives every frame.
- A missing video or frame scores 0, so that leaving out what is hard cannot pay.
- A box without area, an inverted one and one with a NaN score 0: they cover nothing, and must not undo the other videos.
- Frames of the tube without an annotated box, or with one that has no area, are left out, and so are sentences that have no
  other. All are counted.
- The type of a sentence is that of the annotation.
- Annotations are rounded to float32, as answers are, and areas are computed in float64: a perfect answer scores 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dataset_builders.record import Record
from modeling_grove.grounded_caption import GroundedCaption

from .boxes import iou
from .clips import by_key
from .results import PROTOCOLS, BenchmarkResult, check_protocols, coverage_of
from .single_phrase import check_overlap
from .vidstg_sentences import (
    QUESTION_TYPES,
    VidstgPrediction,
    VidstgReference,
    as_vidstg_reference,
    vidstg_prediction,
)

METRICS = ("msIoU", "vIoU@0.3", "vIoU@0.5")


def score_vidstg(
    references: Iterable[VidstgReference | GroundedCaption | Record],
    predictions: Iterable[VidstgPrediction | GroundedCaption],
    *,
    question_types: Mapping[str, str] | None = None,
    protocols: tuple[str, ...] = PROTOCOLS,
) -> BenchmarkResult:
    """
    Scores answers to the sentences of VidSTG; see the module for the protocols.

    Args:
        references (iterable of records, [`GroundedCaption`] or [`VidstgReference`]):
            The annotated sentences. Records as `dataset_builders.importers.vidstg` makes them know their tube and type. A caption
            knows neither: its frames with a box are scored. [`read_original_vidstg`] reads the original's files.
        predictions (iterable of [`GroundedCaption`] or [`VidstgPrediction`]):
            The answers, with the keys of the references. A caption has one phrase, the sentence.
        question_types (`Mapping[str, str]`, *optional*):
            "declarative" or "interrogative", by key; needed for references that are captions.
        protocols (`tuple[str, ...]`):
            Some of "official" and "corrected".

    Returns:
        [`BenchmarkResult`]: `metrics[protocol]` is `{"declarative": {"msIoU", "vIoU@0.3", "vIoU@0.5", "videos"},
        "interrogative": ...}`, fractions, with the types that occur. Rows of `per_clip` have, by protocol, the three scores,
        `qtype`, `frame_indices` and `frame_iou`.

    Raises:
        `ValueError`: if nothing predicted is annotated, a key is there twice, a clip is no single sentence, or its type is not
            known; under `official` where the original stops.
    """
    check_protocols(protocols)
    truth = by_key("annotated sentence", (as_vidstg_reference(item, question_types) for item in references))
    answers = by_key("prediction", (vidstg_prediction(p) if isinstance(p, GroundedCaption) else p for p in predictions))
    warnings: Counter[str] = Counter()
    warnings["unknown_videos"] = check_overlap(truth, answers)
    _count_oddities(truth, answers, warnings)
    if "official" in protocols:
        _check_official(truth, answers)
    rows: list[dict[str, Any]] = [{"key": key, "qtype": reference.qtype} for key, reference in truth.items()]
    for protocol in protocols:
        for row, reference in zip(rows, truth.values(), strict=True):
            row[protocol] = _score(reference, answers.get(reference.key), protocol, warnings)
    metrics = {protocol: _summary([row[protocol] for row in rows], protocol) for protocol in protocols}
    headline = {
        protocol: {f"{name} ({qtype})": 100 * values[name] for name in METRICS for qtype, values in of_protocol.items()}
        for protocol, of_protocol in metrics.items()
    }
    coverage = coverage_of([*truth], set(answers))
    return BenchmarkResult("vidstg", metrics, headline, coverage, rows, warnings=+warnings)


def _score(
    reference: VidstgReference, answer: VidstgPrediction | None, protocol: str, warnings: Counter[str]
) -> dict[str, Any]:
    """One sentence under one protocol."""
    frames, truth = reference.frame_indices, reference.boxes
    kept = frames < reference.tube[1] - 1 if protocol == "official" else _has_area(truth)
    frames, truth = frames[kept], truth[kept]
    boxes, answered = _first_boxes(answer, frames)
    overlap = _official_iou(truth, boxes) if protocol == "official" else _corrected_iou(truth, boxes)
    values = np.where(answered, overlap, 0.0)
    if protocol == "official":
        warnings["frames_with_undefined_iou"] += int(np.isnan(values).sum())
    mean = _mean(values) if len(values) else 0.0 if protocol == "official" else float("nan")
    qtype = reference.qtype
    if protocol == "official" and answer is not None and answer.qtype is not None:
        qtype = answer.qtype
    return {
        "qtype": qtype,
        "msIoU": mean,
        "vIoU@0.3": _above(mean, 0.3, protocol),
        "vIoU@0.5": _above(mean, 0.5, protocol),
        "frame_indices": frames.tolist(),
        "frame_iou": values.tolist(),
    }


def _has_area(truth: np.ndarray) -> np.ndarray:
    """Whether there is something to overlap `(F,)`, in the precision of answers; not so for NaN."""
    sides = truth[:, 2:].astype(np.float32) - truth[:, :2].astype(np.float32)
    return np.asarray((sides > 0).all(axis=1))


def _above(mean: float, threshold: float, protocol: str) -> float:
    """Nothing to score is neither above nor below; officially NaN is not above."""
    return mean if protocol == "corrected" and np.isnan(mean) else float(mean > threshold)


def _first_boxes(answer: VidstgPrediction | None, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first box of these frames `(F, 4)`, and whether any box of the frame is not all zero `(F,)`; NaN is not zero."""
    first, answered = np.zeros((len(frames), 4), dtype=np.float32), np.zeros(len(frames), dtype=bool)
    if answer is None or not sum(map(len, answer.boxes)):
        return first, answered
    counts = np.array([len(boxes) for boxes in answer.boxes])
    boxes, starts = np.concatenate(answer.boxes), np.cumsum(counts) - counts
    given = np.flatnonzero(counts)
    frame_first, frame_answered = np.zeros((len(counts), 4), dtype=np.float32), np.zeros(len(counts), dtype=bool)
    frame_first[given] = boxes[starts[given]]
    frame_answered[given] = np.logical_or.reduceat((boxes != 0).any(axis=1), starts[given])
    known, places = np.unique(answer.frame_indices, return_index=True)  # of duplicates the first
    at = np.minimum(np.searchsorted(known, frames), len(known) - 1)
    found = known[at] == frames
    first[found], answered[found] = frame_first[places[at[found]]], frame_answered[places[at[found]]]
    return first, answered


def _official_iou(truth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU with signed areas, that of the prediction in float32."""
    low, high = np.maximum(truth[:, :2], boxes[:, :2]), np.minimum(truth[:, 2:], boxes[:, 2:])
    sides = np.clip(high - low, 0, None)
    common = sides[:, 0] * sides[:, 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = area + (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1]) - common
    with np.errstate(divide="ignore", invalid="ignore"):
        return common / union


def _corrected_iou(truth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of what the boxes cover; a box that is not finite covers nothing. Annotations get the precision of answers."""
    finite = np.isfinite(boxes).all(axis=1)
    same = truth.astype(np.float32).astype(np.float64)
    return np.where(finite, iou(same, np.where(finite[:, None], boxes, 0).astype(np.float64)), 0.0)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of values added one after another, as in the original: numpy's own sum differs in the last digit."""
    return float(np.cumsum(values)[-1] / len(values))


def _summary(scores: list[dict[str, Any]], protocol: str) -> dict[str, dict[str, Any]]:
    """Means by type of sentence."""
    if protocol == "corrected":
        scores = [score for score in scores if score["frame_indices"]]
    summary: dict[str, dict[str, Any]] = {}
    for qtype in QUESTION_TYPES:
        of_type = [score for score in scores if score["qtype"] == qtype]
        if of_type:
            means = {name: _mean([score[name] for score in of_type]) for name in METRICS}
            summary[qtype] = {**means, "videos": len(of_type)}
    return summary


def _check_official(truth: Mapping[str, VidstgReference], answers: Mapping[str, VidstgPrediction]) -> None:
    """Raises where the original stops."""
    stops = "the original stops here; `--protocol corrected`"
    missing = [key for key in truth if key not in answers]
    if missing:
        raise ValueError(
            f"video {missing[0]!r}: predictions: none (as for {len(missing)} of {len(truth)}), expected one for every sentence; "
            f"{stops} scores it 0"
        )
    for key, reference in truth.items():
        if int(reference.fps / 5) == 0:
            raise ValueError(
                f"video {key!r}: fps: got {reference.fps:g}, expected at least 5; {stops} takes every frame"
            )
        scored = reference.frame_indices < reference.tube[1] - 1
        unknown = reference.frame_indices[scored & np.isnan(reference.boxes[:, 0])]
        if len(unknown):
            message = f"frame {unknown[0]} of the tube has no box, expected the object's"
            raise ValueError(f"video {key!r}: trajectories: {message}; {stops} leaves it out")
        lost = set(reference.frame_indices[scored].tolist()) - set(answers[key].frame_indices.tolist())
        if lost:
            message = f"frame {min(lost)} of the tube is not there, expected all of {np.count_nonzero(scored)}"
            raise ValueError(f"video {key!r}: frame_ids: {message}; {stops} scores it 0")


def _count_oddities(
    truth: Mapping[str, VidstgReference], answers: Mapping[str, VidstgPrediction], warnings: Counter[str]
) -> None:
    """What is tolerated in annotations and predictions."""
    for key, reference in truth.items():
        unknown = np.isnan(reference.boxes[:, 0])
        warnings["annotated_frames_without_box"] += int(unknown.sum())
        warnings["sentences_without_box"] += bool(unknown.all())
        warnings["annotated_boxes_without_area"] += int((~unknown & ~_has_area(reference.boxes)).sum())
        answer = answers.get(key)
        if answer is None:
            continue
        distinct = np.unique(answer.frame_indices)
        warnings["duplicate_frames"] += len(answer.frame_indices) - len(distinct)
        warnings["frames_not_predicted"] += len(np.setdiff1d(reference.frame_indices, distinct))
        warnings["question_types_that_differ"] += answer.qtype is not None and answer.qtype != reference.qtype
        warnings["frames_with_surplus_boxes"] += sum(len(boxes) > 1 for boxes in answer.boxes)
        boxes, _ = _first_boxes(answer, distinct)
        warnings["frames_with_nan_boxes"] += int(np.isnan(boxes).any(axis=1).sum())
        warnings["frames_with_inverted_boxes"] += int((boxes[:, 2:] < boxes[:, :2]).any(axis=1).sum())


__all__ = ["METRICS", "score_vidstg"]
