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

What `corrected` does instead
- All frames of the tube are scored, the last one too: it is annotated. (Answers of the original's own inference may lack it;
  it is then a missing frame.) A rate below 5 gives every frame.
- A missing video or frame scores 0, so that leaving out what is hard cannot pay.
- A box without area, an inverted one and one with a NaN score 0: they cover nothing, and must not undo the other videos.
- Frames of the tube without an annotated box are left out, and so are sentences that have no other. Both are counted.
- The type of a sentence is that of the annotation.
- Annotations are rounded to float32, as answers are, and areas are computed in float64: a perfect answer scores 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.importers.entries import MAX_CLIP_FRAMES
from dataset_builders.record import Record, from_record, record_metadata
from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.video_grove import sampled_frame_indices

from .boxes import iou
from .results import PROTOCOLS, BenchmarkResult, check_protocols, coverage_of
from .single_phrase import as_boxes, by_key, check_overlap, one_box_a_frame, phrase_boxes

QUESTION_TYPES = ("declarative", "interrogative")
METRICS = ("msIoU", "vIoU@0.3", "vIoU@0.5")


@dataclass(frozen=True)
class VidstgReference:
    """
    A sentence and the boxes of its object.

    Attributes:
        key (`str`): of the sentence: the prepared file's `video_id`, a record's `{video_id}_{clip_id}`.
        qtype (`str`): "declarative" or "interrogative".
        fps (`float`): frames per second of the video.
        tube (`tuple[int, int]`): first source frame in which the sentence holds, and the first after that in which it does not.
        frame_indices (`np.ndarray` of shape `(F,)`, int64): the sampled source frames of the tube, increasing.
        boxes (`np.ndarray` of shape `(F, 4)`, float64): xyxy in pixels of the source frame; NaN where there is none.

    Raises:
        `ValueError`: if the parts do not fit together.
    """

    key: str
    qtype: str
    fps: float
    tube: tuple[int, int]
    frame_indices: np.ndarray
    boxes: np.ndarray

    def __post_init__(self) -> None:
        _check_question_type(self.key, self.qtype)
        if len(self.frame_indices) != len(self.boxes):
            sizes = f"{len(self.boxes)} for {len(self.frame_indices)} frames"
            raise ValueError(f"video {self.key!r}: boxes: got {sizes}, expected one a frame")


@dataclass(frozen=True)
class VidstgPrediction:
    """
    What a model answers.

    Attributes:
        key (`str`): of the sentence.
        frame_indices (`np.ndarray` of shape `(F,)`, int64): source frames, in any order; of duplicates the first counts.
        boxes (`tuple[np.ndarray, ...]`): for every frame `(n, 4)`, float32 xyxy in pixels of the source frame.
        qtype (`str` or `None`): the type of the sentence, where the prediction says it.

    Raises:
        `ValueError`: if the parts do not fit together.
    """

    key: str
    frame_indices: np.ndarray
    boxes: tuple[np.ndarray, ...]
    qtype: str | None = None

    def __post_init__(self) -> None:
        if self.qtype is not None:
            _check_question_type(self.key, self.qtype)
        if len(self.frame_indices) != len(self.boxes):
            sizes = f"{len(self.boxes)} lists of boxes for {len(self.frame_indices)} frame_ids"
            raise ValueError(f"video {self.key!r}: boxes: got {sizes}, expected one a frame")


def vidstg_reference(caption: GroundedCaption, qtype: str, tube: tuple[int, int] | None = None) -> VidstgReference:
    """
    An annotation whose only phrase is the sentence.

    Args:
        caption ([`GroundedCaption`]):
            Its frames of the tube are those that are scored; see `dataset_builders.importers.vidstg`.
        qtype (`str`):
            "declarative" or "interrogative".
        tube (`tuple[int, int]`, *optional*):
            First frame of the tube and the first after it. Without it, both protocols score the frames that have a box.

    Raises:
        `ValueError`: if the caption has another number of phrases than one, or there is no box in the tube.
    """
    boxes = phrase_boxes(caption, present_only=True)
    known = caption.frame_indices[~np.isnan(boxes[:, 0])]
    if not len(known):
        message = "no frame has a box, expected the object's; give VidOR's trajectories to the importer"
        raise ValueError(f"clip {caption.key!r}: bboxes: {message}")
    first, end = (int(known[0]), int(known[-1]) + 2) if tube is None else tube
    inside = (caption.frame_indices >= first) & (caption.frame_indices < end)
    if tube is None:
        inside = ~np.isnan(boxes[:, 0])
    if not inside.any():
        raise ValueError(
            f"clip {caption.key!r}: temporal_gt: no sampled frame is in {first}..{end}, expected one at least"
        )
    return VidstgReference(caption.key, qtype, caption.fps, (first, end), caption.frame_indices[inside], boxes[inside])


