"""What is looked at before the first step, so that a run does not fail hours later, or learn the wrong thing."""

from __future__ import annotations

import os
from typing import Any

from transformers.trainer_utils import IntervalStrategy

from dataset_builders.stream import GroundedCaptionStream
from modeling_grove import GroveConfig, GroveForConditionalGeneration

from .benchmark_metrics import BenchmarkMetrics, score_names
from .collator import GROUNDING_LOSS, LOSS_COUNTS, GroveCollator, label_counts
from .starting_model import closed_gates
from .training_arguments import DataArguments, GroveTrainingArguments, ModelArguments


def check_arguments(data: DataArguments, args: GroveTrainingArguments) -> None:
    """
    What can be known of the arguments alone.

    Raises:
        `ValueError`: naming the argument.
    """
    if not args.output_dir:
        raise ValueError("output_dir: not given; expected the folder of the run")
    validates = args.eval_strategy != "no"
    if validates and (data.eval_data is None or data.eval_data.startswith("shapes:")):
        raise ValueError(
            f"eval_strategy: {IntervalStrategy(args.eval_strategy).value} needs eval_data with shards; give it, or set no"
        )
    for name in ("benchmark_clips", "sample_steps"):
        if getattr(args, name) and data.eval_data is None:
            raise ValueError(f"{name}: needs eval_data; give it, or set 0")
    if args.benchmark_clips and not validates:
        raise ValueError("benchmark_clips: needs eval_strategy: steps; give it, or set 0")
    sharded = args.fsdp_plugin_args or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if (args.benchmark_clips or args.sample_steps) and sharded:
        raise ValueError(
            "benchmark_clips, sample_steps: a model sharded by FSDP cannot write captions; set 0, and run `python -m eval run` on "
            "the checkpoints"
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process; start one process for each: accelerate launch --multi_gpu train/pt.py ..."
        )
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if metric in score_names():
        if not args.benchmark_clips:
            raise ValueError(f"metric_for_best_model: {metric} needs benchmark_clips; give a number of clips")
    elif metric not in (losses := ("loss", *LOSS_COUNTS, GROUNDING_LOSS)):
        known = ", ".join((*losses, *score_names()))
        raise ValueError(f"metric_for_best_model: no metric {metric!r} here; expected one of {known}")


def check_precision(model: ModelArguments, args: GroveTrainingArguments) -> None:
    """
    Whether weights of less precision can be computed with, and learn, and quantised or low-rank ones are used as they can be.

    Raises:
        `ValueError`: naming the arguments that do not go together.
    """
    if (model.load_in_4bit or model.load_in_8bit) and not model.use_peft:
        raise ValueError("load_in_4bit, load_in_8bit: quantised weights do not learn; add use_peft")
    low = {"bfloat16": "bf16", "float16": "fp16"}.get(str(model.dtype))
    if low and model.trainable_float32 and not getattr(args, low):
        raise ValueError(
            f"dtype: {model.dtype} beside what learns in float32 needs {low}: true; set it, or dtype: float32"
        )
    if args.push_to_hub and model.use_peft and os.path.isdir(str(model.model_name_or_path)):
        raise ValueError(
            "push_to_hub: low-rank weights name the model that they belong to, which is a folder of this machine; start from a Hub "
            "model, or `python -m train merge` and push that"
        )


def check_stage(stage: str, model: GroveForConditionalGeneration, args: ModelArguments) -> None:
    """
    Whether the checkpoint is one for the recipe.

    Raises:
        `ValueError`: if a model that was never pre-trained is to be fine-tuned, without being told so.
    """
    if stage == "ft" and not args.from_scratch and closed_gates(model):
        raise ValueError(
            f"model_name_or_path: all adapters of {args.model_name_or_path!r} are closed, as those of a model that was never "
            "pre-trained; fine-tune what pt.py wrote, or set from_scratch (the paper's row 'FT only', or runs without adapters)"
        )


def check_first_sample(stream: GroundedCaptionStream, collate: GroveCollator, config: GroveConfig) -> None:
    """
    Makes a batch of the first usable sample and looks at its labels.

    Raises:
        `ValueError`: if no sample can be used, or nothing would be learned from it.
    """
    sample: Any = next(iter(stream.consumer()), None)
    if sample is None:
        raise ValueError("train_data: no sample can be used; see `python -m dataset_builders validate`")
    batch = collate([sample])
    tokens, _, pairs = label_counts(batch, config.det_token_id).tolist()
    length = batch["input_ids"].shape[1]
    wanted = len(sample.caption.tracks) * config.num_frames
    if tokens == 0 or pairs < wanted:
        raise ValueError(
            f"max_length: with {collate.max_length} tokens, {config.num_video_tokens} of them for the video, the caption of "
            f"{sample.key!r} is cut off (its text now has {length}); raise it"
        )
    text: Any = config.text_config
    longest = text.max_position_embeddings
    if length > longest:
        raise ValueError(
            f"max_length: the text of {sample.key!r} has {length} tokens, the model's longest is {longest}"
        )


def check_validation_clip(clips: BenchmarkMetrics) -> None:
    """
    Reads the first of the clips that are captioned during the training.

    Raises:
        `ValueError`: if there is none, or its annotation or video cannot be read.
    """
    try:
        next(iter(clips.data)).read()
    except (ValueError, OSError) as error:
        raise ValueError(f"eval_data: {str(error).removeprefix('--data: ')}") from None


__all__ = ["check_arguments", "check_first_sample", "check_precision", "check_stage", "check_validation_clip"]
