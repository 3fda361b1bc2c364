"""From a scene to frames, and to what can be seen of every thing in every frame.

Things are painted from far to near. Beside the picture there is a map of owners, which says for every pixel whose it is:
it is painted in the same order, with each thing's outline (where its alpha is one half or more). What is visible
of a thing is what it owns in the end, so boxes and visible shares are exact, whatever covers what.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from .backgrounds import paint_background
from .figures import draw_figure
from .motion import Poses, Track, ground_line, nearness
from .sprites import BORDER, draw_sprite
from .things import Thing

# A thing is present where at least this share of its outline is visible. Below, a box says little of what the thing is.
MIN_VISIBLE_SHARE = 0.2
MIN_VISIBLE_PIXELS = 6
NARROWEST = 0.9  # width of the smallest stage; narrower pictures show more sky or wall instead
_SHADOW = (28, 24, 30)
_OUTLINE = [255 if alpha >= 128 else 0 for alpha in range(256)]


@dataclass(frozen=True)
class Camera:
    """Where the middle of the picture is and how much is enlarged, over T frames, each `(T,)`."""

    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray


@dataclass(frozen=True)
class Scene:
    """
    Everything that is needed to render a clip of T frames.

    Args:
        things (`tuple[Thing, ...]`): At most 250.
        tracks (`tuple[Track, ...]`): Where each of them is.
        poses (`tuple[Poses | None, ...]`): How the people among them stand.
        camera ([`Camera`]): What is looked at.
        place (`str`): The background.
        seed (`int`): Of the background.
    """

    things: tuple[Thing, ...]
    tracks: tuple[Track, ...]
    poses: tuple[Poses | None, ...]
    camera: Camera
    place: str
    seed: int


@dataclass(frozen=True)
class View:
    """Size of the picture in pixels, and what of the world fits in: pixels of the length 1, width and height in such lengths."""

    pixels_wide: int
    pixels_high: int

    @property
    def unit(self) -> float:
        return min(self.pixels_high, self.pixels_wide / NARROWEST)

    @property
    def width(self) -> float:
        return self.pixels_wide / self.unit

    @property
    def height(self) -> float:
        return self.pixels_high / self.unit


@dataclass(frozen=True)
class Rendering:
    """
    Attributes:
        frames (`np.ndarray`): uint8 `(T, H, W, 3)` RGB.
        owners (`np.ndarray`): uint8 `(T, H, W)`, 1 + the index of the thing that is seen in a pixel, 0 for the background.
        outline_pixels (`np.ndarray`): int64 `(N, T)`, pixels of each thing's whole outline, also of what is covered or outside.
    """

    frames: np.ndarray
    owners: np.ndarray
    outline_pixels: np.ndarray

    def visibility(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        What is visible of N things in T frames.

        Returns:
            `tuple`: boxes float32 `(N, T, 4)`, the tight extent of the visible pixels as xyxy with the last two exclusive (NaN
            where the thing is not present); presence bool `(N, T)`; visible shares float32 `(N, T)`.
        """
        count, steps = self.outline_pixels.shape
        boxes = np.full((count, steps, 4), np.nan, np.float32)
        visible = np.zeros((count, steps), np.int64)
        for index in range(count):
            mask = self.owners == index + 1
            visible[index] = np.count_nonzero(mask, axis=(1, 2))
            columns, rows = mask.any(axis=1), mask.any(axis=2)
            boxes[index, :, 0], boxes[index, :, 1] = columns.argmax(axis=1), rows.argmax(axis=1)
            boxes[index, :, 2] = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
            boxes[index, :, 3] = rows.shape[1] - rows[:, ::-1].argmax(axis=1)
        shares = visible / self.outline_pixels.clip(1)
        presence = (shares >= MIN_VISIBLE_SHARE) & (visible >= MIN_VISIBLE_PIXELS)
        boxes[~presence] = np.nan
        return boxes, presence, shares.astype(np.float32)


