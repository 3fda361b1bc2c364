"""
The original's inference, step by step, with our modules and our weights: the baseline of `benchmarks/inference.py`.

What it does as the original does: one window at a time; both encoders for every window, of its own window set with the tail
windows that re-run everything for one frame; the vision layer that nobody reads; adapters whose gate is closed; SAM's windows
padded before the projections; eager attention and plain matrix products; the language model over the whole text of every other
window, with its head over all positions; one ffmpeg process a frame. What it does not do: anything slower than that.
"""

import copy
import shutil
import subprocess
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList
from transformers.activations import ACT2FN
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.sam.modeling_sam import SamVisionLayer

from benchmarks.part_timer import PartTimer
from benchmarks.random_models import ForcedCaption
from modeling_grove import GroveForConditionalGeneration, read_video
from modeling_grove.adapter_grove import SpatioTemporalAdapter
from modeling_grove.box_decoder_grove import GroveBoxDecoder
from modeling_grove.pointwise_grove import PointwiseLinear
from modeling_grove.video_grove import sampled_frame_indices
from modeling_grove.windows_grove import sliding_center_window, sliding_windows


class AlwaysOnAdapter(nn.Module):
    """An adapter, with its parameters, whose convolution runs even where the gate is closed."""

    def __init__(self, adapter: SpatioTemporalAdapter):
        super().__init__()
        self.gate, self.conv3d = adapter.alpha, adapter.conv3d

    @property
    def alpha(self) -> Tensor:
        """What the encoders look at to find the closed adapters: never 0."""
        return torch.ones_like(self.gate)

    def forward(self, features: Tensor) -> Tensor:
        update = self.conv3d(features.permute(0, 4, 1, 2, 3)).relu().permute(0, 2, 3, 4, 1)
        return features + self.gate.tanh() * update


class RepeatingBoxDecoder(GroveBoxDecoder):
    """The box decoder over all rows at once, with a frame's features repeated for every phrase."""

    def _decode_queries(self, queries: Tensor, image_embeds: Tensor, window: Tensor) -> Tensor:
        num_frames = image_embeds.shape[1]
        features = image_embeds[window].flatten(0, 1)
        tokens = self.decode_tokens(queries.repeat_interleave(num_frames, dim=0), features)
        return tokens[:, -1].unflatten(0, (-1, num_frames))


