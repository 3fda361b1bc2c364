"""
Sizes of an original GROVE or GLaMM checkpoint, from the shapes of its tensors and the configuration files beside it.

The result has the form of the `original_config.json` that [`config_from_original`] reads.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .checkpoint_io_grove import CheckpointError

_CLIP = "model.vision_tower.vision_tower.vision_model."
_SAM = "model.grounding_encoder.image_encoder."
_DECODER = "model.grounding_encoder.mask_decoder."

# Tokens that GLaMM and then GROVE add to Llama's pieces, in the order of their ids.
GLAMM_TOKENS = ("<im_start>", "<im_end>", "<bbox>", "<point>", "[SEG]", "<p>", "</p>")
GROVE_TOKENS = ("<vid_start>", "<vid_end>", "[DET]")

# What the training scripts of the release use; the defaults in its code, 1 each, trained nothing.
_LOSS_WEIGHTS = {"ce": 1.0, "giou": 2.0, "l1": 2.0, "temp_objectness": 2.0}
# SAM sees 512 px in GROVE; position tables of GLaMM, which sees 1024 px, are resized.
_IMAGE_SIZE = 512
# Heads of CLIP's published sizes, by width.
_CLIP_HEADS = {768: 12, 1024: 16, 1280: 16}


class _Description:
    """The description while it is put together: what `original_config.json` says comes first, and guesses are written down."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]):
        self.shapes = shapes
        self.given = given
        self.values: dict[str, dict[str, Any]] = {"clip": {}, "sam": {}, "llm": {}}
        self.notes: list[str] = []

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise CheckpointError(
                f"The checkpoint has no {name!r}, so the size of the model is unknown; "
                "give the checkpoint that it was trained from with --base, or CLIP with --clip."
            )
        return self.shapes[name]

    def count(self, prefix: str) -> int:
        """How many modules are numbered `prefix0.`, `prefix1.`, ..."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        return 1 + max((int(match[1]) for name in self.shapes if (match := pattern.match(name))), default=-1)

    def put(self, section: str, **values: Any) -> None:
        """Values that the shapes or the original's code fix."""
        for key, value in values.items():
            self.values[section][key] = self.given.get(section, {}).get(key, value)

    def choose(self, section: str, key: str, stated: Any, default: Any, divides: int | None = None) -> Any:
        """A value that only a configuration file can state; else the released one, which is noted and must fit `divides`."""
        value = self.given.get(section, {}).get(key, stated)
        if value is None:
            value = default
            self.notes.append(f"{section}.{key} is taken as {value}, as released: no configuration file states it")
        if divides is not None and (not isinstance(value, int) or value < 1 or divides % value):
            raise CheckpointError(
                f"{section}.{key} is {value}, which does not divide the width {divides} of the checkpoint; "
                "state it in an original_config.json beside the weights."
            )
        self.values[section][key] = value
        return value


