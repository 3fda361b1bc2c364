"""
A captioner for GroundedShapes: the true captions of single frames, with the errors that a model of pictures makes.

It is what the pipeline is measured with, as the truth is known: errors of one frame have nothing to do with those of the next, so
that all that later stages gain comes from putting frames together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.noise import SYNONYMS, noise_generator, with_synonym
from dataset_builders.reading import read_entries
from dataset_builders.record import record_key
from dataset_builders.shapes.vocabulary import OBJECTS, article
from modeling_grove.text_grove import locate_phrases

from .captioners import Frame
from .frame_captions import FrameCaption, FramePhrase


@dataclass(frozen=True)
class FrameNoise:
    """
    Errors of a captioner, each independent of the others and of other frames.

    Args:
        synonym (`float`, *optional*, defaults to 0.2): probability that a phrase has another word for the same thing.
        wrong_noun (`float`, *optional*, defaults to 0.05): probability that it has the noun of something else.
        no_box (`float`, *optional*, defaults to 0.1): probability that it has no box.
        invented (`float`, *optional*, defaults to 0.15): probability that a frame has a phrase, and a box, of nothing.
        centre_jitter (`float`, *optional*, defaults to 0.08), size_jitter (`float`, *optional*, defaults to 0.12): standard
            deviations of boxes, of their centres in sides of the box, of their sides as logarithms.
    """

    synonym: float = 0.2
    wrong_noun: float = 0.05
    no_box: float = 0.1
    invented: float = 0.15
    centre_jitter: float = 0.08
    size_jitter: float = 0.12

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < (np.inf if name.endswith("jitter") else 1.0 + 1e-9):
                raise ValueError(
                    f"{name}: expected a number of at least 0, and a probability of at most 1, got {value}"
                )


class ShapesCaptioner:
    """
    The back end `shapes` of stage 1.

    Args:
        frames (`Path`): `{split}.frames.jsonl` of a folder of GroundedShapes.
        noise ([`FrameNoise`], *optional*): errors.
        seed (`int`, *optional*, defaults to 0): of the errors.

    Raises:
        `ValueError`: if the file is none of frame captions.
    """

    def __init__(self, frames: Path, noise: FrameNoise = FrameNoise(), seed: int = 0):
        self.path, self.noise, self.seed = frames, noise, seed
        self._frames: dict[str, dict[int, Any]] = {}
        for entry in read_entries(str(frames)):
            clip = entry.value
            if not isinstance(clip.get("frames"), list):
                raise ValueError(
                    f"{frames}: line {entry.number}: no list of frames; expected `*.frames.jsonl` of GroundedShapes"
                )
            self._frames[record_key(clip)] = {frame["frame_index"]: frame for frame in clip["frames"]}

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"captioner": "shapes", "frames": self.path.name, "noise": asdict(self.noise), "seed": self.seed}

    def caption(self, frames: Sequence[Frame]) -> list[FrameCaption]:
        """
        A caption for each frame.

        Raises:
            `ValueError`: if a frame is of no clip of the file.
        """
        return [self._caption(frame) for frame in frames]

    def _caption(self, frame: Frame) -> FrameCaption:
        known = self._frames.get(frame.key, {})
        if frame.frame_index not in known:
            raise ValueError(
                f"{self.path}: nothing of frame {frame.frame_index} of {frame.key!r}; is it of another world?"
            )
        truth = known[frame.frame_index]
        rng = noise_generator(self.seed, f"{frame.key}/{frame.frame_index}")
        spans = locate_phrases(truth["caption"], truth["tagged_caption"], truth["phrases"])
        size = np.array(frame.pixels.shape[1::-1], np.float64)
        text, cursor, phrases = "", 0, []
        for phrase, span in zip(truth["phrases"], spans, strict=True):
            text += truth["caption"][cursor : span[0]]
            said = self._renamed(phrase, rng)
            boxes = np.array(
                [box for box, label in zip(truth["bboxes"], truth["labels"], strict=True) if label == phrase]
            )
            boxes = (
                np.empty((0, 4))
                if rng.random() < self.noise.no_box
                else self._jittered(boxes.reshape(-1, 4), size, rng)
            )
            scores = rng.uniform(0.5, 1.0, len(boxes))
            phrases.append(FramePhrase(said, (len(text), len(text) + len(said)), boxes, scores))
            text, cursor = text + said, span[1]
        text += truth["caption"][cursor:]
        if rng.random() < self.noise.invented:
            text, invented = self._invented(text, size, rng)
            phrases.append(invented)
        return FrameCaption(frame.frame_index, frame.timestamp, text, tuple(phrases))

    def _renamed(self, phrase: str, rng: np.random.Generator) -> str:
        draw = rng.random(2)
        if draw[0] < self.noise.wrong_noun:
            others = {noun: tuple(other for other in OBJECTS if other != noun) for noun in OBJECTS}
            rows = tuple(
                (noun, others[noun][int(rng.integers(len(others[noun])))]) for noun in OBJECTS if noun in phrase
            )
            return with_synonym(phrase, rng, rows[:1])
        return with_synonym(phrase, rng, SYNONYMS) if draw[1] < self.noise.synonym else phrase

    def _jittered(self, boxes: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * rng.normal(0, self.noise.centre_jitter, sides.shape)
        halves = sides / 2 * np.exp(rng.normal(0, self.noise.size_jitter, sides.shape))
        moved = np.concatenate([centres - halves, centres + halves], axis=1)
        return np.clip(moved, 0, np.tile(size, 2))

    def _invented(self, text: str, size: np.ndarray, rng: np.random.Generator) -> tuple[str, FramePhrase]:
        """The text with another thing at its end."""
        phrase = article(list(OBJECTS)[int(rng.integers(len(OBJECTS)))])
        body = text.rstrip(".")
        start = len(body) + len(" and ")
        corner, side = rng.uniform(0, 0.8, 2) * size, rng.uniform(0.1, 0.2, 2) * size
        box = np.concatenate([corner, corner + side])[None]
        invented = FramePhrase(phrase, (start, start + len(phrase)), box, rng.uniform(0.3, 0.8, 1))
        return f"{body} and {phrase}{text[len(body) :]}", invented


__all__ = ["FrameNoise", "ShapesCaptioner"]
