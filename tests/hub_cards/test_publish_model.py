"""Models on the local Hub: what goes there, what is refused and why, and what is there already."""

import json
import shutil

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file

from eval.provenance import describe_model
from hub_cards.__main__ import main
from tests.hub_cards.publishing import DEMO, change_json, copy_of, publish, results_of


@pytest.fixture
def model(tmp_path):
    """A folder with the demo model, to be spoilt."""
    return copy_of(DEMO, tmp_path / "model")


def test_a_dry_run_checks_and_lists_and_sends_nothing(hub_repo, capsys):
    name = hub_repo(create=False)
    assert publish("model", DEMO, "--repo", name, "--license", "apache-2.0", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"]["model.safetensors"] == (DEMO / "model.safetensors").stat().st_size
    assert told["bytes"] == sum(told["files"].values()) and "README.md" in told["files"]
    assert "a forward pass gives finite boxes" in told["checks"]
    assert not HfApi().repo_exists(name)


def test_a_model_is_published_once_with_its_code_its_card_and_a_tag(model, hub_repo, capsys):
    name = hub_repo(create=False)
    (model / "optimizer.pt").write_bytes(b"state of the Trainer")
    (model / "trainer_state.json").write_text('{"path": "/home/somebody/run"}')
    command = ["model", model, "--repo", name, "--license", "apache-2.0", "--private", "--tag", "v1.0", "--json"]

    assert publish(*command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sent"] == len(told["files"]) and told["unchanged"] == 0
    assert set(told["left_out"]) == {"optimizer.pt", "trainer_state.json"}
    files = set(HfApi().list_repo_files(name, revision="v1.0"))
    assert files == {*told["files"], ".gitattributes"} and "modeling_grove.py" in files
    assert HfApi().model_info(name).private
    card = ModelCard.load(name)
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "video-text-to-text")
    card.validate()

    assert publish(*command) == 0  # nothing has changed, and the tag is where it was
    told = json.loads(capsys.readouterr().out)
    assert told["sent"] == 0 and len(HfApi().list_repo_commits(name)) == 2
    change_json(model / "generation_config.json", max_new_tokens=12)
    assert publish(*command) == 2
    assert "--tag: v1.0 is there already" in capsys.readouterr().err
    assert publish(*command[:-2], "v1.1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 2  # that file, and the card, which says which files it is of


def test_a_card_that_somebody_wrote_stays(model, hub_repo, capsys):
    name = hub_repo(create=False)
    command = ["model", model, "--repo", name, "--license", "apache-2.0", "--without-forward"]
    assert publish(*command) == 0
    HfApi().upload_file(
        path_or_fileobj=b"---\nlicense: apache-2.0\n---\nMy words.\n", path_in_repo="README.md", repo_id=name
    )
    assert publish(*command) == 2
    assert "its card was changed on the Hub" in capsys.readouterr().err

    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\nMy words, [More Information Needed].\n")
    assert publish(*command) == 2
    assert "README.md, line 4: '[More Information Needed]' was left to be filled in" in capsys.readouterr().err
    (model / "README.md").write_text("---\nlicense: mit\n---\nMy words.\n")
    assert publish(*command) == 2
    assert "license: mit, but --license says apache-2.0" in capsys.readouterr().err
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\nMy words.\n")
    assert publish(*command) == 0
    assert ModelCard.load(name).text.strip() == "My words."
    assert publish(*command, "--new-card") == 0
    assert "## Limits and biases" in ModelCard.load(name).text


def test_results_go_into_the_card_and_only_those_of_this_model(model, hub_repo, tmp_path, capsys):
    name = hub_repo(create=False)
    file = tmp_path / "results.json"
    command = ["model", model, "--repo", name, "--license", "apache-2.0", "--without-forward"]
    file.write_text(json.dumps(results_of("0" * 32)))
    assert publish(*command, "--results", file) == 2
    assert "results of 'grove-demo' with fingerprint 000" in capsys.readouterr().err

    file.write_text(json.dumps(results_of(describe_model(str(model))["fingerprint"])))
    assert publish(*command, "--results", file) == 0
    card = ModelCard.load(name)
    assert "| corrected | 23.4 | 3.2 |" in card.text or "| corrected | 23.5 | 3.2 |" in card.text
    found = {(e.metric_name, e.dataset_type, e.metric_value) for e in card.data.eval_results}
    assert ("AP50 (official protocol)", "org/clips", 12.34) in found and len(found) == 3
    assert {"results/iground_org-clips_test.json", ".eval_results/iground.yaml"} <= set(HfApi().list_repo_files(name))

    assert publish(*command) == 0  # the same weights keep their results
    assert len(ModelCard.load(name).data.eval_results) == 3
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert publish(*command) == 0  # and those of other weights go
    assert ModelCard.load(name).data.eval_results is None
    assert not [f for f in HfApi().list_repo_files(name) if "results/" in f]


def test_results_are_added_to_a_published_model_by_command(hub_repo, tmp_path, capsys):
    name = hub_repo(create=False)
    assert publish("model", DEMO, "--repo", name, "--license", "apache-2.0", "--without-forward") == 0
    commit = HfApi().model_info(name).sha
    by_name = results_of(None, name) | {"model": {"name": name, "revision": commit, "fingerprint": None}}
    by_folder = results_of(describe_model(str(DEMO))["fingerprint"], benchmark="vidstg")
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, result in zip(files, (by_name, by_folder), strict=True):
        file.write_text(json.dumps(result))
    capsys.readouterr()

    assert main(["results", str(files[0]), "--repo", name, "--dry-run"]) == 0
    assert "Benchmark `iground` on org/clips, split test" in capsys.readouterr().out
    assert ModelCard.load(name).data.eval_results is None
    for file in files:
        assert main(["results", str(file), "--repo", name]) == 0
    card = ModelCard.load(name)
    assert len(card.data.eval_results) == 6 and card.text.count("<!-- results -->") == 1
    assert card.text.index("`iground` on org/clips") < card.text.index("`vidstg` on org/clips")
    assert publish("model", DEMO, "--repo", name, "--license", "apache-2.0", "--without-forward") == 0
    assert len(ModelCard.load(name).data.eval_results) == 6

    capsys.readouterr()
    files[0].write_text(json.dumps(by_name | {"model": {"name": "org/another", "revision": commit}}))
    assert main(["results", str(files[0]), "--repo", name]) == 2
    assert f"results of 'org/another'; expected those of {name!r}" in capsys.readouterr().err
    files[0].write_text("{}")
    assert main(["results", str(files[0]), "--repo", name]) == 2
    assert "expected the results.json of `python -m eval run`" in capsys.readouterr().err
    assert main(["results", str(files[1]), "--repo", "org/none"]) == 2
    assert "no published model with a card at 'org/none'" in capsys.readouterr().err


def refused(model, hub_repo, capsys, *options: object) -> str:
    """Why a model is not published, in one line; nothing is there afterwards."""
    name = hub_repo(create=False)
    assert publish("model", model, "--repo", name, *(options or ("--license", "apache-2.0"))) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and not HfApi().repo_exists(name)
    return said[0]


def test_weights_that_are_pickled_missing_or_broken_are_refused(model, hub_repo, capsys):
    torch.save({}, model / "pytorch_model.bin")
    assert "pytorch_model.bin: pickled weights run code" in refused(model, hub_repo, capsys)
    (model / "pytorch_model.bin").unlink()

    weights = load_file(model / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if k != "lm_head.weight"}, model / "model.safetensors", {"format": "pt"}
    )
    assert "missing keys in the weights, such as 'lm_head.weight'" in refused(model, hub_repo, capsys)
    weights["lm_head.weight"][:] = torch.nan
    weights["model.language_model.norm.weight"][:] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "boxes that are not finite" in refused(model, hub_repo, capsys)
    (model / "model.safetensors").write_bytes((DEMO / "model.safetensors").read_bytes()[:1000])
    assert "no whole safetensors file" in refused(model, hub_repo, capsys)
    (model / "model.safetensors").unlink()
    assert "no weights; expected *.safetensors" in refused(model, hub_repo, capsys)
    shutil.rmtree(model)
    assert "no such folder" in refused(model, hub_repo, capsys)


def test_a_tokenizer_of_another_model_is_refused(model, hub_repo, capsys):
    config = json.loads((model / "config.json").read_text())
    swapped = {"det_token_id": config["phrase_end_token_id"], "phrase_end_token_id": config["det_token_id"]}
    change_json(model / "config.json", **swapped)
    assert f"gives </p> the id {config['phrase_end_token_id']}" in refused(model, hub_repo, capsys)
    change_json(model / "config.json", **config | {"video_start_token_id": config["det_token_id"]})
    assert "cannot be loaded: Class validation error" in refused(model, hub_repo, capsys)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        tokenizer["added_tokens"][-1] | {"id": config["video_token_id"] + 1, "content": "<new>"}
    )
    change_json(model / "tokenizer.json", **tokenizer)
    change_json(model / "config.json", **json.loads((DEMO / "config.json").read_text()))
    assert "1 tokens of the tokenizer have no row in the" in refused(model, hub_repo, capsys)
    change_json(model / "config.json", model_type="llama")
    assert "model_type: expected 'grove', got 'llama'" in refused(model, hub_repo, capsys)