def _describe_language_model(description: _Description, hub: Mapping[str, Any], num_new_tokens: int) -> None:
    vocab_size, width = description.shape("model.embed_tokens.weight")
    description.values["llm"] = {"hidden_size": width, "vocab_size": vocab_size + num_new_tokens}
    if hub.get("hidden_size", width) != width:
        raise CheckpointError(
            f"config.json says hidden_size {hub['hidden_size']}, but model.embed_tokens.weight has shape {(vocab_size, width)}; "
            "expected them to agree."
        )
    if hub.get("rope_scaling"):
        raise CheckpointError(f"config.json has rope_scaling {hub['rope_scaling']}; expected none, as in Vicuna 1.5.")
    rope = hub.get("rope_parameters") or {}
    heads = description.choose("llm", "num_attention_heads", hub.get("num_attention_heads"), 32, divides=width)
    description.put(
        "llm",
        intermediate_size=description.shape("model.layers.0.mlp.gate_proj.weight")[0],
        num_hidden_layers=description.count("model.layers."),
        num_key_value_heads=description.shape("model.layers.0.self_attn.k_proj.weight")[0] // (width // heads),
        attention_bias="model.layers.0.self_attn.q_proj.bias" in description.shapes,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    for key, stated, default in (
        ("rms_norm_eps", hub.get("rms_norm_eps"), 1e-5),
        ("rope_theta", hub.get("rope_theta", rope.get("rope_theta")), 10000.0),
        ("max_position_embeddings", hub.get("max_position_embeddings"), 4096),
        ("hidden_act", hub.get("hidden_act"), "silu"),
    ):
        description.choose("llm", key, stated, default)


def _describe_vision_tower(description: _Description, hub: Mapping[str, Any], clip: Mapping[str, Any]) -> None:
    (width,) = description.shape(_CLIP + "embeddings.class_embedding")
    positions, _ = description.shape(_CLIP + "embeddings.position_embedding.weight")
    patch_size = description.shape(_CLIP + "embeddings.patch_embedding.weight")[-1]
    depth = description.count(_CLIP + "encoder.layers.")
    patches = positions - 1
    grid = round(patches**0.5)
    if grid**2 != patches:
        raise CheckpointError(f"CLIP has {positions} positions; expected a square number of patches and a class token.")
    clip = clip.get("vision_config") or clip
    description.choose(
        "clip", "num_attention_heads", clip.get("num_attention_heads"), _CLIP_HEADS.get(width, 16), divides=width
    )
    select_layer = hub.get("mm_vision_select_layer", -2)
    select_layer = description.given.get("clip", {}).get("select_layer", select_layer)
    num_layers = depth + 1 + select_layer if select_layer < 0 else select_layer
    # 16 rows are written into the original's code, whatever the true grid is.
    adapter_grid = [8, 16, patches // 16] if patches % 16 == 0 else [8, grid, grid]
    description.put(
        "clip",
        hidden_size=width,
        intermediate_size=description.shape(_CLIP + "encoder.layers.0.mlp.fc1.weight")[0],
        num_hidden_layers=depth,
        image_size=grid * patch_size,
        patch_size=patch_size,
        projection_dim=clip.get("projection_dim", 768),
        hidden_act=clip.get("hidden_act", "quick_gelu"),
        layer_norm_eps=clip.get("layer_norm_eps", 1e-5),
        select_layer=select_layer,
        adapter_layer_indexes=list(range(0, num_layers, 3)),
        adapter_grid=adapter_grid,
        pool_output=[8, 8, 9],
    )


def _describe_grounding(description: _Description, out_dim: int) -> None:
    _, grid, _, width = description.shape(_SAM + "pos_embed")
    patch_size = description.shape(_SAM + "patch_embed.proj.weight")[-1]
    depth = description.count(_SAM + "blocks.")
    tables = [description.shape(f"{_SAM}blocks.{index}.attn.rel_pos_h") for index in range(depth)]
    # A global block's table spans the whole grid, a windowed block's its window.
    is_global = [length == 2 * grid - 1 for length, _ in tables]
    windowed = {length for (length, _), spans in zip(tables, is_global, strict=True) if not spans}
    if len(windowed) > 1:
        raise CheckpointError(
            f"SAM's relative positions have lengths {sorted({length for length, _ in tables})}; expected {2 * grid - 1} in global "
            f"blocks ({grid} x {grid} patches) and one other length in windowed blocks."
        )
    transformer = _DECODER + "transformer."
    narrow = description.shape(transformer + "layers.0.cross_attn_token_to_image.q_proj.weight")[0]
    description.put(
        "sam",
        embed_dim=width,
        depth=depth,
        num_heads=width // tables[0][1],
        global_attn_indexes=[index for index, spans in enumerate(is_global) if spans],
        out_chans=description.shape(_SAM + "neck.0.weight")[0],
        image_size=_IMAGE_SIZE,
        patch_size=patch_size,
        mlp_ratio=description.shape(_SAM + "blocks.0.mlp.lin1.weight")[0] / width,
        window_size=(min(windowed) + 1) // 2 if windowed else 14,
        qkv_bias=f"{_SAM}blocks.0.attn.qkv.bias" in description.shapes,
        use_rel_pos=True,
        layer_norm_eps=1e-6,
        decoder_depth=description.count(transformer + "layers."),
        decoder_mlp_dim=description.shape(transformer + "layers.0.mlp.lin1.weight")[0],
        attention_downsample_rate=out_dim // narrow,
        num_multimask_outputs=description.shape(_DECODER + "mask_tokens.weight")[0] - 1,
        # Written into SAM's code, and the same in all its published sizes.
        decoder_num_heads=8,
    )


def describe_original(
    shapes: Mapping[str, tuple[int, ...]],
    hub: Mapping[str, Any],
    clip: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    new_tokens: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """
    Args:
        shapes (`Mapping[str, tuple[int, ...]]`): of all tensors, under the names of the original GROVE.
        hub (`Mapping`): the checkpoint's `config.json` in the LLaVA-style layout of GLaMM and GROVE, or empty.
        clip (`Mapping`): the `config.json` of the CLIP checkpoint, or empty.
        given (`Mapping`): an `original_config.json`, or empty; what it states goes before everything else.
        new_tokens (`bool`): whether GROVE's tokens are still to be added to the vocabulary.

    Returns:
        The description, and one line for each value that had to be assumed.

    Raises:
        CheckpointError: if a tensor is missing that tells a size, or the sources contradict each other.
    """
    for section in ("clip", "sam", "llm"):
        if not isinstance(given.get(section, {}), Mapping):
            raise CheckpointError(
                f"original_config.json has {section!r} = {given[section]!r}; expected an object with its sizes."
            )
    description = _Description(shapes, given)
    _describe_language_model(description, hub, len(GROVE_TOKENS) if new_tokens else 0)
    _describe_vision_tower(description, hub, clip)
    out_dim = description.shape("model.text_hidden_fcs.0.2.weight")[0]
    _describe_grounding(description, out_dim)

    vocab_size = description.values["llm"]["vocab_size"]
    tokens = GLAMM_TOKENS + GROVE_TOKENS
    ids = {token: vocab_size - len(tokens) + index for index, token in enumerate(tokens)}
    stated_size = given.get("llm", {}).get("vocab_size", vocab_size)
    stated_ids = given.get("special_token_ids", ids)
    if not new_tokens and (stated_size != vocab_size or any(stated_ids.get(token) != ids[token] for token in ids)):
        raise CheckpointError(
            f"original_config.json gives vocab_size {stated_size} and the ids {stated_ids}; "
            f"the {vocab_size} rows of the checkpoint have {ids}."
        )
    has_objectness = new_tokens or _DECODER + "temporal_objectness_head.weight" in shapes
    original: dict[str, Any] = {
        "num_frames": given.get("num_frames", 8),
        **description.values,
        "out_dim": out_dim,
        "special_token_ids": ids,
        "use_temp_objectness": has_objectness,
        "temp_objectness_threshold": given.get("temp_objectness_threshold", hub.get("temp_objectness_threshold", 0.5)),
        "loss_weights": given.get("loss_weights", _LOSS_WEIGHTS),
    }
    return original, description.notes


def first_stated(files: Iterable[dict | None]) -> dict[str, Any]:
    """The first of several configuration files that exists, or an empty one."""
    return next((content for content in files if content is not None), {})


__all__ = ["GLAMM_TOKENS", "GROVE_TOKENS", "describe_original", "first_stated"]
