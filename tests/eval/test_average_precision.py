"""Average precision agrees with pycocotools, whose order is that of the input, and where scores are equal no order matters."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.iground import score_iground
from tests.eval.iground_cases import HEAD_WORD, prediction, reference

SIZE = (400, 300)


def coco_evaluation(images, annotated, detected, group=None):
    """The twelve statistics of pycocotools on boxes xyxy of images, whose ids are sorted as text."""
    truth = COCO()
    results = []
    for image in images:
        for boxes, scores, entries in (
            (annotated[image], None, truth.dataset),
            (detected[image][0], detected[image][1], None),
        ):
            for n, (x1, y1, x2, y2) in enumerate(boxes):
                entry = {"image_id": image, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                if entries is None:
                    results.append(entry | {"score": scores[n]})
                else:
                    known = entries.setdefault("annotations", [])
                    known.append(entry | {"id": len(known) + 1, "iscrowd": 0, "area": (x2 - x1) * (y2 - y1)})
    truth.dataset |= {"images": [{"id": image} for image in images], "categories": [{"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.imgIds = group or images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def random_clips(rng, whole, num_clips=3, num_frames=12):
    """Boxes of clips: predictions near the annotated boxes, some lost, some invented; seldom 150 in a frame."""
    clips = {}
    for clip in range(num_clips):
        truth, predicted = [], []
        for _ in range(num_frames):
            number = 150 if rng.random() < 0.03 else rng.integers(0, 6)
            low = rng.uniform(0, (300, 200), (number, 2))
            boxes = np.concatenate([low, low + rng.uniform(5, 100, (number, 2))], axis=1)
            near = boxes[rng.random(number) < 0.8] + rng.normal(0, 6, 4)
            low = rng.uniform(0, (300, 200), (rng.integers(0, 3), 2))
            near = np.concatenate([near, np.concatenate([low, low + 60], axis=1)])
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
            near = np.clip(near, 0, (*SIZE, *SIZE))
            rng.shuffle(near)
            truth.append(np.trunc(boxes) if whole else boxes)
            predicted.append(np.trunc(near) if whole else near.astype(np.float32).astype(np.float64))
        clips[f"v{clip}_0"] = truth, predicted
    return clips


def scored(clips, scores=None, **options):
    labels = {key: [[["a cup"] * len(boxes) for boxes in side] for side in sides] for key, sides in clips.items()}
    truth = [reference(sides[0], labels[key][0], key, size=SIZE) for key, sides in clips.items()]
    answers = [
        prediction(sides[1], labels[key][1], key, scores=None if scores is None else scores[key])
        for key, sides in clips.items()
    ]
    return score_iground(truth, answers, similarity=HEAD_WORD, frames=("all",), captions=False, **options)


@pytest.mark.parametrize("seed", range(4))
def test_official_is_pycocotools_with_equal_scores(seed):
    clips = random_clips(np.random.default_rng(seed), whole=True)
    result = scored(clips, coco_stats=True, protocols=("official",))
    names = {key: [f"{key}_{n}" for n in range(len(sides[0]))] for key, sides in clips.items()}
    annotated = {name: boxes for key, sides in clips.items() for name, boxes in zip(names[key], sides[0], strict=True)}
    detected = {
        name: (boxes, np.ones(len(boxes)))
        for key, sides in clips.items()
        for name, boxes in zip(names[key], sides[1], strict=True)
    }
    expected = coco_evaluation([*annotated], annotated, detected)
    flattening = result.metrics["official"]["all"]["flattening"]
    assert flattening["coco_stats"] == pytest.approx(expected, abs=1e-9)
    assert flattening["AP50"] == pytest.approx(expected[1], abs=1e-9)
    for row in result.per_clip:
        expected = coco_evaluation([*annotated], annotated, detected, group=names[row["key"]])
        assert row["official"]["coco_stats"] == pytest.approx(expected, abs=1e-9)
        assert row["official"]["AP50"] == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_corrected_is_pycocotools_with_distinct_scores(seed):
    rng = np.random.default_rng(seed)
    clips = {
        # COCO takes the first hundred of an image alone.
        key: tuple([boxes[:100] for boxes in side] for side in sides)
        for key, sides in random_clips(rng, whole=False).items()
    }
    total = sum(len(boxes) for sides in clips.values() for boxes in sides[1])
    ranks = iter(rng.permutation(total) / total)
    scores = {key: [[next(ranks) for _ in boxes] for boxes in sides[1]] for key, sides in clips.items()}
    result = scored(clips, scores, coco_stats=True, protocols=("corrected",))
    annotated = {f"{key}_{n}": boxes for key, sides in clips.items() for n, boxes in enumerate(sides[0])}
    detected = {
        f"{key}_{n}": (boxes, scores[key][n]) for key, sides in clips.items() for n, boxes in enumerate(sides[1])
    }
    expected = coco_evaluation([*annotated], annotated, detected)
    flattening = result.metrics["corrected"]["all"]["flattening"]
    assert (flattening["AP"], flattening["AP50"]) == pytest.approx((expected[0], expected[1]), abs=1e-9)
    for row in result.per_clip:
        group = [image for image in annotated if image.startswith(row["key"])]
        expected = coco_evaluation([*annotated], annotated, detected, group=group)
        assert row["corrected"]["AP50"] == pytest.approx(expected[1], abs=1e-9)


def test_equal_scores_are_one_point_of_the_curve():
    right, wrong = [10, 10, 50, 50], [60, 60, 90, 90]
    truth = [reference([[right]], [["a cup"]])]
    for boxes in ([right, wrong], [wrong, right]):
        result = score_iground(truth, [prediction([boxes], [["a cup"] * 2])], similarity=HEAD_WORD, captions=False)
        assert result.metrics["corrected"]["all"]["per_video"]["AP50"] == 0.5
    surer = prediction([[wrong, right]], [["a cup"] * 2], scores=[[0.4, 0.6]])
    result = score_iground(truth, [surer], similarity=HEAD_WORD, captions=False)
    assert result.metrics["corrected"]["all"]["per_video"]["AP50"] == 1.0
    assert result.metrics["official"]["all"]["per_video"]["AP50"] == 0.5


def test_of_equal_scores_the_larger_overlap_is_matched():
    # Both predictions overlap the annotated box enough; that they come in this order must not matter to the second box.
    first, second = [0, 0, 40, 40], [15, 0, 55, 40]
    boxes = [[14, 0, 54, 40], [8, 0, 48, 40]]
    for order in ([0, 1], [1, 0]):
        answer = prediction([[boxes[n] for n in order]], [["a cup"] * 2])
        truth = [reference([[first, second]], [["a cup"] * 2])]
        result = score_iground(truth, [answer], similarity=HEAD_WORD, captions=False, protocols=("corrected",))
        assert result.metrics["corrected"]["all"]["per_video"]["AP50"] == 1.0


def test_officially_the_later_of_equally_good_boxes_is_taken():
    left, right = [0, 0, 40, 40], [20, 0, 60, 40]
    answer = prediction([[[10, 0, 50, 40], left]], [["a cup"] * 2])
    for boxes, expected in (([left, right], 1.0), ([right, left], 51 / 101)):
        truth = [reference([boxes], [["a cup"] * 2])]
        result = score_iground(truth, [answer], similarity=HEAD_WORD, captions=False)
        assert result.metrics["official"]["all"]["per_video"]["AP50"] == pytest.approx(expected)
        assert result.metrics["corrected"]["all"]["per_video"]["AP50"] == 1.0
