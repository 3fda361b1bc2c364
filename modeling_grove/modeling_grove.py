"""
GROVE: a video language model whose noun phrases are tied to boxes in every frame.

Shape legend: B windows (batch), T frames of a window, N phrases (padded), L text length with the video tokens, D width of the
language model.
"""

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, LlamaModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

from .box_decoder_grove import GroveBoxDecoder, GrovePhraseProjector
from .configuration_grove import GroveConfig
from .generation_grove import GroundedGenerationMixin
from .grounding_grove import GroveGroundingEncoder
from .loss_grove import caption_loss, grounding_losses
from .outputs_grove import GroveCausalLMOutputWithPast, GroveModelOutputWithPast
from .pointwise_grove import use_pointwise_linear
from .vision_grove import GroveMultiModalProjector, GroveVisionTower


class GrovePreTrainedModel(PreTrainedModel):
    """What every GROVE model can do; see `transformers.PreTrainedModel`."""

    config: GroveConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "LlamaDecoderLayer",
        "CLIPEncoderLayer",
        "CLIPVisionEmbeddings",
        "GroveGroundingLayer",
        "SpatioTemporalAdapter",
        "GroveBoxDecoder",
    ]
    _skip_keys_device_placement = ["past_key_values"]
    # The frequencies of the box decoder's positional encoding; see `GroveGroundingConfig.positional_encoding_dtype`.
    _keep_in_fp32_modules_strict = ["positional_embedding"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        std = self.config.text_config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, GroveBoxDecoder):
            # SAM draws its random-Fourier frequencies from a unit normal.
            init.normal_(module.positional_embedding, std=1.0)

    def _use_cpu_kernels(self) -> None:
        """Fast dense layers on the CPU, unless the model is to be quantised: bitsandbytes' loader looks for exact `nn.Linear`s."""
        if getattr(self.config, "quantization_config", None) is None:
            use_pointwise_linear(self)


