"""iGround's recorded cases as clips, and small clips for tests."""

import json
from functools import cache
from pathlib import Path

import numpy as np

from eval.clips import PredictedClip, ReferenceClip
from eval.text_similarity import TextSimilarity, text_similarity

GOLDEN = Path(__file__).parents[1] / "golden" / "eval" / "iground"
HEAD_WORD = text_similarity("head-word")


@cache
def read(name: str):
    """A recorded file; not to be changed."""
    return json.loads((GOLDEN / name).read_text())


@cache
def similarity(name: str) -> TextSimilarity:
    """`bert` is the tiny one that the values were recorded with."""
    return text_similarity("bert", str(GOLDEN / "tiny_bert")) if name == "bert" else HEAD_WORD


def references(document) -> list[ReferenceClip]:
    """The clips of an annotation file of the original's."""
    return [
        reference(clip["bboxes"], clip["labels"], key, clip["caption"], (clip["width"], clip["height"]))
        for key, clip in document.items()
    ]


def predictions(document) -> list[PredictedClip]:
    """The clips of a prediction file of the original's."""
    return [
        prediction(clip["pred_bboxes"], clip["pred_labels"], key, clip["pred_text"]) for key, clip in document.items()
    ]


def frames(boxes, dtype=np.float64) -> tuple[np.ndarray, ...]:
    """Boxes of every frame."""
    return tuple(np.array(frame, dtype=dtype).astype(np.float64).reshape(-1, 4) for frame in boxes)


def reference(boxes, labels, key="v_0", caption="a man holds a cup", size=(100, 100)) -> ReferenceClip:
    """An annotated clip from lists."""
    return ReferenceClip(key, *size, caption, frames(boxes), tuple(map(tuple, labels)))


def prediction(boxes, labels, key="v_0", caption="a man holds a cup", scores=None) -> PredictedClip:
    """A predicted clip from lists, boxes in float32 as the original's."""
    scores = None if scores is None else tuple(np.array(frame, dtype=np.float64) for frame in scores)
    return PredictedClip(key, caption, frames(boxes, np.float32), tuple(map(tuple, labels)), scores)
