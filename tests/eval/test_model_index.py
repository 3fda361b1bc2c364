"""Entries of cards: the paper's numbers under the names that the Hub reads."""

import math
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from eval.model_index import eval_result_entries, eval_results, model_index, write_model_index

RESULTS: dict[str, Any] = {
    "benchmark": "iground",
    "headline": {"official": {"AP50": 40.0, "METEOR": None}, "corrected": {"AP50": 31.23456, "METEOR": math.nan}},
    "model": {"name": "org/grove", "revision": "0" * 40, "fingerprint": None},
    "data": {"name": "org/iGround", "hub_id": "org/iGround", "revision": "f" * 40, "config": "raw", "split": "val"},
    "time": "2026-11-22T12:00:00+00:00",
}
LOCAL = {**RESULTS, "data": {**RESULTS["data"], "name": "my clips.jsonl", "hub_id": None, "revision": None}}


def test_values_survive_the_card(tmp_path):
    card_data = ModelCardData(model_name="org/grove", eval_results=eval_results(RESULTS))
    card = ModelCard.from_template(card_data, template_str="---\n{{ card_data }}\n---\n# GROVE")
    card.save(tmp_path / "README.md")
    found = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert [(e.metric_name, e.metric_value) for e in found] == [
        ("AP50 (official protocol)", 40.0),
        ("AP50 (corrected protocol)", 31.2346),
    ]
    assert (found[0].dataset_type, found[0].dataset_revision, found[0].dataset_split) == (
        "org/iGround",
        "f" * 40,
        "val",
    )


def test_files(tmp_path):
    index, entries = write_model_index(RESULTS, tmp_path)
    assert entries == tmp_path / ".eval_results" / "iground.yaml"
    name, read = model_index_to_eval_results(yaml.safe_load(index.read_text())["model-index"])
    assert name == "org/grove" and read == eval_results(RESULTS)
    assert yaml.safe_load(entries.read_text())[0] == {
        "dataset": {"id": "org/iGround", "task_id": "iground_ap50_official", "revision": "f" * 40},
        "value": 40.0,
        "date": "2026-11-22T12:00:00+00:00",
        "notes": "AP50 of iground, split val, official protocol",
    }


def test_data_from_elsewhere_has_no_leaderboard(tmp_path):
    assert eval_result_entries(LOCAL) == []
    assert write_model_index(LOCAL, tmp_path) == [tmp_path / "model_index.yml"]
    assert model_index(LOCAL)[0]["results"][0]["dataset"] == {
        "name": "my clips.jsonl", "type": "my-clips.jsonl", "config": "raw", "split": "val",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"), [({"model": None}, "model: expected"), ({"benchmark": "x"}, "benchmark: e")]
)
def test_what_is_no_result_of_a_run_says_so(change, message):
    with pytest.raises(ValueError, match=message):
        model_index({**RESULTS, **change})
