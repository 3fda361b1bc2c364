"""Pictures of predictions during training: the annotation of fixed validation clips above what the model says now."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_builders.record import from_record
from eval.clip_pictures import write_picture
from eval.clips import predicted_clips, reference_clips
from eval.text_similarity import text_similarity
from eval.track_pairing import pair_phrases
from modeling_grove.video_grove import VideoClip

from .benchmark_metrics import BenchmarkMetrics, base_model

logger = logging.getLogger(__name__)

FOLDER = "samples"


class SampleCallback(TrainerCallback):
    """
    Draws predictions every `sample_steps` steps, and at the end, as `samples/STEP/CLIP.png` in the run's folder.

    Args:
        clips ([`BenchmarkMetrics`]): the clips to draw.
        processor ([`GroveProcessor`]): of the model.
        trainer ([`GroveTrainer`]): whose clock stops meanwhile.
    """

    def __init__(self, clips: BenchmarkMetrics, processor: Any, trainer: Any) -> None:
        self._clips, self._processor, self._trainer = clips, processor, trainer
        self._videos: dict[str, VideoClip] | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        every = args.sample_steps
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            with self._trainer.meter.paused():
                self._draw(args, state.global_step)

    def _draw(self, args: TrainingArguments, step: int) -> None:
        model = base_model(self._trainer.model)
        was_training = model.training
        model.eval()
        records, predictions = self._clips.predict(model, self._processor, args)
        model.train(was_training)
        if args.process_index != 0:
            return
        if self._videos is None:
            self._videos = {clip.key: clip.read() for clip in self._clips.data}
        threshold = model.config.objectness_threshold
        references = reference_clips(from_record(record) for record in records)
        answers = predicted_clips((clip.with_threshold(threshold) for clip in predictions), references)
        folder = Path(args.output_dir) / FOLDER / f"{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        for paired in pair_phrases(references, answers, text_similarity("head-word")):
            name = re.sub(r"[^A-Za-z0-9_-]", "_", paired.key)
            write_picture(
                references[paired.key],
                answers.get(paired.key),
                paired,
                (paired.key, f"step {step}"),
                self._videos[paired.key],
                folder / f"{name}.png",
            )
        logger.info("drew %d clips into %s", len(references), folder)


__all__ = ["FOLDER", "SampleCallback"]
