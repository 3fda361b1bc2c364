"""What stands in a scene: objects, people and furniture with the attributes that captions name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .vocabulary import (
    BRIGHT,
    COLORS,
    FURNITURE,
    GARMENTS,
    NEUTRAL,
    OBJECTS,
    PATTERNS,
    PEOPLE,
    SIZES,
    Color,
    noun_phrase,
)

_SKINS: tuple[Color, ...] = ((246, 208, 176), (224, 172, 130), (172, 116, 78), (116, 76, 52))
_HAIRS: tuple[Color, ...] = ((40, 30, 26), (92, 58, 34), (198, 150, 78), (150, 70, 36))
_TROUSERS: tuple[Color, ...] = ((52, 62, 92), (70, 66, 62), (96, 84, 66), (40, 44, 52))


@dataclass(frozen=True)
class Thing:
    """
    One thing. Lengths are shares of the side of a square picture, at the middle of the ground.

    Args:
        kind (`str`): "object", "person" or "furniture".
        category (`str`): The noun.
        color (`str`): Of an object or of clothes; empty where the category says it all.
        size (`str`): "small", "medium" or "big"; only objects have other sizes than medium.
        pattern (`str`): "plain", "striped" or "dotted".
        width (`float`), height (`float`): Of its outline, for a person while standing.
        seed (`int`): Decides what no caption names, such as the hair.
    """

    kind: str
    category: str
    color: str
    width: float
    height: float
    size: str = "medium"
    pattern: str = "plain"
    seed: int = 0

    @property
    def adjectives(self) -> tuple[str, ...]:
        """In the order of English: size, colour, pattern; medium and plain go without saying."""
        words = (
            "" if self.size == "medium" else self.size,
            self.color,
            "" if self.pattern == "plain" else self.pattern,
        )
        return () if self.kind == "person" else tuple(word for word in words if word)

    @property
    def clothes(self) -> str:
        """ "in a red shirt", for people in bright clothes."""
        if self.kind != "person" or self.color not in BRIGHT:
            return ""
        return f"in {noun_phrase(GARMENTS[self.category], (self.color,))}"

    @property
    def phrase(self) -> str:
        """The full noun phrase: "a big red ball", "a man in a blue shirt", "a brick wall"."""
        return group_phrase([self])

    def tint(self, name: str) -> Color:
        """Colour of the skin, the hair or the trousers."""
        palette, digit = {"skin": (_SKINS, 1), "hair": (_HAIRS, 7), "trousers": (_TROUSERS, 61)}[name]
        return palette[self.seed // digit % len(palette)]


def group_phrase(things: Sequence[Thing]) -> str:
    """The noun phrase of one thing or of several of a category: "two red balls"; what they do not share is not said."""
    first = things[0]
    adjectives = tuple(word for word in first.adjectives if all(word in thing.adjectives for thing in things))
    words = noun_phrase(first.category, adjectives, len(things))
    return f"{words} {first.clothes}" if len(things) == 1 and first.clothes else words


def draw_object(rng: np.random.Generator, categories: Sequence[str], avoid: Sequence[Thing] = ()) -> Thing:
    """A random object of one of the categories; its category or else its colour is no other's in `avoid`."""
    taken = {(thing.category, thing.color) for thing in avoid}
    free = {name: [color for color in OBJECTS[name].colors if (name, color) not in taken] for name in categories}
    category = str(rng.choice([name for name in categories if free[name]]))
    kind, color = OBJECTS[category], str(rng.choice(free[category]))
    size = str(rng.choice(list(SIZES), p=(0.15, 0.65, 0.2)))
    pattern = str(rng.choice(PATTERNS, p=(0.7, 0.18, 0.12))) if kind.patterned else "plain"
    return make_object(category, color, size, pattern, int(rng.integers(2**31)))


def make_object(category: str, color: str, size: str = "medium", pattern: str = "plain", seed: int = 0) -> Thing:
    """An object with the given attributes."""
    kind, side = OBJECTS[category], SIZES[size]
    return Thing("object", category, color, kind.width * side, kind.height * side, size, pattern, seed)


def draw_person(rng: np.random.Generator, category: str | None = None, avoid: Sequence[Thing] = ()) -> Thing:
    """A random person. Beside another of the category both must wear bright clothes: `avoid` decides the colours."""
    alike = [thing for thing in avoid if thing.category == category]
    if category is None:
        free = [name for name in PEOPLE if all(thing.category != name for thing in avoid)]
        category = str(rng.choice(free or list(PEOPLE)))
        alike = [thing for thing in avoid if thing.category == category]
    colors = BRIGHT if alike or rng.random() < 0.5 else NEUTRAL
    color = str(rng.choice([color for color in colors if all(color != thing.color for thing in alike)]))
    height = PEOPLE[category]
    return Thing("person", category, color, 0.3 * height, height, seed=int(rng.integers(2**31)))


def draw_furniture(rng: np.random.Generator, categories: Sequence[str]) -> Thing:
    """A random piece of furniture, or what stands around outdoors, of one of the categories."""
    category = str(rng.choice(list(categories)))
    kind = FURNITURE[category]
    color = str(rng.choice(kind.colors)) if kind.colors else ""
    return Thing("furniture", category, color, kind.width, kind.height, seed=int(rng.integers(2**31)))


def shade(color: Color, factor: float) -> Color:
    """Darker below 1, lighter above."""
    if factor <= 1:
        red, green, blue = (round(channel * factor) for channel in color)
    else:
        red, green, blue = (round(255 - (255 - channel) * (2 - factor)) for channel in color)
    return red, green, blue


def color_of(thing: Thing) -> Color:
    """RGB of the thing's named colour."""
    return COLORS[thing.color]
