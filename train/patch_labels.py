"""
The vision tower of a new model learns what the patches of single pictures show, before any caption.

    python -m train vision tiny/new --stills world/stills.jsonl --videos world/shapes/videos --output tiny/seeing

The paper's vision tower is CLIP, which has seen 400 million pictures with texts. A tower of random weights that learns from
captions alone tells colours apart, but hardly a cup from a bucket (`docs/LOG.md`): one word of a sentence is all that says so.
Here every patch has a label, the head noun of the phrase whose box covers it.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from dataset_builders.command_line import emit, progress
from dataset_builders.head_nouns import head_noun
from dataset_builders.reading import read_records
from dataset_builders.record import Record, from_record
from eval.provenance import describe_machine
from eval.result_files import write_json
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.checkpoint_io_grove import atomic_directory
from modeling_grove.video_grove import read_video
from modeling_grove.vision_grove import GroveVisionTower

from .checkpoints import claim_run, last_checkpoint, remove_incomplete
from .running import FOLDERS

logger = logging.getLogger(__name__)

SAVE_STEPS = 1000
_MOST_NOUNS = 254  # label maps are bytes; 0 is what no box covers
_HELD_OUT = 0.03
_SHOWN = ("loss", "eval_loss", "eval_noun_accuracy", "eval_background_accuracy")


class PatchStills(Dataset):
    """
    Single pictures with a map of labels, all in memory.

    Args:
        frames (`np.ndarray`): uint8 `(N, S, S, 3)` RGB.
        maps (`np.ndarray`): uint8 `(N, S, S)`: 0 where no box is, else 1 + the index of the noun; of two boxes the smaller one's.
        cell (`int`): pixels between two labels in each direction.
        mean (`Sequence[float]`), std (`Sequence[float]`): of the model's pictures.
        draws (`int`, *optional*): as many pictures drawn at random, each shifted by up to a fifth, every other one mirrored, and
            every other one with its colour channels swapped, so that a shape is not known by its place or its colour; by default
            each picture once, as it is. A draw depends on its number and the seed alone.
        seed (`int`, *optional*, defaults to 0): of the draws.
    """

    def __init__(
        self,
        frames: np.ndarray,
        maps: np.ndarray,
        cell: int,
        mean: Any,
        std: Any,
        draws: int | None = None,
        seed: int = 0,
    ):
        self.frames, self.maps, self.cell, self.draws, self.seed = frames, maps, cell, draws, seed
        self._mean, self._std = (torch.tensor(value).view(3, 1, 1) for value in (mean, std))

    def __len__(self) -> int:
        return len(self.frames) if self.draws is None else self.draws

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        channels = [0, 1, 2]
        if self.draws is None:
            frame, labels = self.frames[index], self.maps[index]
        else:
            rng = np.random.default_rng((self.seed, index))
            picture = rng.integers(len(self.frames))
            frame, labels = self.frames[picture], self.maps[picture]
            most = len(frame) // 5
            shift = tuple(rng.integers(-most, most + 1, 2).tolist())
            frame, labels = np.roll(frame, shift, (0, 1)), np.roll(labels, shift, (0, 1))
            if rng.integers(2):
                frame, labels = frame[:, ::-1], labels[:, ::-1]
            if rng.integers(2):
                channels = rng.permutation(3).tolist()
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[channels].float() / 255
        cells = labels[self.cell // 2 :: self.cell, self.cell // 2 :: self.cell]
        return {
            "pixel_values": (pixels - self._mean) / self._std,
            "labels": torch.from_numpy(cells.astype(np.int64)),
        }


class PatchClassifier(nn.Module):
    """
    A vision tower with a linear layer that gives each patch four labels, one for each of its quarters.

    Args:
        tower ([`GroveVisionTower`]): its adapters do not learn.
        size (`int`): of its output.
        weights (`torch.Tensor` of shape `(num_labels,)`): of the labels in the loss.
    """

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


def nouns_of(records: list[Record]) -> list[str]:
    """The head nouns of all phrases, the most frequent first."""
    counted = Counter(head_noun(phrase) for record in records for phrase in record["phrases"])
    return [noun for noun, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])) if noun][:_MOST_NOUNS]


def read_stills(records: list[Record], videos: Path, size: int, nouns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """
    The pictures of records of single frames, squeezed to squares, and their maps of labels (see [`PatchStills`]).

    Args:
        records (`list[dict]`): of one frame each, those of a video behind each other, as `python -m dataset_builders stills`
            writes them.
        videos (`Path`): folder of their videos.
        size (`int`): of the squares in pixels.
        nouns (`list[str]`): what can be a label.

    Raises:
        `ValueError`: if a record has several frames, or its video is missing or too short.
    """
    frames = np.empty((len(records), size, size, 3), np.uint8)
    maps = np.zeros((len(records), size, size), np.uint8)
    labels = {noun: number for number, noun in enumerate(nouns, 1)}

    def pictures() -> Iterator[np.ndarray]:
        for name, group in groupby(records, key=lambda record: record["video_fname"]):
            wanted = [int(record["frame_indices"][0]) for record in group if len(record["frame_indices"]) == 1]
            clip = read_video(videos / name, target_fps=None, end_frame=max(wanted, default=0), num_threads=1)
            for index in wanted:
                if index >= len(clip.frames):
                    raise ValueError(f"{videos / name}: has {len(clip.frames)} frames, and frame {index} is wanted")
                yield clip.frames[index]

    if several := next((record for record in records if len(record["frame_indices"]) != 1), None):
        raise ValueError(
            f"--stills: {several['video_id']} has {len(several['frame_indices'])} frames; expected records of one frame, as "
            "`python -m dataset_builders stills` writes them"
        )
    for number, (record, picture) in enumerate(
        zip(records, progress(pictures(), "reading stills", len(records), "still"), strict=True)
    ):
        height, width = picture.shape[:2]
        square = picture if height == width == size else np.asarray(Image.fromarray(picture).resize((size, size)))
        frames[number] = square
        scale = np.array([size / width, size / height] * 2)
        boxes = [
            (np.round(track.boxes[0] * scale).astype(int), labels[noun])
            for track in from_record(record).tracks
            if track.presence[0] and (noun := head_noun(track.phrase)) in labels
        ]
        for (left, top, right, bottom), label in sorted(boxes, key=lambda item: -_area(item[0])):
            maps[number, max(top, 0) : bottom, max(left, 0) : right] = label
    return frames, maps


def _area(box: np.ndarray) -> int:
    return int((box[2] - box[0]) * (box[3] - box[1]))


def label_weights(maps: np.ndarray, num_labels: int) -> Tensor:
    """Weights of labels in the loss: one over the root of their share of all pixels, with a mean of one."""
    shares = np.bincount(maps[:, ::4, ::4].reshape(-1), minlength=num_labels) / maps[:, ::4, ::4].size
    weights = torch.tensor(np.maximum(shares, 1e-6) ** -0.5, dtype=torch.float32)
    return weights / weights.mean()


def label_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of labels that are right, as a mean over the nouns that there are, and that of patches without one."""
    found, truth = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    right = {int(label): float((found == label)[truth == label].mean()) for label in np.unique(truth)}
    nouns = [share for label, share in right.items() if label]
    return {"noun_accuracy": float(np.mean(nouns)) if nouns else 0.0, "background_accuracy": right.get(0, 0.0)}


