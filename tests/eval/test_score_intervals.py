"""Intervals of the scores of a benchmark are of those scores: their mean is the metric."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.record import from_record
from eval.results import BENCHMARKS, PROTOCOLS
from eval.score_formats import ScoreFiles
from eval.score_intervals import score_intervals
from eval.scoring import ScoreOptions, score_files, score_records
from eval.vidstg import score_vidstg
from eval.vidstg_sentences import VidstgPrediction, VidstgReference, read_original_vidstg
from tests.eval.phrase_clips import shapes_noisy, shapes_truth
from tests.eval.tiny_benchmarks import write_benchmark

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
OPTIONS = ScoreOptions(
    text_similarity="head-word",
    captions=False,
    lemmas=f"table:{GOLDEN / 'anet' / 'lemma_table.json'}",
    resamples=20,
)


def check(result, least):
    """Compares every interval with the metric of its name; at least so many have one."""
    for protocol in PROTOCOLS:
        found = result.statistics["intervals"].get(protocol, {})
        metrics = {name: found[name]["mean"] for name in result.headline[protocol] if name in found}
        assert metrics == pytest.approx({name: result.headline[protocol][name] / 100 for name in metrics}, abs=1e-12)
        assert len(metrics) >= least[protocol]
        assert all(found[name]["low"] <= found[name]["mean"] <= found[name]["high"] for name in metrics)


@pytest.mark.parametrize("benchmark", [name for name in BENCHMARKS if name != "iground"])
def test_the_mean_is_the_metric(benchmark, tmp_path):
    folder, _ = write_benchmark(tmp_path, benchmark)
    records = [json.loads(line) for line in folder.read_text().splitlines()]
    captions = [from_record(record) for record in records]
    moved = replace(captions[1], tracks=tuple(replace(t, boxes=t.boxes / 2) for t in captions[1].tracks))
    result = score_records(benchmark, records, [captions[0], moved], OPTIONS)
    least = {"vidstg": (6, 6), "activitynet_entities": (0, 2)}.get(benchmark, (1, 1))
    check(result, dict(zip(PROTOCOLS, least, strict=True)))


def test_of_iground_too():
    result = score_files("iground", ScoreFiles(shapes_truth(), shapes_noisy()), OPTIONS)
    check(result, dict.fromkeys(PROTOCOLS, 4))


def test_recorded_sentences():
    names = ("ground_truth", "predictions")
    files = [json.loads((GOLDEN / "vidstg" / f"{name}.json").read_text()) for name in names]
    result = score_vidstg(*read_original_vidstg(*files))
    result.statistics = score_intervals(result, resamples=20, seed=0)
    check(result, dict.fromkeys(PROTOCOLS, 6))


def test_sentences_that_are_not_scored():
    """One without any annotated box is in no mean of `corrected`; officially one with a NaN leaves msIoU without interval."""
    box = np.array([[10.0, 10.0, 30.0, 30.0]])

    def sentence(key, boxes):
        return VidstgReference(key, "declarative", 25.0, (0, 12), np.array([0]), boxes)

    def answer(key, boxes):
        return VidstgPrediction(key, np.array([0]), (boxes.astype(np.float32),), "declarative")

    result = score_vidstg(
        [sentence("a", box), sentence("b", box * np.nan)],
        [answer("a", box), answer("b", box)],
        protocols=("corrected",),
    )
    found = score_intervals(result, resamples=20, seed=0)["intervals"]["corrected"]
    assert {name: value["mean"] for name, value in found.items()} == {
        name: value / 100 for name, value in result.headline["corrected"].items()
    }
    assert {value["clips"] for value in found.values()} == {1}
    result = score_vidstg([sentence("a", box), sentence("b", box)], [answer("a", box), answer("b", box * np.nan)])
    found = score_intervals(result, resamples=20, seed=0)["intervals"]
    assert [*found["official"]] == ["vIoU@0.3 (declarative)", "vIoU@0.5 (declarative)"]
    assert (
        found["official"]["vIoU@0.3 (declarative)"]["mean"] == found["corrected"]["msIoU (declarative)"]["mean"] == 0.5
    )
