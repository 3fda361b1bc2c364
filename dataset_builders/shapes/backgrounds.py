"""Where a clip plays: procedural rooms and landscapes with texture, in muted colours so that things stand out.

A background is wider and higher than the picture, so that the camera can move over it. Everything is computed on arrays;
`x` and `y` are in shares of the side of a square picture, with `y` 0 at the top of a square picture and 1 at its bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .vocabulary import Color

HORIZON = 0.62  # y at which the wall, or what is far, meets the ground

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Field:
    """The pixels of a background: coordinates `(H, W)`, a source of randomness and the picture `(H, W, 3)` to paint."""

    x: np.ndarray
    y: np.ndarray
    rng: np.random.Generator
    picture: np.ndarray

    @property
    def below(self) -> np.ndarray:
        return self.y[:, 0] >= HORIZON

    def noise(self, across: float, down: float, octaves: int = 3) -> np.ndarray:
        """Smooth noise around 0 with a standard deviation near 1/3; `across` and `down` are cells per unit length."""
        height, width = self.x.shape
        scale = abs(float(self.x[0, 1] - self.x[0, 0]))
        total = np.zeros((height, width), np.float32)
        for octave in range(octaves):
            cells = (
                min(width, max(2, round(width * scale * across * 2**octave))),
                min(height, max(2, round(height * scale * down * 2**octave))),
            )
            grid = Image.fromarray(self.rng.random((cells[1], cells[0]), dtype=np.float32) - 0.5)
            total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
        return total

    def fill(self, color: Rgb | Color, light: np.ndarray | float = 1.0, rows: np.ndarray | slice = slice(None)) -> None:
        """Paints rows in one colour under a light of the picture's shape."""
        light = np.broadcast_to(np.asarray(light, np.float32), self.x.shape)
        self.picture[rows] = light[rows][..., None] * np.array(color, np.float32)

    def rectangle(self, x1: float, y1: float, x2: float, y2: float, color: Rgb | Color) -> None:
        rows = (self.y[:, 0] >= y1) & (self.y[:, 0] < y2)
        columns = (self.x[0] >= x1) & (self.x[0] < x2)
        self.picture[np.ix_(rows, columns)] = color

    def mix(self, color: Rgb | Color, share: np.ndarray) -> None:
        """Blends a colour in, `share` `(H, W)` from 0 to 1."""
        share = share.clip(0, 1)[..., None]
        self.picture[:] = (1 - share) * self.picture + share * np.array(color, np.float32)

    def floor(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates on the ground in perspective, across and away; of no meaning above the horizon."""
        away = 0.5 / (self.y - HORIZON + 0.3).clip(0.05)
        centre = (float(self.x[0, 0]) + float(self.x[0, -1])) / 2
        return (self.x - centre) * away, away


def _muted(rng: np.random.Generator, low: int = 130, high: int = 215, spread: int = 34) -> Rgb:
    """A quiet colour: grey with a tint."""
    base = rng.uniform(low, high)
    red, green, blue = base + rng.uniform(-spread, spread, 3) / 2
    return float(red), float(green), float(blue)


def _lit_from_above(field: Field) -> np.ndarray:
    return 1.06 - 0.16 * field.y + 0.1 * field.noise(1.5, 1.5, 2)


def _darker(color: Rgb | Color, light: float) -> Rgb:
    """The colour in less light."""
    red, green, blue = color
    return light * red, light * green, light * blue


def _planks(field: Field, color: Rgb | Color) -> None:
    """A wooden floor."""
    across, away = field.floor()
    plank = np.floor(across * 9)
    tones = field.rng.uniform(0.88, 1.1, 64)
    light = tones[plank.astype(int) % 64] + 0.12 * field.noise(18, 4)
    edge = (across * 9 - plank) < 0.05 / away.clip(0.3) * 0.9
    field.fill(color, np.where(edge, 0.7 * light, light) * (1.14 - 0.22 * away), field.below)


def _tiles(field: Field, first: Rgb, second: Rgb) -> None:
    """A tiled floor, chequered."""
    across, away = field.floor()
    odd = (np.floor(across * 6) + np.floor(away * 9)) % 2 > 0.5
    light = 1.1 - 0.16 * away + 0.06 * field.noise(12, 12)
    field.fill(first, light, field.below)
    rows = field.below
    other = light[..., None] * np.array(second, np.float32)
    field.picture[rows] = np.where(odd[rows][..., None], other[rows], field.picture[rows])


def _window(field: Field, x: float, y: float, width: float, height: float) -> None:
    field.rectangle(x - 0.02, y - 0.02, x + width + 0.02, y + height + 0.02, (236, 232, 224))
    inside = (field.x >= x) & (field.x < x + width) & (field.y >= y) & (field.y < y + height)
    share = ((field.y - y) / height)[inside][:, None]
    field.picture[inside] = (1 - share) * np.array([150, 186, 214]) + share * np.array([214, 224, 220])
    hills = inside & (field.y > y + height * (0.72 + 0.06 * np.sin(field.x * 23)))
    field.picture[hills] = (128, 150, 118)
    for frame in ((x + width / 2 - 0.007, y, x + width / 2 + 0.007, y + height),):
        field.rectangle(*frame, (236, 232, 224))
    field.rectangle(x, y + height / 2 - 0.007, x + width, y + height / 2 + 0.007, (236, 232, 224))
    field.rectangle(x - 0.035, y + height + 0.015, x + width + 0.035, y + height + 0.035, (222, 216, 206))


def _hanging(field: Field, x: float, y: float) -> None:
    """A framed picture on the wall."""
    width, height = field.rng.uniform(0.12, 0.2), field.rng.uniform(0.1, 0.15)
    field.rectangle(x - 0.012, y - 0.012, x + width + 0.012, y + height + 0.012, (92, 70, 52))
    field.rectangle(x, y, x + width, y + height, (228, 222, 208))
    for _ in range(4):
        left, top = x + field.rng.uniform(0.01, width * 0.6), y + field.rng.uniform(0.01, height * 0.6)
        field.rectangle(left, top, left + width * 0.32, top + height * 0.32, _muted(field.rng, 90, 200, 60))


def _living_room(field: Field) -> None:
    rng = field.rng
    light = _lit_from_above(field) + 0.03 * field.noise(40, 40, 1)
    if rng.random() < 0.5:  # wallpaper
        light = light + 0.035 * np.sign(np.sin(field.x * 2 * np.pi / rng.uniform(0.06, 0.12)))
    field.fill(_muted(rng, 165, 215), light)
    left = float(field.x[0, 0]) + 0.3
    for x in np.arange(left, float(field.x[0, -1]) - 0.2, 0.5):
        place = float(x + rng.uniform(-0.05, 0.1))
        if rng.random() < 0.45:
            _window(field, place, rng.uniform(0.08, 0.14), rng.uniform(0.22, 0.32), rng.uniform(0.24, 0.3))
        elif rng.random() < 0.6:
            _hanging(field, place, rng.uniform(0.12, 0.24))
    _planks(field, (176 + rng.uniform(-24, 16), 132 + rng.uniform(-20, 16), 92 + rng.uniform(-14, 20)))
    if rng.random() < 0.5:
        centre = (float(field.x[0, 0] + field.x[0, -1])) / 2 + rng.uniform(-0.2, 0.2)
        carpet = np.hypot((field.x - centre) / rng.uniform(0.4, 0.6), (field.y - 0.86) / 0.12)
        tone = _muted(rng, 110, 180, 60)
        field.mix(tone, (carpet < 1) * (0.8 + 0.2 * np.sin(field.x * 260) * np.sin(field.y * 400)))
        field.mix((226, 216, 196), ((carpet < 0.9) & (carpet > 0.84)) * 0.7)
    field.rectangle(-9, HORIZON - 0.025, 9, HORIZON, (226, 222, 214))


def _kitchen(field: Field) -> None:
    rng = field.rng
    field.fill(_muted(rng, 180, 222, 26), _lit_from_above(field))
    grid = ((field.x % 0.085) < 0.006) | ((field.y % 0.085) < 0.006)
    field.mix((244, 242, 236), (grid & (field.y > 0.24)) * 0.75)
    front, top = _muted(rng, 120, 200, 50), (96 + rng.uniform(-20, 60),) * 3
    start = float(field.x[0, 0]) + rng.uniform(0, 0.2)
    for number, x in enumerate(np.arange(start, float(field.x[0, -1]), 0.3)):
        if rng.random() < 0.75:
            field.rectangle(x, 0.02, x + 0.29, 0.22, front)
            field.rectangle(x + 0.015, 0.035, x + 0.275, 0.205, _darker(front, 0.92))
        field.rectangle(x, 0.43, x + 0.29, HORIZON, _darker(front, 0.94))
        field.rectangle(x + 0.015, 0.445, x + 0.275, HORIZON - 0.02, _darker(front, 0.84))
        field.rectangle(x + 0.13, 0.455, x + 0.16, 0.463, (226, 224, 220))
        if number % 3 == 1:
            _window(field, x + 0.02, 0.06, 0.24, 0.2)
    field.rectangle(-9, 0.405, 9, 0.435, top)
    _tiles(field, _muted(rng, 190, 226, 16), _muted(rng, 140, 180, 30))


def _sky(field: Field, upper: Rgb | Color, lower: Rgb | Color) -> None:
    share = (field.y / HORIZON).clip(0, 1)[..., None]
    field.picture[:] = (1 - share) * np.array(upper, np.float32) + share * np.array(lower, np.float32)
    field.mix((248, 248, 246), (field.noise(2.2, 5.5, 4) * 1.6 - 0.1).clip(0, 0.8) * (1 - share[..., 0]))


def _day(rng: np.random.Generator) -> tuple[Rgb, Rgb]:
    """Colours of the sky: noon, haze or evening."""
    skies: tuple[tuple[Rgb, Rgb], ...] = (
        ((118, 162, 206), (206, 222, 226)),
        ((158, 176, 190), (216, 218, 212)),
        ((120, 136, 178), (236, 206, 176)),
    )
    return skies[int(rng.integers(len(skies)))]


def _ridge(field: Field, base: float, size: float, color: Rgb | Color, roughness: float = 0.0) -> None:
    """Hills or a line of trees from the horizon up to about `base`."""
    phases = field.rng.uniform(0, 6.3, 3)
    line = base + sum(size / n * np.sin(n * field.x[0] * 5 + phase) for n, phase in enumerate(phases, start=1))
    if roughness:
        line = line + roughness * field.noise(14, 0.1, 3)[0]
    light = 1 + 0.35 * field.noise(16, 16)
    share = (field.y > line[None]).astype(np.float32)
    field.picture[:] = (1 - share[..., None]) * field.picture + share[..., None] * light[..., None] * np.array(color)


def _park(field: Field) -> None:
    rng = field.rng
    upper, lower = _day(rng)
    _sky(field, upper, lower)
    _ridge(field, 0.42, 0.03, (150, 168, 164))
    _ridge(field, rng.uniform(0.44, 0.52), 0.025, (92 + rng.uniform(-10, 14), 122, 84), roughness=0.14)
    across, away = field.floor()
    stripes = 0.05 * np.sign(np.sin(across * rng.uniform(9, 14)))
    light = 1.1 - 0.2 * away + stripes + 0.16 * field.noise(5, 9, 2) + 0.28 * field.noise(60, 46, 2)
    field.fill((134 + rng.uniform(-14, 20), 158, 88), light, field.below)
    if rng.random() < 0.6:
        centre = rng.uniform(0.68, 0.74) + 0.015 * np.sin(field.x * 4 + rng.uniform(0, 6))
        field.mix((198, 184, 156), ((0.035 - np.abs(field.y - centre)) * 60 + 0.4 * field.noise(40, 40)))


def _street(field: Field) -> None:
    rng = field.rng
    upper, lower = _day(rng)
    _sky(field, upper, lower)
    x = float(field.x[0, 0])
    while x < float(field.x[0, -1]):
        width, roof = rng.uniform(0.26, 0.46), rng.uniform(-0.05, 0.2)
        wall = _muted(rng, 128, 205, 44)
        field.rectangle(x, roof, x + width, HORIZON, wall)
        field.rectangle(x, roof, x + width, roof + 0.02, _darker(wall, 0.7))
        panes = (90 + rng.uniform(0, 60), 110 + rng.uniform(0, 50), 130 + rng.uniform(0, 40))
        for row in np.arange(roof + 0.06, HORIZON - 0.16, 0.13):
            for column in np.arange(x + 0.04, x + width - 0.08, 0.11):
                field.rectangle(column - 0.006, row - 0.006, column + 0.062, row + 0.086, (226, 222, 214))
                field.rectangle(column, row, column + 0.056, row + 0.08, panes)
        door = x + width * rng.uniform(0.3, 0.6)
        field.rectangle(door, HORIZON - 0.15, door + 0.075, HORIZON, _muted(rng, 70, 120, 60))
        x += width
    field.picture[:] *= (1 + 0.08 * field.noise(30, 30, 2))[..., None]
    across, away = field.floor()
    light = 1.08 - 0.12 * away + 0.14 * field.noise(50, 40, 2)
    joints = ((across * 5 % 1) < 0.03) | ((away * 8 % 1) < 0.05)
    field.fill(_muted(rng, 158, 190, 14), np.where(joints, 0.84 * light, light), field.below)
    field.rectangle(-9, HORIZON, 9, HORIZON + 0.018, (206, 202, 196))


def _beach(field: Field) -> None:
    rng = field.rng
    upper, lower = _day(rng)
    _sky(field, upper, lower)
    sea = rng.uniform(0.42, 0.5)
    rows = field.y[:, 0] >= sea
    waves = 1 + 0.22 * field.noise(7, 46, 3)
    field.fill((92 + rng.uniform(-14, 14), 150, 172), waves, rows)
    field.rectangle(-9, sea, 9, sea + 0.006, (196, 212, 214))
    shore = HORIZON + 0.012 * np.sin(field.x * 7 + rng.uniform(0, 6)) + 0.02 * field.noise(6, 0.1)
    sand = np.array([222, 200, 158], np.float32) + rng.uniform(-10, 10, 3)
    light = 1.02 + 0.12 * field.noise(6, 14, 2) + 0.2 * field.noise(70, 60, 1)
    share = ((field.y - shore) * 120).clip(0, 1)[..., None]
    field.picture[:] = (1 - share) * field.picture + share * light[..., None] * sand
    field.mix((246, 246, 240), (1 - np.abs(field.y - shore) * 130).clip(0, 0.9))


_PAINTERS: dict[str, Callable[[Field], None]] = {
    "living room": _living_room,
    "kitchen": _kitchen,
    "park": _park,
    "street": _street,
    "beach": _beach,
}


def paint_background(place: str, seed: int, box: tuple[float, float, float, float], pixels: float) -> Image.Image:
    """
    The RGB picture of a place.

    Args:
        place (`str`): One of `vocabulary.PLACES`.
        seed (`int`): Decides colours and what is where.
        box (`tuple`): `(x1, y1, x2, y2)` that the picture covers, in shares of the side of a square picture.
        pixels (`float`): Pixels for the length 1.
    """
    x1, y1, x2, y2 = box
    width, height = round((x2 - x1) * pixels), round((y2 - y1) * pixels)
    x = (x1 + (np.arange(width, dtype=np.float32) + 0.5) / pixels)[None].repeat(height, 0)
    y = (y1 + (np.arange(height, dtype=np.float32) + 0.5) / pixels)[:, None].repeat(width, 1)
    field = Field(x, y, np.random.default_rng([seed, 11]), np.zeros((height, width, 3), np.float32))
    _PAINTERS[place](field)
    field.picture[:] += field.rng.normal(0, 2.0, (height, width, 1))
    return Image.fromarray(field.picture.clip(0, 255).astype(np.uint8))
