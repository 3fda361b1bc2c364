"""What is drawn for a grounded caption: boxes with labels, and a strip with the caption and presence over time.

Every phrase has a colour. Its boxes and labels have it, and so has the phrase in the caption (filled while the phrase is
present, dimmed while it is not) and its line of presence. Everything is drawn into uint8 RGB arrays.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .grounded_caption import GroundedCaption

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels, the last two exclusive

# Twelve hues that stay apart from each other on video, on black and on white; a thirteenth phrase starts again.
_HUES = "ff5252 26c6da ffc107 5c85ff 76d13c ba68ff ff8a30 ff70be 14a07a be8c5a dee250 96a5b9"
PALETTE: tuple[Color, ...] = tuple((int(h[:2], 16), int(h[2:4], 16), int(h[4:], 16)) for h in _HUES.split())
MIN_WIDTH, _MIN_TEXT = 320, 11  # no caption is legible on a narrower canvas or in smaller letters


class Theme(NamedTuple):
    """Colours of what is not a phrase."""

    background: Color
    text: Color
    muted: Color
    lane: Color
    fade: float  # share of its colour that a phrase keeps while it is not present


DARK = Theme((18, 20, 24), (236, 238, 242), (140, 146, 156), (44, 48, 56), 0.55)
LIGHT = Theme((255, 255, 255), (24, 26, 30), (120, 126, 136), (232, 234, 238), 0.8)


def _color(phrase: int) -> Color:
    return PALETTE[phrase % len(PALETTE)]


def _mix(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(share * a + (1 - share) * b) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _ink(color: Color) -> Color:
    """Black or white, whichever reads better on `color`."""
    return (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 120 else (255, 255, 255)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # with a size, Pillow gives this or raises ImportError
    return font


@lru_cache(maxsize=4096)
def _glyph(character: str) -> str:
    """What the built-in font, which has little beyond ASCII, can show for a character: itself, its base letter or '?'."""
    shown = ""
    for part in unicodedata.normalize("NFKD", " " if character.isspace() else character):
        category = unicodedata.category(part)
        if category == "Pd":
            shown += "-"
        elif category not in ("Mn", "Cf", "Cc"):
            shown += "?" if bytes(_font(16).getmask(part)) == bytes(_font(16).getmask("\uffff")) else part
    return shown


def _printable(text: str) -> str:
    return "".join(map(_glyph, text))


@lru_cache(maxsize=1024)
def _shorten(text: str, size: int, width: float) -> str:
    """The text as it can be shown, cut with '...' where it is wider than `width` pixels."""
    text = shown = _printable(text)
    while text and _font(size).getlength(shown) > width:
        text = text[:-1]
        shown = text.rstrip() + "..."
    return shown


@lru_cache(maxsize=512)
def draw_tag(text: str, size: int, color: Color) -> np.ndarray:
    """Text on a filled plate, uint8 (height, width, 3)."""
    pad = max(2, size // 4)
    plate = Image.new("RGB", (round(_font(size).getlength(text)) + 2 * pad, round(size * 1.3)), color)
    ImageDraw.Draw(plate).text((pad, round(size * 0.99)), text, font=_font(size), fill=_ink(color), anchor="ls")
    return np.asarray(plate)


class Mark(NamedTuple):
    """One box at one moment: index of its phrase, xyxy pixels of the source frame, objectness."""

    phrase: int
    box: np.ndarray
    objectness: float


class Presence:
    """Boxes and presence at any source frame, from the sampled ones.

    Between two consecutive sampled frames with the phrase in both, box and objectness are interpolated linearly.
    Elsewhere the state of the nearest sampled frame is shown, on a tie that of the earlier one.
    """

    def __init__(self, caption: GroundedCaption) -> None:
        self.samples, self.tracks = caption.frame_indices, caption.tracks
        self.phrase_of = [caption.spans.index(track.span) for track in caption.tracks]
        self.present = np.zeros((len(caption.spans), caption.num_frames), dtype=bool)
        for phrase, track in zip(self.phrase_of, self.tracks, strict=True):
            self.present[phrase] |= track.presence

    def nearest(self, frames: np.ndarray) -> np.ndarray:
        """Index of the sampled frame nearest to each source frame."""
        before = np.searchsorted(self.samples, frames, side="right").clip(1) - 1
        after = np.minimum(before + 1, len(self.samples) - 1)
        return np.where(self.samples[after] - frames < np.abs(frames - self.samples[before]), after, before)

    def marks(self, frame: int) -> list[Mark]:
        """The boxes to show at a source frame."""
        shown = int(self.nearest(np.array([frame]))[0])
        before = int(np.searchsorted(self.samples, frame, side="right")) - 1
        between = 0 <= before < len(self.samples) - 1
        marks = []
        for phrase, track in zip(self.phrase_of, self.tracks, strict=True):
            if between and track.presence[before : before + 2].all():
                share = (frame - self.samples[before]) / (self.samples[before + 1] - self.samples[before])
                weights = np.array([1 - share, share])
                objectness = float(weights @ track.objectness[before : before + 2])
                marks.append(Mark(phrase, weights @ track.boxes[before : before + 2], objectness))
            elif track.presence[shown]:
                marks.append(Mark(phrase, track.boxes[shown], float(track.objectness[shown])))
        return marks


def _draw_outline(picture: np.ndarray, box: Rectangle, thickness: int, color: Color) -> None:
    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), box[2], box[3]
    picture[y1 : y1 + thickness, x1:x2] = picture[max(y2 - thickness, y1) : y2, x1:x2] = color
    picture[y1:y2, x1 : x1 + thickness] = picture[y1:y2, max(x2 - thickness, x1) : x2] = color


def _overlap(a: Rectangle, b: Rectangle) -> int:
    """Pixels that two rectangles share; of one with itself, its area."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def draw_marks(
    picture: np.ndarray, marks: list[Mark], caption: GroundedCaption, size: int, scores: bool, *taken: Rectangle
) -> None:
    """Boxes, large ones first, then their labels, which cover neither each other nor the rectangles in `taken`.

    Boxes are cut at the border of the picture; empty, inverted and outside ones are not drawn.

    Args:
        picture (`np.ndarray`): The frame in any size, `(height, width, 3)` uint8; drawn into.
        marks (`list[Mark]`): In pixels of the source frame, whose size `caption` has.
        size (`int`): Size of the letters in pixels; lines are in proportion.
        scores (`bool`): Whether labels show the objectness.
    """
    height, width = picture.shape[:2]
    scale = np.array([width / caption.width, height / caption.height] * 2)
    thickness = max(2, round(size / 7))
    drawn: list[tuple[Mark, Rectangle]] = []
    for mark in marks:
        x1, y1, x2, y2 = np.clip(np.round(mark.box * scale), 0, [width, height] * 2).astype(int).tolist()
        if x1 < x2 and y1 < y2:
            drawn.append((mark, (x1, y1, x2, y2)))
    for mark, (x1, y1, x2, y2) in sorted(drawn, key=lambda item: -_overlap(item[1], item[1])):
        color = _color(mark.phrase)
        # The dark rim keeps the colour apart from a background of the same colour.
        _draw_outline(picture, (x1 - 1, y1 - 1, x2 + 1, y2 + 1), thickness + 2, _mix(color, (0, 0, 0), 0.25))
        _draw_outline(picture, (x1, y1, x2, y2), thickness, color)
    occupied, phrases = list(taken), caption.phrases
    for mark, box in drawn:
        score = f" {mark.objectness:.2f}" if scores else ""
        text = _shorten(phrases[mark.phrase], size, width * 0.45 - _font(size).getlength(score)) + score
        tag = draw_tag(text, size, _color(mark.phrase))[:height, :width]
        others = [other for owner, other in drawn if owner is not mark]
        x, y, right, bottom = place = _free_place(tag.shape[:2], box, (height, width), occupied, others)
        picture[y:bottom, x:right] = tag
        occupied.append(place)