def test_what_only_this_machine_should_know_is_refused(model, hub_repo, capsys):
    change_json(model / "generation_config.json", note="/home/somebody/run")
    assert "generation_config.json, line 1: a path of a machine ('/home/somebody')" in refused(model, hub_repo, capsys)
    change_json(model / "generation_config.json", note="see https://example.org/data/home/x")
    change_json(model / "tokenizer_config.json", auth="hf_" + "a1B2c3" * 6)
    told = refused(model, hub_repo, capsys)
    assert "tokenizer_config.json, line 1: an access token or key" in told and "a1B2c3" not in told


def test_a_licence_that_the_sources_do_not_allow_is_refused(model, hub_repo, capsys):
    assert "no licence: give --license" in refused(model, hub_repo, capsys, "--without-forward")
    told = refused(model, hub_repo, capsys, "--license", "mit", "--dataset", "ekazakos/HowToGround1M")
    assert "made of 'ekazakos/HowToGround1M', which is under cc-by-nc-sa-4.0" in told
    told = refused(model, hub_repo, capsys, "--license", "apache-2.0", "--base-model", "org/nobody-knows-it")
    assert "no card on the Hub says the licence of 'org/nobody-knows-it'; give it as --license-of" in told
    # Converted research weights give themselves away.
    change_json(model / "config.json", freeze_vision_adapters=True)
    assert "made of 'ekazakos/grove'" in refused(model, hub_repo, capsys, "--license", "apache-2.0")


