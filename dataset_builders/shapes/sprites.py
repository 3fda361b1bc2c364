"""Objects and furniture as pictures: simple geometry with light, patterns and texture, drawn once for a clip.

A drawing has two layers. The body takes the pattern (stripes, dots); details such as handles, caps and faces lie on it.
Coordinates are shares of the thing's width and height from the top left corner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from .things import Thing, color_of, shade
from .vocabulary import Color

_FINE = 4  # drawings are made larger and then reduced
BORDER = 2  # empty pixels around a sprite, for smooth edges when it is turned


class Pen:
    """Draws into a layer in shares of its width and height."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGBA", (width, height))
        self.size = (width, height)
        self._draw = ImageDraw.Draw(self.image)

    def _points(self, points: Sequence[float]) -> list[float]:
        return [value * self.size[n % 2] for n, value in enumerate(points)]

    def polygon(self, points: Sequence[float], fill: Color) -> None:
        self._draw.polygon(self._points(points), fill=fill)

    def ellipse(self, box: Sequence[float], fill: Color) -> None:
        self._draw.ellipse(self._points(box), fill=fill)

    def rectangle(self, box: Sequence[float], fill: Color, radius: float = 0.0) -> None:
        self._draw.rounded_rectangle(self._points(box), radius * min(self.size), fill=fill)

    def line(self, points: Sequence[float], fill: Color, width: float) -> None:
        self._draw.line(self._points(points), fill=fill, width=max(1, round(width * min(self.size))), joint="curve")

    def arc(self, box: Sequence[float], start: float, end: float, fill: Color, width: float) -> None:
        thick = max(1, round(width * min(self.size)))
        self._draw.arc(self._points(box), start, end, fill=fill, width=thick)

    def chord(self, box: Sequence[float], start: float, end: float, fill: Color) -> None:
        self._draw.chord(self._points(box), start, end, fill=fill)


Drawing = Callable[[Pen, Pen, Color, np.random.Generator], None]
_INK: Color = (52, 44, 42)
_WOOD: Color = (150, 104, 64)


