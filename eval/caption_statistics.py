"""What a reader of grounded captions wants to know and the paper's tables do not say.

- **Presence**: is a phrase said to be visible in the frames in which it is? A model that draws a box everywhere has a high recall
  and says nothing about when things are there. Counted over phrases x frames.
- **Tracks**: the mean IoU of a phrase's boxes over time, whether or not it passes 0.5.
- **Flicker**: how often a phrase comes and goes, against the annotation.
- **Calibration**: is objectness a probability?
- **Boxes a frame**, annotated and predicted.
- **Confidence intervals** of these and of the benchmark's own scores, over clips.

All of them compare phrases that `track_pairing` paired. None of them is in the original code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .bootstrap import interval, intervals, resampled_sums
from .calibration import calibration, phrase_objectness
from .clips import PredictedClip, ReferenceClip
from .results import PROTOCOLS
from .track_pairing import PairedPhrases, Similarity, pair_phrases

# What is counted in a clip; every statistic but calibration is a ratio of sums of these over clips.
_COUNTS = (
    # Frames of paired phrases: annotated and predicted, predicted only, annotated only, neither.
    *("both", "wrong", "missed", "neither"),
    # Frames of annotated phrases without a partner: annotated, not annotated; predicted frames of predicted ones without.
    *("lost", "lost_absent", "invented"),
    # Phrases; annotated ones that are visible at all; pairs; pairs with a box on both sides; the sum of their tube IoU.
    *("phrases", "visible_phrases", "predicted_phrases", "pairs", "visible_pairs", "tube_iou"),
    # Changes of presence from one frame to the next, of all phrases and of paired ones.
    *("changes", "predicted_changes", "paired_changes", "paired_predicted_changes"),
    *("frames", "boxes", "predicted_boxes"),
)


def caption_statistics(
    references: Mapping[str, ReferenceClip],
    predictions: Mapping[str, PredictedClip],
    similarity: Similarity,
    *,
    resamples: int = 1000,
    seed: int = 0,
    per_clip: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """
    Statistics of predicted grounded captions. Frames that the model was not asked about do not count; a clip without a prediction
    counts as one without phrases.

    Args:
        references (`Mapping[str, ReferenceClip]`), predictions (`Mapping[str, PredictedClip]`):
            By key; predictions of other clips are passed over.
        similarity ([`TextSimilarity`]):
            Similarities of phrases; a pair needs 0.5.
        resamples (`int`, *optional*, defaults to 1000), seed (`int`, *optional*, defaults to 0):
            Of the bootstrap.
        per_clip (`Sequence[Mapping]`, *optional*):
            Rows of the benchmark's result, for intervals of its own scores.

    Returns:
        `dict`: JSON types, NaN for a ratio of nothing:

        - `presence`: `accuracy`, `precision`, `recall`, `f1` over phrases x frames. An annotated phrase without a partner is absent
          in every predicted frame; a predicted one without a partner is wrong in every frame where it is present (the others do
          not count). `phrase_frames`, their number, `absent_share`, the share of absent ones in the annotation: the accuracy of a
          model that never draws a box. `paired`: the same four and `phrase_frames` over paired phrases only.
        - `tracks`: `mean_iou` over annotated phrases that are visible somewhere, 0 without a partner; `mean_iou_paired` over pairs
          in which both have a box somewhere; numbers `phrases`, `visible_phrases`, `predicted_phrases`, `pairs`, `visible_pairs`.
        - `flicker`: changes of presence for a phrase of a clip: `truth`, `prediction` and their `ratio`; `paired`: the same over
          paired phrases.
        - `boxes_per_frame`: `truth`, `prediction`, `ratio`.
        - `calibration`: see [`~eval.calibration.calibration`], over frames of all predicted phrases, those without a partner being
          absent; `paired`, over paired ones; `clips`, how many have probabilities. `None` if no clip has.
        - `intervals`: 95 percent, `{"mean", "low", "high"}` of the above under `presence`, `presence_paired`, `tracks`, `flicker`,
          and with `per_clip` `{"mean", "low", "high", "clips"}` of the benchmark's scores under `official` and `corrected` (see
          [`protocol_intervals`]).

    Raises:
        `ValueError`: if there is no clip, or `resamples` is not positive.
    """
    if not references:
        raise ValueError("references: no clips; expected at least one")
    clips = pair_phrases(references, predictions, similarity)
    rows = []
    for clip in clips:
        counts = _counts(clip)
        reference, prediction = references[clip.key], predictions.get(clip.key)
        counts["boxes"] = sum(len(boxes) for boxes, there in zip(reference.boxes, clip.asked, strict=True) if there)
        if prediction is not None:
            counts["predicted_boxes"] = sum(
                len(boxes) for boxes in prediction.boxes[: reference.num_frames] if boxes is not None
            )
        rows.append([counts.get(name, 0) for name in _COUNTS])
    table = np.array(rows, dtype=np.float64)
    total = _ratios(table.sum(axis=0))
    resampled = _ratios(resampled_sums(table, resamples, seed))
    numbers = dict(zip(_COUNTS, table.sum(axis=0).astype(int).tolist(), strict=True))
    single = {name: {key: float(value) for key, value in group.items()} for name, group in total.items()}
    paired_frames = sum(numbers[name] for name in ("both", "wrong", "missed", "neither"))
    phrase_frames = paired_frames + sum(numbers[name] for name in ("lost", "lost_absent", "invented"))
    found: dict[str, Any] = {
        name: {key: {"mean": single[name][key], **interval(samples)} for key, samples in resampled[name].items()}
        for name in ("presence", "presence_paired", "tracks", "flicker")
    }
    return {
        "presence": {
            **single["presence"],
            "phrase_frames": phrase_frames,
            "absent_share": single["truth"]["absent_share"],
            "paired": {**single["presence_paired"], "phrase_frames": paired_frames},
        },
        "tracks": {
            **single["tracks"],
            **{
                name: numbers[name]
                for name in ("phrases", "visible_phrases", "predicted_phrases", "pairs", "visible_pairs")
            },
        },
        "flicker": {**single["flicker"], "paired": single["flicker_paired"]},
        "boxes_per_frame": single["boxes_per_frame"],
        "calibration": _calibration(clips, references, predictions),
        "intervals": {**found, **protocol_intervals(per_clip or (), resamples=resamples, seed=seed)},
    }


def protocol_intervals(
    per_clip: Sequence[Mapping[str, Any]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, dict[str, float]]]:
    """
    Intervals of iGround's scores that are means over clips, for every protocol that the rows have: `AP50`, `Recall`, `mIoU`,
    `CIDEr` and `ROUGE_L`, and the first three of the centre frame as `AP50 (center)`. The unit is that of the rows, fractions.
    """
    found = {}
    for protocol in PROTOCOLS:
        center = intervals(per_clip, protocol, "center_frame", resamples=resamples, seed=seed)
        scores = {
            **intervals(per_clip, "captions", protocol, resamples=resamples, seed=seed),
            **intervals(per_clip, protocol, resamples=resamples, seed=seed),
            **{f"{name} (center)": value for name, value in center.items()},
        }
        if scores:
            found[protocol] = scores
    return found


def _counts(clip: PairedPhrases) -> dict[str, float]:
    """What a clip adds to the sums, without its boxes."""
    truth, predicted = clip.truth.presence, clip.predicted.presence
    rows, columns = clip.pairs.T
    annotated, said = truth[rows], predicted[columns]
    frames = int(clip.asked.sum())
    alone = np.delete(truth, rows, axis=0)
    together = clip.asked[1:] & clip.asked[:-1]
    visible = np.asarray(truth.any(axis=1))

    def changes(presence: np.ndarray) -> int:
        return int(((presence[:, 1:] != presence[:, :-1]) & together).sum())

    both, missed = int((annotated & said).sum()), int((annotated & ~said).sum())
    wrong = int((said & ~annotated).sum())
    return {
        "both": both,
        "wrong": wrong,
        "missed": missed,
        "neither": frames * len(rows) - both - wrong - missed,
        "lost": int(alone.sum()),
        "lost_absent": frames * len(alone) - int(alone.sum()),
        "invented": int(np.delete(predicted, columns, axis=0).sum()),
        "phrases": len(truth),
        "visible_phrases": int(visible.sum()),
        "predicted_phrases": len(predicted),
        "pairs": len(rows),
        "visible_pairs": int((visible[rows] & said.any(axis=1)).sum()),
        "tube_iou": float(clip.tube_ious[rows, columns].sum()),
        "changes": changes(truth),
        "predicted_changes": changes(predicted),
        "paired_changes": changes(annotated),
        "paired_predicted_changes": changes(said),
        "frames": frames,
    }


def _ratios(sums: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """The statistics of sums `(..., len(_COUNTS))`, each of shape `(...)`."""
    s = {name: sums[..., n] for n, name in enumerate(_COUNTS)}
    absent = s["wrong"] + s["neither"] + s["lost_absent"]
    present = s["both"] + s["missed"] + s["lost"]
    paired = s["both"], s["wrong"], s["missed"], s["neither"]
    everything = s["both"], s["wrong"] + s["invented"], s["missed"] + s["lost"], s["neither"] + s["lost_absent"]
    return {
        "presence": _presence(*everything),
        "presence_paired": _presence(*paired),
        "truth": {"absent_share": _ratio(absent, absent + present)},
        "tracks": {
            "mean_iou": _ratio(s["tube_iou"], s["visible_phrases"]),
            "mean_iou_paired": _ratio(s["tube_iou"], s["visible_pairs"]),
        },
        "flicker": _against(_ratio(s["changes"], s["phrases"]), _ratio(s["predicted_changes"], s["predicted_phrases"])),
        "flicker_paired": _against(
            _ratio(s["paired_changes"], s["pairs"]), _ratio(s["paired_predicted_changes"], s["pairs"])
        ),
        "boxes_per_frame": _against(_ratio(s["boxes"], s["frames"]), _ratio(s["predicted_boxes"], s["frames"])),
    }


def _presence(both: np.ndarray, wrong: np.ndarray, missed: np.ndarray, neither: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "accuracy": _ratio(both + neither, both + wrong + missed + neither),
        "precision": _ratio(both, both + wrong),
        "recall": _ratio(both, both + missed),
        "f1": _ratio(2 * both, 2 * both + wrong + missed),
    }


def _against(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    return {"truth": truth, "prediction": prediction, "ratio": _ratio(prediction, truth)}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients; NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def _calibration(
    clips: Sequence[PairedPhrases],
    references: Mapping[str, ReferenceClip],
    predictions: Mapping[str, PredictedClip],
) -> dict[str, Any] | None:
    """Calibration over the clips whose predictions have probabilities."""
    confidences, events, in_pair = [], [], []
    for clip in clips:
        prediction = predictions.get(clip.key)
        if prediction is None:
            continue
        objectness = phrase_objectness(references[clip.key], prediction, clip.predicted.phrases)
        if objectness is None:
            continue
        rows, columns = clip.pairs.T
        present = np.zeros(objectness.shape, dtype=bool)
        present[columns] = clip.truth.presence[rows]
        known = ~np.isnan(objectness) & clip.asked
        confidences.append(objectness[known])
        events.append(present[known])
        in_pair.append(np.broadcast_to(np.isin(np.arange(len(present)), columns)[:, None], present.shape)[known])
    if not confidences:
        return None
    confidence, event, paired = (np.concatenate(parts) for parts in (confidences, events, in_pair))
    return {
        **calibration(confidence, event),
        "clips": len(confidences),
        "paired": calibration(confidence[paired], event[paired]),
    }


__all__ = ["caption_statistics", "protocol_intervals"]
