"""The benchmark of training runs from the command line, and its levers do what they are called."""

import json
import sys

import pytest

from benchmarks.train_step import ORIGINAL, Setting, TrainingStep, main, parse_arguments


@pytest.mark.slow  # every setting is measured in a new interpreter
def test_a_tiny_model(tmp_path, capsys, monkeypatch, warm_python):
    monkeypatch.setattr(sys, "executable", str(warm_python))
    output = tmp_path / "result.json"
    main(["--model", "tiny", "--steps", "1", "--settings", "original's settings", "--output", str(output)])

    results = json.loads(output.read_text())
    assert {*results["settings"]} == {"original's settings"}
    for found in results["settings"].values():
        assert found["clips_per_second"] > 0 and found["peak_memory_gib"] > 0 and 0 <= found["data_share"] < 1
    # The original's language model computes its activations twice.
    assert results["settings"]["original's settings"]["flops_per_clip"] > results["needed_flops_per_clip"] > 0
    assert results["hardware"]["processor"]
    assert "original's settings" in capsys.readouterr().out


def test_levers():
    options = parse_arguments(["--model", "tiny"])
    ours, original = (TrainingStep(options, setting) for setting in (Setting(), ORIGINAL))

    assert ours.model.config.text_config._attn_implementation == "sdpa"
    assert original.model.config.text_config._attn_implementation == "eager"
    assert ours.model.model.vision_tower.is_activation_checkpointing
    assert not original.model.model.vision_tower.is_activation_checkpointing
    assert original.model.model.language_model.is_activation_checkpointing
    assert ours.optimizer.defaults["fused"] and not original.optimizer.defaults["fused"]
    assert len(ours.learned) == len(original.learned) > 0


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--batch-size", "0"), ("--settings", "none")])
def test_bad_options(option, value, capsys):
    with pytest.raises(SystemExit) as error:
        main([option, value])
    assert error.value.code == 2
    assert option in capsys.readouterr().err