def vidstg_reference_of(record: Record) -> VidstgReference:
    """
    An imported record (`dataset_builders.importers.vidstg`), whose metadata has the type of the sentence and the tube.

    Raises:
        `ValueError`: if the metadata lacks them; or as [`vidstg_reference`].
    """
    caption, metadata = from_record(record), record_metadata(record)
    tube = metadata.get("temporal_gt")
    if tube is not None and not (isinstance(tube, dict) and {"begin_fid", "end_fid"} <= set(tube)):
        message = f"metadata.temporal_gt: got {tube!r}, expected begin_fid and end_fid"
        raise ValueError(f"clip {caption.key!r}: {message}; import the annotation anew")
    frames = None if tube is None else (int(tube["begin_fid"]), int(tube["end_fid"]))
    return vidstg_reference(caption, str(metadata.get("qtype")), frames)


def vidstg_prediction(caption: GroundedCaption, qtype: str | None = None) -> VidstgPrediction:
    """
    A model's answer: the box of every frame, whatever the objectness of it (see [`single_phrase`]).

    Raises:
        `ValueError`: if the caption has another number of phrases than one.
    """
    boxes = one_box_a_frame(phrase_boxes(caption, present_only=False))
    return VidstgPrediction(caption.key, caption.frame_indices, boxes, qtype)


def read_original_vidstg(
    annotations: Mapping[str, Any], predictions: Mapping[str, Any]
) -> tuple[list[VidstgReference], list[VidstgPrediction]]:
    """
    The files of the original.

    Args:
        annotations (`Mapping`):
            `videos`, a list of sentences, and `trajectories[video][target][frame]["bbox"]`, xywh in pixels.
        predictions (`Mapping`):
            By the `video_id` of the sentence: `frame_ids`, `boxes` (for every frame a list of xyxy), `qtype`.

    Raises:
        `ValueError`: naming the video and the field, if something is missing or not what it should be.
    """
    videos, trajectories = (_field(annotations, name, "annotations") for name in ("videos", "trajectories"))
    if not isinstance(predictions, Mapping):
        raise ValueError(f"predictions: got a {type(predictions).__name__}, expected an object of videos")
    references = [_original_reference(video, trajectories, f"videos[{n}]") for n, video in enumerate(videos)]
    return references, [_original_prediction(key, value) for key, value in predictions.items()]


def _original_reference(video: Mapping[str, Any], trajectories: Mapping[str, Any], place: str) -> VidstgReference:
    key = str(_field(video, "video_id", place))
    where = f"video {key!r}"
    original, target, qtype = (_field(video, name, where) for name in ("original_video_id", "target_id", "qtype"))
    fps, first, end = (_number(video, name, where) for name in ("fps", "tube_start_frame", "tube_end_frame"))
    if not (first < end <= first + MAX_CLIP_FRAMES and float(first).is_integer() and float(end).is_integer()):
        raise ValueError(
            f"{where}: tube_end_frame: got {first:g}..{end:g}, expected frame numbers, the end after the start"
        )
    try:
        boxes = trajectories[original][str(target)]
    except (KeyError, TypeError):
        message = f"nothing of object {target} in video {original!r}, expected its boxes"
        raise ValueError(f"{where}: trajectories: {message}") from None
    frames = np.array(sampled_frame_indices(fps, int(first), int(end) - 1), dtype=np.int64)
    rows = np.full((len(frames), 4), np.nan)
    for row, frame in zip(rows, frames.tolist(), strict=True):
        if str(frame) in boxes:
            box = _field(boxes[str(frame)], "bbox", f"{where}: trajectories of frame {frame}")
            try:
                x, y, width, height = (float(value) for value in box)
            except (TypeError, ValueError):
                message = f"bbox: got {str(box)[:60]}, expected [x, y, width, height]"
                raise ValueError(f"{where}: trajectories of frame {frame}: {message}") from None
            row[:] = x, y, x + width, y + height
    return VidstgReference(key, str(qtype), fps, (int(first), int(end)), frames, rows)


