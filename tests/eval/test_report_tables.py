"""The table for people, and the intervals that the other benchmarks have."""

import numpy as np
import pytest

from eval.report_tables import aligned, coverage_line, result_table
from eval.result_files import json_ready
from eval.results import BenchmarkResult, coverage_of
from eval.score_intervals import score_intervals


def result(benchmark="iground", **fields):
    keys = [f"v_{n}" for n in range(8)]
    values = {
        "metrics": {},
        "headline": {"official": {"METEOR": 21.4, "AP50": float("nan")}, "corrected": {"AP50": 40.0}},
        "coverage": coverage_of(keys, {"v_0"}),
    }
    return BenchmarkResult(benchmark, **values | fields)


def test_columns_are_the_protocols():
    intervals = {"corrected": {"AP50": {"mean": 0.4, "low": 0.305, "high": 0.5}}}
    lines = result_table(result(statistics={"intervals": intervals})).splitlines()
    assert lines[0].split() == ["iground", "official", "corrected"]
    assert lines[2].split() == ["METEOR", "21.40", "-"]
    assert lines[3].split(maxsplit=2) == ["AP50", "-", "40.00 [30.5, 50.0]"]


def test_missing_clips_are_named():
    assert coverage_line(result()) == "1 of 8 clips are predicted (12.5 %); missing: v_1, v_2, v_3, v_4, v_5, ..."
    assert coverage_line(result(coverage=coverage_of(["a"], {"a"}))) == "1 of 1 clips are predicted (100.0 %)"


def test_notes_are_there_once():
    metrics = {name: {"caption_notes": ["Java cannot be used"]} for name in ("official", "corrected")}
    assert result_table(result(metrics=metrics)).count("Java cannot be used") == 1


def test_numbers_are_under_one_another():
    text = aligned([["", "official"], ["a", "5.00 [1.0, 2.0]"], ["b", "1234.00"]])
    assert len({line.index(".") for line in text.splitlines()[2:]}) == 1


def test_json_has_no_nan():
    value = json_ready({"a": [1, float("nan"), (float("inf"), 2.5)], "b": {"c": None, "d": True}})
    assert value == {"a": [1, None, [None, 2.5]], "b": {"c": None, "d": True}}


@pytest.fixture
def segments():
    rng = np.random.default_rng(0)
    valid = rng.integers(0, 20, 60)
    return [
        {"key": f"v_{n}", "official": {"accuracy": 0.0, "correct": int(rng.integers(0, v + 1)), "valid": int(v)}}
        for n, v in enumerate(valid)
    ]


def test_interval_of_a_pooled_accuracy(segments):
    answer = result("youcook_interactions", headline={"official": {"accuracy": 0.0}}, per_clip=segments)
    interval = score_intervals(answer, resamples=2000, seed=1)["intervals"]["official"]["accuracy"]
    correct, valid = (np.array([row["official"][name] for row in segments]) for name in ("correct", "valid"))
    assert interval["mean"] == correct.sum() / valid.sum()
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, len(valid), (2000, len(valid)))
    low, high = np.quantile(correct[drawn].sum(1) / valid[drawn].sum(1), [0.025, 0.975])
    assert (interval["low"], interval["high"]) == pytest.approx((low, high), abs=0.01)


def test_intervals_of_questions_apart():
    rows = [
        {"key": f"v_{n}", "official": {"qtype": qtype, "msIoU": value, "vIoU@0.3": 1.0, "vIoU@0.5": 0.0}}
        for n, (qtype, value) in enumerate([("declarative", 0.2), ("declarative", 0.4), ("interrogative", 0.9)])
    ]
    means = {
        "declarative": {"msIoU": 0.3, "vIoU@0.3": 1.0, "vIoU@0.5": 0.0},
        "interrogative": {"msIoU": 0.9, "vIoU@0.3": float("nan"), "vIoU@0.5": 0.0},
    }
    answer = result("vidstg", headline={"official": {}}, metrics={"official": means}, per_clip=rows)
    found = score_intervals(answer, resamples=200, seed=0)["intervals"]["official"]
    assert "vIoU@0.3 (declarative)" in found and "vIoU@0.3 (interrogative)" not in found  # its mean is NaN
    assert found["msIoU (declarative)"]["mean"] == pytest.approx(0.3)
    assert (found["msIoU (declarative)"]["low"], found["msIoU (declarative)"]["high"]) == pytest.approx((0.2, 0.4))
    assert found["msIoU (interrogative)"]["low"] == found["msIoU (interrogative)"]["high"] == pytest.approx(0.9)
