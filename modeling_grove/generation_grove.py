"""
Grounded generation: caption the centre window of a video, then ground that caption in every window with one batched pass.

Shape legend: B videos, T sampled frames (padded), K frames of a window, W windows of all videos, N phrases (padded), L text length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from .constrained_decoding_grove import GroundedCaptionLogitsProcessor
from .outputs_grove import GroveGroundedOutput
from .windows_grove import (
    covering_center_window,
    covering_windows,
    first_occurrence,
    sliding_center_window,
    sliding_windows,
)

WindowSet = Literal["covering", "sliding"]
# Called with what is being done, how many units of it are finished, and how many there are.
ProgressCallback = Callable[[str, int, int], None]


@dataclass
class WindowPlan:
    """
    Which frames form which windows, over all videos of a batch.

    video (`torch.LongTensor` of shape `(W,)`): the video of each window.
    frames (`torch.LongTensor` of shape `(W, K)`): its frames.
    center (`torch.LongTensor` of shape `(B,)`): the window that is captioned, of each video.
    source (`torch.LongTensor` of shape `(B, T, 2)`): the window and the slot in it that answer for a frame (0, 0 at padding).
    frame_mask (`torch.BoolTensor` of shape `(B, T)`): real frames.
    """

    video: Tensor
    frames: Tensor
    center: Tensor
    source: Tensor
    frame_mask: Tensor


def plan_windows(frame_mask: Tensor, window_size: int, windows: WindowSet = "covering") -> WindowPlan:
    """
    Args:
        frame_mask (`torch.BoolTensor` of shape `(B, T)`): real frames, which come first.
        window_size (`int`): frames of a window.
        windows (`str`): `"covering"`, the fewest windows that see every frame, or `"sliding"`, the original's set.

    Raises:
        ValueError: if a video has no frame, or the name of the window set is unknown.
    """
    if windows not in ("covering", "sliding"):
        raise ValueError(f"windows is {windows!r}; expected 'covering' (fewest windows) or 'sliding' (the original's).")
    video: list[int] = []
    frames: list[np.ndarray] = []
    center: list[int] = []
    source = np.zeros((*frame_mask.shape, 2), dtype=np.int64)
    for index, total in enumerate(frame_mask.sum(1).tolist()):
        if total == 0:
            raise ValueError(f"Video {index} of the batch has no frames; expected at least one.")
        # The original has no sensible set for videos shorter than a window.
        if windows == "sliding" and total >= window_size:
            table, captioned = sliding_windows(total, window_size)[0], sliding_center_window(total, window_size)
        else:
            table, captioned = covering_windows(total, window_size), covering_center_window(total, window_size)
        first = sum(map(len, frames))
        source[index, :total] = first_occurrence(table)[:total] + np.array([first, 0])
        video += [index] * len(table)
        frames.append(table)
        center.append(first + captioned)
    return WindowPlan(
        video=torch.tensor(video),
        frames=torch.from_numpy(np.concatenate(frames)),
        center=torch.tensor(center),
        source=torch.from_numpy(source),
        frame_mask=frame_mask,
    )


class GroundedGenerationMixin:
    """`generate_grounded` and `ground`, for a model with GROVE's parts."""

    @torch.no_grad()
    def generate_grounded(
        self,
        input_ids: Tensor,
        pixel_values_videos: Tensor,
        grounding_pixel_values_videos: Tensor,
        attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        windows: WindowSet = "covering",
        window_batch_size: int = 4,
        constrained: bool = True,
        blank_token_id: int | None = None,
        rewrite_caption: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        on_progress: ProgressCallback | None = None,
        **generate_kwargs,
    ) -> GroveGroundedOutput:
        r"""
        Captions videos of any length and grounds the captions in every frame.

        The caption is generated from the centre window of each video. Its text is then run through the language model once per
        window, teacher-forced and in batches, so that every sampled frame gets its boxes. Each window is encoded once.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, prompt_length)`):
                Prompts with expanded `<video>`, padded on the left.
            pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, num_frames, 3, height, width)`):
                All sampled frames for the vision tower.
            grounding_pixel_values_videos (`torch.FloatTensor` of shape `(batch_size, num_frames, 3, size, size)`):
                All sampled frames for the grounding encoder.
            attention_mask (`torch.Tensor` of shape `(batch_size, prompt_length)`, *optional*):
                1 at real tokens.
            frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`, *optional*):
                `True` at real frames, which come first; by default all are real.
            windows (`str`, *optional*, defaults to `"covering"`):
                `"covering"`, the fewest windows, or `"sliding"`, the original's windows, for its exact numbers.
            window_batch_size (`int`, *optional*, defaults to 4):
                Windows that are processed at once: bounds the memory.
            constrained (`bool`, *optional*, defaults to `True`):
                Keep `<p> ... </p> [DET]` well-formed while decoding. The original decodes freely.
            blank_token_id (`int`, *optional*):
                The tokenizer's piece between `</p>` and `[DET]`; see [`GroundedCaptionLogitsProcessor`].
            rewrite_caption (`Callable`, *optional*):
                Maps generated sequences to the `input_ids` and `attention_mask` under which all windows but the centre one are
                grounded. The original tokenises its decoded text again, which this reproduces.
            on_progress (`Callable`, *optional*):
                Called with a stage, the units of it that are done and their number, after every batch of windows.
            generate_kwargs:
                Passed to `generate`: `max_new_tokens`, `num_beams`, `do_sample`, ...

        Returns:
            [`GroveGroundedOutput`].

        Raises:
            ValueError: if a video has no frames, or more than one caption a video is asked for.
        """
        num_return_sequences = self._generation_setting("num_return_sequences", generate_kwargs)
        if num_return_sequences not in (None, 1):
            raise ValueError(
                f"num_return_sequences is {num_return_sequences}; a video gets one grounded caption. "
                "Sample several with `generate` and ground each with `ground`."
            )
        attention_mask, plan = self._plan(
            input_ids, attention_mask, pixel_values_videos, frame_mask, windows, window_batch_size
        )
        video_embeds = self._video_tokens(pixel_values_videos, plan, window_batch_size, on_progress)
        prompt_length = input_ids.shape[1]
        processors = list(generate_kwargs.pop("logits_processor", None) or [])
        if constrained:
            processors.append(self._caption_constraint(prompt_length, blank_token_id, generate_kwargs))
        if on_progress is not None:
            on_progress("captioning", 0, len(input_ids))
        sequences = self.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            video_embeds=video_embeds[plan.center],
            logits_processor=LogitsProcessorList(processors),
            **generate_kwargs,
        )
        sequences = getattr(sequences, "sequences", sequences)
        # What follows the last [DET] is never looked at, so the padding behind a caption needs no mask.
        caption_mask = attention_mask.new_ones(len(sequences), sequences.shape[1] - prompt_length)
        grounded = self._ground_windows(
            sequences,
            torch.cat([attention_mask, caption_mask], dim=1),
            video_embeds,
            grounding_pixel_values_videos,
            plan,
            window_batch_size,
            rewrite_caption(sequences) if rewrite_caption is not None else None,
            on_progress,
        )
        return GroveGroundedOutput(sequences=sequences, prompt_length=prompt_length, **grounded)

    @torch.no_grad()
    def ground(
        self,
        input_ids: Tensor,
        pixel_values_videos: Tensor,
        grounding_pixel_values_videos: Tensor,
        attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        windows: WindowSet = "covering",
        window_batch_size: int = 4,
        prompt_length: int | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> GroveGroundedOutput:
        r"""
        Grounds given captions (VidSTG's setting): as [`~GroundedGenerationMixin.generate_grounded`] without the generation.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Prompts and their captions, `<p> phrase </p> [DET]` for every phrase.
            prompt_length (`int`, *optional*):
                Returned as it is, for the post-processing; 0 when left out.

        The other arguments, the result and the errors are those of `generate_grounded`.
        """
        attention_mask, plan = self._plan(
            input_ids, attention_mask, pixel_values_videos, frame_mask, windows, window_batch_size
        )
        video_embeds = self._video_tokens(pixel_values_videos, plan, window_batch_size, on_progress)
        grounded = self._ground_windows(
            input_ids,
            attention_mask,
            video_embeds,
            grounding_pixel_values_videos,
            plan,
            window_batch_size,
            on_progress=on_progress,
        )
        return GroveGroundedOutput(sequences=input_ids, prompt_length=prompt_length or 0, **grounded)

    def _plan(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None,
        windows: WindowSet,
        window_batch_size: int,
    ) -> tuple[Tensor, WindowPlan]:
        """The attention mask and the windows, with their defaults, once the arguments are found to fit together."""
        if window_batch_size < 1:
            raise ValueError(f"window_batch_size is {window_batch_size}; expected at least 1 window at a time.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if frame_mask is None:
            frame_mask = torch.ones(pixel_values_videos.shape[:2], dtype=torch.bool)
        if len(frame_mask) != len(input_ids):
            raise ValueError(
                f"Got {len(input_ids)} texts and {len(frame_mask)} videos; expected one text a video, in the same order."
            )
        # On the CPU: its tensors index those of every device, and the parts of the model may be on several.
        return attention_mask, plan_windows(frame_mask.cpu(), self.config.num_frames, windows)

    def _generation_setting(self, name: str, generate_kwargs: dict) -> Any:
        """What `generate` will use: the argument, else the given generation config's value, else the model's."""
        configs = [config for config in (generate_kwargs.get("generation_config"), self.generation_config) if config]
        values = [generate_kwargs.get(name), *(getattr(config, name) for config in configs)]
        return next((value for value in values if value is not None), None)

    def _caption_constraint(
        self, prompt_length: int, blank_token_id: int | None, generate_kwargs: dict
    ) -> GroundedCaptionLogitsProcessor:
        """The logits processor for this call, with the length and the end tokens that `generate` will use."""
        new_tokens = self._generation_setting("max_new_tokens", generate_kwargs)
        max_length = self._generation_setting("max_length", generate_kwargs)
        eos = self._generation_setting("eos_token_id", generate_kwargs)
        return GroundedCaptionLogitsProcessor(
            prompt_length=prompt_length,
            # Without either limit `generate` adds 20 tokens.
            max_length=prompt_length + new_tokens if new_tokens else (max_length or prompt_length + 20),
            phrase_start_token_id=self.config.phrase_start_token_id,
            phrase_end_token_id=self.config.phrase_end_token_id,
            det_token_id=self.config.det_token_id,
            eos_token_ids=[] if eos is None else [eos] if isinstance(eos, int) else list(eos),
            blank_token_id=blank_token_id,
        )

    def _window_features(
        self, encoder: torch.nn.Module, pixel_values: Tensor, plan: WindowPlan, window_batch_size: int
    ) -> Iterator[Tensor]:
        """
        An encoder's features `(w, K, ...)` of `window_batch_size` windows at a time, in the plan's order. While none of its
        adapters mixes frames, each frame is encoded once however many windows share it.
        """
        # Offloaded weights have no device of their own; accelerate's hooks then move the frames.
        device = next(encoder.parameters()).device
        device = pixel_values.device if device.type == "meta" else device
        video, frames = plan.video.split(window_batch_size), plan.frames.split(window_batch_size)
        if not encoder.is_frame_wise():
            for index, frame in zip(video, frames, strict=True):
                yield encoder(pixel_values[index[:, None], frame].to(device))[0]
            return
        real_video, real_frame = plan.frame_mask.nonzero(as_tuple=True)
        size = window_batch_size * plan.frames.shape[1]
        features = torch.cat(
            [
                encoder(pixel_values[index, frame].unsqueeze(0).to(device))[0].squeeze(0)
                for index, frame in zip(real_video.split(size), real_frame.split(size), strict=True)
            ]
        )
        row = torch.zeros(plan.frame_mask.shape, dtype=torch.long)
        row[real_video, real_frame] = torch.arange(len(features))
        for index, frame in zip(video, frames, strict=True):
            yield features[row[index[:, None], frame]]

    def _video_tokens(
        self,
        pixel_values_videos: Tensor,
        plan: WindowPlan,
        window_batch_size: int,
        on_progress: ProgressCallback | None,
    ) -> Tensor:
        """Video tokens `(W, num_video_tokens, hidden_size)` of every window."""
        tokens: list[Tensor] = []
        for part in self._window_features(self.model.vision_tower, pixel_values_videos, plan, window_batch_size):
            tokens.append(self.model.multi_modal_projector(part))
            if on_progress is not None:
                on_progress("encoding windows", sum(map(len, tokens)), len(plan.video))
        return torch.cat(tokens)

    def _ground_windows(
        self,
        sequences: Tensor,
        attention_mask: Tensor,
        video_embeds: Tensor,
        grounding_pixel_values_videos: Tensor,
        plan: WindowPlan,
        window_batch_size: int,
        rewritten: tuple[Tensor, Tensor] | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> dict[str, Tensor | None]:
        """
        The fields of [`GroveGroundedOutput`] that grounding fills. `rewritten` are the ids and the mask `(B, L')` under which the
        windows other than the centre ones are grounded.
        """
        phrase_mask = self._phrase_mask(sequences)
        num_phrases = phrase_mask.shape[1]
        shape = (len(plan.video), self.config.num_frames, num_phrases, 4)
        boxes = torch.zeros(shape, dtype=torch.float32, device=video_embeds.device)
        objectness = boxes.new_zeros(boxes.shape[:3]) if self.config.use_temporal_objectness else None
        # The order of the windows is free: those that share a text run together.
        order = torch.arange(len(plan.video))
        groups = [(order, sequences, attention_mask)]
        if rewritten is not None:
            is_center = torch.isin(order, plan.center)
            groups = [(order[is_center], sequences, attention_mask), (order[~is_center], *rewritten)]
        grounded = 0
        for windows, input_ids, mask in groups if num_phrases else []:
            if len(windows) == 0:
                continue
            input_ids, mask = self._until_last_phrase(input_ids, mask)
            part = WindowPlan(plan.video[windows], plan.frames[windows], plan.center, plan.source, plan.frame_mask)
            features = self._window_features(
                self.model.grounding_encoder, grounding_pixel_values_videos, part, window_batch_size
            )
            for chunk, grounding_embeds in zip(windows.split(window_batch_size), features, strict=True):
                video = plan.video[chunk]
                outputs = self.model(
                    input_ids=input_ids[video],
                    attention_mask=mask[video],
                    video_embeds=video_embeds[chunk],
                    grounding_embeds=grounding_embeds,
                    use_cache=False,
                )
                found = min(outputs.pred_boxes.shape[2], num_phrases)
                boxes[chunk, :, :found] = outputs.pred_boxes[:, :, :found].to(boxes)
                if objectness is not None:
                    objectness[chunk, :, :found] = outputs.objectness_logits[:, :, :found].to(objectness)
                grounded += len(chunk)
                if on_progress is not None:
                    on_progress("grounding windows", grounded, len(plan.video))
        window, slot = plan.source.unbind(-1)
        frame_mask = plan.frame_mask.to(phrase_mask.device)
        real = (frame_mask[:, :, None] & phrase_mask[:, None]).to(boxes.device)
        return {
            "pred_boxes": boxes[window, slot].masked_fill(~real[..., None], 0),
            "objectness_logits": None if objectness is None else objectness[window, slot].masked_fill(~real, 0),
            "phrase_mask": phrase_mask,
            "frame_mask": frame_mask,
        }

    def _phrase_mask(self, sequences: Tensor) -> Tensor:
        """`(B, N)`: as many leading `True` as a sequence has [DET] tokens behind its first position."""
        counts = (sequences[:, 1:] == self.config.det_token_id).sum(1)
        return torch.arange(int(counts.max()), device=counts.device) < counts[:, None]

    def _until_last_phrase(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts what no [DET] of the batch can see: the text behind the last one (and behind the video of a row without any)."""
        needed = (input_ids == self.config.det_token_id) | (input_ids == self.config.video_token_id)
        end = int(needed.nonzero()[:, 1].max()) + 1
        return input_ids[:, :end], attention_mask[:, :end]


__all__ = [
    "GroundedCaptionLogitsProcessor",
    "GroundedGenerationMixin",
    "GroveGroundedOutput",
    "ProgressCallback",
    "WindowPlan",
    "plan_windows",
]
