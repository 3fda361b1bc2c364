"""
From the language model to boxes: the phrase projector makes a phrase's query, and the box decoder, SAM's two-way transformer
between that query and one frame's features, reads a box and an objectness logit from it.

Shape legend: B windows, T frames, N phrases, P real phrases of all windows, C width, H and W the feature grid.
"""

import math

import torch
from torch import Tensor, nn
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamTwoWayTransformer

from .configuration_grove import GroveConfig, GroveGroundingConfig
from .pointwise_grove import CPU_BUFFER_BYTES, is_cpu_inference


def _rows(table: nn.Embedding, device: torch.device) -> Tensor:
    """All rows of a table, by a lookup: offloaded weights are there only while their module runs."""
    return table(torch.arange(table.num_embeddings, device=device))


class GrovePhraseProjector(nn.Module):
    """Maps the hidden state that predicts `[DET]` to a query of the box decoder."""

    def __init__(self, config: GroveConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(width, width)
        self.act = nn.ReLU()
        self.linear_2 = nn.Linear(width, config.grounding_config.output_channels)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(hidden_states)))


class GroveBoxDecoder(nn.Module):
    """
    Turns phrase queries into one box and one objectness logit per frame.

    Every (frame, phrase) pair is a row of its own: SAM's IoU token, its mask tokens and the query attend to each other and to the
    frame's features; only the query's output is read. All rows of a batch run in one call.

    Args:
        config ([`GroveGroundingConfig`]): the grounding branch.
        use_temporal_objectness (`bool`): whether there is an objectness head.
    """

    def __init__(self, config: GroveGroundingConfig, use_temporal_objectness: bool = True):
        super().__init__()
        width = config.output_channels
        decoder_config = SamMaskDecoderConfig(
            hidden_size=width,
            num_hidden_layers=config.decoder_num_hidden_layers,
            num_attention_heads=config.decoder_num_attention_heads,
            mlp_dim=config.decoder_mlp_dim,
            attention_downsample_rate=config.decoder_attention_downsample_rate,
            layer_norm_eps=config.decoder_layer_norm_eps,
        )
        decoder_config._attn_implementation = config._attn_implementation
        self.positional_encoding_dtype = getattr(torch, config.positional_encoding_dtype)
        self.grid_size = config.grid_size
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(config.num_mask_tokens, width)
        self.no_mask_embed = nn.Embedding(1, width)
        self.register_buffer("positional_embedding", torch.randn(2, config.num_pos_feats))
        self.transformer = SamTwoWayTransformer(decoder_config)
        self.box_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        self.objectness_head = nn.Linear(width, 1) if use_temporal_objectness else None

    def dense_positional_encoding(self) -> Tensor:
        """
        Random-Fourier encoding of the cell centres, as in SAM: `(1, C, H, W)`, sines then cosines, x before y. Computed in
        `positional_encoding_dtype` and returned in that of the frequencies, which stay in float32 when a model is loaded in
        less.
        """
        matrix = self.positional_embedding
        centres = torch.arange(self.grid_size, device=matrix.device, dtype=self.positional_encoding_dtype)
        centres = 2 * ((centres + 0.5) / self.grid_size) - 1
        rows, cols = torch.meshgrid(centres, centres, indexing="ij")
        # Mixed precision would take the product in bfloat16, whatever the config asks for.
        with torch.autocast(matrix.device.type, enabled=False):
            angles = 2 * math.pi * (torch.stack([cols, rows], dim=-1) @ matrix.to(self.positional_encoding_dtype))
        encoding = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return encoding.permute(2, 0, 1).unsqueeze(0).to(matrix.dtype)

    def attend(self, queries: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            queries (`torch.Tensor` of shape `(num_rows, C)`): a phrase's query per row.
            features (`torch.Tensor` of shape `(num_rows, C, H, W)`): its frame's features.

        Returns:
            Output tokens `(num_rows, 1 + num_mask_tokens + 1, C)`, the query's last, and what the frame's features have become.
        """
        prefix = torch.cat([_rows(self.iou_token, queries.device), _rows(self.mask_tokens, queries.device)])
        tokens = torch.cat([prefix.expand(len(queries), -1, -1), queries[:, None]], dim=1)
        keys = features + _rows(self.no_mask_embed, features.device).reshape(1, -1, 1, 1)
        tokens, keys = self.transformer(
            point_embeddings=tokens[:, None],
            image_embeddings=keys,
            image_positional_embeddings=self.dense_positional_encoding().to(keys.dtype),
            attention_similarity=None,
        )
        return tokens[:, 0], keys[:, 0].transpose(1, 2).unflatten(2, features.shape[-2:])

    def decode_tokens(self, queries: Tensor, features: Tensor) -> Tensor:
        """The output tokens of [`attend`]."""
        return self.attend(queries, features)[0]

    def _decode_queries(self, queries: Tensor, image_embeds: Tensor, window: Tensor) -> Tensor:
        """
        Output tokens `(P, T, C)` of queries `(P, C)` in the frames of their `window` `(P,)`. All rows run in one call; on the CPU
        as many at a time as keep their buffers small.
        """
        num_frames = image_embeds.shape[1]
        row = torch.arange(len(queries) * num_frames, device=queries.device)
        size = len(row)
        if is_cpu_inference(image_embeds):
            size = max(CPU_BUFFER_BYTES // (4 * image_embeds[0, 0].numel()), 1)
        parts = zip((row // num_frames).split(size), (row % num_frames).split(size), strict=True)
        tokens = [
            self.decode_tokens(queries[phrase], image_embeds[window[phrase], frame])[:, -1] for phrase, frame in parts
        ]
        return torch.cat(tokens).unflatten(0, (-1, num_frames))

    def forward(self, phrase_embeds: Tensor, image_embeds: Tensor, phrase_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            phrase_embeds (`torch.Tensor` of shape `(batch_size, num_phrases, C)`): queries of each window, padded at the end.
            image_embeds (`torch.Tensor` of shape `(batch_size, num_frames, C, H, W)`): features of the grounding encoder.
            phrase_mask (`torch.BoolTensor` of shape `(batch_size, num_phrases)`): `True` at real phrases.

        Returns:
            Boxes `(batch_size, num_frames, num_phrases, 4)`, cxcywh in [0, 1] of the original frame (not of SAM's padded square),
            and objectness logits `(batch_size, num_frames, num_phrases)` or `None` without that head. In float32, 0 at padding.
        """
        batch_size, num_phrases = phrase_mask.shape
        num_frames = image_embeds.shape[1]
        boxes = image_embeds.new_zeros(batch_size, num_phrases, num_frames, 4, dtype=torch.float32)
        objectness = boxes.new_zeros(batch_size, num_phrases, num_frames)
        window, phrase = phrase_mask.nonzero(as_tuple=True)  # (P,)
        queries, source = phrase_embeds[window, phrase], window  # (P, C), (P,)
        num_real = len(window)
        if num_real == 0:
            # Attention refuses empty batches; a row of zeros (the sum of no phrases) that is cut off again also keeps the decoder
            # and the phrase projector in the graph of every data-parallel rank.
            queries, source = phrase_embeds.sum(1)[:1], window.new_zeros(1)
        tokens = self._decode_queries(queries, image_embeds, source)[:num_real]  # (P, T, C)
        # In float32 from here: in bfloat16 neighbouring coordinates above 0.5 are 1/256 of the frame apart, 7 pixels at 1920.
        boxes = boxes.index_put((window, phrase), self.box_head(tokens).float().sigmoid())
        if self.objectness_head is None:
            return boxes.transpose(1, 2), None
        logits = self.objectness_head(tokens).squeeze(-1).float()
        objectness = objectness.index_put((window, phrase), logits)
        return boxes.transpose(1, 2), objectness.transpose(1, 2)


__all__ = ["GroveBoxDecoder", "GrovePhraseProjector"]
