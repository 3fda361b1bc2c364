"""
Before any caption, the two encoders of a new model learn what the patches of single pictures show.

    python -m train vision tiny/new --stills world/stills.jsonl --videos world/shapes/videos --output tiny/vision

The paper's vision tower is CLIP, which has seen 400 million pictures with texts, and its grounding encoder is SAM, which has seen a
billion masks. Those of random weights that learn from captions and a few boxes tell colours apart but hardly shapes
(`docs/LOG.md`). Here every part of a patch has a label, the head noun of the smallest box over it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from dataset_builders.command_line import emit
from eval.provenance import describe_machine, describe_model, files_fingerprint
from eval.result_files import write_json
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.grounding_grove import GroveGroundingEncoder
from modeling_grove.vision_grove import GroveVisionTower

from .checkpoints import RUN_FILE, checkpoints, claim_run, last_checkpoint, remove_incomplete
from .patch_stills import PatchStills, Still, held_out, label_weights, list_stills, nouns_of, read_stills
from .progress import duration
from .running import FOLDERS, RESULTS

logger = logging.getLogger(__name__)

_ENCODERS = ("vision", "grounding")
_SCORES = (
    "eval_loss",
    *(f"eval_{encoder}_{kind}_accuracy" for encoder in _ENCODERS for kind in ("noun", "background")),
)


class PatchReader(nn.Module):
    """
    An encoder with a linear layer that says what is in the parts of each of its patches.

    Args:
        encoder ([`GroveVisionTower`] or [`GroveGroundingEncoder`]): its adapters do not learn.
        size (`int`): of its features.
        patch_size (`int`): in pixels.
        parts (`int`): of a patch in each direction.
        mean (`Sequence[float]`), std (`Sequence[float]`): of its pictures, on the 0-1 scale.
        num_labels (`int`): what a part can show.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: GroveVisionTower | GroveGroundingEncoder,
        size: int,
        patch_size: int,
        parts: int,
        mean: Sequence[float],
        std: Sequence[float],
        num_labels: int,
    ):
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        self.encoder.adapters.requires_grad_(False)
        self.patch_size, self.parts = patch_size, parts
        self.head = nn.Linear(size, parts * parts * num_labels)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits `(batch_size, parts * rows, parts * rows, num_labels)` for pictures `(batch_size, 3, S, S)`, RGB from 0 to 1."""
        features = self.encoder(((pictures - self.mean) / self.std)[:, None])[0][:, 0]
        if features.ndim == 4:  # SAM's are maps
            features = features.flatten(2).transpose(1, 2)
        rows = pictures.shape[-1] // self.patch_size
        grid = self.head(features).view(len(pictures), rows, rows, self.parts, self.parts, -1)
        return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class PatchClassifier(nn.Module):
    """
    The two encoders of a model, each with its own layer that names what pictures show: the vision tower in quarters of its patches,
    which is what a language model has to know of them, the grounding encoder in sixteenths, from which boxes follow.

    Args:
        model ([`GroveForConditionalGeneration`]): whose encoders learn, in place.
        processor ([`GroveProcessor`]): how its pictures are normalised.
        weights (`torch.Tensor` of shape `(num_labels,)`): of the labels in the loss.
    """

    weights: Tensor

    def __init__(self, model: GroveForConditionalGeneration, processor: GroveProcessor, weights: Tensor):
        super().__init__()
        vision: Any = model.config.vision_config
        grounding: Any = model.config.grounding_config
        pictures = processor.video_processor
        self.vision = PatchReader(
            model.model.vision_tower, vision.hidden_size, vision.patch_size, 2, pictures.image_mean, pictures.image_std,
            len(weights),
        )  # fmt: skip
        mean, std = (
            [value / 255 for value in values]
            for values in (pictures.grounding_image_mean, pictures.grounding_image_std)
        )
        self.grounding = PatchReader(
            model.model.grounding_encoder, grounding.output_channels, grounding.patch_size, 4, mean, std, len(weights)
        )
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """
        Args:
            pictures (`torch.Tensor` of shape `(batch_size, 3, S, S)`): RGB from 0 to 1.
            labels (`torch.Tensor` of shape `(batch_size, S, S)`): of the pixels; a part has that of its middle.

        Returns:
            `dict`: `loss`, the sum of both encoders', and their logits `vision` and `grounding`, as [`PatchReader`] gives them.
        """
        logits = {"vision": self.vision(pictures), "grounding": self.grounding(pictures)}
        losses = [
            nn.functional.cross_entropy(
                found.flatten(0, 2), _of_parts(labels, found.shape[1]).flatten().long(), weight=self.weights
            )
            for found in logits.values()
        ]
        return {"loss": losses[0] + losses[1], **logits}


def _of_parts(labels: Any, rows: int) -> Any:
    """Labels `(N, rows, rows)` of the middles of parts, from those of pixels."""
    side = labels.shape[1] // rows
    return labels[:, side // 2 :: side, side // 2 :: side]


def label_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """For each encoder the share of labels that are right: as a mean over the nouns that there are, and where there is nothing."""
    scores = {}
    for encoder, found in zip(_ENCODERS, prediction.predictions, strict=True):
        truth = _of_parts(np.asarray(prediction.label_ids), found.shape[1])
        right = {int(label): float((found == label)[truth == label].mean()) for label in np.unique(truth)}
        nouns = [share for label, share in right.items() if label]
        scores[f"{encoder}_noun_accuracy"] = float(np.mean(nouns)) if nouns else 0.0
        scores[f"{encoder}_background_accuracy"] = right.get(0, 0.0)
    return scores


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
    parser.add_argument("--steps", type=int, default=3500, metavar="N", help="optimizer steps (default: %(default)s)")
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
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that draw pictures, which changes nothing but the speed (default: %(default)s; 0: none)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Trains the encoders, and writes the whole model."""
    for name in ("steps", "batch_size", "save_steps", "learning_rate"):
        if not (value := getattr(args, name)) > 0:
            raise ValueError(f"--{name.replace('_', '-')}: expected more than 0, got {value}")
    for name in ("seed", "workers"):
        if (value := getattr(args, name)) < 0:
            raise ValueError(f"--{name}: expected at least 0, got {value}")
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
    for path in checkpoints(args.output).values():  # they are of the encoders alone
        shutil.rmtree(path)
    results = json.loads((args.output / RESULTS).read_text(encoding="utf-8"))
    tower, grounding = (results["metrics"][f"{encoder}_noun_accuracy"] for encoder in _ENCODERS)
    text = (
        f"{args.output}: the vision tower knows {tower:.1%} of the parts of pictures and the grounding encoder {grounding:.1%}, "
        f"as a mean over {len(results['nouns'])} nouns"
    )
    emit({"model": str(args.output), **results["metrics"]}, text, args.json)
    return 0


