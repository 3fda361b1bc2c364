"""
Names and shapes of the original GROVE checkpoints, and how each tensor becomes one of ours. Every rule stands in one table; a
tensor that no rule explains is an error. CLIP and SAM checkpoints come in through the names that GROVE gives their tensors.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_grove import GroveConfig

_CLIP = r"model\.vision_tower\.vision_tower\.vision_model\."
_SAM = r"model\.grounding_encoder\.image_encoder\."
_PROMPT = r"model\.grounding_encoder\.prompt_encoder\."
_DECODER = r"model\.grounding_encoder\.mask_decoder\."

# (pattern of the original name, our name); groups carry over. The first match counts.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"lm_head\.weight", "lm_head.weight"),
    (r"model\.(embed_tokens|layers|norm)\.(.+)", r"model.language_model.\1.\2"),
    (r"model\.mm_projector\.0\.(weight|bias)", r"model.multi_modal_projector.linear_1.\1"),
    (r"model\.mm_projector\.2\.(weight|bias)", r"model.multi_modal_projector.linear_2.\1"),
    (r"model\.text_hidden_fcs\.0\.0\.(weight|bias)", r"model.phrase_projector.linear_1.\1"),
    (r"model\.text_hidden_fcs\.0\.2\.(weight|bias)", r"model.phrase_projector.linear_2.\1"),
    (_CLIP + r"embeddings\.(.+)", r"model.vision_tower.embeddings.\1"),
    (_CLIP + r"pre_layrnorm\.(.+)", r"model.vision_tower.pre_layrnorm.\1"),
    (_CLIP + r"encoder\.layers\.(\d+)\.(.+)", r"model.vision_tower.layers.\1.\2"),
    (_CLIP + r"encoder\.adapters\.(\d+)\.(.+)", r"model.vision_tower.adapters.{vision_adapter}.\2"),
    (_SAM + r"pos_embed", "model.grounding_encoder.pos_embed"),
    (_SAM + r"patch_embed\.proj\.(.+)", r"model.grounding_encoder.patch_embed.projection.\1"),
    (_SAM + r"blocks\.(\d+)\.norm([12])\.(.+)", r"model.grounding_encoder.layers.\1.layer_norm\2.\3"),
    (_SAM + r"blocks\.(\d+)\.(attn|mlp)\.(.+)", r"model.grounding_encoder.layers.\1.\2.\3"),
    (_SAM + r"adapters\.(\d+)\.(.+)", r"model.grounding_encoder.adapters.{grounding_adapter}.\2"),
    (_SAM + r"neck\.0\.(.+)", r"model.grounding_encoder.neck.conv1.\1"),
    (_SAM + r"neck\.1\.(.+)", r"model.grounding_encoder.neck.layer_norm1.\1"),
    (_SAM + r"neck\.2\.(.+)", r"model.grounding_encoder.neck.conv2.\1"),
    (_SAM + r"neck\.3\.(.+)", r"model.grounding_encoder.neck.layer_norm2.\1"),
    (_PROMPT + r"pe_layer\.positional_encoding_gaussian_matrix", "model.box_decoder.positional_embedding"),
    (_PROMPT + r"no_mask_embed\.weight", "model.box_decoder.no_mask_embed.weight"),
    (_DECODER + r"iou_token\.weight", "model.box_decoder.iou_token.weight"),
    (_DECODER + r"mask_tokens\.weight", "model.box_decoder.mask_tokens.weight"),
    (_DECODER + r"bbox_prediction_head\.(\d)\.(.+)", r"model.box_decoder.box_head.\1.\2"),
    (_DECODER + r"temporal_objectness_head\.(.+)", r"model.box_decoder.objectness_head.\1"),
    (
        _DECODER + r"transformer\.layers\.(\d+)\.norm(\d)\.(.+)",
        r"model.box_decoder.transformer.layers.\1.layer_norm\2.\3",
    ),
    (_DECODER + r"transformer\.norm_final_attn\.(.+)", r"model.box_decoder.transformer.layer_norm_final_attn.\1"),
    (_DECODER + r"transformer\.(.+)", r"model.box_decoder.transformer.\1"),
)

# What GROVE adds to GLaMM, in our names: the tensors that an initialisation from GLaMM draws.
FRESH = re.compile(
    r"model\.(vision_tower|grounding_encoder)\.adapters\..+|model\.box_decoder\.(box|objectness)_head\..+"
)

# The same in the original's names: they tell a GROVE checkpoint from a GLaMM one.
GROVE_ONLY = re.compile(
    rf"(?:{_CLIP}encoder\.|{_SAM})adapters\..+|{_DECODER}(bbox_prediction|temporal_objectness)_head\..+"
)

# (pattern of the original name, why we do without it).
DROPS: tuple[tuple[str, str], ...] = (
    (_CLIP + r"post_layernorm\.", "unused: the features are read before CLIP's final norm"),
    (_CLIP + r"embeddings\.position_ids$", "a constant"),
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$", "a constant"),
    (r"model\.region_encoder\.", "unused: GLaMM's region encoder gets no regions in GROVE"),
    (
        _PROMPT + r"(point_embeddings|not_a_point_embed|mask_downscaling)\.?",
        "unused: no points, boxes or masks are prompted",
    ),
    (_DECODER + r"(output_upscaling|output_hypernetworks_mlps|iou_prediction_head)\.", "unused: SAM's mask heads"),
    (r"clip_text\.", "unused: the text half of a CLIP checkpoint"),
)


def name_in_grove(name: str, origin: str) -> str:
    """
    Args:
        name (`str`): a tensor of a checkpoint.
        origin (`str`): `"grove"` for GROVE's and GLaMM's own names, `"clip"` for OpenAI's CLIP (with `vision_model.` or, as
            `CLIPVisionModel` of transformers 5 saves it, without), `"sam"` for the SAM repository's.

    Returns:
        `str`: the name that the original GROVE gives to it. A tensor that has none keeps its own and is left to [`plan_tensor`].
    """
    if origin == "clip":
        if re.match(r"(text_model|text_projection|visual_projection|logit_scale)\b", name):
            return f"clip_text.{name}"
        if re.match(r"(embeddings|pre_layrnorm|encoder|post_layernorm)\.", name):
            name = f"vision_model.{name}"
        return f"model.vision_tower.vision_tower.{name}" if name.startswith("vision_model.") else name
    if origin == "sam" and re.match(r"(image_encoder|prompt_encoder|mask_decoder)\.", name):
        return f"model.grounding_encoder.{name}"
    return name


@dataclass(frozen=True)
class PlannedTensor:
    """
    What happens to one tensor of an original checkpoint: it is stored as `target`, after `transform` where there is one, or it is
    dropped for `reason`.
    """

    source: str
    target: str | None
    reason: str = ""
    transform: Callable[[Tensor], Tensor] | None = None


def resize_position_embedding(table: Tensor, size: int) -> Tensor:
    """SAM's absolute positions `(1, h, w, C)` -> `(1, size, size, C)`: bicubic, as the original resizes them for 512 px."""
    resized = F.interpolate(table.permute(0, 3, 1, 2).float(), size=(size, size), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(table.dtype).contiguous()


def resize_relative_positions(table: Tensor, length: int) -> Tensor:
    """Relative positions `(l, d)` of a global block -> `(length, d)`: bicubic along `l`, corners aligned, as in the original."""
    resized = F.interpolate(table.float().T[None, :, :, None], size=(length, 1), mode="bicubic", align_corners=True)
    return resized[0, :, :, 0].T.to(table.dtype).contiguous()


def extend_vocabulary(table: Tensor, vocab_size: int) -> Tensor:
    """
    Adds rows for new tokens, `(old, D)` -> `(vocab_size, D)`: the mean of the old rows, what transformers' draw from their mean
    and covariance (the original's choice) has in expectation, and the same in every run.
    """
    mean = table.mean(0, keepdim=True, dtype=torch.float32).to(table.dtype)
    return torch.cat([table, mean.expand(vocab_size - table.shape[0], -1)])


def config_from_original(
    original: Mapping[str, Any], dtype: torch.dtype = torch.float32, *, original_behaviour: bool = True
) -> GroveConfig:
    """
    The [`GroveConfig`] of a model described as in `original_config.json` (sizes, special token ids, loss weights).

    Args:
        original (`Mapping`): keys `num_frames`, `clip`, `sam`, `llm`, `out_dim`, `special_token_ids`, `loss_weights`,
            `use_temp_objectness`, `temp_objectness_threshold`.
        dtype (`torch.dtype`): of the checkpoint. The original computes SAM's positional encoding in it.
        original_behaviour (`bool`): whether every switch is set as the original behaves, which its trained weights need: the
            folded grid and the frozen state of the vision adapters, the precision of the positional encoding. `False` leaves the
            defaults of new models.

    Raises:
        ValueError: if a size differs that this implementation derives.
    """
    clip, sam, llm, ids = original["clip"], original["sam"], original["llm"], original["special_token_ids"]
    weights = original.get("loss_weights", {})
    interval = clip["adapter_layer_indexes"][1] if len(clip["adapter_layer_indexes"]) > 1 else 3
    config = GroveConfig(
        text_config={
            key: llm[key]
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
                "rms_norm_eps",
                "vocab_size",
                "hidden_act",
                "attention_bias",
                "tie_word_embeddings",
                "bos_token_id",
                "eos_token_id",
                "pad_token_id",
            )
            if key in llm
        }
        | {"rope_parameters": {"rope_type": "default", "rope_theta": llm.get("rope_theta", 10000.0)}},
        vision_config={
            key: clip[key]
            for key in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "projection_dim",
                "image_size",
                "patch_size",
                "hidden_act",
                "layer_norm_eps",
            )
        },
        grounding_config={
            "hidden_size": sam["embed_dim"],
            "num_hidden_layers": sam["depth"],
            "num_attention_heads": sam["num_heads"],
            "global_attn_indexes": tuple(sam["global_attn_indexes"]),
            "output_channels": original["out_dim"],
            "num_pos_feats": original["out_dim"] // 2,
            "mlp_ratio": float(sam["mlp_ratio"]),
            "image_size": sam["image_size"],
            "patch_size": sam["patch_size"],
            "window_size": sam["window_size"],
            "layer_norm_eps": sam["layer_norm_eps"],
            "qkv_bias": sam["qkv_bias"],
            "use_rel_pos": sam["use_rel_pos"],
            "decoder_num_hidden_layers": sam["decoder_depth"],
            "decoder_num_attention_heads": sam["decoder_num_heads"],
            "decoder_mlp_dim": sam["decoder_mlp_dim"],
            "decoder_attention_downsample_rate": sam["attention_downsample_rate"],
            "num_mask_tokens": sam["num_multimask_outputs"] + 1,
            "positional_encoding_dtype": "bfloat16" if original_behaviour and dtype == torch.bfloat16 else "float32",
        },
        num_frames=original["num_frames"],
        video_pool_size=tuple(clip["pool_output"]),
        vision_feature_layer=clip["select_layer"],
        vision_adapter_interval=interval,
        vision_adapter_grid=tuple(clip["adapter_grid"][1:]) if original_behaviour else None,
        freeze_vision_adapters=original_behaviour,
        video_token_id=llm["vocab_size"],
        video_start_token_id=ids["<vid_start>"],
        video_end_token_id=ids["<vid_end>"],
        phrase_start_token_id=ids["<p>"],
        phrase_end_token_id=ids["</p>"],
        det_token_id=ids["[DET]"],
        use_temporal_objectness=original.get("use_temp_objectness", True),
        objectness_threshold=original.get("temp_objectness_threshold", 0.5),
        caption_loss_weight=weights.get("ce", 1.0),
        giou_loss_weight=weights.get("giou", 2.0),
        l1_loss_weight=weights.get("l1", 2.0),
        objectness_loss_weight=weights.get("temp_objectness", 2.0),
        tie_word_embeddings=llm.get("tie_word_embeddings", False),
    )
    if config.vision_adapter_layers != tuple(clip["adapter_layer_indexes"]):
        raise ValueError(
            f"clip.adapter_layer_indexes is {clip['adapter_layer_indexes']}; expected {list(config.vision_adapter_layers)}, one in "
            f"{interval} layers from 0 on."
        )
    return config


