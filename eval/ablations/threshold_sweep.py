"""Every objectness threshold from one run of a model (the paper's Figure 6, to which presence is added).

A prediction keeps the box and the objectness of every phrase in every frame, so a threshold only changes what counts as present.
Under `official` all scores are 1 and the threshold decides AP50; under `corrected` boxes are ranked by their objectness, so that
cutting the least sure ones off can hardly raise it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.command_line import progress
from eval.ablation_tables import markdown_table
from eval.caption_statistics import caption_statistics
from eval.clips import ReferenceClip, predicted_clips, reference_clips
from eval.iground import score_iground
from eval.paper import DEFAULT_THRESHOLD, THRESHOLD
from eval.results import PROTOCOLS
from eval.text_similarity import TextSimilarity
from modeling_grove.grounded_caption import GroundedCaption

# The paper has 0.0 to 0.5.
THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(20))
METRICS = ("AP50", "Recall")
PRESENCE = ("f1", "precision", "recall")


def threshold_sweep(
    references: Sequence[GroundedCaption],
    predictions: Sequence[GroundedCaption],
    similarity: TextSimilarity,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    protocols: Sequence[str] = PROTOCOLS,
) -> list[dict[str, Any]]:
    """
    Scores predictions at every threshold.

    Args:
        references (`Sequence[GroundedCaption]`):
            The annotation.
        predictions (`Sequence[GroundedCaption]`):
            With boxes and objectness of every frame, as `eval run` keeps them.
        similarity ([`TextSimilarity`]):
            Of phrases, for Recall and to pair phrases.
        thresholds (`Sequence[float]`, *optional*):
            A phrase is present where its objectness is above (strictly, as in the original).
        protocols (`Sequence[str]`, *optional*):
            Of "official" and "corrected".

    Returns:
        `list[dict]`: for every threshold `threshold`, `boxes_per_frame`, by protocol AP50 and Recall in percent (`None` where
        no clip has a box left, with which the original crashes), `presence` with F1, precision and recall in percent, over all
        phrases and frames, and `intervals`, under the same names the bounds of the 95 % confidence intervals over clips.

    Raises:
        `ValueError`: if the predictions have no objectness but 0 and 1, or cannot be scored.
    """
    values = {float(value) for clip in predictions for track in clip.tracks for value in track.objectness}
    if values <= {0.0, 1.0}:
        raise ValueError(
            "predictions: objectness is 0 or 1 everywhere, so a threshold changes nothing; expected those of `eval run`, which "
            "keeps the probabilities of all frames"
        )
    truth = reference_clips(references)
    known = [clip for clip in predictions if clip.key in truth]
    if not known:
        raise ValueError(
            f"predictions: none of the {len(predictions)} clips is annotated (such as {predictions[0].key!r}); is it another split?"
        )
    similarity.prepare({track.phrase for clips in (references, known) for clip in clips for track in clip.tracks})
    return [
        _at_threshold(threshold, truth, known, similarity, tuple(protocols))
        for threshold in progress(thresholds, "scoring thresholds", unit="threshold")
    ]


def _at_threshold(
    threshold: float,
    truth: dict[str, ReferenceClip],
    predictions: Sequence[GroundedCaption],
    similarity: TextSimilarity,
    protocols: tuple[str, ...],
) -> dict[str, Any]:
    clips = [clip.with_threshold(threshold) for clip in predictions]
    boxes = sum(int(track.presence.sum()) for clip in clips for track in clip.tracks)
    row: dict[str, Any] = {
        "threshold": threshold,
        "boxes_per_frame": boxes / sum(clip.num_frames for clip in clips),
        **{protocol: dict.fromkeys(METRICS) for protocol in protocols},
    }
    scored = protocols if boxes else tuple(protocol for protocol in protocols if protocol != "official")
    per_clip: list[dict[str, Any]] = []
    answers = predicted_clips(clips, truth)
    if scored:
        result = score_iground(
            truth.values(), answers.values(), protocols=scored, similarity=similarity, frames=("all",), captions=False
        )
        per_clip = result.per_clip
        for protocol in scored:
            if "all" not in result.metrics[protocol]:
                raise ValueError("predictions: some annotated frames are not predicted; expected those of `eval run`")
            means = result.metrics[protocol]["all"]["per_video"]
            row[protocol] = {metric: _percent(means[metric]) for metric in METRICS}
    statistics = caption_statistics(truth, answers, similarity, per_clip=per_clip)
    row["presence"] = {name: _percent(statistics["presence"][name]) for name in PRESENCE}
    names = dict.fromkeys(scored, METRICS) | {"presence": PRESENCE}
    row["intervals"] = {
        group: _bounds(statistics["intervals"].get(group, {}), wanted) for group, wanted in names.items()
    }
    return row


def _bounds(found: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, list[float | None]]:
    return {name: [_percent(found[name]["low"]), _percent(found[name]["high"])] for name in names if name in found}


def _percent(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else 100 * value


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for every threshold: the paper's two numbers, and ours, in percent."""
    protocols = [protocol for protocol in PROTOCOLS if protocol in rows[0]]
    headings = ["threshold"]
    for metric in METRICS:
        headings += [f"{metric}, paper", *protocols]
    headings += ["presence F1", "precision", "recall", "boxes a frame"]
    cells = [headings]
    for row in rows:
        line = [f"{row['threshold']:.2f}"]
        for metric in METRICS:
            known = THRESHOLD.known.values[metric] if row["threshold"] == DEFAULT_THRESHOLD else None
            line += [_text(known), *(_text(row[protocol][metric]) for protocol in protocols)]
        cells.append([*line, *(_text(row["presence"][name]) for name in PRESENCE), f"{row['boxes_per_frame']:.2f}"])
    return markdown_table(cells, left=())


def sweep_notes(rows: Sequence[Mapping[str, Any]], measured_on: str) -> list[str]:
    """What a reader has to know beside the table, and where the best thresholds are."""
    axes = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in THRESHOLD.axes.items())
    best = [
        f"{name} at {place['threshold']:.2f}" for name, path in _curves(rows).items() if (place := _best(rows, path))
    ]
    notes = [
        f"Paper: {THRESHOLD.name} of {THRESHOLD.source}, {THRESHOLD.data}. {THRESHOLD.reading} Its points are not published; its "
        f"axes cover {axes}. The numbers at {DEFAULT_THRESHOLD} are those of the full model in Table 6.",
        f"Ours: {measured_on}; one run of the model, all thresholds.",
        "Presence is counted over all phrases and frames, those of phrases without a counterpart too.",
        "`official` gives all boxes the score 1, so the threshold decides its AP50; `corrected` ranks boxes by objectness.",
    ]
    if best:
        notes.append(f"Highest: {', '.join(best)}.")
    if any(row.get("official", {}).get("AP50", 0) is None for row in rows):
        notes.append("Under `official`, - is where no clip has a box left, with which the original crashes.")
    return notes


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    protocols = [protocol for protocol in PROTOCOLS if protocol in rows[0]]
    return {f"AP50 ({protocol})": (protocol, "AP50") for protocol in protocols} | {"presence F1": ("presence", "f1")}


def _best(rows: Sequence[Mapping[str, Any]], path: tuple[str, str]) -> Mapping[str, Any] | None:
    known = [row for row in rows if row[path[0]][path[1]]]
    return max(known, key=lambda row: row[path[0]][path[1]], default=None)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


__all__ = ["METRICS", "PRESENCE", "THRESHOLDS", "sweep_notes", "sweep_table", "threshold_sweep"]
