"""
Pointing accuracy on YouCook-Interactions and GroundingYouTube: does the model point at the object of the sentence?

A frame counts if it is annotated with a box, and is a hit if the centre of the predicted box is inside it. All counted frames
of all segments are pooled (paper, Table 8). The two benchmarks differ in their files alone.

What the original does (`official`)
- The first predicted box of a frame counts; borders are inside. Its centre is in float32.
- A frame predicted as `null`, or with a NaN in any of its boxes, is a miss; one predicted as `[]` stops it, as does a segment
  that is missing.
- The lists of a segment are read in parallel up to the end of the shorter one: seconds that a prediction lacks do not count.
- Without any counted frame the accuracy is 0.

- (A segment that is annotated twice counts twice, with the same prediction. Here it is an error, under both protocols.)

What `corrected` does instead
- A segment that is missing, a second that is missing and a frame without box are misses, so that leaving out what is hard
  cannot pay.
- A NaN spoils its own box only: the first box counts.
- The centre is in float64, as the annotation is.
- Without any counted frame there is no accuracy: NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.record import Record
from modeling_grove.grounded_caption import GroundedCaption

from .clips import by_key, caption_of, places_of_frames
from .results import PROTOCOLS, BenchmarkResult, check_protocols, coverage_of
from .single_phrase import as_boxes, check_overlap, one_box_a_frame, phrase_boxes

# Benchmark: the field of its files that numbers the segments of a video.
SEGMENT_FIELDS = {"youcook_interactions": "segment_youcook_idx", "grounding_youtube": "segment_groundingyoutube_idx"}


@dataclass(frozen=True)
class PointingReference:
    """
    A segment of a video with a sentence.

    Attributes:
        key (`str`): `{video_id}_{segment index}`.
        boxes (`np.ndarray` of shape `(T, 4)`, float64):
            For every annotated second the object, xyxy in pixels of the source frame; NaN where there is none.
        frame_indices (`np.ndarray` of shape `(T,)`, int64, *optional*): the source frames of the seconds, where known.
    """

    key: str
    boxes: np.ndarray
    frame_indices: np.ndarray | None = None


@dataclass(frozen=True)
class PointingPrediction:
    """
    What a model answers.

    Attributes:
        key (`str`): `{video_id}_{segment index}`.
        boxes (`tuple[np.ndarray | None, ...]`): for every second `(n, 4)`, float32 xyxy in pixels; `None` for no answer.
        frame_indices (`np.ndarray` of shape `(T,)`, int64, *optional*):
            The source frames of the seconds. Where both sides have them, seconds are found by them, else by their place.
    """

    key: str
    boxes: tuple[np.ndarray | None, ...]
    frame_indices: np.ndarray | None = None


def pointing_reference(caption: GroundedCaption) -> PointingReference:
    """
    An annotation whose only phrase is the sentence, and whose frames are the annotated seconds, as those of
    `dataset_builders.importers.pointing`.

    Raises:
        `ValueError`: if the caption has another number of phrases than one.
    """
    return PointingReference(caption.key, phrase_boxes(caption, present_only=True), caption.frame_indices)


def pointing_prediction(caption: GroundedCaption) -> PointingPrediction:
    """
    A model's answer: the box of every frame, whatever the objectness of it (see [`single_phrase`]), and `None` where it is
    unknown.

    Raises:
        `ValueError`: if the caption has another number of phrases than one.
    """
    boxes = one_box_a_frame(phrase_boxes(caption, present_only=False))
    return PointingPrediction(caption.key, tuple(box if len(box) else None for box in boxes), caption.frame_indices)


def read_original_pointing(
    annotations: Sequence[Mapping[str, Any]], predictions: Mapping[str, Any], *, benchmark: str
) -> tuple[list[PointingReference], list[PointingPrediction]]:
    """
    The files of the original.

    Args:
        annotations (`Sequence[Mapping]`):
            Segments with `video_id`, the benchmark's index field, and `segment_bboxes`: for every second xyxy, `[]` or `null`.
        predictions (`Mapping`):
            By key: `final_boxes`, for every second a list of xyxy, or `null`.
        benchmark (`str`):
            "youcook_interactions" or "grounding_youtube".

    Raises:
        `ValueError`: naming the segment and the field, if something is missing or not what it should be.
    """
    _check_benchmark(benchmark)
    if not isinstance(annotations, list | tuple) or not isinstance(predictions, Mapping):
        kinds = f"a {type(annotations).__name__} and a {type(predictions).__name__}"
        raise ValueError(
            f"annotations and predictions: got {kinds}, expected a list of segments and an object of predictions"
        )
    references = [_original_reference(value, n, SEGMENT_FIELDS[benchmark]) for n, value in enumerate(annotations)]
    return references, [_original_prediction(key, value) for key, value in predictions.items()]


def _original_reference(segment: Mapping[str, Any], place: int, index: str) -> PointingReference:
    for name in ("video_id", index, "segment_bboxes"):
        if not isinstance(segment, Mapping) or name not in segment:
            others = sorted(set(SEGMENT_FIELDS.values()) & set(segment))
            message = f"missing; there is {others[0]}, of the other benchmark" if others else "missing"
            raise ValueError(
                f"segment {place}: {name}: {message}; expected {', '.join(('video_id', index))}, segment_bboxes"
            )
    key, boxes = f"{segment['video_id']}_{segment[index]}", segment["segment_bboxes"]
    if not isinstance(boxes, list | tuple):
        raise ValueError(f"segment {key!r}: segment_bboxes: got a {type(boxes).__name__}, expected a list of seconds")
    rows = np.full((len(boxes), 4), np.nan)
    for second, box in enumerate(boxes):
        if not box:
            continue
        try:
            rows[second] = [float(value) for value in box]
        except (TypeError, ValueError):
            message = f"got {str(box)[:60]}, expected [x1, y1, x2, y2], [] or null"
            raise ValueError(f"segment {key!r}: segment_bboxes[{second}]: {message}") from None
        if not np.isfinite(rows[second]).all():
            raise ValueError(f"segment {key!r}: segment_bboxes[{second}]: got {box}, expected finite numbers")
    return PointingReference(key, rows)


def _original_prediction(key: str, value: Mapping[str, Any]) -> PointingPrediction:
    if not isinstance(value, Mapping):
        raise ValueError(f"segment {key!r}: got a {type(value).__name__}, expected an object with final_boxes")
    boxes = value.get("final_boxes", [])  # the original takes a prediction without it for an empty one
    if not isinstance(boxes, list | tuple):
        raise ValueError(f"segment {key!r}: final_boxes: got a {type(boxes).__name__}, expected a list of seconds")
    arrays = (
        None if item is None else as_boxes(item, f"segment {key!r}: final_boxes[{n}]") for n, item in enumerate(boxes)
    )
    return PointingPrediction(key, tuple(arrays))


def score_pointing(
    references: Iterable[PointingReference | GroundedCaption | Record],
    predictions: Iterable[PointingPrediction | GroundedCaption],
    *,
    benchmark: str,
    protocols: tuple[str, ...] = PROTOCOLS,
) -> BenchmarkResult:
    """
    Scores answers to the sentences of a pointing benchmark; see the module for the protocols.

    Args:
        references (iterable of records, [`GroundedCaption`] or [`PointingReference`]):
            The annotated segments; records as `dataset_builders.importers.pointing` makes them. A caption has one phrase, the
            sentence. [`read_original_pointing`] reads the original's files.
        predictions (iterable of [`GroundedCaption`] or [`PointingPrediction`]):
            The answers, with the keys of the references.
        benchmark (`str`):
            "youcook_interactions" or "grounding_youtube".
        protocols (`tuple[str, ...]`):
            Some of "official" and "corrected".

    Returns:
        [`BenchmarkResult`]: `metrics[protocol]` is `{"accuracy", "correct", "valid"}`, the first a fraction. Rows of `per_clip`
        have the same by protocol (a segment without counted frame has accuracy 0 under `official`, NaN under `corrected`) and
        `hits`: for every second true, false, or `None` where it does not count.

    Raises:
        `ValueError`: if nothing predicted is annotated, a key is there twice, a clip is no single sentence, or no frame of a
            prediction is annotated; under `official` where the original stops.
    """
    _check_benchmark(benchmark)
    check_protocols(protocols)
    truth = by_key("annotated segment", map(_as_reference, references))
    answers = by_key(
        "prediction", (pointing_prediction(p) if isinstance(p, GroundedCaption) else p for p in predictions)
    )
    warnings: Counter[str] = Counter()
    warnings["unknown_segments"] = check_overlap(truth, answers)
    aligned = {key: _on_seconds(answers[key], reference) for key, reference in truth.items() if key in answers}
    for key, boxes in aligned.items():
        _count_oddities(truth[key], boxes, warnings)
    if "official" in protocols:
        _check_official(truth, aligned)
    rows: list[dict[str, Any]] = [{"key": key} for key in truth]
    for protocol in protocols:
        for row, reference in zip(rows, truth.values(), strict=True):
            hits = _hits(reference.boxes, aligned.get(reference.key, ()), protocol)
            row[protocol] = {**_accuracy(hits, protocol), "hits": hits}
    metrics = {
        protocol: _accuracy([hit for row in rows for hit in row[protocol]["hits"]], protocol) for protocol in protocols
    }
    headline = {protocol: {"accuracy": 100 * values["accuracy"]} for protocol, values in metrics.items()}
    return BenchmarkResult(benchmark, metrics, headline, coverage_of([*truth], set(answers)), rows, warnings=+warnings)


def _as_reference(item: PointingReference | GroundedCaption | Record) -> PointingReference:
    if isinstance(item, PointingReference):
        return item
    return pointing_reference(item if isinstance(item, GroundedCaption) else caption_of(item))


def _on_seconds(answer: PointingPrediction, reference: PointingReference) -> tuple[np.ndarray | None, ...]:
    """The answer's boxes at the annotated seconds."""
    if answer.frame_indices is None or reference.frame_indices is None:
        return answer.boxes
    at = places_of_frames(answer.key, answer.frame_indices, reference.frame_indices)
    return tuple(None if n is None else answer.boxes[n] for n in at)