def plan_tensor(name: str, shape: tuple[int, ...], config: GroveConfig, *, new_tokens: bool = False) -> PlannedTensor:
    """
    Args:
        name (`str`): a tensor of the original checkpoint.
        shape (`tuple[int, ...]`): its shape.
        config ([`GroveConfig`]): the model that it goes into.
        new_tokens (`bool`): whether the model has tokens that the checkpoint lacks, so that both vocabulary tables grow.

    Raises:
        ValueError: if no rule explains the tensor.
    """
    for pattern, reason in DROPS:
        if re.match(pattern, name):
            return PlannedTensor(name, None, reason)
    layer = re.match(_CLIP + r"encoder\.layers\.(\d+)\.", name)
    if layer and int(layer[1]) >= config.num_vision_layers:
        return PlannedTensor(
            name,
            None,
            f"unused: the features are read before layer {layer[1]} (vision_feature_layer {config.vision_feature_layer})",
        )
    for pattern, target in RENAMES:
        if match := re.fullmatch(pattern, name):
            transform = _transform(name, shape, config, new_tokens)
            return PlannedTensor(name, _target(match, target, config), transform=transform)
    raise ValueError(
        f"The checkpoint has a tensor {name!r} of shape {tuple(shape)} that is neither part of GROVE nor known to be unused; "
        "expected the names of the original GROVE model."
    )


