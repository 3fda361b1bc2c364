"""
iGround: captions whose noun phrases have boxes in every frame (paper, Tables 2, 6, 7 and 9).

The paper's metrics, each a mean over clips ("per_video"; "flattening" takes all frames as if they were of one clip):

- AP50: average precision of the boxes at IoU 0.5, whatever their phrases.
- Recall: share of the annotated boxes that a predicted box of the same frame matches in place (IoU at least 0.5) and in meaning
  (similarity of the phrases at least 0.5).
- mIoU: mean overlap of the boxes of a frame (first versions of the paper).
- METEOR, CIDEr, BLEU, ROUGE-L: of the captions, over the corpus.

"All" takes every annotated frame. "Center" takes one frame a clip, for captioners of single frames; the original's code for it is
not released, so both readings of it are here: `center_frame` is the centre of the clip, `center_8` those of eight equal parts.

The official protocol is what the original's code computes. The corrected protocol is what the paper's text says. They differ in:

- Clips without a prediction. Official: left out of everything; so are those whose lists of boxes and labels are both empty.
  Corrected: they score 0, with an empty caption, as leaving hard clips out must not pay.
- Clips without annotated boxes. Official: AP50 is -1, Recall and mIoU are 0, and all of them are averaged. Corrected: left out of
  Recall, and of AP50 unless boxes are predicted there, which is 0. There is no negative precision.
- Coordinates. Official: whole pixels, cut off; predictions, not annotations, are first cut at the border of the frame. Corrected:
  real numbers, both cut at the border. Annotated boxes without area are left out, as nothing can overlap them, and with each of
  them a predicted box of the frame without area, if there is one.
- Boxes beyond the labels of a frame. Official: lost. Corrected: without a phrase, so right or wrong in place, never in meaning.
- Overlap in Recall and mIoU. Official: the IoU of (x, y, width, height) taken for corners. It is 0 for objects right of or below
  about the middle, and a perfect prediction does not reach 1. Corrected: IoU, as in AP50.
- Scores in AP50. Official: all 1, so that the order of the input decides, in which frames are sorted as text (0, 1, 10, 11, 2).
  Corrected: the model's probabilities. Boxes of equal scores are one point of the curve, so that no order matters.
- Detections of a frame in AP50. Official: the first 100. Corrected: all.
- Matching in Recall. Official: best overlap first, and the frame ends at the first pair that fails in place or meaning, whatever
  would have followed. Corrected: as many pairs as there can be such that no box is in two, which is what a recall is to count.
- Denominator of Recall. Official: annotated labels. Corrected: annotated boxes.
- mIoU of a frame. Official: the mean over all pairs of boxes, with which two perfect boxes side by side get 0.5; frames without
  annotated or without predicted boxes are left out. Corrected: the sum over the best one-to-one assignment, divided by the larger
  of the two numbers of boxes; only frames with neither are left out.
- A label that is no text. Official: the frame's matches are lost. Corrected: it is like no other phrase.
- Captions with a line separator other than "\\n". Official: all captions after them are scored as those of other clips. Corrected:
  separators become blanks.

- No predicted box with a label in any clip. Official: an exception; here the set of frames has no official scores, and if no other
  protocol is asked for, there is a `ValueError`. Corrected: 0.

In both, a prediction that is one frame too long loses its last frame. Where the original ends in an exception otherwise (any other
number of frames), there is a `ValueError` here. So there is for any coordinate that is not finite, which is stricter than the
original: it clamps a predicted infinity, and never looks at boxes beyond the labels or at the annotation of a dropped clip.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from modeling_grove.grounded_caption import GroundedCaption

from .captions import CaptionScores, score_captions
from .clip_frames import ClipFrames, GroundingScores, spread
from .clips import PredictedClip, ReferenceClip, predicted_clips, reference_clips
from .iground_clips import PairedClips, gather_frames, pair_clips
from .iground_corrected import corrected_scores
from .iground_official import official_scores
from .results import PROTOCOLS, BenchmarkResult, check_protocols, coverage_of
from .text_similarity import TextSimilarity, text_similarity

logger = logging.getLogger(__name__)

# Number of centres that a set of frames has of every clip; 0 for all frames.
FRAME_SETS = {"all": 0, "center_frame": 1, "center_8": 8}
_METRICS = ("AP50", "Recall", "mIoU")


def score_iground(
    references: Iterable[GroundedCaption | ReferenceClip],
    predictions: Iterable[GroundedCaption | PredictedClip],
    *,
    protocols: tuple[str, ...] = PROTOCOLS,
    similarity: TextSimilarity | None = None,
    frames: Sequence[str] = tuple(FRAME_SETS),
    captions: bool = True,
    coco_stats: bool = False,
    merge_instances: bool = False,
) -> BenchmarkResult:
    """
    Scores predictions on iGround; the protocols are described in the module.

    Args:
        references (iterable of [`GroundedCaption`] or [`ReferenceClip`]):
            Annotated clips; raw annotations for the paper's numbers. Boxes are xyxy in pixels of the source frame.
        predictions (iterable of [`GroundedCaption`] or [`PredictedClip`]):
            Predicted clips. Those of unknown keys are counted and left out.
        protocols (`tuple[str, ...]`, defaults to both):
            Of `"official"` and `"corrected"`.
        similarity ([`TextSimilarity`], *optional*):
            Of phrases; bert-base-uncased as in the original by default.
        frames (sequence of `str`, defaults to all of them):
            Of `"all"`, `"center_frame"` and `"center_8"`.
        captions (`bool`, defaults to `True`):
            Whether captions are scored.
        coco_stats (`bool`, defaults to `False`):
            Whether COCO's twelve statistics (official), and AP over IoU thresholds 0.5 to 0.95 (both), are computed too.
        merge_instances (`bool`, defaults to `False`):
            Whether the annotation is taken in its processed form: one box of a label in a frame, the union of its instances.

    Returns:
        [`BenchmarkResult`]: `metrics[protocol]` has `clips` (their number), `captions`, and by set of frames `per_video` and
        `flattening` with AP50, Recall and mIoU. A set that the predictions have not all frames of is left out, and so counted;
        of the official protocol also one without a predicted box, counted as `no_predicted_box`.

    Raises:
        `ValueError`: in one line that names the clip and the field: where the original ends in an exception, for lists and arrays
            that do not fit together, and if no predicted clip is among the references.
    """
    check_protocols(protocols)
    unknown = [name for name in frames if name not in FRAME_SETS]
    if unknown or not frames:
        raise ValueError(f"frames: got {unknown[0] if unknown else 'none'!r}; expected some of {', '.join(FRAME_SETS)}")
    truth = reference_clips(references)
    answers = predicted_clips(predictions, truth)
    clips = pair_clips(truth, answers, merge_instances=merge_instances)
    similarity = text_similarity() if similarity is None else similarity
    table = gather_frames(clips, similarity)
    if set(protocols) == {"official"} and not table.predicted.labelled.any():
        raise ValueError(
            f"clip {table.keys[0]!r}: bboxes of the prediction: no box with a label, as in all clips; the original needs one at "
            f"least: lower the objectness threshold, or score with the corrected protocol"
        )
    scored = _captions(clips, protocols) if captions else {}
    result = BenchmarkResult(
        benchmark="iground",
        metrics={},
        headline={},
        coverage=coverage_of(list(truth), set(answers)),
        per_clip=[{"key": key} for key in truth],
        warnings=+clips.warnings,
    )
    left_out: dict[str, dict[str, None]] = defaultdict(dict)  # by the reason the sets of frames, each once
    for protocol in protocols:
        kept = clips.kept if protocol == "official" else np.ones(len(truth), dtype=bool)
        blocks: dict[str, Any] = {}
        for name in frames:
            part = table.of_frames(_frames_of(table, FRAME_SETS[name], kept))
            if part.unpredicted.any():
                lacking = part.keys[part.clip[part.unpredicted][0]]
                left_out[f"not scored, as clip {lacking!r} has frames without a prediction"][name] = None
                continue
            if protocol == "official" and not part.predicted.labelled.any():
                left_out["no official scores, which need a predicted box with a label"][name] = None
                result.warnings["no_predicted_box"] += 1
                continue
            if protocol == "official":
                scores = official_scores(part, coco_stats=coco_stats)
            else:
                scores = corrected_scores(part, all_thresholds=coco_stats)
            blocks[name] = _means(scores, kept)
            _add_rows(result.per_clip, protocol, name, part, scores, kept)
        if captions:
            blocks |= _add_captions(scored[protocol], result.per_clip, protocol)
        result.metrics[protocol] = {"clips": int(kept.sum()), "text_similarity": similarity.name, **blocks}
        result.headline[protocol] = _headline(blocks)
    for reason, names in left_out.items():
        logger.warning("frames of %s: %s", ", ".join(names), reason)
    return result


def _frames_of(frames: ClipFrames, centres: int, kept: np.ndarray) -> np.ndarray:
    """
    The frames of the clips that are kept `(C,)`: all of them, or the centres of equal parts. A part has T // n frames, the last
    one the rest too; its centre is the middle of its first and its last border, rounded down.
    """
    counts = np.bincount(frames.clip, minlength=len(frames.keys))
    starts = np.cumsum(counts) - counts
    clips = np.flatnonzero(kept & (counts > 0))
    if not centres:
        return spread(starts[clips], counts[clips])
    low = np.arange(centres) * (counts[clips] // centres)[:, None]
    high = np.concatenate([low[:, 1:], counts[clips, None]], axis=1)
    return (starts[clips, None] + (low + high) // 2).reshape(-1)


def _means(scores: GroundingScores, kept: np.ndarray) -> dict[str, Any]:
    """Means over the clips; in the corrected protocol over those that a metric is defined for."""
    means = {}
    for name in _METRICS:
        values = scores.per_clip[name][kept]
        values = values[~np.isnan(values)]
        means[name] = float(values.mean()) if len(values) else float("nan")
    return {"per_video": means, "flattening": scores.flattening}


def _add_rows(
    rows: list[dict[str, Any]],
    protocol: str,
    name: str,
    frames: ClipFrames,
    scores: GroundingScores,
    kept: np.ndarray,
) -> None:
    """Adds the scores of the clips to their rows: those of all frames beside the protocol's other values, the others in a block."""
    columns = {key: values.tolist() for key, values in scores.per_clip.items()}
    counted, values = scores.frame_miou
    mious = _lists(frames.clip[counted], values, len(rows))
    matched: list[dict[str, list[list[int]]]] = [{} for _ in rows]
    if protocol == "official" and name == "all":
        clips, places = frames.clip[scores.matched[:, 0]].tolist(), frames.index[scores.matched[:, 0]].tolist()
        for clip, frame, pair in zip(clips, places, scores.matched[:, 1:].tolist(), strict=True):
            matched[clip].setdefault(str(frame), []).append(pair)
    for clip in np.flatnonzero(kept).tolist():
        row = {key: column[clip] for key, column in columns.items()} | {"frame_mIoU": mious[clip]}
        block = rows[clip].setdefault(protocol, {})
        if name != "all":
            block[name] = row
        else:
            block |= row | ({"matched_pairs": matched[clip]} if protocol == "official" else {})