class _Lines(TrainerCallback):
    """Writes a line for every log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        shown = {name.removeprefix("eval_"): value for name, value in (logs or {}).items() if name in _SHOWN}
        if shown:
            line = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in shown.items())
            logger.info("%s", f"{state.global_step}/{state.max_steps}".rjust(15) + f"   {line}")


def pretrain_vision(
    source: Path, stills: Path, videos: Path, output: Path, steps: int, batch: int, learning_rate: float, seed: int
) -> dict[str, Any]:
    """
    Trains the vision tower of a model and writes the whole model.

    Args:
        source (`Path`): folder of the model.
        stills (`Path`), videos (`Path`): records of single frames, and the folder of their videos.
        output (`Path`): new folder for the model; what a run that was stopped has left beside it in `OUTPUT.run` is gone on with.
        steps (`int`), batch (`int`): optimizer steps, pictures of each.
        learning_rate (`float`), seed (`int`): of the run.

    Returns:
        `dict`: the metrics on pictures that were held out.

    Raises:
        `ValueError`: if the records are not of single frames, name nothing, or are too few.
    """
    model, processor = GroveForConditionalGeneration.from_pretrained(source), GroveProcessor.from_pretrained(source)
    records = list(read_records(stills))
    nouns = nouns_of(records)
    if len({record["video_id"] for record in records}) < 2 or not nouns:
        raise ValueError(
            f"--stills: {stills} has {len(records)} records with {len(nouns)} nouns; expected those of two videos at least"
        )
    vision = model.config.vision_config
    frames, maps = read_stills(records, videos, vision.image_size, nouns)
    # Whole videos are held out.
    first = max(1, int(len(records) * (1 - _HELD_OUT)))
    while first > 1 and records[first - 1]["video_id"] == records[first]["video_id"]:
        first -= 1
    preparation = processor.video_processor
    options = (vision.patch_size // 2, preparation.image_mean, preparation.image_std)
    set_seed(seed)
    classifier = PatchClassifier(model.model.vision_tower, vision.hidden_size, label_weights(maps, 1 + len(nouns)))
    run = output.with_name(f"{output.name}.run")
    settings = {
        "model": str(source), "stills": str(stills), "steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed
    }  # fmt: skip
    claim_run(run, settings)
    remove_incomplete(run)
    trainer = Trainer(
        model=classifier,
        args=TrainingArguments(
            output_dir=str(run), seed=seed, max_steps=steps, per_device_train_batch_size=batch, learning_rate=learning_rate,
            lr_scheduler_type="linear", warmup_steps=min(100, steps // 10), weight_decay=0.05, logging_steps=50,
            save_steps=SAVE_STEPS, save_total_limit=1, eval_strategy="steps", eval_steps=500, per_device_eval_batch_size=batch,
            report_to="none", dataloader_pin_memory=False, remove_unused_columns=False, disable_tqdm=True,
        ),
        train_dataset=PatchStills(frames[:first], maps[:first], *options, draws=steps * batch, seed=seed),
        eval_dataset=PatchStills(frames[first:], maps[first:], *options),
        compute_metrics=label_accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        callbacks=[_Lines()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(run)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    metrics = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items() if name in _SHOWN}
    with atomic_directory(output) as folder:
        model.requires_grad_(True).save_pretrained(folder)
        processor.save_pretrained(folder)
        learned = {"nouns": nouns, "stills": first, "held_out_stills": len(records) - first}
        write_json(
            folder / "vision.json", {**settings, **learned, "metrics": metrics, **describe_machine("cpu", FOLDERS)}
        )
    shutil.rmtree(run)
    return metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = __doc__
    parser.add_argument("model", type=Path, metavar="DIR", help="new model, as `python -m train new` writes it")
    parser.add_argument("--stills", type=Path, required=True, metavar="FILE", help="JSONL of single frames with boxes")
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="their videos")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the model")
    parser.add_argument("--steps", type=int, default=3000, metavar="N", help="optimizer steps (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="pictures of a step (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=1.5e-3, metavar="RATE", help="highest (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of order and changes of the pictures (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Trains the vision tower, unless that was done."""
    if (args.output / "config.json").is_file():
        emit({"model": str(args.output)}, f"{args.output}: is there", args.json)
        return 0
    for name, value in (("steps", args.steps), ("batch-size", args.batch_size)):
        if value < 1:
            raise ValueError(f"--{name}: expected at least 1, got {value}")
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    metrics = pretrain_vision(
        args.model, args.stills, args.videos, args.output, args.steps, args.batch_size, args.learning_rate, args.seed
    )
    emit(
        {"model": str(args.output), **metrics},
        f"{args.output}: right for {metrics['noun_accuracy']:.1%} of the patches of a noun",
        args.json,
    )
    return 0


__all__ = [
    "PatchClassifier",
    "PatchStills",
    "label_accuracy",
    "label_weights",
    "nouns_of",
    "pretrain_vision",
    "read_stills",
]
