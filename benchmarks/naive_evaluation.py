"""
iGround scored in the plainest way: what `evaluation.py` measures ours against in the same run.

It computes what the official protocol does, written from the description of it, as the original does its work: COCO's evaluation
for every clip, with all its statistics; every list of boxes searched from its beginning for every frame; and two forward passes of
the text model for every pair of phrases of every frame. The original's own code is not run, so its speed is not claimed.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import AutoModel, AutoTokenizer

from benchmarks.stopwatch import Stopwatch
from eval.clips import PredictedClip, ReferenceClip

Boxes = list[dict[str, Any]]


class PairwiseSimilarity:
    """Cosine of mean-pooled states, computed anew for every pair."""

    def __init__(self, model: str):
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModel.from_pretrained(model).eval()
        self.forwards = 0

    def __call__(self, first: str, second: str) -> float:
        return torch.nn.functional.cosine_similarity(self._embed(first), self._embed(second), dim=0).item()

    def _embed(self, phrase: str) -> torch.Tensor:
        self.forwards += 1
        with torch.inference_mode():
            return self.model(**self.tokenizer(phrase, return_tensors="pt")).last_hidden_state[0].mean(dim=0)


def naive_scores(
    references: Sequence[ReferenceClip],
    predictions: Sequence[PredictedClip],
    similarity: PairwiseSimilarity,
    stopwatch: Stopwatch,
) -> dict[str, float]:
    """AP50, mIoU and Recall, means over clips; every clip is predicted and has boxes on both sides."""
    with stopwatch.part("convert"):
        truth = coco_boxes(references, None)
        found = coco_boxes(predictions, {clip.key: (clip.width, clip.height) for clip in references})
    precisions, overlaps, recalls = [], [], []
    for reference, prediction in zip(references, predictions, strict=True):
        images = [f"{reference.key}_{n}" for n in range(reference.num_frames)]
        with stopwatch.part("AP50"):
            precisions.append(coco_ap50(images, truth, found))
        with stopwatch.part("mIoU"):
            overlaps.append(mean_overlap(images, truth, found))
        with stopwatch.part("Recall"):
            recalls.append(recall(images, truth, found, reference, prediction, similarity))
    return {"AP50": float(np.mean(precisions)), "mIoU": float(np.mean(overlaps)), "Recall": float(np.mean(recalls))}


def coco_boxes(clips: Sequence[Any], sizes: dict[str, tuple[int, int]] | None) -> Boxes:
    """All boxes as COCO's annotations: whole pixels, xywh; those of predictions inside the frame."""
    rows: Boxes = []
    for clip in clips:
        for n, (boxes, labels) in enumerate(zip(clip.boxes, clip.labels, strict=True)):
            for box, _ in zip(boxes.tolist(), labels, strict=False):
                if sizes is not None:
                    width, height = sizes[clip.key]
                    box = [min(max(value, 0), limit) for value, limit in zip(box, [width, height] * 2, strict=True)]
                x1, y1, x2, y2 = (int(value) for value in box)
                row = {"id": len(rows) + 1, "image_id": f"{clip.key}_{n}", "category_id": 1, "iscrowd": 0, "score": 1.0}
                rows.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
    return rows


def coco_ap50(images: list[str], truth: Boxes, found: Boxes) -> float:
    """COCO's evaluation of these images, of whose twelve statistics one is read."""
    sides, wanted = [], set(images)
    for rows in (truth, found):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in images],
            "annotations": [dict(row) for row in rows if row["image_id"] in wanted],
            "categories": [{"id": 1, "name": "object"}],
        }
        sides.append(coco)
    with contextlib.redirect_stdout(io.StringIO()):
        for coco in sides:
            coco.createIndex()
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


def of_image(rows: Boxes, image: str) -> list[list[int]]:
    """The boxes of an image, found by looking at all of them."""
    return [row["bbox"] for row in rows if row["image_id"] == image]


def pseudo_iou(first: list[int], second: list[int]) -> float:
    """What the original computes of two xywh boxes, which it takes for corners of whole pixels."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    common = max(0, right - left + 1) * max(0, bottom - top + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return common / (sum(areas) - common) if common else 0.0


def mean_overlap(images: list[str], truth: Boxes, found: Boxes) -> float:
    """Mean over the frames that have boxes on both sides of the mean over all pairs."""
    means = []
    for image in images:
        rows, columns = of_image(truth, image), of_image(found, image)
        if rows and columns:
            pairs = [pseudo_iou(row, column) for row in rows for column in columns]
            means.append(sum(pairs) / len(pairs))
    return sum(means) / len(means) if means else 0.0


def recall(
    images: list[str],
    truth: Boxes,
    found: Boxes,
    reference: ReferenceClip,
    prediction: PredictedClip,
    similarity: PairwiseSimilarity,
) -> float:
    """Greedy matches, which end at the first pair that fails, by annotated labels."""
    matches, wanted = 0, sum(len(labels) for labels in reference.labels)
    for n, image in enumerate(images):
        rows, columns = of_image(truth, image), of_image(found, image)
        if not rows or not columns:
            continue
        overlap = np.array([[pseudo_iou(row, column) for column in columns] for row in rows])
        meaning = np.array([[similarity(a, b) for b in prediction.labels[n]] for a in reference.labels[n]])
        while True:
            row, column = np.unravel_index(overlap.argmax(), overlap.shape)
            if overlap[row, column] < 0.5 or meaning[row, column] < 0.5:
                break
            matches += 1
            overlap[row, :] = overlap[:, column] = 0
    return matches / wanted if wanted else 0.0


__all__ = ["PairwiseSimilarity", "naive_scores"]
