"""A run from its arguments to its results: what `pt.py` and `ft.py` share."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import transformers
import yaml
from torch import distributed
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import TrlParser

from dataset_builders.command_line import complain, emit
from eval.provenance import describe_machine, describe_model
from eval.result_files import json_ready, write_json
from hub_cards.model_card import Lineage
from hub_cards.model_checks import check_processor

from .benchmark_metrics import BenchmarkMetrics
from .checkpoints import claim_run, last_checkpoint, remove_incomplete
from .checks import check_arguments, check_first_sample, check_precision, check_stage, check_validation_clip
from .collator import GroveCollator
from .model_card import data_names, run_lineage
from .parameter_groups import groups_table, learning_rates, parameter_groups
from .progress import TableCallback, peak_memory_gib
from .pushing import push_finished
from .samples import SampleCallback
from .starting_model import fit_processor, load_model, load_processor, prepare_model
from .streams import located, steps_of_epochs, training_stream, validation_stream
from .trainer import GroveTrainer
from .training_arguments import DataArguments, GroveTrainingArguments, ModelArguments

logger = logging.getLogger("train")

RESULTS = "results.json"
FOLDERS = ("modeling_grove", "dataset_builders", "eval", "train")
Shared = TypeVar("Shared")

# Of the Trainer's arguments.
_WEIGHTS_DEPEND_ON = (
    "seed", "data_seed", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "optim", "optim_args", "bf16", "fp16", "loss_normalization", "group_learning_rates",
    "neftune_noise_alpha", "load_best_model_at_end", "metric_for_best_model", "dataloader_num_workers",
)  # fmt: skip


class RecipeParser(TrlParser):
    """TRL's parser, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")


def parse_arguments(
    arguments: Sequence[str] | None = None, prog: str | None = None, description: str | None = None
) -> tuple[ModelArguments, DataArguments, GroveTrainingArguments]:
    """
    Settings from `--config RECIPE.yaml`, over which the command line goes.

    Raises:
        `ValueError`: in one line, if a key is unknown or a value is not what it has to be.
    """
    classes = (ModelArguments, DataArguments, GroveTrainingArguments)
    parser = RecipeParser(
        classes,  # type: ignore[arg-type]
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    given = sys.argv[1:] if arguments is None else arguments
    # TRL looks for the option alone.
    arguments = [part for item in given for part in (item.split("=", 1) if item.startswith("--config=") else [item])]
    if arguments[-1:] == ["--config"]:
        raise ValueError("--config: expected the YAML file of a recipe")
    try:
        return parser.parse_args_and_config(arguments)  # type: ignore[return-value]
    except yaml.YAMLError as error:
        raise ValueError(f"--config: not YAML: {' '.join(str(error).split())}") from None


class _LogBeforeSave(TrainerCallback):
    """A checkpoint begins a new mean of the logged loss, so that a run that was resumed logs what one without a break does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if control.should_save:
            control.should_log = True
        return control


def main(stage: str, arguments: Sequence[str] | None = None, description: str | None = None) -> int:
    """
    Runs a stage of the training.

    Args:
        stage (`str`):
            "pt" or "ft".
        arguments (`Sequence[str]`, *optional*):
            Of the command line.
        description (`str`, *optional*):
            For `--help`.

    Returns:
        `int`: the exit status: 0, 2 when something asked for could not be done, 130 when interrupted.
    """
    is_first = int(os.environ.get("RANK", 0)) == 0
    logging.basicConfig(format="%(message)s", level=logging.INFO if is_first else logging.WARNING, stream=sys.stderr)
    for noisy in ("httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.disable_progress_bar()
    try:
        return _run(stage, *parse_arguments(arguments, f"train/{stage}.py", description))
    except (ValueError, OSError) as error:
        return complain(_reason(str(error)))
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on from the last checkpoint")
        return 130
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _reason(message: str) -> str:
    """What went wrong: the last line, if a worker's whole trace is in front of it."""
    lines = message.strip().splitlines() or [message]
    return lines[-1].removeprefix("ValueError: ") if "Original Traceback" in message else message


def _run(stage: str, model_args: ModelArguments, data: DataArguments, args: GroveTrainingArguments) -> int:
    started = time.monotonic()
    check_arguments(data, args)
    check_precision(model_args, args)
    output = Path(args.output_dir)
    set_seed(args.seed)
    data = first_process(args, lambda: located(data))
    processor = load_processor(model_args)
    model = load_model(model_args)
    if {"num_frames", "video_pool_size"} & {*(model_args.config_overrides or {})}:
        fit_processor(processor, model.config)
    check_processor(processor, model.config)
    check_stage(stage, model, model_args)
    stream = training_stream(data, args, model.config.num_frames)
    validation = validation_stream(data, args, model.config.num_frames)
    collate = GroveCollator(processor, data.question, args.seed, data.max_length)
    check_first_sample(stream, collate, model.config)
    if args.max_steps <= 0:
        args.max_steps = steps_of_epochs(args.num_train_epochs, stream, args)
    rates = learning_rates(args.group_learning_rates)
    model = prepare_model(model, model_args)
    groups = parameter_groups(model, args.learning_rate, rates)
    logger.info("%s", groups_table(groups))
    start = first_process(args, lambda: _described(model_args))
    settings = run_settings(stage, start, model_args, data, args, [stream.fingerprint()["sources"]])
    resumed = first_process(args, lambda: _claim(output, settings))
    if resumed and (output / RESULTS).exists():
        logger.info("%s: this run is finished", output)
        if args.push_to_hub and args.process_index == 0:
            push_finished(output, args)
        return 0

    benchmark = _benchmark(data, args.benchmark_clips)
    samples = _benchmark(data, args.sample_clips if args.sample_steps else 0)
    if clips := benchmark or samples:
        check_validation_clip(clips)
    # Before the first step: a model whose terms cannot be found out is not published at the end either.
    made_of = first_process(args, lambda: _lineage(model_args, data, model, args.push_to_hub))
    try:
        trainer = GroveTrainer(
            model=model,
            args=args,
            train_dataset=stream,
            eval_dataset=validation,
            data_collator=collate,
            processing_class=processor,
            benchmark=benchmark,
            start_name=start["name"],
        )
    except (ImportError, RuntimeError) as error:  # such as a tracker that is not installed
        raise ValueError(" ".join(str(error).split())) from None
    trainer.made_of = made_of
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(TableCallback())
    trainer.add_callback(_LogBeforeSave())
    if samples is not None:
        trainer.add_callback(SampleCallback(samples, processor, trainer))
    checkpoint = last_checkpoint(output) if resumed else None
    if checkpoint is not None:
        logger.info("goes on from %s", checkpoint.name)
    metrics = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint)).metrics
    last: dict[str, Any] = next((logs for logs in reversed(trainer.state.log_history) if "eval_loss" in logs), {})
    if args.eval_strategy != "no":
        is_last = last.get("step") == trainer.state.global_step and not args.load_best_model_at_end
        metrics |= last if is_last else trainer.evaluate()
    trainer.save_model(_internal_call=True)
    trainer.save_state()
    if trainer.is_world_process_zero():
        results = {
            "stage": stage,
            "settings": settings,
            "groups": [asdict(group) for group in groups],
            "metrics": metrics,
            "steps": trainer.state.global_step,
            "data_names": data_names(data.train_data),
            "best": {"metric": trainer.state.best_metric, "step": trainer.state.best_global_step},
            "seconds": round(time.monotonic() - started, 1),
            "processes": args.world_size,
            "peak_memory_gib": peak_memory_gib(args.device),
            **describe_machine(str(args.device), FOLDERS),
        }
        write_json(output / RESULTS, json_ready(results))
        trainer.create_model_card()
        emit({"model": str(output), "metrics": metrics}, f"{output}: step {trainer.state.global_step}", as_json=False)
    trainer.accelerator.wait_for_everyone()  # no process leaves the group while the first one still writes
    if args.push_to_hub:
        trainer.push_to_hub()
    return 0