class GroveModel(GrovePreTrainedModel):
    """
    GROVE without the language modelling head: video tokens into the language model, and boxes from its states.

    Args:
        config ([`GroveConfig`]): sizes of all parts.
    """

    def __init__(self, config: GroveConfig):
        super().__init__(config)
        self.vision_tower = GroveVisionTower(config)
        self.multi_modal_projector = GroveMultiModalProjector(config)
        self.language_model = LlamaModel._from_config(config.text_config)
        self.grounding_encoder = GroveGroundingEncoder(config.grounding_config)
        self.phrase_projector = GrovePhraseProjector(config)
        self.box_decoder = GroveBoxDecoder(config.grounding_config, config.use_temporal_objectness)
        self._use_cpu_kernels()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def _check_frames(self, name: str, pixel_values: Tensor, image_size: int) -> None:
        expected = (self.config.num_frames, 3, image_size, image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"{name} has shape {tuple(pixel_values.shape)}; expected (batch_size, num_frames, 3, height, width) = "
                f"(B, {', '.join(map(str, expected))}). Use `generate_grounded` for videos of another length."
            )

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """
        Video tokens of each window.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`):
                The processor's stream for the vision tower.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_video_tokens, hidden_size)`.

        Raises:
            ValueError: if the number of frames or their size is not the config's.
        """
        self._check_frames("pixel_values_videos", pixel_values_videos, self.config.vision_config.image_size)
        features, _ = self.vision_tower(pixel_values_videos)
        return self.multi_modal_projector(features)

    def get_grounding_features(self, grounding_pixel_values_videos: Tensor) -> Tensor:
        """
        Features that the box decoder reads.

        Args:
            grounding_pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, 3, size, size)`):
                The processor's stream for the grounding encoder.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, output_channels, grid_size, grid_size)`.

        Raises:
            ValueError: if the number of frames or their size is not the config's.
        """
        self._check_frames(
            "grounding_pixel_values_videos", grounding_pixel_values_videos, self.config.grounding_config.image_size
        )
        features, _ = self.grounding_encoder(grounding_pixel_values_videos)
        return features

    def get_placeholder_mask(self, input_ids: Tensor, video_embeds: Tensor) -> Tensor:
        """`(B, L)` mask of the video tokens in `input_ids`; raises ValueError when they are not as many as the features."""
        mask = input_ids == self.config.video_token_id
        num_features = video_embeds.shape[0] * video_embeds.shape[1]
        if not torch.compiler.is_compiling() and (num_tokens := int(mask.sum())) != num_features:
            raise ValueError(
                f"Video features and video tokens do not match, tokens: {num_tokens}, features: {num_features}. "
                "Each text needs one <video>, expanded by the processor."
            )
        return mask

    def embed_tokens(self, input_ids: Tensor, video_embeds: Tensor | None) -> Tensor:
        """Token embeddings `(B, L, D)` with the video tokens put in place of their placeholders."""
        # The placeholder's id may lie beyond the table, as it does in the released checkpoint.
        mask = input_ids == self.config.video_token_id
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(mask, 0))
        if video_embeds is None:
            return inputs_embeds
        mask = self.get_placeholder_mask(input_ids, video_embeds).unsqueeze(-1)
        return inputs_embeds.masked_scatter(
            mask.to(inputs_embeds.device), video_embeds.to(inputs_embeds.device, inputs_embeds.dtype)
        )

    def gather_phrases(self, input_ids: Tensor, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """
        Queries of the phrases of each row: the projected states at the positions that predict `[DET]`, one before each.

        Returns:
            Queries `(B, N, output_channels)` and the mask of real ones `(B, N)`, N being the most that a row has.
        """
        row, position = (input_ids[:, 1:] == self.config.det_token_id).nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(input_ids))
        num_phrases = int(counts.max())
        index = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        mask = torch.arange(num_phrases, device=row.device) < counts[:, None]
        states = hidden_states[row.to(hidden_states.device), position.to(hidden_states.device)]
        embeds = self.phrase_projector(states)
        queries = embeds.new_zeros(len(input_ids), num_phrases, embeds.shape[-1])
        index, row = index.to(embeds.device), row.to(embeds.device)
        return queries.index_put((row, index), embeds), mask.to(embeds.device)

    def predict_boxes(
        self, input_ids: Tensor, hidden_states: Tensor, grounding_embeds: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """
        Boxes, objectness logits and phrase mask (see [`GroveModelOutputWithPast`]) of the `[DET]` tokens in `input_ids` `(B, L)`,
        from the states `(B, L, D)` and the features `(B, T, output_channels, grid_size, grid_size)`.
        """
        queries, phrase_mask = self.gather_phrases(input_ids, hidden_states)
        device = grounding_embeds.device
        boxes, objectness = self.box_decoder(
            queries.to(device, grounding_embeds.dtype), grounding_embeds, phrase_mask.to(device)
        )
        return boxes, objectness, phrase_mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        grounding_pixel_values_videos: torch.FloatTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        video_embeds: torch.FloatTensor | None = None,
        grounding_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> GroveModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Text with every `<video>` expanded to `num_video_tokens` placeholders.
            pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, num_frames, 3, height, width)`, *optional*):
                Frames for the vision tower; one window per `<video>`.
            grounding_pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, num_frames, 3, size, size)`, *optional*):
                The same frames for the grounding encoder. With them (or `grounding_embeds`) boxes are predicted.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 at real tokens. Padding may be on either side.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Instead of `input_ids` and the videos. No boxes can be predicted then.
            video_embeds (`torch.FloatTensor` of shape `(batch_size, num_video_tokens, hidden_size)`, *optional*):
                Output of [`~GroveModel.get_video_features`], instead of `pixel_values_videos`.
            grounding_embeds (`torch.FloatTensor` of shape `(batch_size, num_frames, output_channels, grid, grid)`, *optional*):
                Output of [`~GroveModel.get_grounding_features`], instead of `grounding_pixel_values_videos`.

        Raises:
            ValueError: if the inputs contradict each other or the config; the message says how.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Got both or neither of input_ids and inputs_embeds; give exactly one.")
        if pixel_values_videos is not None and video_embeds is not None:
            raise ValueError("Got both pixel_values_videos and video_embeds; give one of them.")
        if grounding_pixel_values_videos is not None and grounding_embeds is not None:
            raise ValueError("Got both grounding_pixel_values_videos and grounding_embeds; give one of them.")

        if pixel_values_videos is not None:
            video_embeds = self.get_video_features(pixel_values_videos)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids, video_embeds)
        if position_ids is None and attention_mask is not None and past_key_values is None and attention_mask.ndim == 2:
            # Real tokens count from 0 whichever side the padding is on.
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )

        if grounding_pixel_values_videos is not None:
            grounding_embeds = self.get_grounding_features(grounding_pixel_values_videos)
        boxes = objectness = phrase_mask = None
        if grounding_embeds is not None:
            if input_ids is None:
                raise ValueError("Boxes need input_ids, to find the [DET] tokens; got inputs_embeds only.")
            boxes, objectness, phrase_mask = self.predict_boxes(input_ids, outputs.last_hidden_state, grounding_embeds)
        return GroveModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=video_embeds,
            pred_boxes=boxes,
            objectness_logits=objectness,
            phrase_mask=phrase_mask,
        )


