"""The model that a run starts from: loaded, changed as the recipe says, frozen by policy, with LoRA if asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, StrictDataclassError
from transformers import PreTrainedModel
from trl import get_quantization_config

from modeling_grove import GroveConfig, GroveForConditionalGeneration, GroveProcessor

from .lora import add_lora
from .parameter_groups import freeze
from .training_arguments import ModelArguments

logger = logging.getLogger(__name__)

_CANNOT_LOAD = (OSError, ValueError, RuntimeError, ImportError, HfHubHTTPError, HFValidationError, StrictDataclassError)

# Everything but the language model stays as it is when that is quantised; bitsandbytes wants full names.
_UNQUANTISED = [
    "model.vision_tower",
    "model.multi_modal_projector",
    "model.grounding_encoder",
    "model.phrase_projector",
    "model.box_decoder",
    "lm_head",
]


def load_processor(args: ModelArguments) -> GroveProcessor:
    """
    The processor of the starting model.

    Raises:
        `ValueError`: in one line, if there is none.
    """
    try:
        return GroveProcessor.from_pretrained(_name(args), revision=args.model_revision)
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"model_name_or_path: no processor in {args.model_name_or_path!r}: {_last_line(error)}"
        ) from None


def load_model(args: ModelArguments) -> GroveForConditionalGeneration:
    """
    The starting model with the recipe's changes, nothing frozen yet.

    Raises:
        `ValueError`: in one line, if it cannot be loaded, is no GROVE model, or lacks weights that the recipe needs.
    """
    changes: Any = args.config_overrides or {}
    name, overrides = _name(args), dict(changes)
    _check_kind(name, args.model_revision)
    quantization: Any = get_quantization_config(args)
    if quantization is not None:
        quantization.llm_int8_skip_modules = _UNQUANTISED
    try:
        config, unknown = GroveConfig.from_pretrained(
            name, revision=args.model_revision, return_unused_kwargs=True, **overrides
        )
        if unknown:
            raise ValueError(f"config_overrides has no field {min(unknown)!r} of GroveConfig")
        model, loading = GroveForConditionalGeneration.from_pretrained(
            name,
            config=config,
            revision=args.model_revision,
            dtype=args.dtype or "auto",
            attn_implementation=args.attn_implementation,
            quantization_config=quantization,
            output_loading_info=True,
        )
    except _CANNOT_LOAD as error:
        raise ValueError(f"model_name_or_path: cannot load {args.model_name_or_path!r}: {_last_line(error)}") from None
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(
            f"model_name_or_path: {args.model_name_or_path!r} lacks {len(missing)} weights that this recipe needs, such as "
            f"{missing[0]}; start from another checkpoint, or see config_overrides"
        )
    unused = sorted({key.rpartition(".")[0] for key in loading["unexpected_keys"]})
    if unused:
        logger.info("the recipe has no use for %s of the checkpoint", ", ".join(unused[:5]))
    return model


def fit_processor(processor: GroveProcessor, config: GroveConfig) -> None:
    """Gives a processor the window that a recipe changed: `num_frames` and the video tokens of `video_pool_size`."""
    processor.num_video_tokens = config.num_video_tokens
    processor.video_processor.window_size = config.num_frames
    processor.videos_kwargs["num_frames"] = config.num_frames


def prepare_model(model: GroveForConditionalGeneration, args: ModelArguments) -> PreTrainedModel:
    """
    The model as it is trained: parameters frozen by policy, those that learn in float32, LoRA in the language model.

    Raises:
        `ValueError`: if nothing learns, or settings do not fit together.
    """
    freeze(model, args.trainable)
    if args.use_peft:
        model = add_lora(model, args)
    if args.trainable_float32:
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()
        # What adapters in float32 give meets frozen layer norms, of which PyTorch's on processors has to have the same precision.
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.float()
    return model


def closed_gates(model: GroveForConditionalGeneration) -> bool:
    """Whether every adapter is closed (alpha exactly 0), as those of a model that was never pre-trained are."""
    parts: Any = model.model
    adapters = [*parts.vision_tower.adapters.values(), *parts.grounding_encoder.adapters.values()]
    return bool(adapters) and all(float(adapter.alpha.detach().abs().max()) == 0 for adapter in adapters)


def _name(args: ModelArguments) -> str:
    if not args.model_name_or_path:
        raise ValueError(
            "model_name_or_path: not given; expected a folder or Hub id of a GROVE model (`python -m train new` makes one, "
            "`python -m modeling_grove.convert_grove` converts)"
        )
    return args.model_name_or_path


def _check_kind(name: str, revision: str | None) -> None:
    """A GROVE model, in this project's form."""
    config = Path(name) / "config.json"
    if not Path(name).is_dir():
        return  # on the Hub: loading says what is wrong
    if not config.is_file():
        raise ValueError(f"model_name_or_path: no config.json in {name!r}; expected the folder of a GROVE model")
    try:
        kind = json.loads(config.read_bytes())
        found = kind.get("model_type")
    except (ValueError, AttributeError):
        raise ValueError(f"model_name_or_path: {config} is not a JSON object; is it the model's?") from None
    if found != "grove" or "text_config" not in kind:
        raise ValueError(
            f"model_name_or_path: {name!r} has a model of type {found!r} that is not this project's; convert original checkpoints "
            "with `python -m modeling_grove.convert_grove` (GLaMM's with --init-from-glamm)"
        )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].rstrip(".")


__all__ = ["closed_gates", "fit_processor", "load_model", "load_processor", "prepare_model"]
