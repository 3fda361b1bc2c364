"""One tiny GROVE for the whole test suite: its config, a model in which every part matters, and inputs that fit."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from modeling_grove import GroveConfig, GroveForConditionalGeneration

VOCAB_SIZE = 128
# The highest ids are the tags; the placeholder of a video token lies beyond the table, as in the released checkpoint.
VIDEO_START, VIDEO_END, PHRASE_START, PHRASE_END, DET, VIDEO = 123, 124, 125, 126, 127, 128
PAD, BOS, EOS = 0, 1, 2
WORDS = (3, 120)

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "tie_word_embeddings": False,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "projection_dim": 16,
}
_GROUNDING = {
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "global_attn_indexes": (1, 2),
    "output_channels": 32,
    "num_pos_feats": 16,
    "image_size": 96,
    "window_size": 4,
    "decoder_mlp_dim": 48,
}


def tiny_config(
    text_config: dict | None = None,
    vision_config: dict | None = None,
    grounding_config: dict | None = None,
    **overrides: Any,
) -> GroveConfig:
    """
    Windows of 4 frames; 4 x 4 patches pooled to (2, 2, 3) video tokens in overlapping columns, as the released checkpoint pools;
    a 6 x 6 grounding grid that windows of 4 do not divide. The three dicts change single fields of the sub-configs.
    """
    fields: dict[str, Any] = {
        "num_frames": 4,
        "video_pool_size": (2, 2, 3),
        "video_token_id": VIDEO,
        "video_start_token_id": VIDEO_START,
        "video_end_token_id": VIDEO_END,
        "phrase_start_token_id": PHRASE_START,
        "phrase_end_token_id": PHRASE_END,
        "det_token_id": DET,
    }
    return GroveConfig(
        text_config={**_TEXT, **(text_config or {})},
        vision_config={**_VISION, **(vision_config or {})},
        grounding_config={**_GROUNDING, **(grounding_config or {})},
        **{**fields, **overrides},
    )


def randomize(module: torch.nn.Module, seed: int = 0, adapters_open: bool = True) -> None:
    """
    Gives `module` weights under which every part changes the result: matrices that keep the scale of their input, norms and
    biases away from 1 and 0, and open adapters (or all of them shut, with `alpha` exactly 0).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("alpha"):
                value = (0.4 + 0.1 * noise.abs()) * noise.sign() if adapters_open else torch.zeros(parameter.shape)
            elif "embed_tokens" in name:
                value = noise
            elif "rel_pos" in name or "embed" in name or "token" in name:
                value = 0.3 * noise
            elif parameter.ndim > 1:
                value = noise / parameter[0].numel() ** 0.5
            elif "norm" in name and name.endswith("weight"):
                value = 1 + 0.1 * noise
            else:
                value = 0.1 * noise
            parameter.copy_(value)


def tiny_model(seed: int = 0, adapters_open: bool = True, **overrides: Any) -> GroveForConditionalGeneration:
    """A [`tiny_config`] model in evaluation mode, with the weights of [`randomize`]."""
    torch.manual_seed(seed)
    model = GroveForConditionalGeneration(tiny_config(**overrides)).eval()
    randomize(model, seed, adapters_open)
    return model


def _words(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(*WORDS, (count,), generator=generator).tolist()


def tiny_prompt(num_words: int, config: GroveConfig, generator: torch.Generator) -> list[int]:
    """`<s> words <vid_start> video tokens <vid_end> words`."""
    video = [VIDEO_START, *[VIDEO] * config.num_video_tokens, VIDEO_END]
    return [BOS, *_words(num_words, generator), *video, *_words(3, generator)]


def tiny_caption(num_phrases: int, generator: torch.Generator) -> list[int]:
    """`word <p> word word </p> [DET] ... word </s>`."""
    ids = _words(1, generator)
    for _ in range(num_phrases):
        ids += [PHRASE_START, *_words(2, generator), PHRASE_END, DET, *_words(1, generator)]
    return [*ids, EOS]


def pad_rows(rows: Sequence[Sequence[int]], side: Literal["left", "right"], fill: int = PAD) -> tuple[Tensor, Tensor]:
    """Rows of ids `(B, L)`, padded on `side`, and their attention mask."""
    length = max(map(len, rows))

    def pad(row: Sequence[int], value: int) -> list[int]:
        padding = [value] * (length - len(row))
        return [*padding, *row] if side == "left" else [*row, *padding]

    return torch.tensor([pad(row, fill) for row in rows]), torch.tensor([pad([1] * len(row), 0) for row in rows])


def tiny_pixels(
    config: GroveConfig, batch_size: int, num_frames: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Both streams of random frames."""
    generator = torch.Generator().manual_seed(seed)
    vision, grounding = config.vision_config.image_size, config.grounding_config.image_size
    frames = num_frames or config.num_frames
    return {
        "pixel_values_videos": torch.randn(batch_size, frames, 3, vision, vision, generator=generator),
        "grounding_pixel_values_videos": torch.randn(batch_size, frames, 3, grounding, grounding, generator=generator),
    }


def tiny_inputs(
    config: GroveConfig,
    num_phrases: Sequence[int] = (2, 1),
    padding_side: Literal["left", "right"] = "right",
    seed: int = 0,
    labels: bool = True,
) -> dict[str, Tensor]:
    """
    What a training step gets: rows of different length with `num_phrases` phrases each, the labels of their captions, and boxes of
    which some are absent (0) and some not annotated (-100).
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = [tiny_prompt(2 + 3 * index, config, generator) for index in range(len(num_phrases))]
    captions = [tiny_caption(count, generator) for count in num_phrases]
    input_ids, attention_mask = pad_rows([p + c for p, c in zip(prompts, captions, strict=True)], padding_side)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        **tiny_pixels(config, len(num_phrases), seed=seed),
    }
    if labels:
        ignored = [[-100] * len(prompt) + caption for prompt, caption in zip(prompts, captions, strict=True)]
        inputs["labels"] = pad_rows(ignored, padding_side, fill=-100)[0]
        shape = (len(num_phrases), config.num_frames, max(num_phrases))
        inputs["box_labels"] = torch.rand(*shape, 4, generator=generator) * 0.5 + 0.25
        presence = torch.randint(0, 4, shape, generator=generator)
        inputs["objectness_labels"] = torch.where(presence == 3, -100, presence.clamp(max=1)).float()
    return inputs


def one_row(inputs: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Row `index` of [`tiny_inputs`] as a batch of its own, without padding."""
    real = inputs["attention_mask"][index].bool()
    row = {name: value[index : index + 1] for name, value in inputs.items()}
    for name in ("input_ids", "attention_mask", "labels"):
        if name in row:
            row[name] = row[name][:, real]
    if "box_labels" in row:
        num_phrases = int((row["input_ids"] == DET).sum())
        row["box_labels"] = row["box_labels"][:, :, :num_phrases]
        row["objectness_labels"] = row["objectness_labels"][:, :, :num_phrases]
    return row
