"""People as pictures: jointed figures with a head, a body, limbs and coloured clothes, drawn anew for every pose.

Joints are in shares of the person's height, forward and up from the ground between the feet; knees and elbows follow from where
feet and hands are. A figure has two layers: the body, and the near arm, which comes in front of whatever is held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .motion import ARM_AT_REST, Poses
from .things import Thing, color_of, shade
from .vocabulary import Color

Point = tuple[float, float]


@dataclass(frozen=True)
class _Build:
    """Lengths of a body, in shares of its height."""

    leg: float
    torso: float
    arm: float
    head: float  # radius
    chest: float  # thickness
    limb: float  # thickness


_BUILDS = {
    "man": _Build(leg=0.47, torso=0.3, arm=0.38, head=0.088, chest=0.185, limb=0.085),
    "woman": _Build(leg=0.46, torso=0.3, arm=0.37, head=0.09, chest=0.15, limb=0.07),
    "child": _Build(leg=0.38, torso=0.3, arm=0.36, head=0.13, chest=0.2, limb=0.095),
}
_FORWARD, _UP, _DOWN = 0.7, 1.36, 0.08  # extent of the picture around the feet
_SHOE: Color = (58, 46, 44)


class _Brush:
    """Draws in shares of the person's height, forward and up."""

    def __init__(self, unit: float, facing: int) -> None:
        self.unit, self.facing = unit, facing
        size = (math.ceil(2 * _FORWARD * unit), math.ceil((_UP + _DOWN) * unit))
        self.image = Image.new("RGBA", size)
        self._draw = ImageDraw.Draw(self.image)

    def _at(self, point: Point) -> Point:
        return (_FORWARD + self.facing * point[0]) * self.unit, (_UP - point[1]) * self.unit

    def limb(self, points: list[Point], width: float, fill: Color) -> None:
        """A line with round ends and joints."""
        places = [self._at(point) for point in points]
        thick = width * self.unit
        self._draw.line(places, fill=fill, width=max(1, round(thick)))
        for x, y in places:
            self._draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=fill)

    def disc(self, centre: Point, width: float, height: float, fill: Color) -> None:
        x, y = self._at(centre)
        width, height = width * self.unit, height * self.unit
        self._draw.ellipse((x - width, y - height, x + width, y + height), fill=fill)

    def chord(self, centre: Point, radius: float, start: float, end: float, fill: Color) -> None:
        """Part of a disc between two angles in degrees, clockwise from the front."""
        x, y = self._at(centre)
        radius *= self.unit
        if self.facing < 0:
            start, end = 180 - end, 180 - start
        self._draw.chord((x - radius, y - radius, x + radius, y + radius), start, end, fill=fill)

    def polygon(self, points: list[Point], fill: Color) -> None:
        self._draw.polygon([self._at(point) for point in points], fill=fill)