def _target(match: re.Match, target: str, config: GroveConfig) -> str:
    """Our name: the original counts adapters, we name them after the layer that they follow."""
    if "{vision_adapter}" in target:
        layer = _adapted_layer(match, config.vision_adapter_layers)
        return match.expand(target.replace("{vision_adapter}", str(layer)))
    if "{grounding_adapter}" in target:
        layer = _adapted_layer(match, tuple(sorted(config.grounding_config.global_attn_indexes)))
        return match.expand(target.replace("{grounding_adapter}", str(layer)))
    return match.expand(target)


def _adapted_layer(match: re.Match, layers: tuple[int, ...]) -> int:
    index = int(match[1])
    if index >= len(layers):
        raise ValueError(
            f"The checkpoint has {match[0]!r}, but the config has {len(layers)} adapters there, after layers {layers}."
        )
    return layers[index]


def _transform(
    name: str, shape: tuple[int, ...], config: GroveConfig, new_tokens: bool
) -> Callable[[Tensor], Tensor] | None:
    """GLaMM's SAM was trained at 1024 px: its position tables are resized once to the grid in use. New tokens get rows."""
    vocab_size = config.text_config.vocab_size
    if new_tokens and name in ("model.embed_tokens.weight", "lm_head.weight"):
        return lambda table: extend_vocabulary(table, vocab_size)
    grounding = config.grounding_config
    grid = grounding.grid_size
    if re.fullmatch(_SAM + "pos_embed", name) and shape[1] != grid:
        return lambda table: resize_position_embedding(table, grid)
    block = re.fullmatch(_SAM + r"blocks\.(\d+)\.attn\.rel_pos_[hw]", name)
    if block and int(block[1]) in grounding.global_attn_indexes and shape[0] != 2 * grid - 1:
        return lambda table: resize_relative_positions(table, 2 * grid - 1)
    return None


