"""Configuration of GROVE: a Llama language model, a CLIP global video encoder and a SAM grounding encoder with a box decoder."""

from math import prod
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig, SamVisionConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class GroveGroundingConfig(SamVisionConfig):
    r"""
    Configuration of the grounding branch: SAM's ViT over every frame, spatio-temporal adapters after its global-attention
    blocks, and the box decoder that reads its features. Defaults are those of the released checkpoint (ViT-H at 512 px).
    Fields that are not listed are `SamVisionConfig`'s.

    use_adapters (`bool`, *optional*, defaults to `True`):
        Whether a spatio-temporal adapter follows every block in `global_attn_indexes`.
    positional_encoding_dtype (`str`, *optional*, defaults to `"float32"`):
        Precision in which the box decoder's positional encoding is computed. The original computes it in bfloat16 wherever the
        model is cast to bfloat16 (up to 0.08 away from float32), so the converter writes `"bfloat16"` for bfloat16 checkpoints.
    decoder_num_hidden_layers (`int`, *optional*, defaults to 2):
        Blocks of the two-way transformer in the box decoder.
    decoder_num_attention_heads (`int`, *optional*, defaults to 8):
        Attention heads of the two-way transformer.
    decoder_mlp_dim (`int`, *optional*, defaults to 2048):
        Width of the two-way transformer's feed-forward layers.
    decoder_attention_downsample_rate (`int`, *optional*, defaults to 2):
        Factor by which the cross attentions shrink their width.
    decoder_layer_norm_eps (`float`, *optional*, defaults to 1e-5):
        Epsilon of the decoder's layer norms (the encoder's own are `layer_norm_eps`).
    num_mask_tokens (`int`, *optional*, defaults to 4):
        SAM's learned mask tokens. With the IoU token they stand before the phrase's query and take part in its attention.
    """

    model_type = "grove_grounding"
    base_config_key = "grounding_config"

    hidden_size: int = 1280
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    image_size: int = 512
    patch_size: int = 16
    initializer_range: float = 0.02
    global_attn_indexes: list[int] | tuple[int, ...] = (7, 15, 23, 31)
    use_adapters: bool = True
    positional_encoding_dtype: Literal["float32", "bfloat16"] = "float32"
    decoder_num_hidden_layers: int = 2
    decoder_num_attention_heads: int = 8
    decoder_mlp_dim: int = 2048
    decoder_attention_downsample_rate: int = 2
    decoder_layer_norm_eps: float = 1e-5
    num_mask_tokens: int = 4

    @property
    def grid_size(self) -> int:
        """Patches along one side of the padded square (32 for 512 px)."""
        return self.image_size // self.patch_size

    def validate_grid(self):
        """`image_size` must be a whole number of patches."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"grounding_config.image_size is {self.image_size}; it must be a multiple of patch_size {self.patch_size}."
            )

    def validate_heads(self):
        """Widths must split into heads, in the encoder and in the downsampled cross attentions of the decoder."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"grounding_config.hidden_size is {self.hidden_size}; it must be a multiple of num_attention_heads "
                f"{self.num_attention_heads}."
            )
        needed = self.decoder_num_attention_heads * self.decoder_attention_downsample_rate
        if self.output_channels % needed:
            raise ValueError(
                f"grounding_config.output_channels is {self.output_channels}; it must be a multiple of "
                f"decoder_num_attention_heads * decoder_attention_downsample_rate = {needed}."
            )
        if self.output_channels != 2 * self.num_pos_feats:
            raise ValueError(
                f"grounding_config.num_pos_feats is {self.num_pos_feats}; it must be half of output_channels "
                f"{self.output_channels} (one sine and one cosine per feature)."
            )

    def validate_global_attn_indexes(self):
        """Global blocks must exist."""
        bad = [index for index in self.global_attn_indexes if not 0 <= index < self.num_hidden_layers]
        if bad:
            raise ValueError(
                f"grounding_config.global_attn_indexes has {bad}; every index must be in [0, {self.num_hidden_layers - 1}], "
                "the blocks that num_hidden_layers gives."
            )


