"""
GLaMM's official checkpoints to ours.

    python -m pipeline_annotate glamm --source MBZUAI/GLaMM-GCG --clip openai/clip-vit-large-patch14-336 --output checkpoints/glamm

Names and sizes are those that GROVE inherited (see [`~modeling_grove.checkpoint_map_grove`]); SAM's mask heads, which GROVE never
calls, are kept here, and its position tables keep their size.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaTokenizer, PreTrainedTokenizerBase

from dataset_builders.command_line import emit, progress
from modeling_grove.checkpoint_config_grove import GLAMM_TOKENS, GROVE_TOKENS, describe_original, first_stated
from modeling_grove.checkpoint_io_grove import (
    CheckpointError,
    OriginalCheckpoint,
    ShardWriter,
    atomic_directory,
    locate_checkpoint,
    one_line,
    parse_size,
)
from modeling_grove.checkpoint_map_grove import GROVE_ONLY, PlannedTensor, config_from_original, plan_tensor
from modeling_grove.checkpoint_plan_grove import SourceTensor, merge_checkpoints
from modeling_grove.convert_grove import DTYPES

from .glamm_model import GlammConfig, GlammForConditionalGeneration

_DECODER = r"model\.grounding_encoder\.mask_decoder\."
_OURS = "model.mask_decoder."
# (pattern of the official name, our name): what GROVE has no use for.
MASK_HEADS: tuple[tuple[str, str], ...] = (
    (_DECODER + r"output_upscaling\.0\.(.+)", _OURS + r"upscale_conv1.\1"),
    (_DECODER + r"output_upscaling\.1\.(.+)", _OURS + r"upscale_layer_norm.\1"),
    (_DECODER + r"output_upscaling\.3\.(.+)", _OURS + r"upscale_conv2.\1"),
    (
        _DECODER + r"output_hypernetworks_mlps\.(\d+)\.layers\.0\.(.+)",
        _OURS + r"output_hypernetworks_mlps.\1.proj_in.\2",
    ),
    (
        _DECODER + r"output_hypernetworks_mlps\.(\d+)\.layers\.1\.(.+)",
        _OURS + r"output_hypernetworks_mlps.\1.layers.0.\2",
    ),
    (
        _DECODER + r"output_hypernetworks_mlps\.(\d+)\.layers\.2\.(.+)",
        _OURS + r"output_hypernetworks_mlps.\1.proj_out.\2",
    ),
    (_DECODER + r"iou_prediction_head\.layers\.0\.(.+)", _OURS + r"iou_prediction_head.proj_in.\1"),
    (_DECODER + r"iou_prediction_head\.layers\.1\.(.+)", _OURS + r"iou_prediction_head.layers.0.\1"),
    (_DECODER + r"iou_prediction_head\.layers\.2\.(.+)", _OURS + r"iou_prediction_head.proj_out.\1"),
)


def glamm_config(
    shapes: Mapping[str, tuple[int, ...]],
    hub: Mapping[str, Any],
    clip: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> GlammConfig:
    """
    The config of a checkpoint.

    Args:
        shapes (`Mapping`): of all its tensors, under the names of GROVE.
        hub (`Mapping`): its `config.json`.
        clip (`Mapping`, *optional*): that of CLIP.
        given (`Mapping`, *optional*): sizes that no shape tells, as [`~modeling_grove.checkpoint_config_grove.describe_original`]
            reads them.

    Raises:
        `CheckpointError`: if a size is unknown.
    """
    original, _ = describe_original(shapes, hub, clip or {}, given or {}, new_tokens=True)
    ids, vocab_size = original["special_token_ids"], original["llm"]["vocab_size"] - len(GROVE_TOKENS)
    # Of these sizes GROVE decides otherwise.
    grid = shapes["model.grounding_encoder.image_encoder.pos_embed"][1]
    original["sam"]["image_size"] = grid * original["sam"]["patch_size"]
    values = config_from_original(original, original_behaviour=False).to_dict()
    side = values["vision_config"]["image_size"] // values["vision_config"]["patch_size"]
    for name in ("model_type", "architectures"):
        values.pop(name, None)
    values["text_config"]["vocab_size"] = vocab_size
    values["grounding_config"]["use_adapters"] = False
    head = [shapes.get(f"model.grounding_encoder.mask_decoder.iou_prediction_head.layers.{n}.weight") for n in range(9)]
    depth = sum(shape is not None for shape in head)
    return GlammConfig(
        **{
            **values,
            "num_frames": 1,
            "video_pool_size": (1, side, side),
            "vision_adapter_interval": 0,
            "use_temporal_objectness": False,
            "video_token_id": vocab_size,
            "video_start_token_id": ids["<im_start>"],
            "video_end_token_id": ids["<im_end>"],
            "det_token_id": ids["[SEG]"],
            "iou_head_hidden_dim": head[0][0] if head[0] else 256,
            "iou_head_depth": depth or 3,
        }
    )


def plan_glamm_tensor(name: str, shape: tuple[int, ...], config: GlammConfig) -> PlannedTensor:
    """
    What becomes of a tensor, by its name in GROVE.

    Raises:
        `ValueError`: if no rule explains it.
    """
    for pattern, target in MASK_HEADS:
        if match := re.fullmatch(pattern, name):
            return PlannedTensor(name, match.expand(target))
    planned = plan_tensor(name, shape, config)
    if planned.target is None:
        return planned
    return PlannedTensor(name, planned.target.replace("model.box_decoder.", _OURS), planned.reason, planned.transform)


def convert_glamm_state(state: Mapping[str, torch.Tensor], config: GlammConfig) -> dict[str, torch.Tensor]:
    """The state dict of a [`GlammForConditionalGeneration`], from one with the official names."""
    planned = {name: plan_glamm_tensor(name, tuple(tensor.shape), config) for name, tensor in state.items()}
    return {plan.target: state[name] for name, plan in planned.items() if plan.target is not None}


def load_glamm_tokenizer(directory: Path, config: GlammConfig) -> PreTrainedTokenizerBase:
    """
    GLaMM's tokenizer.

    Raises:
        `CheckpointError`: if it cannot be loaded, or has other ids than the config.
    """
    try:
        tokenizer = LlamaTokenizer.from_pretrained(directory)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"The tokenizer in {directory} cannot be loaded: {one_line(error)}") from error
    text: Any = config.text_config
    expected = {token: text.vocab_size - len(GLAMM_TOKENS) + index for index, token in enumerate(GLAMM_TOKENS)}
    found = {token: tokenizer.get_vocab().get(token) for token in expected}
    if found != expected:
        raise CheckpointError(
            f"The tokenizer in {directory} has the ids {found}; the {text.vocab_size} rows of the weights need {expected}."
        )
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def convert_glamm(
    source: str, output: Path, *, clip: str | None = None, dtype: str | None = None, max_shard_size: str = "5GB"
) -> dict[str, Any]:
    """
    Converts a checkpoint; `output` appears complete or not at all.

    Args:
        source (`str`): directory or Hub id of GLaMM.
        output (`Path`): new directory.
        clip (`str`, *optional*): CLIP, which GLaMM's files leave out.
        dtype (`str`, *optional*): of the new weights; by default each keeps its own.
        max_shard_size (`str`, *optional*, defaults to `"5GB"`): of a file.

    Returns:
        `dict`: numbers of `converted` and `dropped` tensors, and the `files`.

    Raises:
        `CheckpointError`: if something cannot be read, is not explained, or is missing.
    """
    shard_bytes = parse_size(max_shard_size)
    with atomic_directory(output) as partial:
        given = {"source": source, "clip": clip}
        checkpoints = {
            label: OriginalCheckpoint(label, locate_checkpoint(path)) for label, path in given.items() if path
        }
        origins = {"source": "grove", "clip": "clip"}
        sources: dict[str, SourceTensor] = {}
        for each in merge_checkpoints({label: (origins[label], one.tensors) for label, one in checkpoints.items()}):
            if GROVE_ONLY.fullmatch(each.name_in_grove):
                raise CheckpointError(
                    f"{source} has {each.name!r}: it is a GROVE checkpoint; see modeling_grove.convert_grove."
                )
            sources.setdefault(each.name_in_grove, each)
        main = checkpoints["source"]
        config = glamm_config(
            {name: each.info.shape for name, each in sources.items()},
            first_stated([main.read_json("config.json")]),
            checkpoints["clip"].read_json("config.json") if "clip" in checkpoints else None,
            main.read_json("original_config.json"),
        )
        tokenizer = load_glamm_tokenizer(main.directory, config)
        planned = {}
        for name, each in sources.items():
            try:
                planned[name] = plan_glamm_tensor(name, each.info.shape, config)
            except ValueError as error:
                raise CheckpointError(f"{each.checkpoint}: {error}") from error
        _check_complete(
            {plan.target: sources[name].info.shape for name, plan in planned.items() if plan.target}, config
        )
        writer, dropped = ShardWriter(partial, shard_bytes), 0
        for name, plan in progress(planned.items(), "converting", unit="tensor"):
            if plan.target is None:
                dropped += 1
                continue
            tensor = checkpoints[sources[name].checkpoint].read(sources[name].name)
            kind = tensor.dtype if dtype is None else DTYPES[dtype]
            writer.add(plan.target, tensor.to(kind, copy=True, memory_format=torch.contiguous_format))
        files = [file.name for file in writer.close()]
        config.architectures = [GlammForConditionalGeneration.__name__]
        config.save_pretrained(partial)
        text: Any = config.text_config
        GenerationConfig(
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
            max_new_tokens=512,
        ).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return {"output": str(output), "converted": len(planned) - dropped, "dropped": dropped, "files": files}


def _check_complete(shapes: Mapping[str | None, tuple[int, ...]], config: GlammConfig) -> None:
    with torch.device("meta"):
        model = GlammForConditionalGeneration(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if missing := [name for name in expected if name not in shapes]:
        advice = " give CLIP with --clip." if all("vision_tower" in name for name in missing) else ""
        raise CheckpointError(f"No checkpoint supplies {missing[0]!r} (and {len(missing) - 1} more);{advice}")
    for name, shape in shapes.items():
        if expected.get(str(name)) != shape:
            raise CheckpointError(f"{name!r} would have shape {shape}; expected {expected.get(str(name))}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="PATH|ID", help="GLaMM: directory or Hub id")
    parser.add_argument("--clip", metavar="PATH|ID", help="OpenAI CLIP ViT-L/14-336, which GLaMM leaves out")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new directory")
    parser.add_argument("--dtype", choices=list(DTYPES), help="precision (default: as in --source)")
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of a file (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Converts."""
    result = convert_glamm(
        args.source, args.output, clip=args.clip, dtype=args.dtype, max_shard_size=args.max_shard_size
    )
    text = (
        f"{args.output}: {result['converted']} tensors, {result['dropped']} left out, in {len(result['files'])} file(s)"
    )
    emit(result, text, args.json)
    return 0


__all__ = [
    "MASK_HEADS",
    "convert_glamm",
    "convert_glamm_state",
    "glamm_config",
    "load_glamm_tokenizer",
    "plan_glamm_tensor",
]