def as_original(model: GroveForConditionalGeneration) -> GroveForConditionalGeneration:
    """A model that shares every tensor with `model` and computes with them as the original does."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    original = copy.deepcopy(model, shared)
    original.set_attn_implementation("eager")
    original.model.box_decoder.transformer.config._attn_implementation = "eager"
    original.model.box_decoder.__class__ = RepeatingBoxDecoder
    for module in original.modules():
        if isinstance(module, PointwiseLinear):
            module.__class__ = nn.Linear

    tower, encoder = original.model.vision_tower, original.model.grounding_encoder
    for adapters in (tower.adapters, encoder.adapters):
        for name, adapter in adapters.items():
            adapters[name] = AlwaysOnAdapter(adapter)
    weight = tower.layers[0].mlp.fc1.weight
    for _ in range(tower.config.num_hidden_layers - len(tower.layers)):
        unread = CLIPEncoderLayer(tower.config).to(weight.device, weight.dtype).eval().requires_grad_(False)
        tower.layers.append(unread)
    for layer in tower.layers:
        layer.mlp.activation_fn = ACT2FN[tower.config.hidden_act]
    for index, ours in enumerate(encoder.layers):
        with torch.device("meta"):
            layer = SamVisionLayer(encoder.config, ours.attn.window_size)
        layer.load_state_dict(ours.state_dict(), assign=True)
        encoder.layers[index] = layer.eval().requires_grad_(False)
    return original


def has_ffmpeg() -> bool:
    """Whether frames can be decoded as the original decodes them."""
    return shutil.which("ffmpeg") is not None


def decode_frames(path: Path, fps: int, num_source_frames: int, width: int, height: int) -> np.ndarray:
    """`(T, height, width, 3)` uint8: one ffmpeg process for each sampled frame, or one pass of our decoder without ffmpeg."""
    if not has_ffmpeg():
        return read_video(path).frames
    frames = []
    for index in sampled_frame_indices(fps, 0, num_source_frames - 1):
        command = ["ffmpeg", "-loglevel", "error", "-ss", str(index / fps), "-i", str(path), "-frames:v", "1"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        frames.append(np.frombuffer(raw, np.uint8).reshape(height, width, 3))
    return np.stack(frames)


class OriginalSchedule:
    """
    Captions and grounds one video as the original does.

    Args:
        model ([`GroveForConditionalGeneration`]): made by [`as_original`].
        timer ([`PartTimer`]): counts the parts.
        caption_ids (`list[int]`): the caption that is forced.
    """

    def __init__(self, model: GroveForConditionalGeneration, timer: PartTimer, caption_ids: Sequence[int]):
        self.model = model
        self.timer = timer
        self.caption_ids = caption_ids
        self.window_size = model.config.num_frames

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, pixels: Tensor, grounding_pixels: Tensor) -> Tensor:
        """Boxes `(T, N, 4)` from prompt ids `(1, L)` and both pixel streams `(T, 3, H, W)`."""
        windows, keep = sliding_windows(len(pixels), self.window_size)
        center = sliding_center_window(len(pixels), self.window_size)
        boxes: dict[int, Tensor] = {}
        sequences = input_ids
        for index in [center, *(index for index in range(len(windows)) if index != center)]:
            frames = torch.from_numpy(windows[index])
            video_embeds = self._video_tokens(pixels[frames].unsqueeze(0).to(self.model.device))
            grounding_embeds, _ = self.model.model.grounding_encoder(
                grounding_pixels[frames].unsqueeze(0).to(self.model.device)
            )
            if index == center:
                sequences, states = self._generate(input_ids, video_embeds)
            else:
                states = self._reforward(sequences, video_embeds)
            found, _, _ = self.model.model.predict_boxes(sequences, states, grounding_embeds)
            boxes |= {int(windows[index, slot]): found[0, slot] for slot in np.flatnonzero(keep[index])}
        return torch.stack([boxes[frame] for frame in range(len(pixels))])

    def _video_tokens(self, pixels: Tensor) -> Tensor:
        _, states = self.model.model.vision_tower(pixels, output_hidden_states=True)
        features = states[self.model.config.vision_feature_layer][:, 1:].unflatten(0, (-1, self.window_size))
        return self.model.model.multi_modal_projector(features)

    def _generate(self, input_ids: Tensor, video_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """The sequence and the states that predicted its tokens, kept from the prompt and from every cached step."""
        states: list[Tensor] = []
        language_model = self.model.model.language_model
        handle = language_model.register_forward_hook(lambda _m, _a, output: states.append(output.last_hidden_state))
        sequences = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            video_embeds=video_embeds,
            logits_processor=LogitsProcessorList([ForcedCaption(input_ids.shape[1], self.caption_ids)]),
            max_new_tokens=len(self.caption_ids),
            do_sample=False,
        )
        handle.remove()
        return sequences, torch.cat(states, dim=1)

    def _reforward(self, sequences: Tensor, video_embeds: Tensor) -> Tensor:
        """States of the whole text without a cache; the scores of all its positions are computed and thrown away."""
        outputs = self.model.model(
            input_ids=sequences,
            attention_mask=torch.ones_like(sequences),
            video_embeds=video_embeds,
            use_cache=False,
        )
        self.model.lm_head(outputs.last_hidden_state)
        return outputs.last_hidden_state


__all__ = ["OriginalSchedule", "as_original", "decode_frames", "has_ffmpeg"]