def _bend(start: Point, end: Point, length: float, forward: bool) -> tuple[Point, Point]:
    """The joint and the end of a limb of two halves that reaches for `end`, as far as it can."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = math.hypot(dx, dy) or 1e-6
    reach = min(distance, 0.999 * length)
    end = (start[0] + dx * reach / distance, start[1] + dy * reach / distance)
    side = math.sqrt(max(length * length - reach * reach, 0.0)) / 2
    sign = 1 if forward else -1
    across = (-dy / distance * side * sign, dx / distance * side * sign)
    return ((start[0] + end[0]) / 2 + across[0], (start[1] + end[1]) / 2 + across[1]), end


def _along(start: Point, length: float, angle: float) -> Point:
    """From `start` upwards by `length`, leaning forward by `angle` radians."""
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)


def draw_figure(person: Thing, poses: Poses, frame: int, tall: float) -> tuple[Image.Image, Image.Image, Point]:
    """
    A person in the pose of one frame.

    Args:
        person ([`Thing`]): Whom to draw.
        poses ([`Poses`]): Of all frames.
        frame (`int`): Which one.
        tall (`float`): Height of the standing person in pixels.

    Returns:
        `tuple[Image, Image, tuple[float, float]]`: body and near arm as RGBA pictures of one size, and where in them, in pixels
        from the top left corner, the ground between the feet is.
    """
    fine = 3 if tall < 90 else 2
    build, facing = _BUILDS[person.category], 1 if poses.facing[frame] >= 0 else -1
    body, arm = _Brush(tall * fine, facing), _Brush(tall * fine, facing)
    stoop, lean = float(poses.stoop[frame]), float(poses.lean[frame])
    angle = 0.05 + lean + 1.0 * stoop
    phase, gait, kick = float(poses.phase[frame]), float(poses.gait[frame]), float(poses.kick[frame])
    bob = 0.012 * gait * math.cos(2 * phase)
    hip = (-0.07 * stoop, build.leg * (1 - 0.3 * stoop) + bob)
    shoulder = _along(hip, build.torso, angle)
    head = _along(shoulder, 0.035 + build.head, 0.6 * angle)
    clothes, skin = color_of(person), person.tint("skin")
    trousers, hair = person.tint("trousers"), person.tint("hair")

    stride = 0.15 * min(gait, 1.2)
    feet = []
    for sign in (1, -1):  # far leg, near leg
        swing = sign * math.sin(phase)
        rest = 0.035 * sign
        up = 0.07 * gait * max(0.0, sign * math.cos(phase))
        feet.append((rest * (1 - min(gait, 1.0)) + stride * swing, 0.035 + up))
    feet[1] = (feet[1][0] + 0.34 * kick, feet[1][1] + 0.16 * abs(kick))
    hands = []
    for sign in (1, -1):  # the far arm swings with the near leg
        swing = 0.2 * min(gait, 1.2) * -sign * math.sin(phase)
        loose = (shoulder[0] + ARM_AT_REST[0] + swing, shoulder[1] - 0.92 * build.arm + abs(swing) * 0.25)
        hands.append(_between(loose, _target(poses, frame), float(poses.reach[frame])))
    wave = float(poses.wave[frame])
    if 0 < wave < 6:
        high = (shoulder[0] + 0.2 + 0.1 * math.sin(9 * wave), shoulder[1] + 0.86 * build.arm)
        hands[1] = _between(hands[1], high, min(1.0, 4 * min(wave, 6 - wave)))

    _draw_arm(body, shoulder, hands[0], build, shade(clothes, 0.7), shade(skin, 0.82))
    _draw_leg(body, person, hip, feet[0], build, 0.74)
    _draw_leg(body, person, hip, feet[1], build, 1.0)
    _draw_trunk(body, person, hip, shoulder, feet, build, clothes, trousers)
    _draw_head(body, person, head, shoulder, build, skin, hair, math.degrees(0.5 * angle))
    _draw_arm(arm, shoulder, hands[1], build, shade(clothes, 0.86), skin)
    pictures = [brush.image.reduce(fine) for brush in (body, arm)]
    return pictures[0], pictures[1], (_FORWARD * tall, _UP * tall)


def _between(first: Point, second: Point, share: float) -> Point:
    return first[0] + (second[0] - first[0]) * share, first[1] + (second[1] - first[1]) * share


def _target(poses: Poses, frame: int) -> Point:
    """Where the hands reach; while the person turns round it passes in front of the body."""
    return float(poses.hand_x[frame] * abs(poses.facing[frame])), float(poses.hand_y[frame])


def _draw_arm(brush: _Brush, shoulder: Point, hand: Point, build: _Build, sleeve: Color, skin: Color) -> None:
    top = (shoulder[0], shoulder[1] - 0.03)
    elbow, wrist = _bend(top, hand, build.arm, forward=False)
    brush.limb([elbow, wrist], build.limb * 0.72, skin)
    middle = ((elbow[0] + wrist[0]) / 2, (elbow[1] + wrist[1]) / 2)
    brush.limb([top, elbow, ((elbow[0] + middle[0]) / 2, (elbow[1] + middle[1]) / 2)], build.limb * 0.86, sleeve)
    brush.disc(wrist, build.limb * 0.48, build.limb * 0.48, skin)


def _draw_leg(brush: _Brush, person: Thing, hip: Point, foot: Point, build: _Build, light: float) -> None:
    knee, ankle = _bend(hip, foot, build.leg - 0.025, forward=True)
    skin, trousers = shade(person.tint("skin"), light), shade(person.tint("trousers"), light)
    if person.category == "man":
        brush.limb([hip, knee, ankle], build.limb * 1.12, trousers)
    else:  # bare legs under a dress; shorts
        brush.limb([knee, ankle], build.limb * 0.8, skin)
        brush.limb([hip, knee], build.limb * 1.2, skin if person.category == "woman" else trousers)
    brush.limb([(ankle[0], ankle[1] - 0.005), (ankle[0] + 0.06, ankle[1] - 0.008)], 0.055, shade(_SHOE, light))


def _draw_trunk(
    brush: _Brush,
    person: Thing,
    hip: Point,
    shoulder: Point,
    feet: list[Point],
    build: _Build,
    clothes: Color,
    trousers: Color,
) -> None:
    dx, dy = shoulder[0] - hip[0], shoulder[1] - hip[1]
    length = math.hypot(dx, dy)
    along, across = (dx / length, dy / length), (dy / length, -dx / length)

    def at(up: float, front: float) -> Point:
        return hip[0] + along[0] * up + across[0] * front, hip[1] + along[1] * up + across[1] * front

    half = build.chest / 2
    top = at(length - 0.7 * half, 0)
    if person.category == "woman":
        middle = ((feet[0][0] + feet[1][0]) / 2, hip[1] * 0.5)
        spread = 0.13 + 0.35 * abs(feet[0][0] - feet[1][0])
        hem = [(middle[0] + spread, middle[1]), (middle[0] - spread, middle[1])]
        brush.polygon([at(0.1, half * 0.8), *hem, at(0.1, -half * 0.8)], clothes)
        brush.polygon(
            [hem[1], at(0.1, -half * 0.8), at(0.1, -half * 0.2), ((hem[0][0] + 2 * hem[1][0]) / 3, middle[1])],
            shade(clothes, 0.82),
        )
    else:
        brush.limb([at(0.02, 0), at(0.08, 0)], build.chest * 0.9, trousers)
    brush.limb([at(0.1, 0), top], build.chest * 0.94, clothes)
    brush.limb([shoulder, at(length + 0.06, 0)], build.limb * 0.7, shade(person.tint("skin"), 0.88))


def _draw_head(
    brush: _Brush, person: Thing, head: Point, shoulder: Point, build: _Build, skin: Color, hair: Color, tilt: float
) -> None:
    radius = build.head
    if person.category == "woman":
        brush.limb(
            [(head[0] - 0.5 * radius, head[1]), (head[0] - 0.75 * radius, head[1] - 1.6 * radius)], radius * 1.1, hair
        )
    brush.disc((head[0] + 0.92 * radius, head[1] - 0.12 * radius), radius * 0.22, radius * 0.2, skin)  # nose
    brush.disc(head, radius, radius * 1.06, skin)
    brush.chord(head, radius * 1.12, 168 + tilt, 318 + tilt, hair)
    if person.category != "child":
        brush.chord((head[0] - 0.05 * radius, head[1]), radius * 1.1, 115 + tilt, 235 + tilt, hair)
    else:
        brush.chord(head, radius * 1.1, 140 + tilt, 250 + tilt, hair)
    brush.disc((head[0] + 0.48 * radius, head[1] + 0.06 * radius), radius * 0.12, radius * 0.17, (40, 34, 34))
    brush.limb(
        [(head[0] + 0.45 * radius, head[1] - 0.5 * radius), (head[0] + 0.72 * radius, head[1] - 0.44 * radius)],
        radius * 0.12,
        shade(skin, 0.6),
    )


def as_standing(count: int) -> Poses:
    """Poses of someone who stands still and looks to the right, for `count` frames."""
    zero = np.zeros(count)
    return Poses(np.ones(count), zero, zero, zero, zero, zero, zero, zero, zero, zero)
