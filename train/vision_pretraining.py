"""
Before any caption, the vision tower of a new model learns what the patches of single pictures show.

    python -m train vision tiny/new --stills world/stills.jsonl --videos world/shapes/videos --output tiny/vision

The paper's vision tower is CLIP, which has seen 400 million pictures with texts. One of random weights that learns from captions
alone tells colours apart but hardly shapes (`docs/LOG.md`): one word of a sentence is all that speaks of them. Here every patch has
a label, the head noun of the smallest box over it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from dataset_builders.command_line import emit
from eval.provenance import describe_machine, describe_model, files_fingerprint
from eval.result_files import write_json
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.vision_grove import GroveVisionTower

from .checkpoints import RUN_FILE, checkpoints, claim_run, last_checkpoint, remove_incomplete
from .patch_stills import PatchStills, Still, held_out, label_weights, list_stills, nouns_of, read_stills
from .progress import duration
from .running import FOLDERS, RESULTS

logger = logging.getLogger(__name__)

_SCORES = ("eval_loss", "eval_noun_accuracy", "eval_background_accuracy")


class PatchClassifier(nn.Module):
    """
    A vision tower with a linear layer that gives each patch four labels, one for each of its quarters.

    Args:
        tower ([`GroveVisionTower`]): its adapters do not learn.
        size (`int`): of its features.
        weights (`torch.Tensor` of shape `(num_labels,)`): of the labels in the loss.
    """

    weights: Tensor

    def __init__(self, tower: GroveVisionTower, size: int, weights: Tensor):
        super().__init__()
        self.tower = tower.requires_grad_(True)
        self.tower.adapters.requires_grad_(False)
        self.head = nn.Linear(size, 4 * len(weights))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, image_size, image_size)`): normalised RGB.
            labels (`torch.Tensor` of shape `(batch_size, 2 * rows, 2 * rows)`): of the quarters of patches.

        Returns:
            `dict`: `loss`, and `logits` `(batch_size, 2 * rows, 2 * rows, num_labels)`.
        """
        features = self.tower(pixel_values[:, None])[0][:, 0]
        rows = labels.shape[1] // 2
        logits = self.head(features).view(len(labels), rows, rows, 2, 2, -1).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        loss = nn.functional.cross_entropy(logits.flatten(0, 2), labels.flatten(), weight=self.weights)
        return {"loss": loss, "logits": logits}


