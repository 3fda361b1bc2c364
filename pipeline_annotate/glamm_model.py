"""
GLaMM (Rasheed et al., CVPR 2024), the captioner of single pictures that stage 1 of the paper uses, from the parts of GROVE.

What GROVE inherited is GROVE's here: CLIP, the projector, Llama, SAM's encoder and the two-way transformer of its decoder. What
differs: one picture in place of a window, so no adapters; SAM at 1024 pixels; `[SEG]` in place of `[DET]`, whose query gives a mask
through SAM's own heads, not a box. `reference`: the official code under transformers 4.28 (tests/pipeline_annotate/test_glamm.py).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamFeedForward, SamLayerNorm

from modeling_grove import GroveConfig, GroveForConditionalGeneration
from modeling_grove.box_decoder_grove import GroveBoxDecoder
from modeling_grove.modeling_grove import GroveModel

LOW_RESOLUTION = 4  # cells of a mask in each direction, for one of the decoder's grid


@strict
class GlammConfig(GroveConfig):
    r"""
    Configuration of [`GlammForConditionalGeneration`]: a [`GroveConfig`] with one frame and no adapters, in which the tokens of the
    video are those of the picture and `det_token_id` is that of `[SEG]`.

    iou_head_hidden_dim (`int`, *optional*, defaults to 256), iou_head_depth (`int`, *optional*, defaults to 3):
        SAM's head that predicts how good a mask is.
    """

    model_type = "glamm"

    iou_head_hidden_dim: int = 256
    iou_head_depth: int = 3


class GlammMaskDecoder(GroveBoxDecoder):
    """
    SAM's mask decoder for queries of phrases: each gives the mask of SAM's first mask token, and how good it is.

    Args:
        config ([`GlammConfig`]): sizes.
    """

    def __init__(self, config: GlammConfig):
        grounding: Any = config.grounding_config
        super().__init__(grounding, use_temporal_objectness=False)
        del self.box_head
        width, narrow = grounding.output_channels, grounding.output_channels // 8
        self.upscale_conv1 = nn.ConvTranspose2d(width, 2 * narrow, kernel_size=2, stride=2)
        self.upscale_layer_norm = SamLayerNorm(2 * narrow, data_format="channels_first")
        self.upscale_conv2 = nn.ConvTranspose2d(2 * narrow, narrow, kernel_size=2, stride=2)
        self.output_hypernetworks_mlps = nn.ModuleList(
            [SamFeedForward(width, width, narrow, 3) for _ in range(grounding.num_mask_tokens)]
        )
        self.iou_prediction_head = SamFeedForward(
            width, config.iou_head_hidden_dim, grounding.num_mask_tokens, config.iou_head_depth
        )

    def decode_masks(self, queries: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            queries (`torch.Tensor` of shape `(N, C)`): of phrases.
            features (`torch.Tensor` of shape `(N, C, H, W)`): of each phrase's picture.

        Returns:
            Mask logits `(N, 4 H, 4 W)` and predicted IoUs `(N,)`.
        """
        height, width = (LOW_RESOLUTION * side for side in features.shape[-2:])
        if not len(queries):  # attention refuses empty batches
            return features.new_zeros(0, height, width), features.new_zeros(0)
        tokens, seen = self.attend(queries, features)
        upscaled = F.gelu(self.upscale_layer_norm(self.upscale_conv1(seen)))
        upscaled = F.gelu(self.upscale_conv2(upscaled))
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])
        masks = torch.einsum("nc,nchw->nhw", weights, upscaled)
        return masks, self.iou_prediction_head(tokens[:, 0])[:, 0]


class GlammModel(GroveModel):
    """
    GLaMM without the language modelling head.

    Args:
        config ([`GlammConfig`]): sizes of all parts.
    """

    config_class = GlammConfig

    def __init__(self, config: GlammConfig):
        super().__init__(config)
        del self.box_decoder
        self.mask_decoder = GlammMaskDecoder(config)
        self._use_cpu_kernels()
        self.post_init()


class GlammForConditionalGeneration(GroveForConditionalGeneration):
    """
    GLaMM with the language modelling head: writes grounded captions of pictures, and draws their masks.

    Args:
        config ([`GlammConfig`]): sizes of all parts.
    """

    config_class = GlammConfig

    def __init__(self, config: GlammConfig):
        super(GroveForConditionalGeneration, self).__init__(config)
        self.model = GlammModel(config)
        text: Any = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self._use_cpu_kernels()
        self.post_init()

    def masks(
        self, input_ids: Tensor, hidden_states: Tensor, grounding_embeds: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """
        The masks of the `[SEG]` tokens of texts.

        Args:
            input_ids (`torch.Tensor` of shape `(B, L)`): with the picture's tokens expanded.
            hidden_states (`torch.Tensor` of shape `(B, L, D)`): of the language model, normed.
            grounding_embeds (`torch.Tensor` of shape `(B, 1, C, H, W)`): of SAM's encoder.

        Returns:
            For each text its mask logits `(N, 4 H, 4 W)` and predicted IoUs `(N,)`.
        """
        queries, mask = self.model.gather_phrases(input_ids, hidden_states)
        row, _ = mask.nonzero(as_tuple=True)
        logits, ious = self.model.mask_decoder.decode_masks(queries[mask], grounding_embeds[row, 0])
        counts = mask.sum(1).tolist()
        return list(logits.split(counts)), list(ious.split(counts))


def full_size_masks(logits: Tensor, resized: tuple[int, int], original: tuple[int, int], side: int) -> Tensor:
    """
    Mask logits in the size of the picture, as SAM's code makes them: to the padded square, cut to what the picture covers of it, to
    the picture; bilinear, in float32.

    Args:
        logits (`torch.Tensor` of shape `(N, h, w)`): of the decoder.
        resized (`tuple[int, int]`): rows and columns of the square that the picture covers.
        original (`tuple[int, int]`): rows and columns of the picture.
        side (`int`): of the square.

    Returns:
        `torch.Tensor` of shape `(N, *original)`, float32; a pixel is in the mask where it is above 0.
    """
    if not len(logits):
        return logits.new_zeros(0, *original, dtype=torch.float32)
    masks = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
    masks = masks[..., : resized[0], : resized[1]]
    return F.interpolate(masks, original, mode="bilinear", align_corners=False)[:, 0]


__all__ = ["GlammConfig", "GlammForConditionalGeneration", "GlammMaskDecoder", "GlammModel", "full_size_masks"]