class GroveForConditionalGeneration(GrovePreTrainedModel, GroundedGenerationMixin, GenerationMixin):
    """
    GROVE with the language modelling head: trains on grounded captions and writes them.

    Args:
        config ([`GroveConfig`]): sizes of all parts and the loss weights.

    Example:

    ```python
    >>> import modeling_grove  # registers GROVE
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained("org/grove")
    >>> processor = AutoProcessor.from_pretrained("org/grove")
    >>> inputs = processor.prepare_videos("clip.mp4")
    >>> metadata = inputs.pop("video_metadata")
    >>> outputs = model.generate_grounded(**inputs, max_new_tokens=64, blank_token_id=processor.blank_token_id)
    >>> processor.post_process_grounded_captions(outputs, metadata)[0].caption
    ```
    """

    # The loss is a mean over this batch, never divided by the `num_items_in_batch` of an accumulated one.
    accepts_loss_kwargs = False
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: GroveConfig):
        super().__init__(config)
        self.model = GroveModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self._use_cpu_kernels()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def get_video_features(self, pixel_values_videos: Tensor) -> Tensor:
        """See [`GroveModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos)

    def get_grounding_features(self, grounding_pixel_values_videos: Tensor) -> Tensor:
        """See [`GroveModel.get_grounding_features`]."""
        return self.model.get_grounding_features(grounding_pixel_values_videos)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        grounding_pixel_values_videos: torch.FloatTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        video_embeds: torch.FloatTensor | None = None,
        grounding_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        box_labels: torch.FloatTensor | None = None,
        objectness_labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> GroveCausalLMOutputWithPast:
        r"""
        Args beyond those of [`GroveModel.forward`]:
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Token ids to predict, -100 where there is nothing to learn (prompt, video tokens, padding).
            box_labels (`torch.FloatTensor` of shape `(batch_size, num_frames, num_phrases, 4)`, *optional*):
                True boxes, cxcywh in [0, 1] of the original frame, read where `objectness_labels` is 1; the i-th belongs to the
                i-th `[DET]`. More columns than `[DET]` tokens (a truncated text) are ignored.
            objectness_labels (`torch.Tensor` of shape `(batch_size, num_frames, num_phrases)`, *optional*):
                1 where the phrase's object is visible, 0 where it is not, -100 where nobody looked. Needed with `box_labels`.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Only this many last positions get logits; 0 is all.

        Raises:
            ValueError: if the inputs contradict each other or the config; the message says how.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values_videos=pixel_values_videos,
            grounding_pixel_values_videos=grounding_pixel_values_videos,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            video_embeds=video_embeds,
            grounding_embeds=grounding_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        states = outputs.last_hidden_state
        logits = self.lm_head(states if isinstance(keep, int) else states[:, keep])
        losses: dict[str, Tensor] = {}
        if labels is not None:
            losses["caption_loss"] = self.config.caption_loss_weight * caption_loss(logits, labels)
        if box_labels is not None:
            losses.update(self._grounding_losses(outputs, box_labels, objectness_labels))
        return GroveCausalLMOutputWithPast(
            **outputs,
            logits=logits,
            loss=torch.stack([part.to(logits.device) for part in losses.values()]).sum() if losses else None,
            **losses,
        )

    def _grounding_losses(
        self, outputs: GroveModelOutputWithPast, box_labels: Tensor, objectness_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """The weighted losses of boxes and objectness."""
        if outputs.pred_boxes is None or objectness_labels is None:
            missing = "objectness_labels" if objectness_labels is None else "grounding_pixel_values_videos"
            raise ValueError(f"Got box_labels without {missing}; the box losses need both.")
        num_phrases = outputs.pred_boxes.shape[2]
        if box_labels.shape[2] < num_phrases or objectness_labels.shape != box_labels.shape[:3]:
            raise ValueError(
                f"box_labels has shape {tuple(box_labels.shape)} and objectness_labels {tuple(objectness_labels.shape)}; expected "
                f"(batch_size, num_frames, num_phrases[, 4]) with at least the {num_phrases} phrases ([DET] tokens) of the text."
            )
        device = outputs.pred_boxes.device
        losses = grounding_losses(
            outputs.pred_boxes,
            outputs.objectness_logits,
            outputs.phrase_mask.to(device),
            box_labels[:, :, :num_phrases].to(device),
            objectness_labels[:, :, :num_phrases].to(device),
        )
        weighted = {
            "giou_loss": self.config.giou_loss_weight * losses.giou,
            "l1_loss": self.config.l1_loss_weight * losses.l1,
        }
        if losses.objectness is not None:
            weighted["objectness_loss"] = self.config.objectness_loss_weight * losses.objectness
        return weighted

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        pixel_values_videos: Tensor | None = None,
        video_embeds: Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs,
    ) -> dict:
        """Videos go in with the prompt only; afterwards their keys and values are in the cache."""
        # Boxes are predicted once the text is complete, see `generate_grounded`.
        for name in ("grounding_pixel_values_videos", "grounding_embeds"):
            kwargs.pop(name, None)
        model_inputs = super().prepare_inputs_for_generation(
            input_ids, past_key_values=past_key_values, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            model_inputs["pixel_values_videos"] = pixel_values_videos
            model_inputs["video_embeds"] = video_embeds
        return model_inputs


__all__ = [
    "GroveCausalLMOutputWithPast",
    "GroveForConditionalGeneration",
    "GroveModel",
    "GroveModelOutputWithPast",
    "GrovePreTrainedModel",
]
