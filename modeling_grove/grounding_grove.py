"""
Grounding video encoder: SAM's ViT over every frame with spatio-temporal adapters after its global-attention blocks.

Shape legend: B windows, T frames, F = B * T frames, H and W the patch grid, C width, h heads, d head width, S window side.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.sam.modeling_sam import (
    SamMLPBlock,
    SamPatchEmbeddings,
    SamPreTrainedModel,
    SamVisionAttention,
    SamVisionNeck,
    eager_attention_forward,
)

from .adapter_grove import GraphStart, SpatioTemporalAdapter, closed_adapters
from .configuration_grove import GroveGroundingConfig
from .pointwise_grove import CPU_BUFFER_BYTES, is_cpu_inference, map_rows


class GroveGroundingAttention(SamVisionAttention):
    """
    SAM's attention with decomposed relative positions, over windows of the patch grid or over all of it (`window_size == 0`).

    SAM pads the grid with zeros to whole windows before the projections (32 -> 42 patches a side), and real tokens attend to the
    padding. A padded token is the bias of the projection, so here only real tokens are projected and only real queries are
    computed, with the same result: 42 % fewer rows in the projections of windowed blocks at 512 px.
    """

    def __init__(self, config: GroveGroundingConfig, window_size: int):
        super().__init__(config, window_size)
        self.config = config
        self.window_size = window_size
        self.is_causal = False

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`query` (F, rows, cols, h, d), `key` and `value` (F, S_rows, S_cols, h, d) -> (F, rows, cols, h * d)."""
        frames, rows, cols, heads, width = query.shape
        key_rows, key_cols = key.shape[1:3]
        bias = None
        if self.use_rel_pos:
            by_head = query.permute(0, 3, 1, 2, 4)  # (F, h, rows, cols, d)
            bias_rows = torch.einsum("fhrcd,rkd->fhrck", by_head, self._relative(self.rel_pos_h, rows, key_rows))
            bias_cols = torch.einsum("fhrcd,ckd->fhrck", by_head, self._relative(self.rel_pos_w, cols, key_cols))
            # Contiguous, or the sum takes the product's odd layout and is copied to become the mask.
            bias_rows, bias_cols = bias_rows.contiguous()[..., :, None], bias_cols.contiguous()[..., None, :]
            if self.config._attn_implementation == "sdpa" and is_cpu_inference(query):
                return self._attend_in_parts(query, key, value, bias_rows, bias_cols)
            bias = (bias_rows + bias_cols).reshape(frames, heads, rows * cols, key_rows * key_cols)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        out, _ = attention(
            self,
            query.flatten(1, 2).transpose(1, 2),
            key.flatten(1, 2).transpose(1, 2),
            value.flatten(1, 2).transpose(1, 2),
            attention_mask=bias,
            scaling=self.scale,
            dropout=self.dropout if self.training else 0.0,
        )
        return out.reshape(frames, rows, cols, heads * width)

    def _attend_in_parts(
        self, query: Tensor, key: Tensor, value: Tensor, bias_rows: Tensor, bias_cols: Tensor
    ) -> Tensor:
        """
        As `_attend`, a few heads at a time, so that the bias of all their pairs of tokens, far larger than anything else here, is
        one small buffer: half the time of a global block's attention, and 0.8 GB less for 8 frames of 12 heads.
        """
        frames, rows, cols, heads, width = query.shape
        num_queries, num_keys = rows * cols, key.shape[1] * key.shape[2]
        query, key, value = (part.flatten(1, 2).transpose(1, 2) for part in (query, key, value))
        out = query.new_empty(frames, num_queries, heads, width)
        head_bytes = 4 * num_queries * num_keys
        num_heads = max(1, min(heads, CPU_BUFFER_BYTES // head_bytes))
        num_frames = max(1, min(frames, CPU_BUFFER_BYTES // (head_bytes * heads)))
        buffer = query.new_empty(num_frames * num_heads * num_queries * num_keys)
        for first_frame in range(0, frames, num_frames):
            for first_head in range(0, heads, num_heads):
                part = (slice(first_frame, first_frame + num_frames), slice(first_head, first_head + num_heads))
                shape = torch.broadcast_shapes(bias_rows[part].shape, bias_cols[part].shape)
                bias = torch.add(bias_rows[part], bias_cols[part], out=buffer[: prod(shape)].view(shape))
                out[part[0], :, part[1]] = F.scaled_dot_product_attention(
                    query[part],
                    key[part],
                    value[part],
                    attn_mask=bias.view(*shape[:2], num_queries, num_keys),
                    scale=self.scale,
                ).transpose(1, 2)
        return out.view(frames, rows, cols, heads * width)

    @staticmethod
    def _relative(rel_pos: Tensor, num_queries: int, num_keys: int) -> Tensor:
        """Rows of a relative position table (2 * num_keys - 1, d) for every query and key: (num_queries, num_keys, d)."""
        queries = torch.arange(num_queries, device=rel_pos.device)[:, None]
        keys = torch.arange(num_keys, device=rel_pos.device)[None, :]
        return rel_pos[queries - keys + num_keys - 1]

    def _attend_region(self, qkv: Tensor, padding: Tensor) -> Tensor:
        """
        Windowed attention over a region that holds whole windows along each side, or one window that the grid cuts off.
        `qkv` (F, H', W', 3, h, d) -> (F, H', W', h * d); `padding` (3, h, d) is the projection of SAM's zero padding.
        """
        frames, height, width, _, heads, head_dim = qkv.shape
        side = self.window_size
        rows, cols = min(height, side), min(width, side)  # real tokens along the sides of each window
        windows = qkv.unflatten(2, (-1, cols)).unflatten(1, (-1, rows)).transpose(2, 3)
        grid = windows.shape[1:3]
        query, key, value = windows.reshape(-1, rows, cols, 3, heads, head_dim).unbind(3)
        if (rows, cols) != (side, side):
            key, value = self._pad_window(key, padding[1]), self._pad_window(value, padding[2])
        out = self._attend(query, key, value).unflatten(0, (frames, *grid)).transpose(2, 3)
        return out.reshape(frames, height, width, heads * head_dim)

    def _pad_window(self, real: Tensor, padding: Tensor) -> Tensor:
        """Completes cut-off windows (count, rows, cols, h, d) with `padding` (h, d)."""
        count, rows, cols = real.shape[:3]
        padded = padding.expand(count, self.window_size, self.window_size, -1, -1).clone()
        padded[:, :rows, :cols] = real
        return padded

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(num_frames, height, width, channels)` -> the same shape."""
        height, width = hidden_states.shape[1:3]
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_attention_heads, -1))  # (F, H, W, 3, h, d)
        if self.window_size == 0:
            return self.proj(self._attend(*qkv.unbind(3)))
        # The bias, asked of the layer itself: its weights may be offloaded, quantised or wrapped.
        padding = self.qkv(hidden_states.new_zeros(hidden_states.shape[-1])).view(qkv.shape[3:])
        # Rows and columns in whole windows, then the remainder: at most four regions.
        whole_rows = height - height % self.window_size
        whole_cols = width - width % self.window_size
        bands = [
            torch.cat([self._attend_region(region, padding) for region in _split(band, 2, whole_cols)], dim=2)
            for band in _split(qkv, 1, whole_rows)
        ]
        return self.proj(torch.cat(bands, dim=1))


def _split(features: Tensor, dim: int, at: int) -> list[Tensor]:
    """Both sides of position `at` along `dim`, without empty ones."""
    return [part for part in features.tensor_split([at], dim=dim) if part.shape[dim]]


class GroveGroundingMLP(SamMLPBlock):
    """SAM's feed-forward layer, on the CPU a part of the tokens at a time."""

    def __init__(self, config: GroveGroundingConfig):
        super().__init__(config)
        self.token_bytes = 4 * config.mlp_dim

    def forward(self, hidden_states: Tensor) -> Tensor:
        if not is_cpu_inference(hidden_states):
            return super().forward(hidden_states)
        return map_rows(super().forward, hidden_states.flatten(0, -2), self.token_bytes).view_as(hidden_states)


class GroveGroundingLayer(GradientCheckpointingLayer):
    """One block of SAM's encoder: attention and feed-forward layer, each behind a norm and with a residual."""

    def __init__(self, config: GroveGroundingConfig, window_size: int):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = GroveGroundingAttention(config, window_size)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = GroveGroundingMLP(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.attn(self.layer_norm1(hidden_states))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class GroveGroundingEncoder(SamPreTrainedModel):
    """
    SAM's image encoder over the frames of a window, with adapters after its global-attention blocks. Its parameters carry the
    names of `SamVisionEncoder`.
    """

    config: GroveGroundingConfig
    main_input_name = "grounding_pixel_values_videos"
    input_modalities = ("video",)
    _no_split_modules = ["GroveGroundingLayer", "SpatioTemporalAdapter"]

    def __init__(self, config: GroveGroundingConfig):
        super().__init__(config)
        self.patch_embed = SamPatchEmbeddings(config)
        grid = config.grid_size
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, config.hidden_size)) if config.use_abs_pos else None
        self.layers = nn.ModuleList(
            [
                GroveGroundingLayer(config, 0 if index in config.global_attn_indexes else config.window_size)
                for index in range(config.num_hidden_layers)
            ]
        )
        adapted = sorted(config.global_attn_indexes) if config.use_adapters else []
        self.adapters = nn.ModuleDict({str(index): SpatioTemporalAdapter(config.hidden_size) for index in adapted})
        self.neck = SamVisionNeck(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, SpatioTemporalAdapter):
            module.init_weights()
        elif isinstance(module, GroveGroundingEncoder) and module.pos_embed is not None:
            init.zeros_(module.pos_embed)

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embed

    def is_frame_wise(self) -> bool:
        """Whether every adapter is the identity, so that the features of a frame do not depend on its window."""
        return len(closed_adapters(self.adapters)) == len(self.adapters)

    def forward(
        self, grounding_pixel_values_videos: Tensor, output_hidden_states: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """
        Args:
            grounding_pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, 3, image_size, image_size)`):
                Frames of one window per row: RGB, longest side resized to `image_size`, normalised, then zero-padded right and
                below.
            output_hidden_states (`bool`):
                Whether to return the output of every block.

        Returns:
            The features `(batch_size, num_frames, output_channels, grid_size, grid_size)` and the list of block outputs
            `(batch_size * num_frames, grid_size, grid_size, hidden_size)` (after the adapter where there is one), empty unless
            asked for.
        """
        num_frames = grounding_pixel_values_videos.shape[1]
        pixel_values = grounding_pixel_values_videos.flatten(0, 1)
        closed, graph = closed_adapters(self.adapters), GraphStart(pixel_values)
        with graph.before(self.patch_embed, self.pos_embed):
            hidden_states = self.patch_embed(pixel_values.to(self.patch_embed.projection.weight.dtype))
            if self.pos_embed is not None:
                hidden_states = hidden_states + self.pos_embed
        all_hidden_states = []
        for index, layer in enumerate(self.layers):
            with graph.before(layer):
                hidden_states = layer(hidden_states)
            if str(index) in self.adapters and str(index) not in closed:
                adapter = self.adapters[str(index)]
                with graph.before(adapter):
                    hidden_states = adapter(hidden_states.unflatten(0, (-1, num_frames))).flatten(0, 1)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
        with graph.before(self.neck):
            features = self.neck(hidden_states)
        return features.unflatten(0, (-1, num_frames)), all_hidden_states


__all__ = ["GroveGroundingAttention", "GroveGroundingEncoder", "GroveGroundingLayer"]
