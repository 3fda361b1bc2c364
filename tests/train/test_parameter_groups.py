"""Freezing policies: what the original trains, what Table 6 trains, and what the table of groups says."""

import json

import pytest
from torch import nn

from modeling_grove.checkpoint_map_grove import config_from_original, plan_tensor
from tests.original_checkpoints import load_case
from tests.tiny import tiny_model
from train.parameter_groups import (
    GROUPS,
    POLICIES,
    freeze,
    group_of,
    groups_table,
    learning_rates,
    parameter_groups,
    trained_groups,
)


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_every_parameter_is_in_one_group_and_every_group_has_some():
    groups = {group_of(name) for name, _ in tiny_model().named_parameters()}

    assert groups == set(GROUPS)


def test_paper_trains_exactly_what_was_measured_in_the_original(golden_dir):
    recorded = json.loads((golden_dir / "full_a" / "grad_norms.json").read_text())
    state, original = load_case("full_a")
    config = config_from_original(original, state)
    plans = {name: plan_tensor(name, tuple(state[name].shape), config).target for name in recorded}
    model = tiny_model()
    model.config.freeze_vision_adapters = False

    freeze(model, "paper")

    def kinds(names):
        """Names without the numbers of layers, which differ between the two models."""
        return {".".join(part for part in name.split(".") if not part.isdigit()) for name in names}

    assert kinds(trained(model)) == kinds(target for target in plans.values() if target is not None)


def test_the_originals_switch_leaves_the_global_adapters_as_they_are():
    model = tiny_model(freeze_vision_adapters=True)

    freeze(model, "paper")

    assert not any("vision_tower" in name for name in trained(model))
    assert any("grounding_encoder.adapters" in name for name in trained(model))


@pytest.mark.parametrize(
    ("policy", "present", "absent"),
    [
        ("adapters", "grounding_adapters", "box_decoder"),
        ("decoder", "box_decoder", "grounding_adapters"),
        ("paper+language_model", "language_model", "vision_tower"),
        ("full-vision_tower", "language_model", "vision_tower"),
        ("grounding_adapters", "grounding_adapters", "heads"),
    ],
)
def test_policies_and_their_sums(policy, present, absent):
    groups = trained_groups(policy)

    assert present in groups and absent not in groups


def test_full_trains_everything():
    model = tiny_model()

    freeze(model, "full")

    assert all(parameter.requires_grad for parameter in model.parameters())


def test_nothing_that_learns_is_an_error():
    with pytest.raises(ValueError, match="'heads-heads-projector-phrase_projector' leaves no parameter that learns"):
        freeze(tiny_model(), "heads-heads-projector-phrase_projector")


def test_an_unknown_policy_names_those_that_exist():
    with pytest.raises(ValueError, match="no policy or group 'papers' .* paper, adapters, decoder"):
        trained_groups("papers")


def test_rates_of_groups():
    assert learning_rates(["lora=2e-4", "heads=1e-3"]) == {"lora": 2e-4, "heads": 1e-3}
    for wrong in ("heads", "heads=fast", "head=1e-3", "heads=-1"):
        with pytest.raises(ValueError, match="group_learning_rates"):
            learning_rates([wrong])


def test_the_table_counts_every_parameter_once():
    model = tiny_model()
    freeze(model, "paper")

    groups = parameter_groups(model, 5e-5, {"heads": 1e-3})
    table = groups_table(groups)

    assert sum(group.parameters for group in groups) == sum(p.numel() for p in model.parameters())
    assert sum(group.trained for group in groups) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert {group.name: group.learning_rate for group in groups}["heads"] == 1e-3
    assert "| language_model" in table and "frozen" in table and "% learn" in table


def test_policies_are_made_of_groups():
    assert all(set(groups) <= set(GROUPS) for groups in POLICIES.values())
