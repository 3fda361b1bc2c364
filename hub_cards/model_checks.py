"""Whether a folder is a model that works: safetensors that are all there, a tokenizer that fits, and a forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from modeling_grove import GroveConfig, GroveForConditionalGeneration, GroveProcessor
from modeling_grove.text_grove import (
    DET_TOKEN,
    PHRASE_END_TOKEN,
    PHRASE_START_TOKEN,
    VIDEO_END_TOKEN,
    VIDEO_START_TOKEN,
    VIDEO_TOKEN,
)

from .model_card import read_json
from .publication import is_pickled

_INDEX = "model.safetensors.index.json"
_TOKEN_FIELDS = {
    VIDEO_TOKEN: "video_token_id",
    VIDEO_START_TOKEN: "video_start_token_id",
    VIDEO_END_TOKEN: "video_end_token_id",
    PHRASE_START_TOKEN: "phrase_start_token_id",
    PHRASE_END_TOKEN: "phrase_end_token_id",
    DET_TOKEN: "det_token_id",
}
# A checkpoint of the Trainer has these beside its model; they are left out, and no reason to refuse it.
_STATE = ("optimizer", "scheduler", "rng_state", "scaler", "training_args")


def check_weights(folder: Path) -> list[str]:
    """
    Looks at the files of the weights.

    Returns:
        `list[str]`: the names of the tensors.

    Raises:
        `ValueError`: if weights are pickled, missing, or no safetensors.
    """
    pickled = [p.name for p in sorted(folder.iterdir()) if is_pickled(p.name) and not p.name.startswith(_STATE)]
    if pickled:
        raise ValueError(
            f"{folder / pickled[0]}: pickled weights run code when they are read; convert them to safetensors "
            "(`python -m modeling_grove.convert_grove`, or load and `save_pretrained`) and remove the file"
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: no weights; expected *.safetensors")
    there: dict[str, str] = {}
    for path in files:
        try:
            with safe_open(path, framework="np") as file:
                there |= dict.fromkeys(file.keys(), path.name)
        except SafetensorError as error:
            raise ValueError(f"{path}: no whole safetensors file ({error})") from None
    if (folder / _INDEX).is_file():
        listed = read_json(folder / _INDEX).get("weight_map", {})
        wrong = next((name for name, place in listed.items() if there.get(name) != place), None)
        if wrong is not None:
            raise ValueError(
                f"{folder / _INDEX}: {wrong!r} should be in {listed[wrong]}, which lacks it; copy it again"
            )
    return list(there)


def check_model(folder: Path, *, forward: bool = True) -> list[str]:
    """
    Loads a model with its processor, as its users will, and runs it.

    Args:
        folder (`Path`):
            Of the model.
        forward (`bool`, *optional*, defaults to `True`):
            Whether the weights are loaded and run; without, only what can be seen in the files is looked at.

    Returns:
        `list[str]`: what was found right, for people.

    Raises:
        `ValueError`: naming what is wrong.
    """
    check_weights(folder)
    kind = read_json(folder / "config.json").get("model_type")
    if kind != GroveConfig.model_type:
        raise ValueError(f"{folder}: model_type: expected {GroveConfig.model_type!r}, got {kind!r}")
    try:
        config: Any = GroveConfig.from_pretrained(folder)
        processor = GroveProcessor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"{folder}: cannot be loaded: {' '.join(str(error).split())}") from None
    check_processor(processor, config)
    done = ["safetensors alone, all of them there", "the configuration loads; the tokenizer has the tokens it names"]
    if not forward:
        return done
    model, info = GroveForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            first = sorted(map(str, info[what]))[0]
            raise ValueError(f"{folder}: {len(info[what])} {what.replace('_', ' ')} in the weights, such as {first!r}")
    _run(model.eval(), processor)
    return [*done, "a forward pass gives finite boxes"]


def check_processor(processor: GroveProcessor, config: GroveConfig) -> None:
    """
    Whether the processor makes what the model takes.

    Raises:
        `ValueError`: naming what differs: ids of tokens, tokens without embeddings, sizes.
    """
    parts: Any = config
    vocabulary = processor.tokenizer.get_vocab()
    for token, name in _TOKEN_FIELDS.items():
        if vocabulary[token] != getattr(config, name):
            raise ValueError(
                f"the tokenizer gives {token} the id {vocabulary[token]}, the model's {name} is {getattr(config, name)}; take the "
                "processor that was saved with the model"
            )
    rows = parts.text_config.vocab_size
    without = [token for token, index in vocabulary.items() if index >= rows and token != VIDEO_TOKEN]
    if without:
        raise ValueError(
            f"{len(without)} tokens of the tokenizer have no row in the {rows} embeddings of the model, such as {without[0]!r}; "
            "take the processor that was saved with the model"
        )
    video = processor.video_processor
    sizes = {
        "num_video_tokens": (processor.num_video_tokens, config.num_video_tokens),
        "window_size / num_frames": (video.window_size, config.num_frames),
        "crop_size / vision_config.image_size": (video.crop_size.height, parts.vision_config.image_size),
        "grounding_size / grounding_config.image_size": (video.grounding_size, parts.grounding_config.image_size),
    }
    for name, (ours, theirs) in sizes.items():
        if ours != theirs:
            raise ValueError(f"{name}: the processor has {ours}, the model {theirs}; take the processor saved with it")


@torch.no_grad()
def _run(model: GroveForConditionalGeneration, processor: GroveProcessor) -> None:
    """Grounds a caption in a grey window."""
    config: Any = model.config
    frames = np.full((config.num_frames, 48, 64, 3), 128, np.uint8)
    inputs = processor.prepare_videos([frames], captions=["<p>A thing</p> is there."])
    inputs.pop("video_metadata")
    outputs = model.ground(**inputs)
    boxes: Any = outputs.pred_boxes
    if not bool(torch.isfinite(boxes.float()).all()):
        raise ValueError("the forward pass gives boxes that are not finite; the weights are broken")


__all__ = ["check_model", "check_processor", "check_weights"]
