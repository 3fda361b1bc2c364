"""Options of scoring: refused where a benchmark has none, and what results say about them."""

import argparse

import pytest

from eval.results import BENCHMARKS
from eval.score_arguments import add_score_arguments, check_device, check_score_arguments, options_of, run_settings
from eval.scoring import ScoreOptions

from .score_command import LEMMAS, TINY_BERT

IGROUND = [
    ["--text-similarity", "sentence"],
    ["--text-model", "org/name"],
    ["--no-captions"],
    ["--coco-stats"],
    ["--merge-instances"],
]
ACTIVITYNET = [["--lemmas", "table:x.json"], ["--mode", "gt"]]


def parsed(benchmark, *words):
    parser = argparse.ArgumentParser()
    add_score_arguments(parser.add_argument_group("scores"))
    parser.set_defaults(benchmark=benchmark, device=None, split=None)
    return parser.parse_args(words)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("words", [*IGROUND, *ACTIVITYNET], ids=" ".join)
def test_options_of_other_benchmarks_are_refused(benchmark, words):
    owner = "iground" if words in IGROUND else "activitynet_entities"
    args = parsed(benchmark, *words)
    if benchmark == owner:
        check_score_arguments(args)
    else:
        with pytest.raises(ValueError, match=f"^{words[0]}: is for {owner} alone, got {benchmark}; leave it out$"):
            check_score_arguments(args)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_options_of_all_benchmarks_are_taken(benchmark):
    args = parsed(benchmark, "--protocol", "official", "--no-statistics")
    check_score_arguments(args)
    assert options_of(args) == ScoreOptions(protocols=("official",), statistics=False)
    assert options_of(parsed(benchmark)) == ScoreOptions()


def test_the_rule_has_no_model():
    with pytest.raises(ValueError, match="^--text-model: head-word has no model"):
        check_score_arguments(parsed("iground", "--text-similarity", "head-word", "--text-model", "org/name"))


@pytest.mark.parametrize("device", ["foo", "cuda:77", "meta", "cpu:", "mps"])
def test_devices_that_are_not_there(device):
    with pytest.raises(
        ValueError, match=f"^--device: got '{device}'; expected one that this machine has: cpu"
    ) as error:
        check_device(device)
    assert len(str(error.value)) < 200
    check_device("cpu")


class TestSettings:
    def test_only_those_of_the_benchmark(self):
        known = {benchmark: {*run_settings(benchmark, ScoreOptions())} for benchmark in BENCHMARKS}
        everywhere = {"statistics", "resamples"}
        assert known["iground"] == everywhere | {
            *("text_similarity", "text_model", "captions", "coco_stats", "merge_instances")
        }
        assert known["activitynet_entities"] == everywhere | {"lemmas", "mode"}
        assert all(
            known[benchmark] == everywhere for benchmark in set(BENCHMARKS) - {"iground", "activitynet_entities"}
        )

    def test_no_folders_of_this_machine(self, monkeypatch):
        settings = run_settings("iground", ScoreOptions(text_model=str(TINY_BERT)))
        assert settings["text_model"] == TINY_BERT.name
        monkeypatch.chdir(TINY_BERT)
        assert run_settings("iground", ScoreOptions(text_model="."))["text_model"] == TINY_BERT.name
        assert run_settings("activitynet_entities", ScoreOptions(lemmas=LEMMAS))["lemmas"] == "table:lemma_table.json"

    def test_names_of_the_hub_are_whole(self):
        assert run_settings("iground", ScoreOptions(text_model="org/name"))["text_model"] == "org/name"
        assert run_settings("iground", ScoreOptions())["text_model"] == "bert-base-uncased"
        assert run_settings("iground", ScoreOptions(text_similarity="head-word"))["text_model"] is None

    def test_what_has_no_effect_is_left_out(self):
        assert run_settings("activitynet_entities", ScoreOptions(mode="gt", statistics=False)) == {
            "mode": "gt",
            "statistics": False,
        }