def _original_prediction(key: str, value: Mapping[str, Any]) -> VidstgPrediction:
    where = f"video {key!r}"
    frames, boxes, qtype = (_field(value, name, where) for name in ("frame_ids", "boxes", "qtype"))
    try:
        indices = np.array(frames, dtype=np.int64).reshape(-1)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: frame_ids: got {str(frames)[:60]}, expected a list of integers") from None
    arrays = tuple(as_boxes(item, f"{where}: boxes[{n}]") for n, item in enumerate(boxes))
    return VidstgPrediction(key, indices, arrays, str(qtype))


def score_vidstg(
    references: Iterable[VidstgReference],
    predictions: Iterable[VidstgPrediction],
    *,
    protocols: tuple[str, ...] = PROTOCOLS,
) -> BenchmarkResult:
    """
    Scores answers to the sentences of VidSTG; see the module for the protocols.

    Args:
        references (`Iterable[VidstgReference]`), predictions (`Iterable[VidstgPrediction]`):
            Made by [`vidstg_reference_of`] and [`vidstg_prediction`], or by [`read_original_vidstg`].
        protocols (`tuple[str, ...]`):
            Some of "official" and "corrected".

    Returns:
        [`BenchmarkResult`]: `metrics[protocol]` is `{"declarative": {"msIoU", "vIoU@0.3", "vIoU@0.5", "videos"},
        "interrogative": ...}`, fractions, with the types that occur. Rows of `per_clip` have, by protocol, the three scores,
        `qtype`, `frame_indices` and `frame_iou`.

    Raises:
        `ValueError`: if nothing predicted is annotated, a key is there twice; under `official` where the original stops.
    """
    check_protocols(protocols)
    truth, answers = by_key("annotated sentence", references), by_key("prediction", predictions)
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
        protocol: {f"msIoU ({qtype})": 100 * values["msIoU"] for qtype, values in of_protocol.items()}
        for protocol, of_protocol in metrics.items()
    }
    coverage = coverage_of([*truth], set(answers))
    return BenchmarkResult("vidstg", metrics, headline, coverage, rows, warnings=+warnings)


def _score(
    reference: VidstgReference, answer: VidstgPrediction | None, protocol: str, warnings: Counter[str]
) -> dict[str, Any]:
    """One sentence under one protocol."""
    frames, truth = reference.frame_indices, reference.boxes
    kept = frames < reference.tube[1] - 1 if protocol == "official" else ~np.isnan(truth[:, 0])
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
        "vIoU@0.3": float(mean > 0.3),
        "vIoU@0.5": float(mean > 0.5),
        "frame_indices": frames.tolist(),
        "frame_iou": values.tolist(),
    }


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


def _check_question_type(key: str, qtype: str) -> None:
    if qtype not in QUESTION_TYPES:
        raise ValueError(f"video {key!r}: qtype: got {qtype!r}, expected {' or '.join(QUESTION_TYPES)}")


def _number(video: Mapping[str, Any], name: str, where: str) -> float:
    value = _field(video, name, where)
    if not isinstance(value, int | float) or not abs(value) < 2**31:
        raise ValueError(f"{where}: {name}: got {str(value)[:40]!r}, expected a number")
    return value


def _field(value: Mapping[str, Any], name: str, where: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise ValueError(f"{where}: {name}: missing, expected the prepared files of VidSTG")
    return value[name]


__all__ = [
    "METRICS",
    "QUESTION_TYPES",
    "VidstgPrediction",
    "VidstgReference",
    "read_original_vidstg",
    "score_vidstg",
    "vidstg_prediction",
    "vidstg_reference",
    "vidstg_reference_of",
]