def test_the_licence_follows_through_models_that_were_published(model, hub_repo, capsys):
    """Nobody has to say it, and nobody can say another one."""
    first, second = hub_repo(create=False), hub_repo(create=False)
    options = ["--without-forward"]
    assert publish("model", model, "--repo", first, "--dataset", "ekazakos/iGround", *options) == 0
    assert ModelCard.load(first).data.license == "cc-by-nc-sa-4.0"
    assert "made of " in refused(model, hub_repo, capsys, "--license", "mit", "--base-model", first)
    assert publish("model", model, "--repo", second, "--base-model", first, *options) == 0
    card = ModelCard.load(second)
    assert (card.data.license, card.data.base_model) == ("cc-by-nc-sa-4.0", [first])
    assert "| ekazakos/iGround | cc-by-nc-sa-4.0 |" in card.text and "instructional videos" in card.text


def test_without_a_hub_the_error_is_one_line(model, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    command = ["model", model, "--repo", "org/x", "--license", "apache-2.0", "--without-forward"]
    assert publish(*command) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "the Hub cannot be used: " in said[0]


def test_the_folder_of_a_training_run_says_how_it_was_trained(model, hub_repo, capsys):
    name = hub_repo(create=False)
    settings = {
        "start": {"name": "start", "revision": None}, "learning_rate": 5e-5, "lr_scheduler_type": "SchedulerType.LINEAR",
        "warmup_steps": 100, "bf16": True, "fp16": False, "seed": 7, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4, "processes": 8,
    }  # fmt: skip
    run = {
        "stage": "ft", "settings": settings, "steps": 1500, "data_names": ["shards"],
        "metrics": {"eval_loss": 0.51234, "eval_runtime": 3.0, "step": 1500},
        "groups": [{"parameters": 2000, "trained": 1000}, {"parameters": 500, "trained": 0}],
    }  # fmt: skip
    (model / "results.json").write_text(json.dumps(run))
    assert publish("model", model, "--repo", name, "--license", "mit", "--without-forward") == 0
    text = ModelCard.load(name).text
    for row in (
        "| started from | `start` |",
        "| steps | 1,500 of 64 clips |",
        "| learning rate | 5e-05, linear, 100 warm-up |",
        "| parameters | 2,500, 1,000 trained |",
        "| precision | bfloat16 |",
        "| loss | 0.512 |",
    ):
        assert row in text
    assert "runtime" not in text and "results.json" in HfApi().list_repo_files(name)

    settings["start"] = {"name": "ekazakos/grove", "revision": "0" * 40}
    (model / "results.json").write_text(json.dumps(run))
    assert "made of 'ekazakos/grove'" in refused(model, hub_repo, capsys, "--license", "mit")


def test_low_rank_weights_name_the_model_that_they_belong_to(tmp_path, hub_repo, capsys):
    base, name = hub_repo(), hub_repo(create=False)
    HfApi().upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=base)
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(DEMO / "config.json", folder)
    save_file({"a.lora_A.weight": torch.zeros(2, 3)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    assert "give it as --base-model" in refused(folder, hub_repo, capsys, "--license", "mit")
    assert publish("model", folder, "--repo", name, "--license", "mit", "--base-model", base) == 0
    card = ModelCard.load(name)
    assert (card.data.library_name, card.data.base_model) == ("peft", [base])
    assert f'AutoModel.from_pretrained("{base}"), "{name}")' in card.text and "trust_remote_code" not in card.text
