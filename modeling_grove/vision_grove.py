"""
Global video encoder: CLIP over every frame with spatio-temporal adapters, then 3-D pooling and the projection to the language
model.

Shape legend: B windows, T frames, P patches of a frame, C vision width, V video tokens, D language model width.
"""

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.activations import ACT2FN
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPPreTrainedModel, CLIPVisionEmbeddings

from .adapter_grove import GraphStart, SpatioTemporalAdapter, closed_adapters
from .configuration_grove import GroveConfig
from .pointwise_grove import QuickGELU


class GroveVisionTower(CLIPPreTrainedModel):
    """
    CLIP's vision transformer on the frames of a window, with adapters between layers. Only the layers that
    `config.vision_feature_layer` reads are built; CLIP's final norm is not among them.
    """

    config: CLIPVisionConfig
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _input_embed_layer = "patch_embedding"
    _no_split_modules = ["CLIPEncoderLayer", "CLIPVisionEmbeddings", "SpatioTemporalAdapter"]

    def __init__(self, config: GroveConfig):
        vision_config = config.vision_config
        super().__init__(vision_config)
        self.embeddings = CLIPVisionEmbeddings(vision_config)
        # The misspelt name is CLIP's own, in every released checkpoint.
        self.pre_layrnorm = nn.LayerNorm(vision_config.hidden_size, eps=vision_config.layer_norm_eps)
        self.layers = nn.ModuleList([CLIPEncoderLayer(vision_config) for _ in range(config.num_vision_layers)])
        self.adapters = nn.ModuleDict(
            {str(index): SpatioTemporalAdapter(vision_config.hidden_size) for index in config.vision_adapter_layers}
        )
        grid = config.vision_grid_size
        self.adapter_grid = tuple(config.vision_adapter_grid or (grid, grid))
        self.freeze = config.freeze_vision_adapters
        if vision_config.hidden_act == "quick_gelu":
            for layer in self.layers:
                layer.mlp.activation_fn = QuickGELU()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, SpatioTemporalAdapter):
            module.init_weights()

    def _adapt(self, index: int, hidden_states: Tensor, num_frames: int) -> Tensor:
        """Applies the adapter of layer `index` to the patch tokens; the class token passes by."""
        patches = hidden_states[:, 1:].unflatten(0, (-1, num_frames)).unflatten(2, self.adapter_grid)  # (B, T, h, w, C)
        adapted = self.adapters[str(index)](patches).flatten(2, 3).flatten(0, 1)
        return torch.cat([hidden_states[:, :1], adapted], dim=1)

    def is_frame_wise(self) -> bool:
        """Whether every adapter is the identity, so that the features of a frame do not depend on its window."""
        return len(closed_adapters(self.adapters)) == len(self.adapters)

    def forward(self, pixel_values_videos: Tensor, output_hidden_states: bool = False) -> tuple[Tensor, list[Tensor]]:
        """
        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, 3, image_size, image_size)`):
                Normalised RGB frames of one window per row.
            output_hidden_states (`bool`):
                Whether to return every hidden state.

        Returns:
            The features `(batch_size, num_frames, num_patches, hidden_size)` of `vision_feature_layer` without the class token,
            and the list of hidden states `(batch_size * num_frames, 1 + num_patches, hidden_size)` (embeddings first, each after
            its adapter), empty unless asked for.
        """
        num_frames = pixel_values_videos.shape[1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            closed, graph = closed_adapters(self.adapters), GraphStart(pixel_values_videos)
            with graph.before(self.embeddings, self.pre_layrnorm):
                hidden_states = self.pre_layrnorm(self.embeddings(pixel_values_videos.flatten(0, 1)))
            all_hidden_states = [hidden_states] if output_hidden_states else []
            for index, layer in enumerate(self.layers):
                with graph.before(layer):
                    hidden_states = layer(hidden_states, attention_mask=None)
                if str(index) in self.adapters and str(index) not in closed:
                    with graph.before(self.adapters[str(index)]):
                        hidden_states = self._adapt(index, hidden_states, num_frames)
                if output_hidden_states:
                    all_hidden_states.append(hidden_states)
        return hidden_states[:, 1:].unflatten(0, (-1, num_frames)), all_hidden_states


class GroveMultiModalProjector(nn.Module):
    """Pools a window's patch features over frames, rows and columns, then maps them to the language model's width."""

    def __init__(self, config: GroveConfig):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(tuple(config.video_pool_size))
        self.grid = (config.vision_grid_size, config.vision_grid_size)
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(width, width)

    def pool_features(self, features: Tensor) -> Tensor:
        """`(B, T, P, C)` -> `(B, V, C)`; tokens run over frames, then rows, then columns of the true patch grid."""
        cube = features.unflatten(2, self.grid).permute(0, 4, 1, 2, 3)  # (B, C, T, h, w)
        return self.pool(cube).flatten(2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, num_frames, num_patches, vision_hidden_size)`):
                Output of the vision tower.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_video_tokens, text_hidden_size)`.
        """
        return self.linear_2(self.act(self.linear_1(self.pool_features(features))))


__all__ = ["GroveMultiModalProjector", "GroveVisionTower"]
