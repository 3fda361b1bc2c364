"""
`GroveTrainer`: transformers' Trainer with GROVE's four losses, the training stream of `dataset_builders`, and exact resuming.

Losses are sums over all clips of an optimizer step, of every micro-batch and every process, divided by what they count over
all of them (supervised tokens, visible boxes, annotated pairs of frame and phrase). So a step does not depend on how its clips
are spread: 4 micro-batches of 1 clip, 1 of 4, or 2 processes of 2 give the same gradients. The original divides by the counts of
each GPU's micro-batch, which weights clips with few boxes more; `loss_normalization="micro-batch"` does that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from dataset_builders.stream import GroundedCaptionStream
from dataset_builders.stream_loader import StreamLoader
from modeling_grove.grounded_caption import atomic_path
from modeling_grove.remote_code_grove import add_remote_code

from .benchmark_metrics import BenchmarkMetrics, base_model
from .checkpoints import last_checkpoint, load_stream_state, save_stream_state
from .collator import GROUNDING_LOSS, LOSS_COUNTS, GroveCollator, label_counts
from .lora import ADAPTER_CONFIG
from .model_card import training_card
from .parameter_groups import group_of, learning_rates
from .progress import StepMeter
from .pushing import ModelPushes
from .streams import num_samples
from .training_arguments import GroveTrainingArguments

LOSS_NAMES = tuple(LOSS_COUNTS)


class NonFiniteLossError(ValueError):
    """A loss is NaN or infinite."""


class GroveTrainer(ModelPushes):
    """
    Trains GROVE.

    Args:
        model ([`GroveForConditionalGeneration`] or `PeftModel`):
            With `requires_grad` set (see `parameter_groups.freeze`).
        args ([`GroveTrainingArguments`]):
            With `max_steps`.
        train_dataset ([`GroundedCaptionStream`], *optional*):
            Endless.
        eval_dataset ([`GroundedCaptionStream`], *optional*):
            Finite, on the midpoints of the segments.
        data_collator ([`GroveCollator`]):
            Makes batches.
        processing_class ([`GroveProcessor`]):
            Saved with every checkpoint.
        benchmark ([`BenchmarkMetrics`], *optional*):
            Captions validation clips at every evaluation and scores them.
        kwargs (*optional*):
            Of `Trainer`.

    Every process reads its own part of the stream: accelerate neither dispatches nor splits batches.
    """

    # The losses are means; the Trainer divides them by the accumulation steps, which `compute_loss` allows for.
    loss_is_scaled_for_ga = False

    args: GroveTrainingArguments
    data_collator: GroveCollator

    def __init__(
        self, *args: Any, benchmark: BenchmarkMetrics | None = None, start_name: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.benchmark, self.start_name = benchmark, start_name
        self.meter = StepMeter()
        self.train_loader: StreamLoader | None = None
        self._resume_folder: Path | None = None
        self._parts = torch.zeros(len(LOSS_NAMES), dtype=torch.float64, device=self.args.device)
        self._keys: list[str] = []
        self._config = base_model(self.accelerator.unwrap_model(self.model)).config
        # `from_pretrained` loads a trained model in the precision that this one was loaded in.
        self._dtype = str(self._config.dtype or "float32").removeprefix("torch.")

    # Data

    def get_train_dataloader(self) -> StreamLoader:
        """The batches of this process, from where the checkpoint that is resumed from left off."""
        stream = self.train_dataset
        assert isinstance(stream, GroundedCaptionStream)
        self.train_loader = self._loader(stream, self.args.per_device_train_batch_size)
        if self._resume_folder is not None:
            load_stream_state(self.train_loader, self._resume_folder, self.args.process_index)
        return self.train_loader

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """
        As `Trainer.train`; `resume_from_checkpoint` is a folder, `True` for the last complete one, or `None`.

        Raises:
            `ValueError`: if there is no complete checkpoint, or it is of other data.
        """
        self._resume_folder = None
        if resume_from_checkpoint is True:
            self._resume_folder = last_checkpoint(Path(self.args.output_dir))
            if self._resume_folder is None:
                raise ValueError(f"{self.args.output_dir}: no complete checkpoint to go on from")
        elif resume_from_checkpoint:
            self._resume_folder = Path(str(resume_from_checkpoint))
        if self._resume_folder is None:
            return super().train(**kwargs)
        self.meter.start_at(TrainerState.load_from_json(str(self._resume_folder / TRAINER_STATE_NAME)).global_step)
        return super().train(resume_from_checkpoint=str(self._resume_folder), **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As upstream, which takes one step too many if the run goes on from a checkpoint of its last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The validation batches of this process."""
        stream = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(stream, GroundedCaptionStream):
            raise ValueError(f"eval_dataset: expected a GroundedCaptionStream, got {type(stream).__name__}")
        return self._loader(stream, self.args.per_device_eval_batch_size)

    def _loader(self, stream: GroundedCaptionStream, batch_size: int) -> Any:
        workers = self.args.dataloader_num_workers
        # A generator of its own: the `DataLoader` would draw from the one that dropout uses, at other times after a break.
        options: dict[str, Any] = {
            "pin_memory": self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            "generator": torch.Generator().manual_seed(self.args.seed),
        }
        if workers:
            options["prefetch_factor"] = self.args.dataloader_prefetch_factor or 2
        return stream.loader(batch_size, workers, self.data_collator, **options)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The micro-batches of an optimizer step, and the counts `(3,)` that its losses are divided by."""
        with self.meter.data():
            batches = [next(epoch_iterator) for _ in range(num_batches)]
        self._keys = [key for batch in batches for key in batch["keys"]]
        self.meter.clips += sum(len(batch["keys"]) for batch in batches) * self.args.world_size
        counts = torch.stack([label_counts(batch, self._config.det_token_id) for batch in batches]).sum(0)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts.to(device), "sum")
        return batches, counts.to(device)

    # Losses

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """
        The loss of a micro-batch, scaled so that the mean over micro-batches and processes is the loss of the step.

        Raises:
            [`NonFiniteLossError`]: naming the clips, if the loss is NaN or infinite.
        """
        keys = inputs.pop("keys", [])
        outputs = model(**inputs, use_cache=False)
        losses = {name: outputs[name].float() for name in LOSS_NAMES if outputs.get(name) is not None}
        if isinstance(num_items_in_batch, Tensor) and self.args.loss_normalization == "step":
            share = label_counts(inputs, self._config.det_token_id) / num_items_in_batch.clamp(min=1)
            scale = self.current_gradient_accumulation_steps * self.args.world_size * share
            losses = {name: loss * scale[LOSS_COUNTS[name]].to(loss) for name, loss in losses.items()}
        loss = torch.stack([*losses.values()]).sum()
        if not bool(torch.isfinite(loss)):
            self._refuse(losses, keys)
        steps = self.current_gradient_accumulation_steps
        nothing = loss.new_zeros(())
        self._parts += torch.stack([losses.get(name, nothing).detach() for name in LOSS_NAMES]).double() / steps
        return (loss, outputs) if return_outputs else loss

    def _refuse(self, losses: dict[str, Tensor], keys: list[str]) -> None:
        """Stops at a loss that is no number, before its gradients reach the weights."""
        found = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
        raise NonFiniteLossError(
            f"step {self.state.global_step + 1}: the loss is no finite number ({found}) for the clips {', '.join(keys)}; look at "
            "their boxes, or lower the learning rate; the weights are those of the step before"
        )

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """On the device; labels in full precision, which DeepSpeed would round with the pixels (boxes to 1/256 of the frame)."""
        prepared = super()._prepare_inputs(inputs)
        for name in {"box_labels", "objectness_labels"} & {*inputs}:
            prepared[name] = inputs[name].to(self.args.device)
        return prepared

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """
        The norm before clipping.

        Raises:
            [`NonFiniteLossError`]: naming the clips, if it is NaN or infinite.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if not self.args.fp16 and norm is not None and not math.isfinite(float(norm)):  # float16 skips such steps
            raise NonFiniteLossError(
                f"step {self.state.global_step + 1}: the gradient is no finite number ({float(norm):g}) for the clips "
                f"{', '.join(self._keys)}; lower the learning rate"
            )
        return norm

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Weights of more than one dimension: no norms, no biases, no gates of adapters."""
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
        return [name for name in super().get_decay_parameter_names(model) if name in matrices]

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """As upstream, with the rates of `group_learning_rates`."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(model)
            rates = learning_rates(self.args.group_learning_rates)
            named = (self.model if model is None else model).named_parameters()
            rate_of = {parameter: rates.get(group_of(name)) for name, parameter in named}
            for group in [*optimizer.param_groups] if rates else []:
                for rate in dict.fromkeys(filter(None, map(rate_of.get, group["params"]))):
                    apart = [parameter for parameter in group["params"] if rate_of.get(parameter) == rate]
                    group["params"] = [parameter for parameter in group["params"] if rate_of.get(parameter) != rate]
                    optimizer.add_param_group({**group, "params": apart, "lr": rate})
        return self.optimizer

    # Evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """
        The four losses over all validation clips, and the scores of the captions of some of them.

        Returns:
            `EvalLoopOutput`: with metrics `eval_loss`, `eval_caption_loss`, ..., each the mean over what it counts in all clips,
            `eval_grounding_loss`, and with a benchmark `eval_corrected_AP50` and so on.
        """
        model, was_training = self.model, self.model.training
        model.eval()
        sums = torch.zeros(len(LOSS_NAMES), dtype=torch.float64, device=self.args.device)
        counts = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        clips = 0
        for batch, is_real in self._in_step(dataloader):
            inputs = self._prepare_inputs(batch)
            keys = inputs.pop("keys")
            with torch.no_grad(), self.compute_loss_context_manager(), self.accelerator.autocast():
                outputs = model(**inputs, use_cache=False)
            if not is_real:
                continue
            found = label_counts(inputs, self._config.det_token_id)
            counts += found
            clips += len(keys)
            for index, (name, of) in enumerate(LOSS_COUNTS.items()):
                if outputs.get(name) is not None:
                    sums[index] += outputs[name].double() * found[of]
        if self.args.world_size > 1:
            sums, counts, total = (
                self.accelerator.reduce(value, "sum")
                for value in (sums, counts, torch.tensor(clips, device=self.args.device))
            )
            clips = int(total)
        means = {
            name: float(sums[index] / counts[of].clamp(min=1)) for index, (name, of) in enumerate(LOSS_COUNTS.items())
        }
        metrics = {f"{metric_key_prefix}_loss": sum(means.values())}
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        grounding = [value for name, value in means.items() if name != "caption_loss"]
        metrics[f"{metric_key_prefix}_{GROUNDING_LOSS}"] = sum(grounding) / len(grounding)
        if self.benchmark is not None:
            scores = self.benchmark.score(self.model, self.processing_class, self.args)
            metrics |= {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        model.train(was_training)
        return EvalLoopOutput(predictions=(), label_ids=None, metrics=metrics, num_samples=clips)

    def _in_step(self, dataloader: Any) -> Iterator[tuple[dict[str, Any], bool]]:
        """
        The batches, and whether each is one of this process: one that has no more repeats its last until all are through, since
        sharded models need all processes for every forward pass.
        """
        batches, last = iter(dataloader), None
        while True:
            batch = next(batches, None)
            if self.args.world_size > 1:
                left = torch.tensor(batch is not None, dtype=torch.int64, device=self.args.device)
                if not int(self.accelerator.reduce(left, "sum")):
                    return
            elif batch is None:
                return
            if batch is None and last is None:
                raise ValueError(
                    f"eval_data: process {self.args.process_index} of {self.args.world_size} has no validation clip; give more, or "
                    "evaluate on fewer processes"
                )
            last = batch if batch is not None else last
            yield dict(last or {}), batch is not None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As `Trainer.evaluate`; its time does not count as training."""
        with self.meter.paused():
            return super().evaluate(*args, **kwargs)

    # Logs and checkpoints

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts of the loss, clips a second, the share of waiting for data, and memory to a training log."""
        if self.train_dataset is not None:  # passes over the data, whatever part of the run the Trainer counts
            clips = self.state.global_step * self._train_batch_size * self.args.gradient_accumulation_steps
            self.state.epoch = clips * self.args.world_size / num_samples(self.train_dataset)
        if "loss" in logs:
            parts = self._parts
            if self.args.world_size > 1:
                parts = self.accelerator.reduce(parts, "mean")
            measured = self.meter.take(self.state.global_step, self.args.device)
            steps = max(measured.steps, 1)
            for name, value in zip(LOSS_NAMES, parts.tolist(), strict=True):
                logs[name] = value / steps
            logs |= measured.logs()
            self._parts = torch.zeros_like(self._parts)
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """
        A complete model folder: weights, config, processor, and the code for `trust_remote_code=True`. Low-rank weights are saved
        with the config of the model that they belong to, for `python -m train merge`.
        """
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        # A pickle with paths of this machine, which nothing reads.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        adapted = (folder / ADAPTER_CONFIG).is_file()
        if adapted:
            self._config.save_pretrained(folder)
        with atomic_path(folder / "config.json") as temporary:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config["dtype"] = self._dtype
            temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if not adapted:
            add_remote_code(folder)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with self.meter.paused():
            if self.args.save_total_limit is not None:  # or the checkpoint that is being pushed might be removed
                self._finish_current_push()
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """Also saves this process's place in the data. The Trainer's state, written next, says that the checkpoint is complete."""
        super()._save_rng_state(output_dir)
        assert self.train_loader is not None
        save_stream_state(self.train_loader, Path(output_dir), self.args.process_index)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, **card: Any) -> None:
        """Writes `README.md` with what this run was, without the Trainer's placeholders; `card` adds to its metadata."""
        if self.is_world_process_zero():
            training_card(self, Path(self.args.output_dir) / "README.md", **card)


__all__ = ["LOSS_NAMES", "GroveTrainer", "NonFiniteLossError"]