def _ball(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.ellipse((0, 0, 1, 1), color)
    seam = shade(color, 0.72)
    detail.arc((-0.75, -0.1, 0.45, 1.1), -62, 62, seam, 0.035)
    detail.arc((0.55, -0.1, 1.75, 1.1), 118, 242, seam, 0.035)


def _apple(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.ellipse((0, 0.2, 0.62, 0.98), color)
    body.ellipse((0.38, 0.2, 1, 0.98), color)
    body.ellipse((0.14, 0.3, 0.86, 1), color)
    detail.line((0.5, 0.3, 0.55, 0.02), (96, 66, 40), 0.07)
    detail.polygon((0.55, 0.14, 0.72, 0.02, 0.92, 0.08, 0.74, 0.2), (92, 150, 62))


def _toy_car(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.polygon((0.2, 0.46, 0.33, 0.06, 0.7, 0.06, 0.84, 0.46), shade(color, 0.86))
    body.rectangle((0, 0.42, 1, 0.84), color, 0.18)
    for window in ((0.29, 0.42, 0.37, 0.14, 0.49, 0.14, 0.49, 0.42), (0.54, 0.42, 0.54, 0.14, 0.66, 0.14, 0.75, 0.42)):
        detail.polygon(window, (198, 226, 240))
    detail.rectangle((0.93, 0.5, 1, 0.62), (255, 240, 170), 0.04)
    for x in (0.22, 0.78):
        detail.ellipse((x - 0.15, 0.6, x + 0.15, 1), (36, 36, 40))
        detail.ellipse((x - 0.065, 0.71, x + 0.065, 0.89), (200, 204, 208))


def _box(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.rectangle((0, 0.26, 0.8, 1), color)
    detail.polygon((0, 0.26, 0.2, 0, 1, 0, 0.8, 0.26), shade(color, 1.3))
    detail.polygon((0.8, 0.26, 1, 0, 1, 0.74, 0.8, 1), shade(color, 0.68))
    detail.polygon((0.34, 0.26, 0.52, 0, 0.62, 0, 0.46, 0.26), shade(color, 0.8))
    detail.rectangle((0.34, 0.26, 0.46, 0.44), shade(color, 0.8))


def _cup(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.polygon((0, 0.1, 0.7, 0.1, 0.6, 0.94, 0.1, 0.94), color)
    body.ellipse((0.1, 0.86, 0.6, 1), color)
    detail.arc((0.5, 0.22, 1, 0.76), -100, 100, shade(color, 0.86), 0.12)
    detail.ellipse((0, 0, 0.7, 0.22), shade(color, 1.3))
    detail.ellipse((0.06, 0.04, 0.64, 0.19), shade(color, 0.5))


def _plate(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.ellipse((0, 0.08, 1, 1), shade(color, 0.66))
    detail.ellipse((0, 0, 1, 0.9), color)
    detail.ellipse((0.05, 0.05, 0.95, 0.83), shade(color, 1.35))
    detail.ellipse((0.2, 0.2, 0.8, 0.72), shade(color, 0.84))
    detail.ellipse((0.22, 0.24, 0.78, 0.72), color)


def _bottle(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.rectangle((0, 0.36, 1, 1), color, 0.16)
    body.polygon((0.04, 0.44, 0.32, 0.24, 0.68, 0.24, 0.96, 0.44), color)
    body.rectangle((0.32, 0.06, 0.68, 0.34), color)
    detail.rectangle((0.26, 0, 0.74, 0.1), (222, 196, 120), 0.05)
    detail.rectangle((0, 0.56, 1, 0.84), (246, 240, 222))
    detail.rectangle((0.16, 0.64, 0.84, 0.69), shade(color, 0.8))
    detail.rectangle((0.14, 0.42, 0.26, 0.53), shade(color, 1.5), 0.05)


def _book(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.polygon((0.12, 0.08, 0.22, 0, 1, 0, 0.9, 0.08), (250, 244, 226))
    body.polygon((0.9, 0.08, 1, 0, 1, 0.92, 0.9, 1), (226, 216, 190))
    body.rectangle((0, 0.08, 0.9, 1), color, 0.03)
    detail.rectangle((0, 0.08, 0.14, 1), shade(color, 0.66), 0.03)
    detail.rectangle((0.28, 0.26, 0.78, 0.36), (252, 240, 200))
    detail.rectangle((0.36, 0.44, 0.7, 0.49), (252, 240, 200))
    detail.line((0.97, 0.05, 0.97, 0.93), (190, 178, 150), 0.012)


def _bowl(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.chord((0, -0.62, 1, 0.94), 0, 180, color)
    body.rectangle((0.32, 0.84, 0.68, 1), shade(color, 0.76), 0.05)
    detail.ellipse((0, 0, 1, 0.38), shade(color, 1.3))
    detail.ellipse((0.06, 0.06, 0.94, 0.33), shade(color, 0.55))


def _bucket(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    detail.arc((0.06, 0, 0.94, 0.86), 180, 360, (120, 124, 130), 0.06)
    body.polygon((0, 0.4, 1, 0.4, 0.82, 0.95, 0.18, 0.95), color)
    body.ellipse((0.18, 0.88, 0.82, 1), color)
    detail.ellipse((0, 0.3, 1, 0.5), shade(color, 1.3))
    detail.ellipse((0.07, 0.33, 0.93, 0.48), shade(color, 0.5))


def _bag(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    detail.arc((0.26, 0, 0.74, 0.66), 180, 360, shade(color, 0.6), 0.09)
    body.polygon((0.1, 0.34, 0.9, 0.34, 1, 0.96, 0, 0.96), color)
    body.rectangle((0, 0.84, 1, 1), color, 0.08)
    detail.polygon((0.1, 0.34, 0.9, 0.34, 0.93, 0.52, 0.5, 0.68, 0.07, 0.52), shade(color, 0.78))
    detail.rectangle((0.43, 0.56, 0.57, 0.72), (236, 206, 110), 0.02)


def _teddy_bear(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    dark, pale = shade(color, 0.7), shade(color, 1.5)
    for x in (0.2, 0.8):
        body.ellipse((x - 0.17, 0.0, x + 0.17, 0.27), dark)
        body.ellipse((x - 0.2, 0.74, x + 0.2, 1), dark)
    for x in (0.12, 0.88):
        body.ellipse((x - 0.12, 0.46, x + 0.12, 0.78), dark)
    body.ellipse((0.16, 0.4, 0.84, 0.97), color)
    body.ellipse((0.12, 0.04, 0.88, 0.54), color)
    detail.ellipse((0.32, 0.56, 0.68, 0.88), pale)
    detail.ellipse((0.34, 0.28, 0.66, 0.5), pale)
    detail.ellipse((0.44, 0.3, 0.56, 0.38), _INK)
    for x in (0.31, 0.69):
        detail.ellipse((x - 0.055, 0.18, x + 0.055, 0.27), _INK)


def _table(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    leg = shade(color, 0.62)
    for x in (0.14, 0.8):
        body.rectangle((x, 0.1, x + 0.06, 0.86), shade(color, 0.48))
    for x in (0.03, 0.9):
        body.rectangle((x, 0.2, x + 0.07, 1), leg)
    body.polygon((0, 0.18, 0.1, 0, 0.9, 0, 1, 0.18), shade(color, 1.18))
    detail.rectangle((0, 0.18, 1, 0.32), shade(color, 0.8))


def _sofa(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    for x in (0.06, 0.88):
        body.rectangle((x, 0.88, x + 0.06, 1), _INK)
    body.rectangle((0.05, 0, 0.95, 0.7), shade(color, 0.9), 0.16)
    detail.line((0.5, 0.06, 0.5, 0.56), shade(color, 0.7), 0.02)
    detail.rectangle((0.1, 0.5, 0.5, 0.76), shade(color, 1.14), 0.1)
    detail.rectangle((0.5, 0.5, 0.9, 0.76), shade(color, 1.14), 0.1)
    detail.rectangle((0.08, 0.72, 0.92, 0.92), shade(color, 0.84), 0.06)
    for x in (0.0, 0.84):
        detail.rectangle((x, 0.34, x + 0.16, 0.93), color, 0.14)
    detail.rectangle((0.0, 0.34, 0.16, 0.46), shade(color, 1.12), 0.14)
    detail.rectangle((0.84, 0.34, 1.0, 0.46), shade(color, 1.12), 0.14)


def _cabinet(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.rectangle((0.06, 0.94, 0.94, 1), shade(color, 0.4))
    body.rectangle((0, 0.05, 1, 0.96), color)
    detail.polygon((0, 0.06, 0.05, 0, 0.95, 0, 1, 0.06), shade(color, 1.25))
    for x in (0.07, 0.53):
        for top, bottom in ((0.12, 0.48), (0.54, 0.9)):
            detail.rectangle((x, top, x + 0.4, bottom), shade(color, 0.74), 0.03)
            detail.rectangle((x + 0.04, top + 0.02, x + 0.4, bottom), shade(color, 0.93), 0.03)
    for x in (0.45, 0.55):
        for y in (0.3, 0.72):
            detail.ellipse((x - 0.025, y - 0.015, x + 0.025, y + 0.015), (236, 208, 120))


def _folding_screen(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    frame = (94, 62, 40)
    for x, slant, tone in ((0.0, 0.03, 1.0), (1 / 3, -0.03, 0.84), (2 / 3, 0.03, 1.0)):
        low, high = (0.0, slant) if slant > 0 else (-slant, 0.0)
        body.polygon((x, low, x + 1 / 3, high, x + 1 / 3, 1 - high, x, 1 - low), frame)
        panel = (x + 0.03, low + 0.04, x + 0.303, high + 0.04, x + 0.303, 0.93 - high, x + 0.03, 0.93 - low)
        detail.polygon(panel, shade(color, tone))
        for share in (0.35, 0.64):
            detail.line((x + 0.02, share + low / 2, x + 0.32, share + high / 2), frame, 0.02)


def _bench(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    for x in (0.08, 0.84):
        body.rectangle((x, 0.0, x + 0.05, 0.7), (60, 62, 66))
        body.rectangle((x - 0.02, 0.5, x + 0.07, 1), (60, 62, 66))
    for y in (0.04, 0.22):
        detail.rectangle((0, y, 1, y + 0.13), color, 0.04)
    detail.polygon((0.02, 0.56, 0.07, 0.42, 0.93, 0.42, 0.98, 0.56), shade(color, 1.15))
    detail.rectangle((0, 0.56, 1, 0.68), shade(color, 0.8), 0.03)


def _leaves(
    pen: Pen, box: tuple[float, float, float, float], color: Color, rng: np.random.Generator, count: int
) -> None:
    """A cloud of leaves: blobs that are darker below and lighter above."""
    x1, y1, x2, y2 = box
    for share in np.linspace(0, 1, count):
        angle, radius = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
        size = rng.uniform(0.06, 0.13)
        x = (x1 + x2) / 2 + radius * math.cos(angle) * ((x2 - x1) / 2 - size)
        y = (y1 + y2) / 2 + radius * math.sin(angle) * ((y2 - y1) / 2 - size * 0.8)
        light = 0.72 + 0.5 * share * (1 - (y - y1) / (y2 - y1)) + 0.16 * share
        pen.ellipse((x - size, y - size * 0.8, x + size, y + size * 0.8), shade(color, light))


def _bush(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    green = (62 + int(rng.integers(30)), 118 + int(rng.integers(24)), 56)
    body.ellipse((0.02, 0.22, 0.56, 1), shade(green, 0.66))
    body.ellipse((0.44, 0.22, 0.98, 1), shade(green, 0.66))
    body.ellipse((0.2, 0.02, 0.8, 0.9), shade(green, 0.66))
    body.rectangle((0.06, 0.6, 0.94, 1), shade(green, 0.6), 0.2)
    _leaves(body, (0.06, 0.1, 0.94, 0.96), green, rng, 90)


def _brick_wall(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    body.rectangle((0, 0.05, 1, 1), (196, 184, 170))
    rows, columns = 11, 4
    for row in range(rows):
        y = 0.06 + row * 0.94 / rows
        for column in range(-1, columns + 1):
            x = (column + 0.5 * (row % 2)) / columns
            brick = shade((172, 92, 70), float(rng.uniform(0.82, 1.14)))
            left, right = max(x + 0.012, 0.0), min(x + 1 / columns - 0.012, 1.0)
            if right > left:
                body.rectangle((left, y + 0.008, right, y + 0.94 / rows - 0.008), brick)
    detail.rectangle((0, 0, 1, 0.07), (176, 168, 158))


def _fence(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    boards = 7
    for board in range(boards):
        left, right, top = board / boards, (board + 0.97) / boards, 0.02 * (board % 2)
        tone = shade(color, 0.94 + 0.1 * (board % 2))
        body.polygon((left, top + 0.06, (left + right) / 2, top, right, top + 0.06, right, 1, left, 1), tone)
        detail.line((right, top + 0.06, right, 1), shade(color, 0.6), 0.012)
    for y in (0.2, 0.78):
        detail.rectangle((0, y, 1, y + 0.07), shade(color, 0.8))


def _tree(body: Pen, detail: Pen, color: Color, rng: np.random.Generator) -> None:
    green = (70 + int(rng.integers(30)), 128 + int(rng.integers(24)), 60)
    trunk = (112, 80, 54)
    body.polygon((0.34, 1, 0.42, 0.9, 0.42, 0.4, 0.58, 0.4, 0.58, 0.9, 0.66, 1), trunk)
    body.polygon((0.51, 0.4, 0.58, 0.4, 0.58, 0.9, 0.66, 1, 0.54, 1), shade(trunk, 0.76))
    body.ellipse((0.04, 0.02, 0.96, 0.6), shade(green, 0.66))
    _leaves(body, (0.0, 0.0, 1.0, 0.62), green, rng, 110)


DRAWINGS: dict[str, Drawing] = {
    "ball": _ball, "apple": _apple, "toy car": _toy_car, "box": _box, "cup": _cup, "plate": _plate,
    "bottle": _bottle, "book": _book, "bowl": _bowl, "bucket": _bucket, "bag": _bag, "teddy bear": _teddy_bear,
    "table": _table, "sofa": _sofa, "cabinet": _cabinet, "folding screen": _folding_screen,
    "bench": _bench, "bush": _bush, "brick wall": _brick_wall, "fence": _fence, "tree": _tree,
}  # fmt: skip
_ROUND = ("ball", "apple", "bottle", "bucket", "bowl", "cup")
_GRAINED = ("table", "cabinet", "bench", "fence", "box")


def _pattern(size: tuple[int, int], thing: Thing) -> Image.Image:
    """Mask of the stripes or the dots, of the size of the drawing."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32) / (height if thing.category == "ball" else min(width, height))
    if thing.pattern == "striped":
        mask = ((y * 3.4 + 0.2) % 1) < 0.44
    else:
        row = np.floor(y * 3.6)
        mask = np.hypot((x * 3.6 + 0.5 * (row % 2)) % 1 - 0.5, (y * 3.6) % 1 - 0.5) < 0.29
    return Image.fromarray(mask.astype(np.uint8) * 255)


def draw_sprite(thing: Thing, pixels: float) -> Image.Image:
    """
    RGBA picture of an object or a piece of furniture.

    Args:
        thing ([`Thing`]): What to draw.
        pixels (`float`): Pixels for the length 1 (the side of a square picture).

    Returns:
        `PIL.Image.Image`: the outline fills it up to a border of 2 pixels.
    """
    rng = np.random.default_rng([thing.seed, 7])
    width, height = (max(3, round(side * pixels)) for side in (thing.width, thing.height))
    size = (width * _FINE, height * _FINE)
    color = color_of(thing) if thing.color else (128, 128, 128)
    body, detail = Pen(*size), Pen(*size)
    DRAWINGS[thing.category](body, detail, color, rng)
    picture = body.image
    if thing.pattern != "plain":
        other = (44, 44, 60) if thing.color in ("white", "yellow") else (250, 246, 236)
        plain = picture.getchannel("A")
        picture.paste(other, mask=Image.composite(_pattern(size, thing), Image.new("L", size), plain))
        picture.putalpha(plain)
    if thing.category == "ball":  # its seams end at the edge
        detail.image.putalpha(ImageChops.darker(detail.image.getchannel("A"), picture.getchannel("A")))
    picture.alpha_composite(detail.image)
    pixels_array = np.asarray(picture.reduce(_FINE)).astype(np.float32)
    pixels_array[..., :3] *= _light(thing, width, height, rng)[..., None]
    bordered = np.zeros((height + 2 * BORDER, width + 2 * BORDER, 4), np.uint8)
    bordered[BORDER:-BORDER, BORDER:-BORDER] = pixels_array.clip(0, 255)
    return Image.fromarray(bordered)


def _light(thing: Thing, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Brightness of every pixel: light from the upper left, and the grain of the material."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x + 0.5) / width, (y + 0.5) / height
    if thing.category in ("ball", "apple"):
        light = 1.22 - 0.62 * np.hypot(x - 0.34, y - 0.28)
        light += 0.5 * np.exp(-((x - 0.32) ** 2 + (y - 0.26) ** 2) / 0.012)
    elif thing.category in _ROUND:
        light = 1.12 - 0.9 * (x - 0.36) ** 2 + 0.22 * np.exp(-((x - 0.26) ** 2) / 0.006)
    else:
        light = 1.08 - 0.1 * x - 0.12 * y
    if thing.category in _GRAINED:
        light += 0.035 * np.sin(70 * y + 5 * np.sin(5 * x + rng.uniform(0, 6)))
    return light + rng.normal(0, 0.018, (height, width)).astype(np.float32)
