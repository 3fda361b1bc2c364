"""
The back end `colours` of stage 1: large regions of one colour, and how they lie to each other. It needs no weights and no network,
so that the pipeline can be tried on any video; what the regions are it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from .captioners import Frame
from .frame_captions import FrameCaption, FramePhrase

# Hues in degrees up to which a colour goes by its name.
_HUES = ((15, "red"), (40, "orange"), (70, "yellow"), (170, "green"), (260, "blue"), (330, "purple"), (360, "red"))
_GREYS = ((0.25, "black"), (0.75, "gray"), (1.01, "white"))
_NAMES = tuple(dict.fromkeys(name for _, name in (*_HUES, *_GREYS)))


@dataclass(frozen=True)
class ColourRegions:
    """
    Which regions are named.

    Args:
        side (`int`, *optional*, defaults to 96): pixels of the longer side that the picture is looked at with.
        min_area (`float`, *optional*, defaults to 0.01), max_area (`float`, *optional*, defaults to 0.4): shares of the picture.
        min_saturation (`float`, *optional*, defaults to 0.3): below it a colour is a grey.
        count (`int`, *optional*, defaults to 3): regions at most, the largest; of a colour only one, and greys only where there is
            no colour, as they are mostly what lies behind.
    """

    side: int = 96
    min_area: float = 0.01
    max_area: float = 0.4
    min_saturation: float = 0.3
    count: int = 3


class ColourCaptioner:
    """
    Args:
        regions ([`ColourRegions`], *optional*): which regions are named.
    """

    def __init__(self, regions: ColourRegions = ColourRegions()):
        self.regions = regions

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"captioner": "colours", **asdict(self.regions)}

    def caption(self, frames: Sequence[Frame]) -> list[FrameCaption]:
        """A caption for each frame, such as "a red area over a green area"; none where there is no region."""
        return [self._caption(frame) for frame in frames]

    def _caption(self, frame: Frame) -> FrameCaption:
        found = find_regions(frame.pixels, self.regions)
        text, phrases = "", []
        for number, (colour, box, share) in enumerate(found):
            if number == 1:
                text += f" {_relation(found[0][1], box)} "
            elif number > 1:
                text += " and "
            name = f"{'an' if colour == 'orange' else 'a'} {colour} area"
            phrases.append(FramePhrase(name, (len(text), len(text) + len(name)), box[None], np.array([share])))
            text += name
        return FrameCaption(frame.frame_index, frame.timestamp, text, tuple(phrases))


def find_regions(pixels: np.ndarray, regions: ColourRegions) -> list[tuple[str, np.ndarray, float]]:
    """
    Regions of one colour, the largest first.

    Args:
        pixels (`np.ndarray`): uint8 `(H, W, 3)`, RGB.
        regions ([`ColourRegions`]): which of them.

    Returns:
        Of each the colour, the box xyxy in pixels, and the share of the box that it fills.
    """
    height, width = pixels.shape[:2]
    scale = max(height, width) / regions.side
    size = max(1, round(width / scale)), max(1, round(height / scale))
    names = name_colours(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)), regions.min_saturation)
    names = ndimage.median_filter(names, 3)
    found = []
    for number, name in enumerate(_NAMES):
        labels, count = ndimage.label(names == number)
        if not count:
            continue
        areas = np.bincount(labels.ravel())[1:]
        rows, columns = ndimage.find_objects(labels)[int(areas.argmax())]
        box = np.array([columns.start / size[0], rows.start / size[1], columns.stop / size[0], rows.stop / size[1]])
        share = areas.max() / names.size
        if regions.min_area <= share <= regions.max_area:
            filled = areas.max() / ((rows.stop - rows.start) * (columns.stop - columns.start))
            found.append((share, name, (box * [width, height, width, height]).astype(np.float32), float(filled)))
    greys = {name for _, name in _GREYS}
    found = [one for one in found if one[1] not in greys] or found
    found.sort(key=lambda one: -one[0])
    return [(name, box, filled) for _, name, box, filled in found[: regions.count]]


def name_colours(pixels: np.ndarray, min_saturation: float) -> np.ndarray:
    """int `(H, W)`: for each pixel the number of its colour's name."""
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(pixels).convert("HSV"), np.float32), -1, 0)
    coloured = (saturation / 255 >= min_saturation) & (value / 255 >= _GREYS[0][0])
    by_hue = _numbers(hue * 360 / 255, _HUES)
    return np.where(coloured, by_hue, _numbers(value / 255, _GREYS))


def _numbers(values: np.ndarray, table: Sequence[tuple[float, str]]) -> np.ndarray:
    limits, names = zip(*table, strict=True)
    places = np.searchsorted(limits, values, side="left").clip(max=len(names) - 1)
    return np.array([_NAMES.index(name) for name in names])[places]


def _relation(first: np.ndarray, second: np.ndarray) -> str:
    """How the middle of the first box lies to that of the second."""
    across, down = ((first[:2] + first[2:]) - (second[:2] + second[2:])) / 2
    if abs(across) > abs(down):
        return "near"
    return "over" if down < 0 else "under"


__all__ = ["ColourCaptioner", "ColourRegions", "find_regions", "name_colours"]
