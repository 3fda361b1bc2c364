"""Parity of single parts: the modules of the model, the preprocessing of frames, and the names of the full-size checkpoint."""

# Sub-configs and output fields are optional to the type checker, and always there here.
# mypy: disable-error-code="arg-type, assignment, union-attr"

import hashlib
import re
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from parity_report import BOXES, EXACT, FEATURES, OBJECTNESS, PIXELS, RecordedCase, Report, Tolerance, check_array
from torch import Tensor, nn

from modeling_grove.adapter_grove import SpatioTemporalAdapter
from modeling_grove.box_decoder_grove import GroveBoxDecoder
from modeling_grove.boxes_grove import boxes_from_pixels, boxes_to_pixels
from modeling_grove.checkpoint_map_grove import plan_tensor, resize_position_embedding, resize_relative_positions
from modeling_grove.configuration_grove import GroveConfig, GroveGroundingConfig
from modeling_grove.grounding_grove import GroveGroundingLayer
from modeling_grove.loss_grove import generalized_box_iou_loss
from modeling_grove.modeling_grove import GroveForConditionalGeneration
from modeling_grove.video_processing_grove import GroveVideoProcessor
from modeling_grove.vision_grove import GroveMultiModalProjector, GroveVisionTower

# The prefixes under which the parts stand in a whole checkpoint; a case may give its own.
OFFICIAL_PREFIXES = {
    "clip_adapter": "model.vision_tower.vision_tower.vision_model.encoder.adapters.N",
    "sam_adapter": "model.grounding_encoder.image_encoder.adapters.N",
    "sam_block_*": "model.grounding_encoder.image_encoder.blocks.N",
    "prompt_encoder": "model.grounding_encoder.prompt_encoder",
    "mask_decoder": "model.grounding_encoder.mask_decoder",
}
WINDOW_FRAMES = 8
ADAPTER_ROWS = 16
POOL = [8, 8, 9]
# Resizing is done on whole levels of 255: both streams are compared in those. PIL's versions differ by a level or two.
CLIP_LEVELS, SAM_LEVELS = Tolerance(2.01), Tolerance(1.01)
STATISTICS = Tolerance(2e-3)


# Modules


@torch.no_grad()
def check_components(case: RecordedCase, report: Report) -> None:
    """Modules on their own, each as far as the case has it."""
    names = case.listed_outputs
    for name in sorted(names):
        if name == "clip_adapter.y":
            report.compare(name, _clip_adapter(case), FEATURES)
        elif name == "sam_adapter.y":
            report.compare(name, _sam_adapter(case), FEATURES)
        elif re.fullmatch(r"sam_block_\w+\.y", name):
            report.compare(name, _sam_block(case, name.removesuffix(".y")), FEATURES)
        elif name == "pool.y":
            report.compare(name, _pool(case), FEATURES)
        elif match := re.fullmatch(r"pos_embed_(\d+)", name):
            report.compare(name, resize_position_embedding(_table(case, "pos_embed_"), int(match[1])), FEATURES)
        elif match := re.fullmatch(r"(rel_pos_[hw]_)(\d+)", name):
            report.compare(name, resize_relative_positions(_table(case, match[1]), int(match[2])), FEATURES)
        elif match := re.fullmatch(r"(rel_pos_[hw]_\d+)_forward_linear", name):
            # What SAM would do on the fly without the conversion's resize.
            table, length = case.inputs[match[1]], len(case.outputs[name])
            report.compare(name, F.interpolate(table.T[None], size=length, mode="linear")[0].T, FEATURES)
        elif name == "giou.loss":
            report.compare(
                name, generalized_box_iou_loss(case.inputs["giou.boxes1"], case.inputs["giou.boxes2"]), FEATURES
            )
        elif match := re.fullmatch(r"dense_pe_(float32|bfloat16)", name):
            report.compare(name, _box_decoder(case, match[1]).dense_positional_encoding(), FEATURES)
    if any(name.startswith("decoder.") for name in names):
        _check_decoder(case, report)


def _table(case: RecordedCase, prefix: str) -> Tensor:
    """The one input whose name is `prefix` and a size."""
    [name] = [name for name in case.inputs if re.fullmatch(prefix + r"\d+", name)]
    return case.inputs[name]


def _load(module: nn.Module, case: RecordedCase, config: GroveConfig, parts: dict[str, int], ours: str) -> None:
    """
    Loads the case's `parts` (name -> index that stands for N) into `module`, whose place in our model is `ours`, by the
    names of the whole checkpoint.
    """
    prefixes = OFFICIAL_PREFIXES | case.meta.get("state_dict_prefixes", {})
    weights = {}
    for part, index in parts.items():
        official = prefixes["sam_block_*" if part.startswith("sam_block_") else part]
        official = re.sub(r"\bN$", str(index), official)
        for name, tensor in case.state_dict.items():
            if name.startswith(f"{part}."):
                target = plan_tensor(official + name.removeprefix(part), tuple(tensor.shape), config).target
                if target is not None:
                    weights[target.removeprefix(ours)] = tensor
    module.load_state_dict(weights)
    module.eval()


