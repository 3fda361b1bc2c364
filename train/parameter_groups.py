"""
Which parameters learn, and how fast: groups of parameters by part of the model, and freezing policies by name.

A policy is the name of one of [`POLICIES`] or of a group, or several of these joined: `paper+language_model`,
`full-vision_tower`, `grounding_adapters+box_decoder`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from eval.ablation_tables import markdown_table

# Every parameter of a model is in the first group that matches its name.
GROUPS: dict[str, str] = {
    "embeddings": r"model\.language_model\.embed_tokens\.",
    "lm_head": r"lm_head\.",
    "language_model": r"model\.language_model\.(layers|norm)\.",
    "projector": r"model\.multi_modal_projector\.",
    "vision_adapters": r"model\.vision_tower\.adapters\.",
    "vision_tower": r"model\.vision_tower\.",
    "grounding_adapters": r"model\.grounding_encoder\.adapters\.",
    # Frozen when the original was measured; its launch script may make those of the whole frame trainable when it resizes them.
    "grounding_positions": r"model\.grounding_encoder\.(pos_embed|layers\.\d+\.attn\.rel_pos_[hw])$",
    "grounding_encoder": r"model\.grounding_encoder\.",
    "phrase_projector": r"model\.phrase_projector\.",
    # SAM's prompt encoder in the original, of which nothing else is left.
    "prompt_embedding": r"model\.box_decoder\.no_mask_embed\.",
    "heads": r"model\.box_decoder\.(box_head|objectness_head)\.",
    "box_decoder": r"model\.box_decoder\.",
}

_TABLES = ("embeddings", "lm_head")
_PROJECTORS = ("projector", "phrase_projector")
_ADAPTERS = ("vision_adapters", "grounding_adapters")

# `paper` is what the original trains (grove_reference, section 4); the others are the rows of the paper's Table 6 and extremes.
POLICIES: dict[str, tuple[str, ...]] = {
    "paper": (*_TABLES, *_PROJECTORS, *_ADAPTERS, "box_decoder", "heads"),
    # Table 6, "adapters only": SAM's decoder stays as it is.
    "adapters": (*_TABLES, *_PROJECTORS, *_ADAPTERS, "heads"),
    # Table 6, "unfreeze only".
    "decoder": (*_TABLES, *_PROJECTORS, "box_decoder", "heads"),
    "heads": (*_PROJECTORS, "heads"),
    "full": tuple(GROUPS),
}


@dataclass
class ParameterGroup:
    """
    A line of the table of groups.

    Attributes:
        name (`str`): one of [`GROUPS`], or "lora".
        parameters (`int`), trained (`int`): how many there are, and how many of them learn.
        learning_rate (`float` or `None`): of those that learn.
    """

    name: str
    parameters: int
    trained: int
    learning_rate: float | None


def group_of(name: str) -> str:
    """
    The group of a parameter, by its name in `GroveForConditionalGeneration` (also inside of a PEFT model).

    Raises:
        `ValueError`: if it is in none.
    """
    name = name.removeprefix("module.").removeprefix("base_model.model.")
    if ".lora_" in name:
        return "lora"
    name = re.sub(r"\.(base_layer|original_module|modules_to_save\.default)\.", ".", name)
    for group, pattern in GROUPS.items():
        if re.match(pattern, name):
            return group
    raise ValueError(f"parameter {name!r} is in no group; expected one of a GROVE model")


def trained_groups(policy: str) -> set[str]:
    """
    The groups that learn under a policy.

    Raises:
        `ValueError`: naming what is neither a policy nor a group.
    """
    chosen: set[str] = set()
    for sign, name in re.findall(r"([+-]?)([^+-]+)", policy.replace(" ", "")):
        if name not in POLICIES and name not in GROUPS:
            known = f"policies {', '.join(POLICIES)} and groups {', '.join(GROUPS)}"
            raise ValueError(f"trainable: no policy or group {name!r} (in {policy!r}); there are the {known}")
        groups = set(POLICIES.get(name, (name,)))
        chosen = chosen - groups if sign == "-" else chosen | groups
    return chosen


def freeze(model: nn.Module, policy: str) -> None:
    """
    Lets exactly the parameters of a policy learn.

    The adapters of a vision tower that runs without gradients (`config.freeze_vision_adapters`, as in the original) are frozen
    under every policy, since nothing would ever reach them.

    Args:
        model ([`GroveForConditionalGeneration`]): of which parameters are to learn.
        policy (`str`): see the module's first lines.

    Raises:
        `ValueError`: if the policy is none, or no parameter is left that learns.
    """
    groups = trained_groups(policy)
    config: Any = model.config
    if config.freeze_vision_adapters:
        groups -= {"vision_adapters", "vision_tower"}
    trained = 0
    for name, parameter in model.named_parameters():
        learns = group_of(name) in groups
        # Quantised weights are integers, and stay.
        parameter.requires_grad_(learns and parameter.is_floating_point())
        trained += parameter.numel() * parameter.requires_grad
    if not trained:
        raise ValueError(
            f"trainable: {policy!r} leaves no parameter that learns; choose another one of {', '.join(POLICIES)}, or add a group"
        )


def learning_rates(values: Sequence[str] | None) -> dict[str, float]:
    """
    Reads `GROUP=RATE`.

    Raises:
        `ValueError`: if one has another form, or names no group.
    """
    rates: dict[str, float] = {}
    for value in values or ():
        name, _, rate = value.partition("=")
        try:
            rates[name.strip()] = float(rate)
        except ValueError:
            raise ValueError(f"group_learning_rates: expected GROUP=RATE such as lora=1e-4, got {value!r}") from None
        if name.strip() not in (*GROUPS, "lora") or not rates[name.strip()] > 0:
            known = ", ".join((*GROUPS, "lora"))
            raise ValueError(f"group_learning_rates: got {value!r}; expected a positive rate for one of {known}")
    return rates


def parameter_groups(model: nn.Module, learning_rate: float, rates: Mapping[str, float]) -> list[ParameterGroup]:
    """The groups of a model, those that learn first."""
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # what PEFT keeps of a module that it trains a copy of
            continue
        found = group_of(name)
        group = groups.setdefault(found, ParameterGroup(found, 0, 0, None))
        group.parameters += parameter.numel()
        if parameter.requires_grad:
            group.trained += parameter.numel()
            group.learning_rate = rates.get(found, learning_rate)
    return sorted(groups.values(), key=lambda group: not group.trained)


def groups_table(groups: Sequence[ParameterGroup]) -> str:
    """The table that a run prints before its first step."""
    cells = [["group", "parameters", "trained", "learning rate"]]
    for group in groups:
        rate = "frozen" if group.learning_rate is None else f"{group.learning_rate:g}"
        cells.append([group.name, f"{group.parameters:,}", f"{group.trained:,}", rate])
    total, trained = sum(group.parameters for group in groups), sum(group.trained for group in groups)
    cells.append(["all", f"{total:,}", f"{trained:,}", f"{100 * trained / max(total, 1):.1f} % learn"])
    return markdown_table(cells)


__all__ = [
    "GROUPS",
    "POLICIES",
    "ParameterGroup",
    "freeze",
    "group_of",
    "groups_table",
    "learning_rates",
    "parameter_groups",
    "trained_groups",
]
