"""
Low-rank adaptation of the language model with PEFT: which layers get it, what is trained beside it, and merging.

    python -m train merge runs/lora --output checkpoints/merged

LoRA goes into the language model only, quantised or not. What the policy trains outside of it (adapters, decoder, tables) is
named in PEFT's `modules_to_save`, so that it is saved with the low-rank weights and is loaded again with them. Layers of the
language model that the policy would train whole are left to LoRA.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from trl import get_peft_config

from dataset_builders.command_line import emit
from modeling_grove import GroveConfig, GroveForConditionalGeneration, GroveProcessor
from modeling_grove.checkpoint_io_grove import atomic_directory
from modeling_grove.remote_code_grove import add_remote_code

from .parameter_groups import group_of, trained_groups
from .training_arguments import ModelArguments

# The projections of attention, as usual; `lora_target_modules` names others, such as gate_proj or up_proj.
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
ADAPTER_CONFIG = "adapter_config.json"


def add_lora(model: GroveForConditionalGeneration, args: ModelArguments) -> PeftModel:
    """
    The model with low-rank layers in its language model.

    Args:
        model ([`GroveForConditionalGeneration`]): of which the policy's parameters learn too.
        args ([`ModelArguments`]): with `use_peft`, `lora_r`, `lora_alpha`, `lora_dropout`, `lora_target_modules`.

    Raises:
        `ValueError`: if no layer of the language model has one of the names.
    """
    config: Any = get_peft_config(args)
    given = args.lora_target_modules or _TARGETS
    names = [given] if isinstance(given, str) else list(given)  # TRL makes a string of a list of one
    config.target_modules = rf"model\.language_model\.layers\.\d+\..*\.({'|'.join(names)})"
    config.task_type = None  # PEFT's class for causal language models asks for a text model's inputs
    config.modules_to_save = [*saved_modules(model, args.trainable), *(args.lora_modules_to_save or ())]
    config.ensure_weight_tying = bool(model.config.tie_word_embeddings)
    config.revision = args.model_revision
    layers = {name.rpartition(".")[2] for name, _ in model.model.language_model.layers.named_modules()}
    if missing := [name for name in names if name not in layers]:
        raise ValueError(
            f"lora_target_modules: no layer {missing[0]!r} in the language model; expected q_proj, up_proj, ..."
        )
    return get_peft_model(model, config)


def saved_modules(model: nn.Module, policy: str) -> list[str]:
    """
    Names of the modules outside of the language model's layers that a policy trains whole: the largest that have only parameters
    which learn. PEFT makes a copy of each, so containers, which are never called, are gone through.
    """
    groups = trained_groups(policy) - {"language_model"}
    config: Any = model.config
    if config.freeze_vision_adapters:
        groups -= {"vision_adapters", "vision_tower"}

    def names(module: nn.Module, prefix: str) -> list[str]:
        parameters = [name for name, _ in module.named_parameters(prefix=prefix)]
        learns = [group_of(name) in groups for name in parameters]
        if parameters and all(learns) and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            return [prefix]
        if not any(learns):
            return []
        children = [
            name for name, child in module.named_children() for name in names(child, f"{prefix}.{name}".strip("."))
        ]
        own = [name for name, _ in module.named_parameters(prefix=prefix, recurse=False) if group_of(name) in groups]
        if own:
            raise ValueError(
                f"trainable: {policy!r} trains {own[0]} but not all of the module that it is in, which PEFT cannot save; choose "
                f"groups without {group_of(own[0])}, or leave out use_peft"
            )
        return children

    return names(model, "")


def is_peft_folder(folder: Path) -> bool:
    """Whether a folder has low-rank weights rather than a model."""
    return (folder / ADAPTER_CONFIG).is_file()


def merged(folder: Path, base: str | None = None) -> GroveForConditionalGeneration:
    """
    The full model of a folder with low-rank weights.

    Args:
        folder (`Path`): a checkpoint of a run with `use_peft`.
        base (`str`, *optional*): the model that was adapted; by default the one that the folder names.

    Raises:
        `ValueError`: if the folder has none, or its base cannot be found.
    """
    if not is_peft_folder(folder):
        raise ValueError(f"{folder}: no {ADAPTER_CONFIG}; expected a checkpoint of a run with use_peft")
    adapted = PeftConfig.from_pretrained(str(folder))
    name = base or adapted.base_model_name_or_path
    config: Any = GroveConfig.from_pretrained(folder)
    if hasattr(
        config, "quantization_config"
    ):  # the low-rank weights of QLoRA are merged into the weights of full precision
        del config.quantization_config
    try:
        revision = None if base else adapted.revision
        model = GroveForConditionalGeneration.from_pretrained(name, config=config, revision=revision)
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(
            f"{folder}: does not fit its base {name!r} ({problem[:300]}); give the right one as --base"
        ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a checkpoint of a run with use_peft")
    parser.add_argument("--base", metavar="DIR|ID", help="the model that was adapted (default: as the checkpoint says)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the full model")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    model = merged(args.folder, args.base)
    processor = GroveProcessor.from_pretrained(args.folder)
    with atomic_directory(args.output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        add_remote_code(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    emit({"model": str(args.output), "parameters": count}, f"{args.output}: {count:,} parameters", args.json)
    return 0


__all__ = ["ADAPTER_CONFIG", "add_lora", "is_peft_folder", "merged", "saved_modules"]