def _hits(truth: np.ndarray, answer: Sequence[np.ndarray | None], protocol: str) -> list[bool | None]:
    """For every second whether it is a hit, `None` where it does not count."""
    hits: list[bool | None] = [None] * len(truth)
    for second in np.flatnonzero(~np.isnan(truth[:, 0])).tolist():
        if second >= len(answer) and protocol == "official":
            break
        boxes = answer[second] if second < len(answer) else None
        hits[second] = boxes is not None and _points_inside(boxes, truth[second], protocol)
    return hits


def _points_inside(boxes: np.ndarray, truth: np.ndarray, protocol: str) -> bool:
    """Whether the first box's centre is inside the annotated box."""
    if not len(boxes) or (protocol == "official" and np.isnan(boxes).any()):
        return False
    box = boxes[0] if protocol == "official" else boxes[0].astype(np.float64)
    centre = ((box[:2] + box[2:]) / 2).astype(np.float64)
    return bool(((truth[:2] <= centre) & (centre <= truth[2:])).all())


def _accuracy(hits: Iterable[bool | None], protocol: str) -> dict[str, Any]:
    counted = [hit for hit in hits if hit is not None]
    without = 0.0 if protocol == "official" else float("nan")
    accuracy = sum(counted) / len(counted) if counted else without
    return {"accuracy": accuracy, "correct": sum(counted), "valid": len(counted)}


