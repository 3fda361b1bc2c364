"""Every recorded number of the original's evaluation of ActivityNet-Entities, through the command line."""

import re
from collections import defaultdict

import pytest

from .score_command import GOLDEN, LEMMAS, cases, golden, refused, same, score, write_case

FOLDER = GOLDEN / "anet"
OPTIONS = ("--split-file", FOLDER / "split.json", "--lemmas", LEMMAS, "--protocol", "official")


@pytest.fixture(scope="module")
def expected():
    return golden("anet", "expected.json")


@pytest.fixture(scope="module")
def generated():
    return score("activitynet_entities", FOLDER / "ground_truth.json", FOLDER / "predictions.json", *OPTIONS)


@pytest.mark.parametrize("loc_mode", ["all", "loc"])
def test_scores(loc_mode, generated, expected):
    metrics = generated.result["metrics"]["official"]["generated"]
    for name, value in expected[f"gen_{loc_mode}"]["scores"].items():
        assert same(metrics[name], value), name
    assert metrics["vocab_in_split"] == expected[f"gen_{loc_mode}"]["vocab_in_split"]


def test_headline_is_the_paper_row_in_percent(generated, expected):
    headline = generated.result["headline"]["official"]
    assert headline.keys() == expected["paper_metrics"].keys()
    assert all(same(headline[name], 100 * value, 1e-7) for name, value in expected["paper_metrics"].items())


@pytest.mark.parametrize("loc_mode", ["all", "loc"])
@pytest.mark.parametrize("kind", ["precision", "recall"])
def test_every_decision(kind, loc_mode, generated, expected):
    recorded = expected[f"gen_{loc_mode}"]
    by_class, by_sentence = defaultdict(list), {}
    for row in generated.result["per_clip"]:
        decisions = row["official"][loc_mode][kind]
        # The original's keys have nothing between video and segment.
        by_sentence["".join(row["key"].rsplit("_", 1))] = [right for _, right in decisions]
        for name, right in decisions:
            by_class[name].append(right)
    # The words of a sentence come in the order of a set in the original, so only how many are right can be compared.
    assert _sorted(by_class) == _sorted(recorded[f"{kind}_hits_per_class"])
    assert _sorted(by_sentence) == _sorted(recorded[f"{kind}_hits_per_sentence"])
    assert recorded[f"{kind}_hits_per_sentence"].keys() <= by_sentence.keys()


def _sorted(hits):
    """Decisions in an order of their own, of what has any."""
    return {key: sorted(values) for key, values in hits.items() if values}


@pytest.mark.parametrize("loc_mode", ["all", "loc"])
def test_counts_by_class(loc_mode, generated, expected):
    classes = generated.result["metrics"]["official"]["generated"]["classes"]
    for kind in ("precision", "recall"):
        recorded = {n: [sum(h), len(h)] for n, h in expected[f"gen_{loc_mode}"][f"{kind}_hits_per_class"].items() if h}
        ours = {n: c[loc_mode][kind] for n, c in classes.items() if c.get(loc_mode, {}).get(kind, [0, 0])[1]}
        assert ours == recorded


def test_sentences_that_are_given(expected):
    files = FOLDER / "ground_truth.json", FOLDER / "predictions_gt_sentences.json"
    scored = score("activitynet_entities", *files, *OPTIONS, "--mode", "gt")
    metrics = scored.result["metrics"]["official"]["gt"]
    assert same(metrics["grounding_accuracy"], expected["gt_mode"]["grounding_accuracy"])
    recorded = expected["gt_mode"]["per_class_count_and_accuracy_4dp"]
    assert metrics["classes"].keys() == recorded.keys()
    for name, (right, number) in metrics["classes"].items():
        assert [number, round(right / number, 4)] == recorded[name], name


@pytest.mark.parametrize("case", cases("anet"))
def test_edge_case(case, tmp_path):
    truth, predictions, split = write_case(tmp_path, case, "ground_truth", "predictions", "split")
    options = ("--split-file", split, "--lemmas", LEMMAS, "--protocol", "official")
    scored = score("activitynet_entities", truth, predictions, *options)
    if "error" in case["expected"]["all"]:
        assert re.search(r"clip 'v_a_0': (clss|bbox_for_all_frames)", refused(scored))
        return
    metrics = scored.result["metrics"]["official"]["generated"]
    recorded = case["expected"]["all"] | case["expected"]["loc"]
    assert {name for name in metrics if name in recorded} == recorded.keys()
    assert all(same(metrics[name], value) for name, value in recorded.items()), metrics
