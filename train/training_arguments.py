"""Settings of a run: those of the model, of the data and of the Trainer, from a YAML recipe and the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy
from trl import ModelConfig

LossNormalization = Literal["step", "micro-batch"]
QUESTION_HELP = "the instruction of every prompt; by default each clip draws one of the six templates"


@dataclass
class ModelArguments(ModelConfig):
    """
    Which model, and what of it learns. Beside these there are the fields of TRL's `ModelConfig`: `model_name_or_path`, `dtype`,
    `attn_implementation`, `use_peft`, `lora_r`, `lora_alpha`, `lora_dropout`, `load_in_4bit`, ...
    """

    trainable: str = field(
        default="paper",
        metadata={
            "help": "what learns: paper, adapters, decoder, heads, full, a group of parameters, or several joined with + and -"
        },
    )
    config_overrides: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "fields of GroveConfig that differ from the checkpoint's; JSON on the command line"},
    )
    from_scratch: bool = field(
        default=False,
        metadata={"help": "ft.py: fine-tune a model that was never pre-trained (the paper's row 'FT only')"},
    )
    trainable_float32: bool = field(
        default=True,
        metadata={
            "help": "keep what learns in float32, whatever the precision of the rest; bfloat16 loses small updates"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.config_overrides, str):
            self.config_overrides = json_object("config_overrides", self.config_overrides)


@dataclass
class DataArguments:
    """What a run learns from, and what it is checked on."""

    train_data: list[str] = field(
        default_factory=list,
        metadata={"help": "shards: folders, patterns, tars, hf://datasets/org/name or org/name; several are mixed"},
    )
    train_weights: list[float] | None = field(
        default=None, metadata={"help": "how often each of several is drawn, in proportion; by default as their sizes"}
    )
    train_split: str | None = field(default="train", metadata={"help": "split of the training data"})
    data_config: str | None = field(
        default=None, metadata={"help": "configuration of the shards; by default the one with clips"}
    )
    videos: str | None = field(default=None, metadata={"help": "folder of the source videos, for shards without clips"})
    shuffle_buffer: int = field(default=256, metadata={"help": "samples that a worker keeps to draw from"})
    max_skipped: float = field(default=0.01, metadata={"help": "share of damaged samples at which a run gives up"})
    max_length: int = field(default=1536, metadata={"help": "longest text in tokens, those of the video among them"})
    question: str | None = field(default=None, metadata={"help": QUESTION_HELP})
    eval_data: str | None = field(
        default=None,
        metadata={"help": "shards for validation, as train_data; for pictures (sample_steps) also shapes:SEED:CLIPS"},
    )
    eval_split: str | None = field(default="validation", metadata={"help": "split of the validation data"})

    def __post_init__(self) -> None:
        if isinstance(self.train_data, str):  # a single one in a recipe
            self.train_data = [self.train_data]


@dataclass
class GroveTrainingArguments(TrainingArguments):
    """The Trainer's arguments with the defaults of this project, and a few of ours."""

    output_dir: str = field(default="", metadata={"help": "folder of the run; the same command goes on in it"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW's second beta; the paper's"})
    logging_strategy: str = field(default="steps", metadata={"help": "when a line is logged"})
    logging_steps: float = field(default=10, metadata={"help": "steps between two lines"})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "not used: such a loss stops the run"})
    save_strategy: str = field(default="steps", metadata={"help": "when a checkpoint is written"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints that are kept, the best among them"})
    eval_strategy: str = field(default="no", metadata={"help": "when validation runs"})
    dataloader_num_workers: int = field(default=2, metadata={"help": "processes that decode clips, for each GPU"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "not used"})
    ignore_data_skip: bool = field(default=True, metadata={"help": "a checkpoint has its place in the data"})
    accelerator_config: dict[str, Any] | str | None = field(
        default_factory=lambda: {"dispatch_batches": False},
        metadata={"help": "of accelerate; every process reads its own part of the data"},
    )
    disable_tqdm: bool | None = field(default=True, metadata={"help": "a table is printed in place of bars"})
    report_to: None | str | list[str] = field(  # noqa: RUF036 - TRL's parser needs this order
        default="none", metadata={"help": "tensorboard, wandb, ... (all losses go there)"}
    )
    group_learning_rates: list[str] | None = field(
        default=None, metadata={"help": "GROUP=RATE for groups that learn faster or slower than learning_rate"}
    )
    loss_normalization: LossNormalization = field(
        default="step",
        metadata={
            "help": "step: losses are means over all clips of an optimizer step; micro-batch: as the original, means of means"
        },
    )
    benchmark_clips: int = field(
        default=0, metadata={"help": "validation clips that are captioned and scored at every evaluation"}
    )
    sample_steps: int = field(default=0, metadata={"help": "steps between pictures of predictions; 0 draws none"})
    sample_clips: int = field(default=4, metadata={"help": "validation clips that are drawn"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.group_learning_rates, str):
            self.group_learning_rates = [self.group_learning_rates]
        if self.loss_normalization not in get_args(LossNormalization):
            expected = " or ".join(get_args(LossNormalization))
            raise ValueError(f"loss_normalization: expected {expected}, got {self.loss_normalization!r}")
        for name in ("save_strategy", "eval_strategy", "logging_strategy"):
            if (when := getattr(self, name)) not in ("no", "steps"):
                raise ValueError(
                    f"{name}: expected steps or no, as the stream has no end, got {IntervalStrategy(when).value}"
                )
        for name in ("enable_jit_checkpoint", "save_only_model", "auto_find_batch_size"):
            if getattr(self, name):
                raise ValueError(f"{name}: such a run could not go on exactly where it was; leave it out")
        for name in ("benchmark_clips", "sample_steps", "sample_clips"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")


def json_object(name: str, text: str) -> dict[str, Any]:
    """
    Reads a JSON object from the command line.

    Raises:
        `ValueError`: if it is none.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f'{name}: expected a JSON object such as {{"num_frames": 8}}, got {text!r} ({error})'
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object, got {text!r}")
    return value


__all__ = ["DataArguments", "GroveTrainingArguments", "ModelArguments"]
