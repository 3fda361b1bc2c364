"""Intervals of the scores of the benchmarks that have one phrase or given objects; those of iGround are in `caption_statistics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .bootstrap import interval, intervals, resampled_sums
from .per_clip import value_at
from .results import BenchmarkResult
from .vidstg import METRICS

_SENTENCE_METRICS = ("F1_all_per_sent", "F1_loc_per_sent")


def score_intervals(result: BenchmarkResult, *, resamples: int, seed: int) -> dict[str, Any]:
    """
    95 % intervals of the headline of the other benchmarks, under its names and as fractions: of the means over sentences, and of
    the pooled pointing accuracy. The other scores of ActivityNet-Entities are means over classes, whose clips overlap, and have
    none.
    """
    options = {"resamples": resamples, "seed": seed}
    found: dict[str, Any] = {}
    for protocol in result.headline:
        if result.benchmark == "vidstg":
            found[protocol] = _by_question_type(result, protocol, **options)
        elif result.benchmark == "activitynet_entities":
            # The official mean over sentences also counts segments that nobody annotated.
            metrics = _SENTENCE_METRICS if protocol == "corrected" else ()
            found[protocol] = intervals(result.per_clip, protocol, metrics=metrics, **options) if metrics else {}
        else:
            found[protocol] = {"accuracy": _pooled(result.per_clip, protocol, **options)}
    return {"intervals": {protocol: scores for protocol, scores in found.items() if scores}}


def _by_question_type(result: BenchmarkResult, protocol: str, **options: int) -> dict[str, dict[str, float]]:
    """A mean that is NaN, as one sentence makes it officially, has none."""
    rows, means = result.per_clip, result.metrics[protocol]
    found: dict[str, dict[str, float]] = {}
    for qtype in sorted({row[protocol]["qtype"] for row in rows}):
        of_type = [row for row in rows if row[protocol]["qtype"] == qtype]
        metrics = [name for name in METRICS if qtype in means and not np.isnan(means[qtype][name])]
        values = intervals(of_type, protocol, metrics=metrics, **options) if metrics else {}
        found.update({f"{name} ({qtype})": value for name, value in values.items()})
    return found


def _pooled(rows: Sequence[Mapping[str, Any]], protocol: str, **options: int) -> dict[str, float]:
    """The interval of correct by valid frames, over segments."""
    counts = np.array([[value_at(row, (protocol, name)) for name in ("correct", "valid")] for row in rows])
    correct, valid = resampled_sums(counts, **options).T
    shares = np.divide(correct, valid, out=np.full(len(valid), np.nan), where=valid > 0)
    total = counts.sum(axis=0)
    mean = float(total[0] / total[1]) if total[1] else float("nan")
    return {"mean": mean, **interval(shares), "clips": len(rows)}


__all__ = ["score_intervals"]
