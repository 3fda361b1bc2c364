"""How sure a score is: percentile bootstrap over clips (Efron 1979), for scores that are means or ratios of sums over clips.

A benchmark's clips are a sample of the videos that a model may meet; drawing as many of them again, with replacement, many times
shows how far the score would be from this one with another sample. METEOR and BLEU are computed on the counts of the whole corpus
and are no means over clips, so they have no interval here. CIDEr's document frequencies stay those of all the clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .per_clip import value_at

# The scores of benchmarks that are means over clips.
MEAN_METRICS = ("AP50", "Recall", "mIoU", "CIDEr", "ROUGE_L", "msIoU", "vIoU@0.3", "vIoU@0.5")

_NUMBERS_AT_ONCE = 1 << 22  # of drawn clips in memory


def resampled_sums(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """
    Sums over clips that are drawn again.

    Args:
        values (`np.ndarray`): `(N, K)`, K numbers of every clip.
        resamples (`int`, *optional*, defaults to 1000): R, how often to draw N of the N clips.
        seed (`int`, *optional*, defaults to 0): Decides the draws, which all K columns share.

    Returns:
        `np.ndarray`: `(R, K)` float64.

    Raises:
        `ValueError`: if there is no clip or `resamples` is not positive.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values: expected a row for every clip, at least one; got shape {values.shape}")
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    rng, count = np.random.default_rng(seed), len(values)
    at_once = max(1, _NUMBERS_AT_ONCE // count)
    sums = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times_drawn = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums.append(times_drawn @ values)
    return np.concatenate(sums)


def interval(samples: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """
    The middle part of resampled scores `(R,)`: `low` and `high`. NaN (a resample without anything to score) does not count.

    Raises:
        `ValueError`: if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share between 0 and 1, got {level}")
    known = samples[~np.isnan(samples)]
    if not len(known):
        return {"low": float("nan"), "high": float("nan")}
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return {"low": low, "high": high}


def intervals(
    per_clip: Sequence[Mapping[str, Any]],
    *path: str,
    metrics: Iterable[str] = MEAN_METRICS,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, float]]:
    """
    Confidence intervals of the scores that are means over clips.

    Args:
        per_clip (`Sequence[Mapping]`):
            Rows of a [`BenchmarkResult`], each with the scores of a clip.
        path (`str`):
            Where the scores are in a row: `intervals(rows, "corrected")`, `intervals(rows, "official", "center_frame")`.
        metrics (`Iterable[str]`, *optional*):
            Names of scores to look for; those that no row has are left out.
        resamples (`int`, *optional*, defaults to 1000), seed (`int`, *optional*, defaults to 0):
            As for [`resampled_sums`].
        level (`float`, *optional*, defaults to 0.95):
            Share of the resampled means inside the interval.

    Returns:
        `dict[str, dict[str, float]]`: for every metric `mean`, `low` and `high` in the unit of the rows, and `clips`, the number
        of them that have it: a clip without the metric, or with NaN, is not in its mean.

    Raises:
        `ValueError`: if an option is out of range.
    """
    names = list(metrics)
    values = np.array([[value_at(row, (*path, name)) for name in names] for row in per_clip], dtype=np.float64)
    values = values.reshape(len(per_clip), len(names))
    known = ~np.isnan(values)
    if not known.any():
        return {}
    columns = np.concatenate([np.where(known, values, 0.0), known], axis=1)
    sums = resampled_sums(columns, resamples, seed)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a resample has no clip with the metric
        means = sums[:, : len(names)] / sums[:, len(names) :]
    return {
        name: {
            "mean": float(values[known[:, n], n].mean()),
            **interval(means[:, n], level),
            "clips": int(known[:, n].sum()),
        }
        for n, name in enumerate(names)
        if known[:, n].any()
    }


__all__ = ["MEAN_METRICS", "interval", "intervals", "resampled_sums"]