def convert_state_dict(
    original: Mapping[str, Tensor], original_config: Mapping[str, Any]
) -> tuple[GroveConfig, dict[str, Tensor]]:
    """
    Args:
        original (`Mapping[str, torch.Tensor]`): a state dict with the original names.
        original_config (`Mapping`): its sizes, see [`config_from_original`].

    Returns:
        The config and the state dict of a [`GroveForConditionalGeneration`].

    Raises:
        ValueError: if a tensor is not explained or two of them claim one name.
    """
    dtype = next(iter(original.values())).dtype
    config = config_from_original(original_config, dtype)
    converted: dict[str, Tensor] = {}
    for name, tensor in original.items():
        planned = plan_tensor(name, tuple(tensor.shape), config)
        if planned.target is None:
            continue
        if planned.target in converted:
            raise ValueError(f"Two tensors of the checkpoint would become {planned.target!r}; the second is {name!r}.")
        converted[planned.target] = tensor if planned.transform is None else planned.transform(tensor)
    return config, converted


__all__ = [
    "DROPS",
    "FRESH",
    "GROVE_ONLY",
    "RENAMES",
    "PlannedTensor",
    "config_from_original",
    "convert_state_dict",
    "extend_vocabulary",
    "name_in_grove",
    "plan_tensor",
    "resize_position_embedding",
    "resize_relative_positions",
]
