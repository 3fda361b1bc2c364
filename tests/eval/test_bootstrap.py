"""Confidence intervals: what a resample is, agreement with scipy's bootstrap, and clips without a score."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from eval import bootstrap
from eval.bootstrap import interval, intervals, resampled_sums


def rows_of(values: list[float | None], name: str = "AP50") -> list[dict]:
    return [{"key": f"clip_{n}", "official": {name: value}} for n, value in enumerate(values)]


def test_a_resample_draws_as_many_clips_as_there_are():
    times_drawn = resampled_sums(np.eye(6), resamples=500, seed=3)
    assert times_drawn.shape == (500, 6)
    assert (times_drawn.sum(axis=1) == 6).all() and (times_drawn == times_drawn.round()).all()
    # Each clip is drawn once on average; the standard error of this mean is 0.04.
    np.testing.assert_allclose(times_drawn.mean(axis=0), 1, atol=0.15)


def test_two_clips_give_the_binomial_distribution():
    sums = resampled_sums(np.array([[0.0], [1.0]]), resamples=20_000)[:, 0]
    shares = [float((sums == value).mean()) for value in (0, 1, 2)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.02)


def test_resamples_come_in_pieces_that_fit_the_memory(monkeypatch):
    values = np.eye(7)
    monkeypatch.setattr(bootstrap, "_NUMBERS_AT_ONCE", 30)  # four resamples at once
    pieces = resampled_sums(values, resamples=10, seed=1)
    assert pieces.shape == (10, 7) and (pieces.sum(axis=1) == 7).all()
    assert len(np.unique(pieces, axis=0)) > 5  # each piece has draws of its own
    np.testing.assert_array_equal(pieces, resampled_sums(values, resamples=10, seed=1))


def test_scipy_finds_the_same_interval():
    values = np.random.default_rng(5).beta(2, 3, size=120)
    ours = intervals(rows_of(values.tolist()), "official", resamples=20_000)["AP50"]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert ours["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert ours["low"] == pytest.approx(theirs.low, abs=2e-3)
    assert ours["high"] == pytest.approx(theirs.high, abs=2e-3)
    # Known from theory too: the mean plus and minus 1.96 standard errors.
    error = values.std() / math.sqrt(len(values))
    assert ours["high"] - ours["low"] == pytest.approx(2 * 1.96 * error, rel=0.05)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(0, 2**32))
def test_the_interval_lies_among_the_values(values, seed):
    found = intervals(rows_of(values), "official", resamples=50, seed=seed)["AP50"]
    assert min(values) - 1e-12 <= found["low"] <= found["high"] <= max(values) + 1e-12
    assert found["mean"] == pytest.approx(float(np.mean(values)), abs=1e-12)


def test_equal_clips_leave_no_doubt():
    found = intervals(rows_of([0.25] * 9), "official")["AP50"]
    assert found == {"mean": 0.25, "low": 0.25, "high": 0.25, "clips": 9}


def test_clips_without_the_score_are_left_out():
    rows = [*rows_of([0.0, 1.0, math.nan, None]), {"key": "dropped"}]
    found = intervals(rows, "official", resamples=200)
    assert list(found) == ["AP50"]  # and no Recall, which no row has
    assert (found["AP50"]["mean"], found["AP50"]["clips"]) == (0.5, 2)
    assert (found["AP50"]["low"], found["AP50"]["high"]) == (0.0, 1.0)


def test_metrics_are_found_at_their_path():
    rows = [{"key": "a", "captions": {"official": {"CIDEr": 1.5, "METEOR": 0.2}}, "official": {"AP50": 0.5}}]
    assert list(intervals(rows, "captions", "official")) == ["CIDEr"]  # METEOR is no mean over clips
    assert list(intervals(rows, "official")) == ["AP50"]
    assert intervals(rows, "official", metrics=["AP50"])["AP50"]["high"] == 0.5
    assert intervals(rows, "corrected") == {} and intervals([], "official") == {}


def test_metrics_share_their_resamples():
    rows = [{"key": str(n), "p": {"AP50": n / 10, "Recall": 1 - n / 10}} for n in range(11)]
    found = intervals(rows, "p")
    assert found["AP50"]["low"] == pytest.approx(1 - found["Recall"]["high"])


def test_more_clips_narrow_the_interval_and_the_seed_decides():
    values = np.random.default_rng(0).random(40).tolist()
    few, many = (intervals(rows_of(values * n), "official", resamples=2000)["AP50"] for n in (1, 9))
    assert few["mean"] == pytest.approx(many["mean"])
    assert (few["high"] - few["low"]) / (many["high"] - many["low"]) == pytest.approx(3, rel=0.1)
    assert intervals(rows_of(values), "official", resamples=2000)["AP50"] == few
    assert intervals(rows_of(values), "official", resamples=2000, seed=1)["AP50"] != few


def test_nothing_known_has_no_interval():
    assert math.isnan(interval(np.full(3, np.nan))["low"])


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="resamples: expected at least 1, got 0"):
        intervals(rows_of([1.0]), "official", resamples=0)
    with pytest.raises(ValueError, match="level: expected a share between 0 and 1, got 95"):
        intervals(rows_of([1.0]), "official", level=95)
    with pytest.raises(ValueError, match="at least one; got shape"):
        resampled_sums(np.zeros((0, 2)))