def _lists(group: np.ndarray, values: np.ndarray, num_groups: int) -> list[list[float]]:
    """The values of every group, whose numbers never decrease."""
    cuts = np.searchsorted(group, np.arange(num_groups + 1)).tolist()
    everything = values.tolist()
    return [everything[first:last] for first, last in itertools.pairwise(cuts)]


def _captions(clips: PairedClips, protocols: tuple[str, ...]) -> dict[str, CaptionScores]:
    """The caption scores of every protocol; where both would score the same, once."""
    texts = [{each.key: each.caption for each in side} for side in (clips.references, clips.predictions)]
    kept = {key for key, is_kept in zip(clips.keys, clips.kept, strict=True) if is_kept}
    scored: dict[str, CaptionScores] = {}
    for protocol in protocols:
        if protocol == "official":
            scored[protocol] = score_captions(
                *({key: text for key, text in side.items() if key in kept} for side in texts), clean=False
            )
        elif "official" in scored and clips.kept.all() and not scored["official"].separators:
            scored[protocol] = scored["official"]
        else:
            scored[protocol] = score_captions(*texts, clean=True)
    clips.warnings["captions_with_line_separator"] = max(scores.separators for scores in scored.values())
    return scored


def _add_captions(scores: CaptionScores, rows: list[dict[str, Any]], protocol: str) -> dict[str, Any]:
    """Adds the scores and tokens of the clips to their rows; returns what is said of the corpus."""
    for row in rows:
        if (key := row["key"]) in scores.per_clip:
            row.setdefault("captions", {})[protocol] = scores.per_clip[key]
            tokens = {"reference": scores.reference_tokens[key], "prediction": scores.prediction_tokens[key]}
            row.setdefault("caption_tokens", tokens)
    return {"captions": scores.corpus, "caption_tokenizer": scores.tokenizer, "caption_notes": scores.notes}


def _headline(blocks: dict[str, Any]) -> dict[str, float]:
    """The row of the paper's Table 2, in percent."""
    row = {name: blocks["captions"][name] for name in ("METEOR", "CIDEr") if name in blocks.get("captions", {})}
    for name, suffix in (("all", ""), ("center_frame", " (center)")):
        if name in blocks:
            row |= {f"{metric}{suffix}": blocks[name]["per_video"][metric] for metric in ("AP50", "Recall")}
    return {name: 100 * value for name, value in row.items()}


__all__ = ["FRAME_SETS", "score_iground"]