def _checked(args: argparse.Namespace) -> tuple[GroveForConditionalGeneration, list[Still]]:
    model = GroveForConditionalGeneration.from_pretrained(args.model)
    if model.config.freeze_vision_adapters:
        raise ValueError(f"{args.model}: freeze_vision_adapters is set, so its vision tower runs without gradients")
    vision: Any = model.config.vision_config
    grounding: Any = model.config.grounding_config
    if vision.image_size != grounding.image_size:
        raise ValueError(
            f"{args.model}: its vision tower sees {vision.image_size} pixels and its grounding encoder {grounding.image_size}; "
            "expected the same, so that both learn from the same pictures"
        )
    for name, size, parts in (("vision", vision.patch_size, 2), ("grounding", grounding.patch_size, 4)):
        if size % parts:
            raise ValueError(
                f"{args.model}: patches of {size} pixels in its {name} encoder; expected a multiple of {parts}"
            )
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
    frames, maps = read_stills(stills, args.videos, vision.image_size, nouns)
    learned, tested = np.flatnonzero(~test), np.flatnonzero(test)
    set_seed(args.seed)
    trainer = Trainer(
        model=PatchClassifier(model, processor, label_weights(maps, 1 + len(nouns))),
        args=TrainingArguments(
            output_dir=str(args.output), seed=args.seed, max_steps=args.steps, per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate, lr_scheduler_type="linear", warmup_steps=min(100, args.steps // 10),
            weight_decay=0.05, logging_steps=50, logging_nan_inf_filter=False, save_steps=args.save_steps, save_total_limit=1,
            eval_strategy="steps", eval_steps=500, per_device_eval_batch_size=args.batch_size, report_to="none",
            dataloader_pin_memory=False, dataloader_num_workers=args.workers, dataloader_persistent_workers=args.workers > 0,
            remove_unused_columns=False, disable_tqdm=True,
        ),
        train_dataset=PatchStills(frames, maps, learned, draws=args.steps * args.batch_size, seed=args.seed),
        eval_dataset=PatchStills(frames, maps, tested),
        compute_metrics=label_accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: tuple(found.argmax(-1) for found in logits),
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


__all__ = ["PatchClassifier", "PatchReader", "label_accuracy"]
