"""Scores of `eval/` during training: some validation clips are captioned, grounded and scored as a run of `eval` would."""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from torch import distributed
from transformers import TrainingArguments

from dataset_builders.record import Record
from eval.benchmark_data import BenchmarkData
from eval.caption_jars import java_problem
from eval.inference import InferenceOptions, run_clips
from eval.results import PROTOCOLS
from eval.scoring import ScoreOptions, score_records
from modeling_grove import GroundedCaption, GroundedVideoCaptioningPipeline
from modeling_grove.text_grove import QUESTION_TEMPLATES

logger = logging.getLogger(__name__)


_HEADLINE = ("METEOR", "CIDEr", "AP50", "Recall", "AP50 (center)", "Recall (center)")
PRESENCE = "presence_f1"


def score_names() -> list[str]:
    """The names of all scores: `official_AP50`, `corrected_CIDEr`, `presence_f1`, ...; METEOR only where there is Java."""
    metrics = [metric for metric in _HEADLINE if metric != "METEOR" or java_problem() is None]
    return [*(_name(protocol, metric) for protocol in PROTOCOLS for metric in metrics), PRESENCE]


def _name(protocol: str, metric: str) -> str:
    return f"{protocol}_{re.sub(r'[^A-Za-z0-9]+', '_', metric).strip('_')}"


class BenchmarkMetrics:
    """
    Captions validation clips and scores them on iGround.

    Args:
        source (`str`):
            Data as `eval run --data` takes it.
        split (`str`, *optional*), config (`str`, *optional*), videos (*optional*):
            As there.
        clips (`int`):
            The first ones.
        question (`str`, *optional*):
            The instruction of the prompt; the first template by default, as in the original's inference.
        text_similarity (`str`, *optional*, defaults to `"head-word"`):
            Of phrases; this one needs no model.
    """

    def __init__(
        self,
        source: str,
        split: str | None,
        config: str | None,
        videos: Any,
        clips: int,
        question: str | None = None,
        text_similarity: str = "head-word",
    ) -> None:
        self.data = BenchmarkData("iground", source, split, config, videos, clips)
        self.options = InferenceOptions(batch_size=8, window_batch_size=8, question=question or QUESTION_TEMPLATES[0])
        self.score_options = ScoreOptions(text_similarity=text_similarity, resamples=100)

    def predict(
        self, model: Any, processor: Any, args: TrainingArguments
    ) -> tuple[list[Record], list[GroundedCaption]]:
        """The annotations of all clips, and the predictions of all processes."""
        captioner = GroundedVideoCaptioningPipeline(model=base_model(model), processor=processor, device=args.device)
        records: list[Record] = []

        def own() -> Any:
            for index, clip in enumerate(self.data):
                records.append(clip.record)
                batch = index // self.options.batch_size
                if batch % args.world_size == args.process_index:
                    yield batch, clip

        found: list[dict[str, Any]] = []
        precision = torch.float16 if args.fp16 else torch.bfloat16
        with torch.no_grad(), torch.autocast(args.device.type, precision, enabled=args.bf16 or args.fp16):
            for outcome in run_clips(captioner, "iground", own(), self.options):
                if outcome.prediction is None:
                    logger.warning("%s: %s", outcome.key, outcome.problem)
                else:
                    found.append(outcome.prediction.to_dict())
        if args.world_size > 1:
            parts: list[Any] = [None] * args.world_size
            distributed.all_gather_object(parts, found)
            found = [prediction for part in parts for prediction in part]
        return records, [GroundedCaption.from_dict(prediction) for prediction in found]

    def score(self, model: Any, processor: Any, args: TrainingArguments) -> dict[str, float]:
        """
        Scores by name (see [`score_names`]), in the units of the paper's tables, percent; the same in all processes.
        """
        records, predictions = self.predict(model, processor, args)
        scores: list[Any] = [None]
        if args.process_index == 0:
            scores = [self._scores(records, predictions, base_model(model).config.objectness_threshold)]
        if args.world_size > 1:
            distributed.broadcast_object_list(scores)
        return scores[0]

    def _scores(self, records: list[Record], predictions: list[GroundedCaption], threshold: float) -> dict[str, float]:
        result = score_records(
            "iground", records, [clip.with_threshold(threshold) for clip in predictions], self.score_options
        )
        # The official protocol gives no score where no box is predicted; here that is as bad as it gets.
        scores = dict.fromkeys(score_names(), 0.0)
        for protocol, headline in result.headline.items():
            scores |= {_name(protocol, metric): float(value) for metric, value in headline.items() if value is not None}
        f1 = result.statistics["presence"]["f1"]
        scores[PRESENCE] = 0.0 if f1 is None else 100 * float(f1)
        return scores


def base_model(model: Any) -> Any:
    """The GROVE model inside of a PEFT one, whose low-rank layers it keeps."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


__all__ = ["BenchmarkMetrics", "base_model", "score_names"]
