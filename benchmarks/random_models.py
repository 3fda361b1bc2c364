"""Random GROVE models of three sizes, and the text and the video that the benchmarks run them on."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from modeling_grove import GroveConfig, GroveForConditionalGeneration, GroveVideoProcessor
from pipeline_annotate.glamm_model import GlammConfig, GlammForConditionalGeneration

Size = Literal["tiny", "mid", "full"]

# The original's prompt: about 40 pieces before the video tokens and 58 behind.
TOKENS_BEFORE_VIDEO, TOKENS_AFTER_VIDEO = 40, 58
_BASE: dict[str, Any] = {
    "vocab_size": 32010,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rms_norm_eps": 1e-5,
}
_SIZES: dict[str, dict[str, Any]] = {
    # CLIP-B and SAM ViT-B sizes (both 12 layers of width 768) and a language model of 134 M parameters with its tables.
    "mid": {
        "text_config": {
            **_BASE,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
            "max_position_embeddings": 4096,
        },
        "vision_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 512,
        },
        "grounding_config": {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "global_attn_indexes": (2, 5, 8, 11),
        },
        "vision_adapter_grid": (16, 36),
    },
    "full": {"vision_adapter_grid": (16, 36)},
    "tiny": {
        "text_config": {
            **_BASE,
            "vocab_size": 256,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
        },
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "projection_dim": 16,
        },
        "grounding_config": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "global_attn_indexes": (1,),
            "output_channels": 32,
            "num_pos_feats": 16,
            "image_size": 96,
            "window_size": 4,
            "decoder_mlp_dim": 48,
        },
        "num_frames": 8,
        "video_pool_size": (8, 2, 3),
        "video_start_token_id": 251,
        "video_end_token_id": 252,
        "phrase_start_token_id": 253,
        "phrase_end_token_id": 254,
        "det_token_id": 255,
        "video_token_id": 256,
    },
}


def build_model(
    size: Size, *, device: str, dtype: torch.dtype, attention: str, alpha_zero: bool, seed: int
) -> GroveForConditionalGeneration:
    """
    A random model in evaluation mode. Every adapter is open (alpha 0.3) except, with `alpha_zero`, those of the vision tower,
    which are the identity in the released checkpoints.
    """
    torch.manual_seed(seed)
    config = GroveConfig(**_SIZES[size])
    with torch.device(device):
        model = GroveForConditionalGeneration._from_config(config, dtype=dtype).eval().requires_grad_(False)
    # SAM's attention adds a bias that no flash kernel takes, so that the grounding encoder stays with sdpa.
    flash = attention.startswith("flash")
    model.set_attn_implementation(
        {"text_config": attention, "vision_config": attention, "grounding_config": "sdpa" if flash else attention}
    )
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.fill_(0.0 if alpha_zero and "vision_tower" in name else 0.3)
        elif name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
            parameter.normal_(std=0.02)  # zeros by default, which would hide a wrong position
    # Captions are forced, so that every run writes as many tokens.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    return model


def build_glamm(size: Size, *, device: str, dtype: torch.dtype, seed: int) -> GlammForConditionalGeneration:
    """A random GLaMM in evaluation mode: one picture, SAM at 1024 pixels but for the tiny one."""
    torch.manual_seed(seed)
    sizes = dict(_SIZES[size])
    side = (
        sizes["vision_config"]["image_size"] // sizes["vision_config"]["patch_size"] if "vision_config" in sizes else 24
    )
    sizes |= {"num_frames": 1, "video_pool_size": (1, side, side), "vision_adapter_interval": 0}
    sizes["grounding_config"] = {**sizes.get("grounding_config", {}), "use_adapters": False}
    if size != "tiny":
        sizes["grounding_config"]["image_size"] = 1024
    config = GlammConfig(**sizes)
    with torch.device(device):
        model = GlammForConditionalGeneration._from_config(config, dtype=dtype).eval().requires_grad_(False)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    return model


def build_video_processor(config: GroveConfig) -> GroveVideoProcessor:
    """The processor for the model's image sizes."""
    side = config.vision_config.image_size
    return GroveVideoProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        grounding_size=config.grounding_config.image_size,
        window_size=config.num_frames,
    )


def build_prompt_ids(config: GroveConfig, batch_size: int, generator: torch.Generator) -> Tensor:
    """`(batch_size, prompt_length)` random words around the video tokens, as many as the original's prompt has."""
    before = _words(config, TOKENS_BEFORE_VIDEO, generator)
    after = _words(config, TOKENS_AFTER_VIDEO, generator)
    video = [config.video_start_token_id, *[config.video_token_id] * config.num_video_tokens, config.video_end_token_id]
    return torch.tensor([before + video + after]).repeat(batch_size, 1)


def build_caption_ids(config: GroveConfig, new_tokens: int, phrases: int, generator: torch.Generator) -> list[int]:
    """`new_tokens` ids with `phrases` well-formed `<p> word </p> [DET]`, evenly spread."""
    segment = new_tokens // max(phrases, 1)
    if phrases and segment < 5:
        raise ValueError(f"{phrases} phrases need at least {5 * phrases} new tokens, got {new_tokens}")
    ids = _words(config, new_tokens, generator)
    for phrase in range(phrases):
        first = phrase * segment
        ids[first] = config.phrase_start_token_id
        ids[first + 2], ids[first + 3] = config.phrase_end_token_id, config.det_token_id
    return ids


def _words(config: GroveConfig, count: int, generator: torch.Generator) -> list[int]:
    highest = min(32000, config.video_start_token_id, config.phrase_start_token_id)
    return torch.randint(3, highest, (count,), generator=generator).tolist()


class ForcedCaption(LogitsProcessor):
    """Makes `generate` write given ids, whatever the random model would say."""

    def __init__(self, prompt_length: int, caption_ids: Sequence[int]):
        self.prompt_length = prompt_length
        self.caption_ids = caption_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.caption_ids[input_ids.shape[1] - self.prompt_length]] = 0
        return forced


def write_video(path: Path, frames: int, *, fps: int = 25, width: int = 640, height: int = 360) -> None:
    """An H.264 clip (MPEG-4 where PyAV has no encoder for it) of `frames` moving frames."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    rows, cols = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            waves = [128 + 100 * np.sin(rows / 23 + cols / (31 + 9 * c) + index / (5 + c)) for c in range(3)]
            image = np.stack(waves, axis=-1).astype(np.uint8)
            left = (7 * index) % (width - 80)
            image[120:200, left : left + 80] = (220, 40, 60)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