def _check_official(
    truth: Mapping[str, PointingReference], answers: Mapping[str, tuple[np.ndarray | None, ...]]
) -> None:
    """Raises where the original stops."""
    stops = "the original stops here; `--protocol corrected` scores it as a miss"
    missing = [key for key in truth if key not in answers]
    if missing:
        message = f"none (as for {len(missing)} of {len(truth)}), expected one for every segment"
        raise ValueError(f"segment {missing[0]!r}: predictions: {message}; {stops}")
    for key, reference in truth.items():
        for second, (box, boxes) in enumerate(zip(reference.boxes, answers[key], strict=False)):
            if boxes is not None and not len(boxes) and not np.isnan(box[0]):
                message = "got [], expected a box, or null for none"
                raise ValueError(f"segment {key!r}: final_boxes[{second}]: {message}; {stops}")


def _count_oddities(reference: PointingReference, boxes: tuple[np.ndarray | None, ...], warnings: Counter[str]) -> None:
    """What is tolerated in the answer to a segment."""
    valid = ~np.isnan(reference.boxes[:, 0])
    warnings["seconds_not_predicted"] += int(valid[len(boxes) :].sum())
    warnings["seconds_not_annotated"] += max(len(boxes) - len(valid), 0)
    for found in boxes:
        warnings["seconds_with_surplus_boxes"] += found is not None and len(found) > 1
        warnings["seconds_with_nan_boxes"] += found is not None and bool(np.isnan(found).any())


def _check_benchmark(benchmark: str) -> None:
    if benchmark not in SEGMENT_FIELDS:
        raise ValueError(f"benchmark: got {benchmark!r}, expected one of {', '.join(SEGMENT_FIELDS)}")


__all__ = [
    "SEGMENT_FIELDS",
    "PointingPrediction",
    "PointingReference",
    "pointing_prediction",
    "pointing_reference",
    "read_original_pointing",
    "score_pointing",
]