@strict
class GroveConfig(PreTrainedConfig):
    r"""
    Configuration of [`GroveForConditionalGeneration`]. Defaults are the released 8.4 B checkpoint with the corrected behaviour;
    the switches that reproduce the original's defects are set by the converter only.

    num_frames (`int`, *optional*, defaults to 8):
        Frames in one window, the unit that both video encoders see.
    video_pool_size (`tuple[int, int, int]`, *optional*, defaults to `(8, 8, 9)`):
        Frames, rows and columns to which the global features are pooled; their product is the number of video tokens.
    vision_feature_layer (`int`, *optional*, defaults to -2):
        Hidden state of the vision tower that is used, counted as in `hidden_states` (negative from the end). Later layers are
        not built: nothing reads them.
    vision_adapter_interval (`int`, *optional*, defaults to 3):
        A spatio-temporal adapter follows the vision layers 0, 3, 6, ...; 0 builds none.
    vision_adapter_grid (`tuple[int, int]`, *optional*):
        Rows and columns in which the adapters see a frame's patches. `None` is the true patch grid. The original folds the
        24 x 24 patches to 16 x 36, which tears neighbours apart but is part of its weights.
    freeze_vision_adapters (`bool`, *optional*, defaults to `False`):
        Run the whole vision tower without gradients, adapters included, as the original does (its adapters never learn).
    projector_hidden_act (`str`, *optional*, defaults to `"gelu"`):
        Activation between the two layers of the multi-modal projector.
    video_token_id (`int`, *optional*, defaults to 32010):
        Placeholder of one video token in `input_ids`. It needs no embedding and may lie beyond the vocabulary.
    video_start_token_id, video_end_token_id, phrase_start_token_id, phrase_end_token_id, det_token_id (`int`, *optional*):
        Ids of `<vid_start>`, `<vid_end>`, `<p>`, `</p>` and `[DET]`.
    use_temporal_objectness (`bool`, *optional*, defaults to `True`):
        Whether there is a temporal objectness head (the checkpoints for VidSTG and ActivityNet-Entities have none).
    objectness_threshold (`float`, *optional*, defaults to 0.5):
        A phrase is present in a frame when its objectness probability is strictly above this.
    caption_loss_weight, giou_loss_weight, l1_loss_weight, objectness_loss_weight (`float`, *optional*):
        Weights of the four losses, by default 1, 2, 2, 2 (paper, training details).
    """

    model_type = "grove"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(
            config_class=LlamaConfig,
            init_kwargs={
                "vocab_size": 32010,
                "rms_norm_eps": 1e-5,
                "max_position_embeddings": 4096,
                "pad_token_id": 0,
                "tie_word_embeddings": False,
            },
        ),
        "vision_config": SubConfigSpec(
            config_class=CLIPVisionConfig,
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 768,
            },
        ),
        "grounding_config": SubConfigSpec(config_class=GroveGroundingConfig),
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    grounding_config: dict | PreTrainedConfig | None = None

    num_frames: int = 8
    video_pool_size: list[int] | tuple[int, int, int] = (8, 8, 9)
    vision_feature_layer: int = -2
    vision_adapter_interval: int = 3
    vision_adapter_grid: list[int] | tuple[int, int] | None = None
    freeze_vision_adapters: bool = False
    projector_hidden_act: str = "gelu"

    video_token_id: int = 32010
    video_start_token_id: int = 32007
    video_end_token_id: int = 32008
    phrase_start_token_id: int = 32005
    phrase_end_token_id: int = 32006
    det_token_id: int = 32009

    use_temporal_objectness: bool = True
    objectness_threshold: float = 0.5
    caption_loss_weight: float = 1.0
    giou_loss_weight: float = 2.0
    l1_loss_weight: float = 2.0
    objectness_loss_weight: float = 2.0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        # A pushed checkpoint names its pipeline in config.json; once this package is imported, its own class serves the task, and
        # the leftover entry would make `pipeline()` ask for `trust_remote_code`.
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @property
    def num_video_tokens(self) -> int:
        """Tokens that stand for one window in the language model (576 for the released checkpoint)."""
        return prod(self.video_pool_size)

    @property
    def vision_grid_size(self) -> int:
        """Patches along one side of a frame in the vision tower (24 for 336 px)."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_vision_layers(self) -> int:
        """Vision layers that `vision_feature_layer` needs; the rest are not built."""
        depth = self.vision_config.num_hidden_layers
        return self.vision_feature_layer if self.vision_feature_layer >= 0 else depth + 1 + self.vision_feature_layer

    @property
    def vision_adapter_layers(self) -> tuple[int, ...]:
        """Vision layers that are followed by an adapter."""
        if self.vision_adapter_interval == 0:
            return ()
        return tuple(range(0, self.num_vision_layers, self.vision_adapter_interval))

    def validate_num_frames(self):
        """A window has at least one frame and is not stretched by the pooling."""
        if self.num_frames < 1:
            raise ValueError(f"num_frames is {self.num_frames}; a window needs at least 1 frame.")
        if len(self.video_pool_size) != 3 or min(self.video_pool_size) < 1:
            raise ValueError(
                f"video_pool_size is {self.video_pool_size}; it needs three positive integers: frames, rows, columns."
            )
        if self.video_pool_size[0] > self.num_frames:
            raise ValueError(
                f"video_pool_size[0] is {self.video_pool_size[0]}; it must be at most num_frames {self.num_frames}."
            )

    def validate_vision(self):
        """The vision tower's patch grid, its adapters' grid and the layer that is read must fit together."""
        vision, grid = self.vision_config, self.vision_grid_size
        if vision.image_size % vision.patch_size:
            raise ValueError(
                f"vision_config.image_size is {vision.image_size}; it must be a multiple of patch_size {vision.patch_size}."
            )
        if not 0 < self.num_vision_layers <= vision.num_hidden_layers:
            raise ValueError(
                f"vision_feature_layer is {self.vision_feature_layer}; with num_hidden_layers {vision.num_hidden_layers} it must "
                f"be in [1, {vision.num_hidden_layers}] or [-{vision.num_hidden_layers}, -1]."
            )
        if self.vision_adapter_interval < 0:
            raise ValueError(
                f"vision_adapter_interval is {self.vision_adapter_interval}; it must be 0 (no adapters) or positive."
            )
        adapter_grid = self.vision_adapter_grid
        if adapter_grid is not None and (len(adapter_grid) != 2 or prod(adapter_grid) != grid**2):
            raise ValueError(
                f"vision_adapter_grid is {tuple(adapter_grid)}; it needs rows and columns whose product is the {grid**2} patches "
                f"of a {grid} x {grid} frame."
            )

    def validate_token_ids(self):
        """Special tokens must be distinct, and all but the video placeholder must have an embedding."""
        names = [
            "video_start_token_id",
            "video_end_token_id",
            "phrase_start_token_id",
            "phrase_end_token_id",
            "det_token_id",
        ]
        ids = {name: getattr(self, name) for name in names}
        for name, value in ids.items():
            if not 0 <= value < self.text_config.vocab_size:
                raise ValueError(
                    f"{name} is {value}; it must be a row of the embedding table, in [0, {self.text_config.vocab_size - 1}]."
                )
        ids["video_token_id"] = self.video_token_id
        if len(set(ids.values())) != len(ids):
            raise ValueError(f"special token ids must be distinct, got {ids}.")

    def validate_objectness_threshold(self):
        """The threshold is a probability."""
        if not 0.0 <= self.objectness_threshold <= 1.0:
            raise ValueError(
                f"objectness_threshold is {self.objectness_threshold}; it must be a probability in [0, 1]."
            )


__all__ = ["GroveConfig", "GroveGroundingConfig"]
