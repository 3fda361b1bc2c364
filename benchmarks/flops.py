"""Floating-point operations that GROVE's inference needs at least, and the rate at which this machine multiplies matrices."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.part_timer import Seconds, clock
from benchmarks.random_models import TOKENS_BEFORE_VIDEO
from modeling_grove import GroveConfig, GroveForConditionalGeneration
from modeling_grove.adapter_grove import closed_adapters


def least_flops(
    model: GroveForConditionalGeneration, num_frames: int, num_windows: int, prompt_length: int, caption_ids: list[int]
) -> dict[str, float]:
    """
    Operations (2 for a multiplication and an addition) by part, for one video of `num_frames` frames.

    Each frame is encoded once, without the tokens that pad windows, without convolution taps on zero padding, without adapters
    whose gate is closed and layers that nobody reads. The language model reads the prompt's beginning once for all windows and
    never a position behind the last `[DET]`; the centre window's states are those of the generation. What all phrases share is
    computed once a frame. Norms, activations and other work of one pass are not counted.
    """
    config = model.config
    return {
        "vision encoder": num_frames * _vision_frame(model),
        "grounding encoder": num_frames * _grounding_frame(model),
        "projector": num_windows * _projector_window(config),
        **_language_model(config, num_windows, prompt_length, caption_ids),
        "box decoder": _box_decoder(config, num_frames, caption_ids.count(config.det_token_id)),
    }


def _layer(tokens: float, width: int, mlp: int, keys: float) -> float:
    """A transformer layer: four projections, two products of the attention, two of the feed-forward layer."""
    return 2 * tokens * (4 * width * width + 2 * width * mlp) + 4 * tokens * keys * width


def _adapter_frame(width: int, frames: int, rows: int, cols: int) -> float:
    taps = 1.0
    for size in (frames, rows, cols):
        taps *= (3 * size - 2) / size
    return 2 * rows * cols * taps * width * width


def _num_open(adapters: nn.ModuleDict) -> int:
    return len(adapters) - len(closed_adapters(adapters))


def _vision_frame(model: GroveForConditionalGeneration) -> float:
    config, vision = model.config, model.config.vision_config
    width, patches = vision.hidden_size, model.config.vision_grid_size**2
    total = 2.0 * patches * 3 * vision.patch_size**2 * width
    total += config.num_vision_layers * _layer(patches + 1, width, vision.intermediate_size, patches + 1)
    rows, cols = model.model.vision_tower.adapter_grid
    return total + _num_open(model.model.vision_tower.adapters) * _adapter_frame(width, config.num_frames, rows, cols)


def _grounding_frame(model: GroveForConditionalGeneration) -> float:
    config = model.config.grounding_config
    width, grid, side = config.hidden_size, config.grid_size, config.window_size
    tokens, channels = grid * grid, config.output_channels
    spans = [side] * (grid // side) + ([grid % side] if grid % side else [])
    total = 2.0 * tokens * 3 * config.patch_size**2 * width
    for index in range(config.num_hidden_layers):
        if index in config.global_attn_indexes:
            total += _layer(tokens, width, config.mlp_dim, tokens) + 2 * tokens * 2 * grid * width
        else:
            total += _layer(tokens, width, config.mlp_dim, 0)
            for rows in spans:
                for cols in spans:
                    total += 4 * (rows * cols) ** 2 * width + 2 * rows * cols * (rows + cols) * width
    adapter = _adapter_frame(width, model.config.num_frames, grid, grid)
    total += _num_open(model.model.grounding_encoder.adapters) * adapter
    neck = width * channels + ((3 * grid - 2) / grid) ** 2 * channels**2
    return total + 2 * tokens * neck


def _projector_window(config: GroveConfig) -> float:
    width = config.text_config.hidden_size
    return 2.0 * config.num_video_tokens * width * (config.vision_config.hidden_size + width)


def _language_model(
    config: GroveConfig, num_windows: int, prompt_length: int, caption_ids: list[int]
) -> dict[str, float]:
    text = config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    projections = 2 * text.hidden_size * head_dim * (text.num_attention_heads + text.num_key_value_heads)
    weights = text.num_hidden_layers * (projections + 3 * text.hidden_size * text.intermediate_size)

    def positions(first: int, last: int) -> float:
        """Positions first..last-1, each attending to itself and to all before it."""
        keys = (last * (last + 1) - first * (first + 1)) / 2
        return 2 * weights * (last - first) + 4 * keys * text.hidden_size * text.num_hidden_layers

    head = 2.0 * text.hidden_size * text.vocab_size
    generated = prompt_length + len(caption_ids) - 1
    dets = [index for index, token in enumerate(caption_ids) if token == config.det_token_id]
    shared = TOKENS_BEFORE_VIDEO + 1  # and <vid_start>
    regrounded = positions(shared, prompt_length + dets[-1]) if dets else 0.0
    return {
        "prefill": positions(0, prompt_length) + head,
        "decode steps": positions(prompt_length, generated) + head * (len(caption_ids) - 1),
        "language model over captions": (num_windows - 1) * regrounded,
    }


def _box_decoder(config: GroveConfig, num_frames: int, num_phrases: int) -> float:
    grounding = config.grounding_config
    width, cells = grounding.output_channels, grounding.grid_size**2
    inner, tokens = width // grounding.decoder_attention_downsample_rate, grounding.num_mask_tokens + 2
    projection = 2.0 * cells * width * inner
    attention = 4.0 * tokens * cells * inner
    layers = grounding.decoder_num_hidden_layers
    # Of the first layer, keys, values and queries of the cells are equal for all phrases of a frame.
    per_frame = 3 * projection
    per_row = projection + 2 * attention + (layers - 1) * (4 * projection + 2 * attention) + 2 * projection + attention
    small = 2.0 * tokens * layers * (4 * width**2 + 4 * width * inner + 2 * width * grounding.decoder_mlp_dim)
    return num_frames * (per_frame + num_phrases * (per_row + small))


def measure_rates(device: str, dtype: torch.dtype, size: int = 3072, seconds: float = 0.5) -> dict[str, Seconds]:
    """
    Operations a second (`wall`, of the fastest) and a second of processor time (`cpu`, of all) of repeated large products: the
    product of `size` x `size` matrices, and on the CPU the same as a 1 x 1 convolution, which another library computes.
    """
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    products: dict[str, Callable[[], torch.Tensor]] = {"matrix product": lambda: left @ right}
    if device == "cpu":
        image, kernel = left.view(1, size, 1, size).permute(0, 3, 1, 2), right[:, :, None, None]
        products["1 x 1 convolution"] = lambda: F.conv2d(image, kernel)
    rates = {}
    with torch.no_grad():
        for name, product in products.items():
            product()
            laps = [clock(device)]
            while len(laps) < 3 or laps[-1].wall < laps[0].wall + seconds:
                product()
                laps.append(clock(device))
            fastest = min(after.wall - before.wall for before, after in pairwise(laps))
            # Processor time is kept too coarsely for a single product.
            cpu = (laps[-1].cpu - laps[0].cpu) / (len(laps) - 1)
            rates[name] = Seconds(2 * size**3 / fastest, 2 * size**3 / max(cpu, 1e-9))
    return rates


__all__ = ["least_flops", "measure_rates"]
