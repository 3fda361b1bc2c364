"""Single pictures in which every pixel has a label: what the encoders of a new model learn from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import find_objects
from torch import Tensor
from torch.utils.data import Dataset

from dataset_builders.command_line import progress
from dataset_builders.head_nouns import head_noun
from dataset_builders.reading import read_records
from dataset_builders.record import from_record
from modeling_grove.video_grove import read_video

_MOST_NOUNS = 254  # maps of labels are bytes, and 0 is what no box covers
_MOST_PASTED = 12


class Still(NamedTuple):
    """
    What is known of a picture.

    Args:
        video (`str`): file of the video that it is from.
        frame (`int`): its number in the video.
        things (`tuple[tuple[str, np.ndarray], ...]`): head noun and box (xyxy, pixels of the video) of what its caption names.
    """

    video: str
    frame: int
    things: tuple[tuple[str, np.ndarray], ...]


class PatchStills(Dataset):
    """
    Pictures with their labels.

    Args:
        frames (`np.ndarray`): uint8 `(N, S, S, 3)` RGB.
        maps (`np.ndarray`): uint8 `(N, S, S)`, labels of all pixels, as [`read_stills`] makes them.
        pictures (`np.ndarray`): the numbers of those that belong to this data set.
        draws (`int`, *optional*): as many pictures drawn at random, each shifted by up to a fifth (what leaves on one side comes in
            on the other), half of them mirrored, and half of them with their colour channels in another order, so that a shape is
            not known by its place or its colour; by default each picture once, as it is. A draw depends on its number and
            the seed alone.
        seed (`int`, *optional*, defaults to 0): of the draws.
    """

    def __init__(
        self, frames: np.ndarray, maps: np.ndarray, pictures: np.ndarray, draws: int | None = None, seed: int = 0
    ):
        self.frames, self.maps, self.pictures, self.draws, self.seed = frames, maps, pictures, draws, seed
        self._small = [] if draws is None else _small_things(maps, pictures)

    def __len__(self) -> int:
        return len(self.pictures) if self.draws is None else self.draws

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`pictures`, float32 `(3, S, S)`, RGB from 0 to 1, and `labels`, uint8 `(S, S)`."""
        if self.draws is None:
            picture = self.pictures[index]
            frame, labels = self.frames[picture], self.maps[picture]
        else:
            frame, labels = self._draw(np.random.default_rng((self.seed, index)))
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float() / 255
        return {"pictures": pixels, "labels": torch.from_numpy(np.ascontiguousarray(labels))}

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        picture = self.pictures[rng.integers(len(self.pictures))]
        most = len(self.frames[picture]) // 5
        shift = tuple(rng.integers(-most, most + 1, 2).tolist())
        frame, labels = (np.roll(values[picture], shift, (0, 1)) for values in (self.frames, self.maps))
        for _ in range(rng.integers(_MOST_PASTED + 1) if self._small else 0):
            part, part_labels = self._cut(rng)
            height, width = part_labels.shape
            top, left = (rng.integers(len(labels) - side + 1) for side in (height, width))
            place = np.s_[top : top + height, left : left + width]
            frame[place], labels[place] = part, part_labels
        return _mirrored_and_coloured(frame, labels, rng)

    def _cut(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A small thing of some picture, with some of what is around it."""
        of_noun = self._small[rng.integers(len(self._small))]
        picture, top, bottom, left, right = of_noun[rng.integers(len(of_noun))]
        margins = rng.integers(0, 6, 4).tolist()
        place = np.s_[max(0, top - margins[0]) : bottom + margins[1], max(0, left - margins[2]) : right + margins[3]]
        return _mirrored_and_coloured(self.frames[picture][place], self.maps[picture][place], rng)


def _mirrored_and_coloured(
    frame: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if rng.integers(2):
        frame, labels = frame[:, ::-1], labels[:, ::-1]
    if rng.integers(2):
        frame = frame[..., rng.permutation(3)]
    return frame, labels


def _small_things(maps: np.ndarray, pictures: np.ndarray) -> list[np.ndarray]:
    """For each label of which there are any, int `(n, 5)`: picture, top, bottom, left, right of up to a third of a side."""
    most = maps.shape[1] // 3
    found: dict[int, list[tuple[int, ...]]] = {}
    for picture in pictures.tolist():
        for label, place in enumerate(find_objects(maps[picture]), 1):
            if place is None:
                continue
            rows, columns = place
            if max(rows.stop - rows.start, columns.stop - columns.start) <= most:
                found.setdefault(label, []).append((picture, rows.start, rows.stop, columns.start, columns.stop))
    return [np.array(found[label]) for label in sorted(found)]


def list_stills(path: str | os.PathLike[str]) -> list[Still]:
    """
    The pictures of a file of records, as `python -m dataset_builders stills` writes it.

    Raises:
        `ValueError`: if a record is damaged, has several frames or no file of a video, or that is not below the folder of videos.
    """
    found = []
    for record in read_records(path):
        clip = from_record(record)
        if len(clip.frame_indices) != 1:
            raise ValueError(
                f"{path}: {clip.video_id} has {len(clip.frame_indices)} frames; expected records of one frame, as "
                "`python -m dataset_builders stills` writes them"
            )
        name = PurePosixPath(clip.video_fname or "")
        if not name.name or name.is_absolute() or ".." in name.parts:
            raise ValueError(
                f"{path}: {clip.video_id}: video_fname: expected a file below --videos, got {clip.video_fname!r}"
            )
        things = tuple((head_noun(track.phrase), track.boxes[0]) for track in clip.tracks if track.presence[0])
        found.append(Still(str(name), int(clip.frame_indices[0]), things))
    return found


def nouns_of(stills: Sequence[Still]) -> list[str]:
    """The head nouns of what is named, the most frequent first; a plural is a noun of its own."""
    counted = Counter(noun for still in stills for noun, _ in still.things if noun)
    return [noun for noun, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))][:_MOST_NOUNS]


def held_out(stills: Sequence[Still], share: float = 0.03) -> np.ndarray:
    """bool `(N,)`: which pictures are of the last videos, of a share of all videos and one at least."""
    videos = list(dict.fromkeys(still.video for still in stills))
    last = {*videos[-max(1, round(share * len(videos))) :]}
    return np.array([still.video in last for still in stills])


def read_stills(
    stills: Sequence[Still], videos: Path, size: int, nouns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """
    The pixels of pictures and their labels, all in memory: 65 KB each at 128 x 128 pixels.

    Args:
        stills (`Sequence[Still]`): fastest if those of a video stand behind each other.
        videos (`Path`): folder of the videos.
        size (`int`): of the squares in pixels.
        nouns (`Sequence[str]`): the labels from 1 on.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: uint8 frames `(N, S, S, 3)`, and uint8 maps `(N, S, S)` with the label of the smallest box
        that covers a pixel, 0 where there is none. What is seen but not named counts as nothing.

    Raises:
        `ValueError`: if a video is missing or damaged, ends too early or is not square.
    """
    frames = np.empty((len(stills), size, size, 3), np.uint8)
    maps = np.zeros((len(stills), size, size), np.uint8)
    labels = {noun: number for number, noun in enumerate(nouns, 1)}
    pictures = progress(_pictures(stills, videos), "reading stills", len(stills), "still")
    for still, picture, frame, label_map in zip(stills, pictures, frames, maps, strict=True):
        side = len(picture)
        frame[:] = picture if side == size else np.asarray(Image.fromarray(picture).resize((size, size)))
        boxes = [(np.clip(np.round(box * size / side), 0, size).astype(int), noun) for noun, box in still.things]
        for (left, top, right, bottom), noun in sorted(boxes, key=lambda item: -_area(item[0])):
            label_map[top:bottom, left:right] = labels.get(noun, 0)
    return frames, maps


def _pictures(stills: Sequence[Still], videos: Path) -> Iterator[np.ndarray]:
    for name, group in groupby(stills, key=lambda still: still.video):
        wanted = [still.frame for still in group]
        distinct = sorted({*wanted})
        path = videos / name
        clip = read_video(path, target_fps=None, end_frame=distinct[-1], num_threads=1)
        found = dict(zip(clip.frame_indices.tolist(), clip.frames, strict=True))
        if missing := [index for index in distinct if index not in found]:
            raise ValueError(f"{path}: has {len(found)} frames, and frame {missing[0]} is wanted")
        if clip.width != clip.height:
            raise ValueError(f"{path}: expected square pictures, got {clip.width} x {clip.height}")
        yield from (found[index] for index in wanted)


def _area(box: np.ndarray) -> int:
    return int((box[2] - box[0]) * (box[3] - box[1]))


def label_weights(maps: np.ndarray, num_labels: int) -> Tensor:
    """Weights `(num_labels,)` of labels in the loss: one over the root of their share of all pixels."""
    some = maps[:, ::8, ::8]
    shares = np.bincount(some.reshape(-1), minlength=num_labels) / some.size
    return torch.tensor(np.maximum(shares, 1e-6) ** -0.5, dtype=torch.float32)


__all__ = ["PatchStills", "Still", "held_out", "label_weights", "list_stills", "nouns_of", "read_stills"]