def first_process(args: GroveTrainingArguments, make: Callable[[], Shared]) -> Shared:
    """
    What the first process finds out, in all of them.

    Raises:
        `ValueError`: in all of them, if the first one cannot.
    """
    if args.world_size == 1:
        return make()
    args.device  # noqa: B018 - which connects the processes
    found: list[Any] = [None, None]
    if args.process_index == 0:
        try:
            found[0] = make()
        except (ValueError, OSError) as error:
            found[1] = str(error)
    distributed.broadcast_object_list(found)
    if found[1] is not None:
        raise ValueError(found[1])
    return found[0]


def run_settings(
    stage: str,
    start: dict[str, Any],
    model_args: ModelArguments,
    data: DataArguments,
    args: GroveTrainingArguments,
    sources: list[Any],
) -> dict[str, Any]:
    """All that the weights of a run depend on, as JSON types and without paths of this machine."""
    chosen = {name: getattr(args, name) for name in _WEIGHTS_DEPEND_ON}
    adapted = {
        name: value
        for name, value in asdict(model_args).items()
        if name.startswith(("lora_", "use_", "load_in", "bnb"))
    }
    return {
        "stage": stage,
        "start": start,
        "trainable": model_args.trainable,
        "config_overrides": model_args.config_overrides,
        "dtype": model_args.dtype,
        "trainable_float32": model_args.trainable_float32,
        "attn_implementation": model_args.attn_implementation,
        **(adapted if model_args.use_peft else {"use_peft": False}),
        **{name: str(value) if name in ("lr_scheduler_type", "optim") else value for name, value in chosen.items()},
        "processes": args.world_size,
        "data": sources,
        "data_config": data.data_config,
        "data_commits": [source.partition("@")[2].partition("/")[0] for source in data.train_data if "@" in source],
        "distributed": str(args.distributed_state.distributed_type) if args.world_size > 1 else "no",
        "best": [data.eval_split, args.eval_steps, args.benchmark_clips, args.greater_is_better]
        if args.load_best_model_at_end
        else None,
        "train_weights": data.train_weights,
        "shuffle_buffer": data.shuffle_buffer,
        "max_skipped": data.max_skipped,
        "question": data.question,
        "max_length": data.max_length,
    }


def _described(args: ModelArguments) -> dict[str, Any]:
    """Which model the run starts from."""
    try:
        return describe_model(str(args.model_name_or_path), args.model_revision)
    except ValueError as error:
        raise ValueError(str(error).replace("--model:", "model_name_or_path:", 1)) from None


def _lineage(model_args: ModelArguments, data: DataArguments, model: Any, look_up: bool) -> Lineage:
    """What the model is made of, and the terms of that."""
    config = model.config.to_dict()
    return run_lineage(str(model_args.model_name_or_path), config, data.train_data, look_up=look_up)


def _claim(output: Path, settings: dict[str, Any]) -> bool:
    there = claim_run(output, settings)
    remove_incomplete(output)
    return there


def _benchmark(data: DataArguments, clips: int) -> BenchmarkMetrics | None:
    if not clips:
        return None
    videos = None if data.videos is None else Path(data.videos)
    assert data.eval_data is not None
    return BenchmarkMetrics(data.eval_data, data.eval_split, data.data_config, videos, clips, data.question)


__all__ = ["RESULTS", "first_process", "main", "parse_arguments", "run_settings"]
