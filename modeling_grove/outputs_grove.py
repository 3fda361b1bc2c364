"""What the models return. Shape legend in the docstrings; boxes are cxcywh in [0, 1] of the original frame."""

from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.utils import ModelOutput


@dataclass
class GroveModelOutputWithPast(ModelOutput):
    r"""
    last_hidden_state (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`):
        States of the language model after its final norm.
    past_key_values (`Cache`, *optional*):
        Keys and values for the next step.
    hidden_states (`tuple[torch.FloatTensor]`, *optional*):
        States of the language model after the embeddings and after each layer, with `output_hidden_states=True`.
    attentions (`tuple[torch.FloatTensor]`, *optional*):
        Attention weights of the language model, with `output_attentions=True` and eager attention.
    video_hidden_states (`torch.FloatTensor` of shape `(batch_size, num_video_tokens, hidden_size)`, *optional*):
        Video tokens that were fed to the language model.
    pred_boxes (`torch.FloatTensor` of shape `(batch_size, num_frames, num_phrases, 4)`, *optional*):
        Box of each phrase in each frame: cxcywh in [0, 1] of the original frame, not clipped. 0 at padding.
    objectness_logits (`torch.FloatTensor` of shape `(batch_size, num_frames, num_phrases)`, *optional*):
        Logit of the phrase's object being visible in the frame. `None` without the objectness head; 0 at padding.
    phrase_mask (`torch.BoolTensor` of shape `(batch_size, num_phrases)`, *optional*):
        `True` where a row has that many `[DET]` tokens; the i-th phrase is the i-th `[DET]`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    video_hidden_states: torch.FloatTensor | None = None
    pred_boxes: torch.FloatTensor | None = None
    objectness_logits: torch.FloatTensor | None = None
    phrase_mask: torch.BoolTensor | None = None


@dataclass
class GroveCausalLMOutputWithPast(ModelOutput):
    r"""
    loss (`torch.FloatTensor`, a scalar, *optional*):
        Sum of the losses whose labels were given.
    caption_loss, giou_loss, l1_loss, objectness_loss (`torch.FloatTensor`, scalars, *optional*):
        Its parts, each already multiplied by its weight in the config.
    logits (`torch.FloatTensor` of shape `(batch_size, sequence_length, vocab_size)`):
        Scores of the next token, at the positions that `logits_to_keep` names.

    The other fields are those of [`GroveModelOutputWithPast`].
    """

    loss: torch.FloatTensor | None = None
    caption_loss: torch.FloatTensor | None = None
    giou_loss: torch.FloatTensor | None = None
    l1_loss: torch.FloatTensor | None = None
    objectness_loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    last_hidden_state: torch.FloatTensor | None = None
    video_hidden_states: torch.FloatTensor | None = None
    pred_boxes: torch.FloatTensor | None = None
    objectness_logits: torch.FloatTensor | None = None
    phrase_mask: torch.BoolTensor | None = None


@dataclass
class GroveGroundedOutput(ModelOutput):
    r"""
    sequences (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
        The prompt and the caption of each video, as token ids.
    prompt_length (`int`):
        Where the caption starts in `sequences`.
    pred_boxes (`torch.FloatTensor` of shape `(batch_size, num_frames, num_phrases, 4)`):
        Box of each phrase in each sampled frame: cxcywh in [0, 1] of the original frame, not clipped.
    objectness_logits (`torch.FloatTensor` of shape `(batch_size, num_frames, num_phrases)`, *optional*):
        Logit of the phrase's object being visible. `None` without the objectness head.
    phrase_mask (`torch.BoolTensor` of shape `(batch_size, num_phrases)`):
        `True` at real phrases; the i-th is the i-th `[DET]` of the sequence.
    frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
        `True` at real frames.
    """

    sequences: torch.LongTensor | None = None
    prompt_length: int | None = None
    pred_boxes: torch.FloatTensor | None = None
    objectness_logits: torch.FloatTensor | None = None
    phrase_mask: torch.BoolTensor | None = None
    frame_mask: torch.BoolTensor | None = None


__all__ = ["GroveCausalLMOutputWithPast", "GroveGroundedOutput", "GroveModelOutputWithPast"]
