"""From samples of the training stream to a batch of the model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dataset_builders.stream_samples import StreamSample
from modeling_grove import GroveProcessor
from modeling_grove.loss_grove import IGNORE_INDEX
from modeling_grove.text_grove import QUESTION_TEMPLATES

# The counts that losses are divided by: supervised tokens, visible boxes (GIoU and L1), annotated pairs of frame and phrase.
LOSS_COUNTS = {"caption_loss": 0, "giou_loss": 1, "l1_loss": 1, "objectness_loss": 2}
# The mean of all but the caption's on validation clips, by which the original keeps its checkpoint.
GROUNDING_LOSS = "grounding_loss"


class GroveCollator:
    """
    Makes batches: the processor's tensors, and the keys of the clips under `keys`.

    Args:
        processor ([`GroveProcessor`]):
            Of the model.
        question (`str`, *optional*):
            The instruction of every prompt. By default each sample draws one of the templates, as the original's training
            does; which one depends on `seed`, the sample's key and its epoch only.
        seed (`int`, *optional*, defaults to 0):
            Of the questions.
        max_length (`int`, *optional*, defaults to 1536):
            Longest text with its video tokens; the original's.
    """

    def __init__(
        self, processor: GroveProcessor, question: str | None = None, seed: int = 0, max_length: int = 1536
    ) -> None:
        self.processor, self.question, self.seed, self.max_length = processor, question, seed, max_length

    def __call__(self, samples: Sequence[StreamSample]) -> dict[str, Any]:
        batch = self.processor.prepare_training(
            captions=[sample.caption for sample in samples],
            videos=[sample.frames for sample in samples],
            frame_positions=[sample.frame_positions.tolist() for sample in samples],
            questions=[self._question(sample) for sample in samples],
            max_length=self.max_length,
        )
        return {**batch, "keys": [sample.key for sample in samples]}

    def _question(self, sample: StreamSample) -> str:
        if self.question is not None:
            return self.question
        rng = random.Random(f"question {self.seed} {sample.source} {sample.epoch} {sample.key}")
        return QUESTION_TEMPLATES[int(rng.random() * len(QUESTION_TEMPLATES))]


def label_counts(batch: dict[str, Any], det_token_id: int) -> Tensor:
    """
    What the losses of a batch are means over, as the model counts it.

    Args:
        batch (`dict`):
            `input_ids` and `labels` `(B, L)`, `objectness_labels` `(B, T, N)`.
        det_token_id (`int`):
            Id of `[DET]`: phrases whose token was cut off are not counted.

    Returns:
        `torch.Tensor` of shape `(3,)`, float64: supervised tokens, visible boxes, annotated pairs of frame and phrase.
    """
    objectness = batch["objectness_labels"]
    found = (batch["input_ids"][:, 1:] == det_token_id).sum(1)
    real = torch.arange(objectness.shape[2], device=found.device) < found[:, None]
    annotated = real[:, None] & (objectness != IGNORE_INDEX)
    tokens = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
    return torch.stack([tokens, (annotated & (objectness == 1)).sum(), annotated.sum()]).double()


__all__ = ["LOSS_COUNTS", "GroveCollator", "label_counts"]