def _clip_adapter(case: RecordedCase) -> Tensor:
    hidden_states = case.inputs["clip_adapter.x"]
    patches, width = hidden_states.shape[1] - 1, hidden_states.shape[2]
    frames, rows, cols = case.described(
        "clip_adapter.y", r"viewed as \((\d+,\d+,\d+)\)", [WINDOW_FRAMES, ADAPTER_ROWS, patches // ADAPTER_ROWS]
    )
    vision = {"hidden_size": width, "num_attention_heads": 1, "num_hidden_layers": 2}
    vision |= {"image_size": 14 * round(patches**0.5), "patch_size": 14}
    config = GroveConfig(vision_config=vision, vision_adapter_grid=(rows, cols))
    tower = GroveVisionTower(config)
    _load(tower.adapters["0"], case, config, {"clip_adapter": 0}, "model.vision_tower.adapters.0.")
    return tower._adapt(0, hidden_states, frames)


def _sam_adapter(case: RecordedCase) -> Tensor:
    features = case.inputs["sam_adapter.x"]
    config = GroveConfig(grounding_config={"num_hidden_layers": 1, "global_attn_indexes": (0,)})
    adapter = SpatioTemporalAdapter(features.shape[-1])
    _load(adapter, case, config, {"sam_adapter": 0}, "model.grounding_encoder.adapters.0.")
    frames = case.described("sam_adapter.y", r"over \((\d+),", [WINDOW_FRAMES])[0]
    return adapter(features.unflatten(0, (-1, frames))).flatten(0, 1)


def _sam_block(case: RecordedCase, part: str) -> Tensor:
    features = case.inputs[f"{part}.x"]
    positions, head_width = case.state_dict[f"{part}.attn.rel_pos_h"].shape
    grid, width = features.shape[1:3], features.shape[-1]
    is_global = positions == 2 * grid[0] - 1
    config = GroveConfig(
        attn_implementation="sdpa",
        grounding_config={
            "hidden_size": width,
            "num_attention_heads": width // head_width,
            "num_hidden_layers": 1,
            "global_attn_indexes": (0,) if is_global else (),
            "mlp_ratio": case.state_dict[f"{part}.mlp.lin1.weight"].shape[0] / width,
            "window_size": (positions + 1) // 2,
            "image_size": 16 * grid[0],
            "patch_size": 16,
        },
    )
    layer = GroveGroundingLayer(config.grounding_config, 0 if is_global else config.grounding_config.window_size)
    _load(layer, case, config, {part: 0}, "model.grounding_encoder.layers.0.")
    return layer(features)


def _pool(case: RecordedCase) -> Tensor:
    features = case.inputs["pool.x"]
    sizes = case.described("pool.y", r"AdaptiveAvgPool3d\(\((\d+,\d+,\d+)\)\)", POOL)
    frames = case.described("pool.y", r"on \((\d+),", [WINDOW_FRAMES])[0]
    vision = {"hidden_size": features.shape[2], "num_attention_heads": 1, "patch_size": 14}
    vision |= {"image_size": 14 * round(features.shape[1] ** 0.5)}
    text = {"hidden_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 32010}
    config = GroveConfig(vision_config=vision, video_pool_size=tuple(sizes), num_frames=frames, text_config=text)
    return GroveMultiModalProjector(config).pool_features(features.unflatten(0, (-1, frames)))


def _box_decoder(case: RecordedCase, dtype: str = "float32") -> GroveBoxDecoder:
    weights = case.state_dict
    width = weights["mask_decoder.iou_token.weight"].shape[1]
    heads = case.meta.get("decoder_num_heads", 8)
    layer = "mask_decoder.transformer.layers.{}.mlp.lin1.weight"
    depth = next(index for index in range(len(weights)) if layer.format(index) not in weights)
    inner = weights["mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"].shape[0]
    encodings = [name for name in case.outputs if name.startswith("dense_pe_")]
    grid = case.outputs[encodings[0]].shape[-1] if encodings else 32
    config = GroveConfig(
        attn_implementation="sdpa",
        grounding_config={
            "output_channels": width,
            "num_pos_feats": width // 2,
            "decoder_num_hidden_layers": depth,
            "decoder_num_attention_heads": heads,
            "decoder_mlp_dim": weights[layer.format(0)].shape[0],
            "decoder_attention_downsample_rate": width // inner,
            "num_mask_tokens": len(weights["mask_decoder.mask_tokens.weight"]),
            "image_size": 16 * grid,
            "patch_size": 16,
            "positional_encoding_dtype": dtype,
        },
    )
    grounding: GroveGroundingConfig = config.grounding_config
    decoder = GroveBoxDecoder(grounding, "mask_decoder.temporal_objectness_head.weight" in weights)
    _load(decoder, case, config, {"mask_decoder": 0, "prompt_encoder": 0}, "model.box_decoder.")
    return decoder


def _check_decoder(case: RecordedCase, report: Report) -> None:
    """Each frame has its own queries here, so that a frame is a window of one frame for our decoder."""
    decoder = _box_decoder(case)
    entry = case.meta["decoder.image_embeddings"]
    scope: dict[str, Any] = {}
    exec(case.meta["pixel_formula"], scope)  # the recorded source of `wave`
    features = np.asarray(eval(entry["call"], scope, {"k": entry["k"]}))
    check_array(report, "inputs: decoder.image_embeddings", features, entry.get("check"))
    frames = torch.from_numpy(np.ascontiguousarray(features))
    queries, counts = case.inputs["decoder.det_embeddings"], case.inputs["decoder.reps"]
    mask = torch.arange(int(counts.max())) < counts[:, None]
    padded = queries.new_zeros(*mask.shape, queries.shape[1])
    padded[mask] = queries
    boxes, objectness = decoder(padded, frames[:, None], mask)
    report.compare("decoder.boxes", boxes[:, 0][mask], BOXES)
    if objectness is not None:
        report.compare("decoder.objectness_logits", objectness[:, 0][mask], OBJECTNESS)
    report.compare(
        "decoder.tokens_out", decoder.decode_tokens(queries, frames.repeat_interleave(counts, dim=0)), FEATURES
    )


# Preprocessing


def check_preprocess(case: RecordedCase, report: Report) -> None:
    """Recorded frames through the video processor, and boxes through their conversions."""
    scope: dict[str, Any] = {}
    exec(case.meta["frames_formula"], scope)  # the recorded source of `frames`
    for name, clip in case.meta["clips"].items():
        frames = eval(clip["call"], scope, {"k": clip["k"]})
        report.same(
            f"inputs: {name} sha256", hashlib.sha256(frames.tobytes()).hexdigest(), clip["sha256_uint8_TxHxWx3"]
        )
        _check_clip(case, report, name, frames)
    sizes = {name.split(".")[1] for name in case.listed_outputs if name.startswith("boxes.")}
    for size in sorted(sizes):
        width, height = map(int, size.split("x"))
        report.used.add(f"boxes.{size}.xyxy_px")  # the input of the other two
        pixels = case.outputs[f"boxes.{size}.xyxy_px"]
        normalised = boxes_from_pixels(pixels, width, height)
        report.compare(f"boxes.{size}.norm_cxcywh", normalised, BOXES)
        report.compare(f"boxes.{size}.back_xyxy_px", boxes_to_pixels(normalised, width, height), PIXELS)


def _check_clip(case: RecordedCase, report: Report, name: str, frames: np.ndarray) -> None:
    clip, processor = case.meta["clips"][name], GroveVideoProcessor()
    features = processor(frames, do_sample_frames=False)
    # The recorded layout is (channels, frames, height, width).
    global_stream = features["pixel_values_videos"][0].transpose(0, 1)
    grounding_stream = features["grounding_pixel_values_videos"][0].transpose(0, 1)
    report.same(f"{name} clip_pixel_values_shape", list(global_stream.shape), clip["clip_pixel_values_shape"])
    report.same(f"{name} sam_pixel_values_shape", list(grounding_stream.shape), clip["sam_pixel_values_shape"])
    stored = clip["frames_stored"]

    def patch(part: str, stream: Tensor, default: list[int]) -> Tensor:
        [frame] = case.described(f"{name}.{part}", r"frame (\d+)", [1])
        top, bottom = case.described(f"{name}.{part}", r"rows (\d+:\d+)", default[:2])
        left, right = case.described(f"{name}.{part}", r"cols (\d+:\d+)", default[2:])
        return stream[:, frame, top:bottom, left:right]

    def levels(part: str, ours: Tensor, mean: Any, std: Any, tolerance: Tolerance) -> None:
        """Compares in levels of 255; the channel axis is the fourth from the end, or the first of three."""
        shape = (-1, 1, 1) if ours.ndim == 3 or part == "clip_corner" else (-1, 1, 1, 1)
        mean, std = (torch.tensor(values, dtype=torch.float32).reshape(shape) for values in (mean, std))
        full = f"{name}.{part}"
        report.used.add(full)
        if full not in case.outputs:
            report.fail(full, "missing: outputs.safetensors has no such tensor")
            return
        recorded = case.outputs[full]
        if ours.shape != recorded.shape:
            report.compare(full, ours, tolerance)
            return
        report.close(full, ours * std + mean, recorded * std + mean, tolerance)
        if part.startswith("sam"):
            report.close(f"{full} padding", ours[recorded == 0], recorded[recorded == 0], EXACT)

    clip_scale = (np.array(processor.image_mean) * 255, np.array(processor.image_std) * 255, CLIP_LEVELS)
    sam_scale = (processor.grounding_image_mean, processor.grounding_image_std, SAM_LEVELS)
    grid = clip["clip_grid_index"]
    levels("clip_grid", global_stream[:, stored][:, :, grid][..., grid], *clip_scale)
    levels("clip_patch", patch("clip_patch", global_stream, [100, 124, 200, 224]), *clip_scale)
    [frame] = case.described(f"{name}.clip_corner", r"frame (\d+)", [1])
    side = case.outputs[f"{name}.clip_corner"].shape[-1]
    corners = [global_stream[:, frame, :side, :side], global_stream[:, frame, -side:, -side:]]
    levels("clip_corner", torch.stack(corners), *clip_scale)
    grid = clip["sam_grid_index"]
    levels("sam_grid", grounding_stream[:, stored][:, :, grid][..., grid], *sam_scale)
    levels("sam_patch", patch("sam_patch", grounding_stream, [60, 84, 90, 114]), *sam_scale)
    [frame] = case.described(f"{name}.sam_edge", r"frame (\d+)", [1])
    (top, left), (rows, cols) = clip["sam_edge_origin_yx"], case.outputs[f"{name}.sam_edge"].shape[1:]
    levels("sam_edge", grounding_stream[:, frame, top : top + rows, left : left + cols], *sam_scale)
    for part, stream in (("clip_stats", global_stream), ("sam_stats", grounding_stream)):
        flat = stream.flatten(2).transpose(0, 1)  # (T, 3, pixels)
        report.compare(f"{name}.{part}", torch.stack([flat.mean(-1), flat.std(-1)]), STATISTICS)

    height, width = clip["sam_resized_hw"]
    [stride] = case.described(f"{name}.sam_resized_uint8_grid", r"\[::(\d+)", [16])
    mean, std = (torch.tensor(values).reshape(-1, 1, 1, 1) for values in sam_scale[:2])
    content = (grounding_stream[:, stored, :height:stride, :width:stride] * std + mean).permute(1, 2, 3, 0)
    report.compare(f"{name}.sam_resized_uint8_grid", content, SAM_LEVELS)
    padding = torch.cat([grounding_stream[:, :, height:].flatten(), grounding_stream[..., width:].flatten()])
    report.close(f"{name} sam padding", padding, torch.zeros_like(padding), EXACT)


# The full-size checkpoint


def check_manifest(case: RecordedCase, report: Report) -> None:
    """Every tensor of the full-size checkpoint has a place of the right shape, and every tensor of ours is supplied."""
    tensors = {name: tuple(entry["shape"]) for name, entry in case.meta["tensors"].items()}
    # The original's behaviour needs the folded grid; all sizes are defaults.
    config = GroveConfig(vision_adapter_grid=(16, 36), freeze_vision_adapters=True)
    plans = {name: plan_tensor(name, shape, config) for name, shape in tensors.items()}
    with torch.device("meta"):
        model = GroveForConditionalGeneration(config)
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    supplied = {plan.target: tensors[name] for name, plan in plans.items() if plan.target is not None}
    report.same("names without a source", sorted(set(ours) - set(supplied)), [])
    report.same("names without a place", sorted(set(supplied) - set(ours)), [])
    report.same("names claimed twice", len([plan for plan in plans.values() if plan.target]) - len(supplied), 0)
    report.all_same("shapes", {name: (ours.get(name), shape) for name, shape in supplied.items()})
    buffers = {name for name, _ in model.named_buffers()}
    recorded_buffers = {name for name, entry in case.meta["tensors"].items() if entry["buffer"]}
    report.all_same(
        "buffers",
        {name: (plan.target in buffers, name in recorded_buffers) for name, plan in plans.items() if plan.target},
    )
    dropped = {name for name, plan in plans.items() if plan.target is None}
    used = sorted(set(case.meta["never_used_in_forward"]) - dropped)
    report.same("never_used_in_forward that we keep", used, [])
    total = sum(parameter.numel() for parameter in model.parameters())
    total += sum(prod(tensors[name]) for name in dropped - recorded_buffers)
    report.same("total_parameters", total, case.meta["total_parameters"])