def _free_place(
    tag: tuple[int, ...], box: Rectangle, picture: tuple[int, int], occupied: list[Rectangle], others: list[Rectangle]
) -> Rectangle:
    """Where a label goes: above its box, below it or inside, hiding little of the other boxes, else the free row nearest."""
    (h, w), (x1, y1, x2, y2), (height, width) = tag[:2], box, picture
    corners = [(x, y) for y in (y1 - h, y2, y1, y2 - h) for x in (x1, x2 - w)]
    rows = sorted(range(0, height - h + 1, max(h // 2, 1)), key=lambda y: abs(y - y1))
    best, least = (min(x1, width - w), min(max(y1 - h, 0), height - h)), 2.0
    for n, (x, y) in enumerate([*corners, *((x1, y) for y in rows)]):
        x = min(max(x, 0), width - w)
        place = (x, y, x + w, y + h)
        if not 0 <= y <= height - h or any(_overlap(place, other) for other in occupied):
            continue
        hidden = max((_overlap(place, other) / _overlap(other, other) for other in others), default=0.0)
        if hidden < least - 0.1:
            best, least = (x, y), hidden
        if least < 0.2 or (n >= len(corners) and least <= 1.0):
            break
    return best[0], best[1], best[0] + w, best[1] + h


class _Word(NamedTuple):
    """Unbreakable text at `x` of `line`, and the index of its phrase or None."""

    text: str
    phrase: int | None
    x: float
    width: float
    line: int


def _wrap(caption: GroundedCaption, size: int, width: float) -> list[_Word]:
    """The caption in lines of `width` pixels; punctuation stays with its word, phrases get room for their plates."""
    font, pad, text = _font(size), size * 0.35, caption.caption
    phrase_at, room = {start: phrase for phrase, (start, _) in enumerate(caption.spans)}, width - 2 * pad
    units: list[list[tuple[str, int | None]]] = [[]]
    for start, end in itertools.pairwise(sorted({0, len(text), *itertools.chain(*caption.spans)})):
        phrase, run = phrase_at.get(start), _printable(text[start:end])
        whole = phrase is not None and font.getlength(run) < width / 2  # a short phrase stays on one line
        for token in [run] if whole else re.findall(r"\s+|\S+", run):
            if token.isspace():
                units.append([])
                continue
            while font.getlength(token) > room and len(token) > 1:
                head = max(1, int(len(token) * room / font.getlength(token)))
                units += [[(token[:head], phrase)], []]
                token = token[head:]
            units[-1].append((token, phrase))
    words: list[_Word] = []
    x, line, previous = 0.0, 0, None
    for unit in filter(None, units):
        needed = sum(font.getlength(token) + (2 * pad if phrase is not None else 0) for token, phrase in unit)
        if x and x + font.getlength(" ") + needed > width:
            x, line, previous = 0.0, line + 1, None
        x += font.getlength(" ") if x else 0.0
        for token, phrase in unit:
            if phrase != previous:
                x += pad * ((previous is not None) + (phrase is not None))
            words.append(_Word(token, phrase, x, font.getlength(token), line))
            x, previous = x + words[-1].width, phrase
    return words


class Strip:
    """Caption and presence lines in `width` pixels: laid out once, drawn once for every set of present phrases.

    The text gets smaller, and is cut with '...' in the end, to fit in `room` pixels (but at least three lines).
    """

    def __init__(
        self, caption: GroundedCaption, presence: Presence, width: int, size: int, room: int, theme: Theme
    ) -> None:
        self.caption, self.width, self.theme = caption, width, theme
        self.margin = size // 2
        inner = width - 2 * self.margin
        for self.size in range(size, _MIN_TEXT - 1, -1):
            self.line_height = 2 * round(self.size * 0.8)
            words = _wrap(caption, self.size, inner)
            limit = max(room // self.line_height, 3)
            if not words or words[-1].line < limit:
                break
        else:
            dots = _font(self.size).getlength(" ...")
            words = [w for w in words if w.line < limit - 1 or (w.line == limit - 1 and w.x + w.width + dots < inner)]
            end = words[-1].x + words[-1].width if words[-1].line == limit - 1 else 0.0
            words.append(_Word(" ...", None, end, dots, limit - 1))
        self.words = words
        self.text_height = 2 * self.margin + self.line_height * (words[-1].line + 1 if words else 0)
        self.small = max(round(self.size * 0.75), 9)
        self.row = 4 * round(self.small / 3)  # bars at even rows, or 4:2:0 would blur their colours
        self.lanes_bottom = self.text_height + self.row * len(caption.phrases)
        self.left, self.right = self.margin, width - self.margin - 2  # of the time axis
        self.lanes = self._draw_lanes(presence)
        self.height = self.text_height + len(self.lanes)
        self.draw_caption = lru_cache(maxsize=64)(self._draw_caption)

    def _draw_caption(self, lit: tuple[bool, ...]) -> np.ndarray:
        image = Image.new("RGB", (self.width, self.text_height), self.theme.background)
        draw, font, pad = ImageDraw.Draw(image), _font(self.size), round(self.size * 0.25)
        for (phrase, line), group in itertools.groupby(self.words, key=lambda word: (word.phrase, word.line)):
            words = list(group)
            top, ink = self.margin + line * self.line_height, self.theme.text
            left, right = (round(self.margin + x) for x in (words[0].x, words[-1].x + words[-1].width))
            if phrase is not None and lit[phrase]:
                ink = _ink(_color(phrase))
                box = (left - pad, top + 2, right + pad, top + self.line_height - 2)
                plate = Image.new("L", (4 * (box[2] - box[0]), 4 * (box[3] - box[1])))
                ImageDraw.Draw(plate).rounded_rectangle((0, 0, plate.width - 1, plate.height - 1), self.size, fill=255)
                image.paste(_color(phrase), box, plate.reduce(4))
            elif phrase is not None:
                ink = _mix(_color(phrase), self.theme.background, self.theme.fade)
                draw.line((left, top + self.line_height - 3, right, top + self.line_height - 3), fill=ink)
            baseline = top + round(self.line_height * 0.5 + self.size * 0.36)
            for word in words:
                draw.text((self.margin + word.x, baseline), word.text, font=font, fill=ink, anchor="ls")
        return np.asarray(image)

    def _draw_lanes(self, presence: Presence) -> np.ndarray:
        """One row for every phrase and a time axis below."""
        caption, font = self.caption, _font(self.small)
        names = [_shorten(phrase, self.small, self.width * 0.3) for phrase in caption.phrases]
        self.left += max((round(font.getlength(name)) + self.small for name in names), default=0)
        height = self.row * (len(names) + 1) + self.margin // 2
        image = Image.new("RGB", (self.width, height), self.theme.background)
        draw = ImageDraw.Draw(image)
        frames = np.linspace(caption.clip_start_frame, caption.clip_end_frame, self.right - self.left + 1)
        present = presence.present[:, presence.nearest(frames)]
        for phrase, name in enumerate(names):
            middle = self.row * phrase + self.row // 2
            ink = _color(phrase) if self.theme is DARK else self.theme.text
            draw.text((self.left - self.small // 2, middle), name, font=font, fill=ink, anchor="rm")
            bar = np.where(present[phrase, :, None], _color(phrase), self.theme.lane).astype(np.uint8)
            image.paste(Image.fromarray(np.tile(bar, (self.row // 2, 1, 1))), (self.left, middle - self.row // 8 * 2))
        for x, frame, anchor in ((self.left, frames[0], "lm"), (self.right, frames[-1], "rm")):
            seconds = caption.timestamps[0] + (frame - caption.frame_indices[0]) / caption.fps
            middle = height - self.margin // 2 - self.row // 2
            draw.text((x, middle), f"{seconds:.1f} s", font=font, fill=self.theme.muted, anchor=anchor)
        return np.asarray(image)

    def draw(self, canvas: np.ndarray, lit: Sequence[bool], frames: Sequence[int], cursor: Color) -> None:
        """Draws into the top of `canvas`, with a vertical line over the presence rows at each of the source `frames`."""
        canvas[: self.text_height] = self.draw_caption(tuple(lit))
        canvas[self.text_height : self.height] = self.lanes
        start, length = self.caption.clip_start_frame, self.caption.clip_end_frame - self.caption.clip_start_frame
        for frame in frames:
            x = self.left + round((self.right - self.left) * (frame - start) / max(length, 1))
            canvas[self.text_height : self.lanes_bottom, x : x + 2] = cursor


__all__ = ["DARK", "LIGHT", "MIN_WIDTH", "PALETTE", "Mark", "Presence", "Strip", "Theme", "draw_marks", "draw_tag"]