class _Painter:
    """Paints the things of one clip; sprites are drawn once, at the largest size that the camera asks for."""

    def __init__(self, scene: Scene, view: View) -> None:
        self.scene, self.view = scene, view
        self._largest = float(scene.camera.zoom.max()) * view.unit
        self._sprites: dict[int, tuple[Image.Image, float]] = {}
        # What does not change from one frame to the next is drawn once: by thing, how it is and the pictures of it.
        self._turned: dict[int, tuple[tuple[float, ...], tuple[Image.Image, tuple[int, int]]]] = {}
        self._figures: dict[int, tuple[bytes, tuple[Image.Image, Image.Image, tuple[float, float]]]] = {}
        camera = scene.camera
        half_wide, half_high = view.width / 2 / camera.zoom, view.height / 2 / camera.zoom
        self._corner = (float((camera.x - half_wide).min()) - 0.02, float((camera.y - half_high).min()) - 0.02)
        end = (float((camera.x + half_wide).max()) + 0.02, float((camera.y + half_high).max()) + 0.02)
        self._behind = paint_background(scene.place, scene.seed, (*self._corner, *end), self._largest)

    def background(self, frame: int) -> Image.Image:
        camera, view = self.scene.camera, self.view
        ratio = self._largest / (camera.zoom[frame] * view.unit)
        left = (camera.x[frame] - view.width / 2 / camera.zoom[frame] - self._corner[0]) * self._largest
        top = (camera.y[frame] - view.height / 2 / camera.zoom[frame] - self._corner[1]) * self._largest
        size = (view.pixels_wide, view.pixels_high)
        return self._behind.transform(
            size, Image.Transform.AFFINE, (ratio, 0, left, 0, ratio, top), Image.Resampling.BILINEAR
        )

    def place(self, index: int, frame: int) -> tuple[float, float, float]:
        """Where in the picture a thing's foot is, in pixels, and pixels for the length 1 there."""
        track, camera, view = self.scene.tracks[index], self.scene.camera, self.view
        scale = float(camera.zoom[frame]) * view.unit
        x = (track.x[frame] - camera.x[frame]) * scale + view.pixels_wide / 2
        y = (ground_line(track.depth[frame]) - track.lift[frame] - camera.y[frame]) * scale + view.pixels_high / 2
        return float(x), float(y), scale * float(nearness(track.depth[frame]))

    def shadow(self, picture: Image.Image, index: int, frame: int) -> None:
        thing, track = self.scene.things[index], self.scene.tracks[index]
        x, y, scale = self.place(index, frame)
        lift = float(track.lift[frame])
        darkness = round(110 * max(0.0, 1 - 3 * lift))
        width = round(max(thing.width * (0.5 if thing.category == "tree" else 1.25), 0.06) * scale)
        if darkness and width > 1:
            mask = _soft_ellipse(width, max(2, width // 4), darkness)
            y += lift * scale / float(nearness(track.depth[frame]))
            picture.paste(_SHADOW, (round(x - width / 2), round(y - mask.size[1] * 0.55)), mask)

    def sprite(self, index: int, frame: int) -> tuple[Image.Image, tuple[int, int]]:
        """The picture of an object or a piece of furniture as it is turned now, and its top left corner."""
        thing, track = self.scene.things[index], self.scene.tracks[index]
        x, y, scale = self.place(index, frame)
        if index not in self._sprites:
            drawn_at = self._largest * float(nearness(track.depth.max()))
            self._sprites[index] = draw_sprite(thing, drawn_at), drawn_at
        sprite, drawn_at = self._sprites[index]
        state = (x, y, scale, float(track.angle[frame]))
        if self._turned.get(index, ((),))[0] != state:
            self._turned[index] = state, _turn(sprite, drawn_at / scale, x, y, state[3])
        return self._turned[index][1]

    def figure(self, index: int, frame: int) -> tuple[Image.Image, Image.Image, tuple[int, int]]:
        """Body and near arm of a person, and their top left corner."""
        thing, poses = self.scene.things[index], self.scene.poses[index]
        assert poses is not None
        x, y, scale = self.place(index, frame)
        values = np.array([getattr(poses, name)[frame] for name in Poses.__dataclass_fields__] + [scale])
        state = values.round(4).tobytes()
        if self._figures.get(index, (b"",))[0] != state:
            self._figures[index] = state, draw_figure(thing, poses, frame, thing.height * scale)
        body, arm, (foot_x, foot_y) = self._figures[index][1]
        return body, arm, (round(x - foot_x), round(y - foot_y))


def _turn(sprite: Image.Image, ratio: float, x: float, y: float, angle: float) -> tuple[Image.Image, tuple[int, int]]:
    """The sprite `ratio` times smaller, turned clockwise by `angle`, its foot at (x, y); and its top left corner."""
    cosine, sine = math.cos(angle), math.sin(angle)
    wide = (abs(sprite.width * cosine) + abs(sprite.height * sine)) / ratio
    high = (abs(sprite.width * sine) + abs(sprite.height * cosine)) / ratio
    y -= (sprite.height / 2 - BORDER) / ratio  # its middle
    left, top = math.floor(x - wide / 2), math.floor(y - high / 2)
    size = (math.ceil(wide) + 1, math.ceil(high) + 1)
    x, y = x - left, y - top
    a, b = cosine * ratio, sine * ratio
    turned = (a, b, sprite.width / 2 - a * x - b * y, -b, a, sprite.height / 2 + b * x - a * y)
    return sprite.transform(size, Image.Transform.AFFINE, turned, Image.Resampling.BILINEAR), (left, top)


@lru_cache(maxsize=256)
def _soft_ellipse(width: int, height: int, darkness: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    distance = ((2 * x + 1) / width - 1) ** 2 + ((2 * y + 1) / height - 1) ** 2
    return Image.fromarray((darkness * (1 - distance).clip(0, 1) ** 0.7).astype(np.uint8))


def _paint(picture: Image.Image, owner: Image.Image, layer: Image.Image, at: tuple[int, int], name: int) -> Image.Image:
    """Paints a layer and what it owns; returns its outline."""
    outline = layer.getchannel("A").point(_OUTLINE)
    picture.paste(layer, at, layer)
    owner.paste(name, at, outline)
    return outline


def _union(first: Image.Image, second: Image.Image) -> int:
    return int(np.count_nonzero(np.asarray(first) | np.asarray(second)))


def render(scene: Scene, view: View) -> Rendering:
    """Renders all frames of a scene."""
    painter = _Painter(scene, view)
    count, steps = len(scene.things), len(scene.camera.x)
    frames = np.empty((steps, view.pixels_high, view.pixels_wide, 3), np.uint8)
    owners = np.empty(frames.shape[:3], np.uint8)
    outlines = np.zeros((count, steps), np.int64)
    depths = np.stack([track.depth for track in scene.tracks])
    for frame in range(steps):
        picture = painter.background(frame)
        owner = Image.new("L", picture.size)
        for index in range(count):
            painter.shadow(picture, index, frame)
        layers: list[tuple[float, int, Image.Image, tuple[int, int]]] = []
        for index, poses in enumerate(scene.poses):
            depth = float(depths[index, frame])
            if poses is None:
                layers.append((depth, index, *painter.sprite(index, frame)))
            else:
                body, arm, at = painter.figure(index, frame)
                layers += [(depth, index, body, at), (depth + 0.004, index, arm, at)]
        first: dict[int, Image.Image] = {}
        for _, index, layer, at in sorted(layers, key=lambda item: (item[0], item[1])):
            outline = _paint(picture, owner, layer, at, index + 1)
            if scene.poses[index] is None:
                outlines[index, frame] = outline.histogram()[255]
            elif index in first:
                outlines[index, frame] = _union(first[index], outline)
            first[index] = outline
        frames[frame], owners[frame] = np.asarray(picture), np.asarray(owner)
    return Rendering(frames, owners, outlines)