def label_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of labels that are right: as a mean over the nouns that there are, and where there is nothing."""
    found, truth = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    right = {int(label): float((found == label)[truth == label].mean()) for label in np.unique(truth)}
    nouns = [share for label, share in right.items() if label]
    return {"noun_accuracy": float(np.mean(nouns)) if nouns else 0.0, "background_accuracy": right.get(0, 0.0)}


class _Lines(TrainerCallback):
    """A line for every log, and an end to a run whose loss is no number."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begin, self._first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        step = f"{state.global_step}/{state.max_steps}".rjust(15)
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise ValueError(f"the loss is {logs['loss']} at step {state.global_step}; lower --learning-rate")
            rate = (state.global_step - self._first_step) / (time.monotonic() - self._begin)
            left = duration((state.max_steps - state.global_step) / rate)
            pictures = rate * args.train_batch_size
            logger.info("%s   loss %.3f   %.0f stills/s   %s left", step, logs["loss"], pictures, left)
        elif "eval_loss" in logs:
            shown = [f"{name.removeprefix('eval_').replace('_', ' ')} {logs[name]:.3f}" for name in _SCORES]
            logger.info("%s   held out: %s", step, ", ".join(shown))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = __doc__
    parser.add_argument("model", type=Path, metavar="DIR", help="new model, as `python -m train new` writes it")
    parser.add_argument("--stills", type=Path, required=True, metavar="FILE", help="JSONL of single frames with boxes")
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="their videos")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the run and the new model")
    parser.add_argument("--steps", type=int, default=3000, metavar="N", help="optimizer steps (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="pictures of a step (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=1.5e-3, metavar="X", help="highest (default: %(default)s)"
    )
    parser.add_argument(
        "--save-steps", type=int, default=500, metavar="N", help="between checkpoints (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Trains the vision tower, and writes the whole model."""
    for name in ("steps", "batch_size", "save_steps", "learning_rate"):
        if not (value := getattr(args, name)) > 0:
            raise ValueError(f"--{name.replace('_', '-')}: expected more than 0, got {value}")
    settings = {
        "stage": "vision",
        "start": describe_model(str(args.model)),
        "stills": files_fingerprint([args.stills]),
        **{name: getattr(args, name) for name in ("steps", "batch_size", "learning_rate", "seed")},
    }
    if (args.output / "config.json").exists() and not (args.output / RUN_FILE).exists():
        raise ValueError(f"--output: {args.output} has a model that this command did not make; give another folder")
    if (args.output / RESULTS).exists():
        claim_run(args.output, settings, "--output")
    else:
        model, stills = _checked(args)  # before the folder is claimed: mended stills are other settings
        claim_run(args.output, settings, "--output")
        _train(args, settings, model, stills)
    for path in checkpoints(args.output).values():  # they are of the tower alone
        shutil.rmtree(path)
    results = json.loads((args.output / RESULTS).read_text(encoding="utf-8"))
    share = results["metrics"]["noun_accuracy"]
    text = f"{args.output}: knows what {share:.1%} of the pictures' parts show, as a mean over {len(results['nouns'])} nouns"
    emit({"model": str(args.output), **results["metrics"]}, text, args.json)
    return 0


def _checked(args: argparse.Namespace) -> tuple[GroveForConditionalGeneration, list[Still]]:
    model = GroveForConditionalGeneration.from_pretrained(args.model)
    if model.config.freeze_vision_adapters:
        raise ValueError(f"{args.model}: freeze_vision_adapters is set, so its vision tower runs without gradients")
    stills = list_stills(args.stills)
    nouns, videos = nouns_of(stills), {still.video for still in stills}
    if not nouns or len(videos) < 2:
        raise ValueError(
            f"--stills: {args.stills} has {len(stills)} pictures of {len(videos)} videos with {len(nouns)} nouns; expected two "
            "videos at least, and phrases with boxes"
        )
    return model, stills


def _train(
    args: argparse.Namespace, settings: dict[str, Any], model: GroveForConditionalGeneration, stills: list[Still]
) -> None:
    remove_incomplete(args.output)
    processor, nouns, test = GroveProcessor.from_pretrained(args.model), nouns_of(stills), held_out(stills)
    vision: Any = model.config.vision_config
    pictures = processor.video_processor
    frames, maps = read_stills(stills, args.videos, vision.image_size, nouns)
    options = (vision.patch_size // 2, pictures.image_mean, pictures.image_std)
    learned, tested = np.flatnonzero(~test), np.flatnonzero(test)
    set_seed(args.seed)
    trainer = Trainer(
        model=PatchClassifier(model.model.vision_tower, vision.hidden_size, label_weights(maps, 1 + len(nouns))),
        args=TrainingArguments(
            output_dir=str(args.output), seed=args.seed, max_steps=args.steps, per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate, lr_scheduler_type="linear", warmup_steps=min(100, args.steps // 10),
            weight_decay=0.05, logging_steps=50, logging_nan_inf_filter=False, save_steps=args.save_steps, save_total_limit=1,
            eval_strategy="steps", eval_steps=500, per_device_eval_batch_size=args.batch_size, report_to="none",
            dataloader_pin_memory=False, remove_unused_columns=False, disable_tqdm=True,
        ),
        train_dataset=PatchStills(frames, maps, learned, *options, draws=args.steps * args.batch_size, seed=args.seed),
        eval_dataset=PatchStills(frames, maps, tested, *options),
        compute_metrics=label_accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        callbacks=[_Lines()],
    )  # fmt: skip
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"{trainer.args.n_gpu} GPUs in one process; choose one: CUDA_VISIBLE_DEVICES=0 python -m train vision ..."
        )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(args.output)
    if checkpoint is not None:
        logger.info("goes on from %s", checkpoint.name)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    metrics = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items() if name in _SCORES}
    if not math.isfinite(metrics["loss"]):
        raise ValueError(f"the loss of held-out pictures is {metrics['loss']}; lower --learning-rate")
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    results = {
        "settings": settings,
        "nouns": nouns,
        "stills": len(learned),
        "held_out_stills": len(tested),
        "metrics": metrics,
    }
    write_json(args.output / RESULTS, {**results, **describe_machine(str(trainer.args.device), FOLDERS)})


__all__ = ["PatchClassifier", "label_accuracy"]
