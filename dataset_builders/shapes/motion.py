"""Where everything is at every moment: curves over time, people who walk, stoop and reach, things that are held, roll and fly.

A *performer* is directed action by action; its curves then give its position and pose at any time. A *prop* is a thing that
rests, is moved by a performer, or moves by itself. Lengths are shares of the side of a square picture. `x` grows to the right,
`lift` upwards from the ground, and `depth` from 0 (far) to 1 (near), which decides who stands in front of whom, how far down
in the picture a thing stands and, a little, how large it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .things import Thing

GRAVITY = 2.4  # weaker than real gravity at this scale, so that a fall lasts some frames
STRIDE = 0.62  # length of two steps, as a share of the person's height
ARM_AT_REST = (0.03, 0.44)  # of the hand: forward and up, as shares of the person's height


def ground_line(depth: np.ndarray | float) -> np.ndarray | float:
    """How far down in the picture the ground is, from 0 at the top to 1 at the bottom."""
    return 0.7 + 0.27 * depth


def nearness(depth: np.ndarray | float) -> np.ndarray | float:
    """Scale of what stands at this depth."""
    return 0.87 + 0.26 * depth


class Curve:
    """A number over time, which rests or glides smoothly to another value."""

    def __init__(self, value: float) -> None:
        self.first = self.value = value
        self._moves: list[tuple[float, float, float, float]] = []

    def to(self, start: float, end: float, value: float, smooth: float = 1.0) -> None:
        """Glides to `value`; with `smooth` 0 at constant speed, and at once if `end` is `start`."""
        self._moves.append((start, end, value - self.value, smooth))
        self.value = value

    def __call__(self, times: np.ndarray) -> np.ndarray:
        total = np.full(len(times), self.first)
        for start, end, change, smooth in self._moves:
            share = ((times - start) / (end - start)).clip(0, 1) if end > start else (times >= start).astype(float)
            total += change * (smooth * share * share * (3 - 2 * share) + (1 - smooth) * share)
        return total


@dataclass(frozen=True)
class Track:
    """Position of the middle of a thing's underside over T times, and the angle by which it is turned, each `(T,)`."""

    x: np.ndarray
    depth: np.ndarray
    lift: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class Poses:
    """
    A person's pose over T times, each `(T,)`.

    `facing` is 1 to the right and -1 to the left and in between while the person turns round; `hand_x` and `hand_y` are
    forward and up as shares of the height, and `reach` is 1 where the arms go there and 0 where they swing. `stoop` bends the knees
    and back, `lean` only the back. `phase` is that of the steps in radians, `gait` their size. `kick` and `wave` are from 0 to 1.
    """

    facing: np.ndarray
    hand_x: np.ndarray
    hand_y: np.ndarray
    reach: np.ndarray
    stoop: np.ndarray
    lean: np.ndarray
    phase: np.ndarray
    gait: np.ndarray
    kick: np.ndarray
    wave: np.ndarray


class Performer:
    """A person under direction. Times must not decrease from call to call."""

    def __init__(self, thing: Thing, x: float, depth: float, facing: int) -> None:
        self.thing, self.depth = thing, depth
        self.x, self.facing, self.lift = Curve(x), Curve(float(facing)), Curve(0.0)
        self.hand_x, self.hand_y, self.reach = Curve(ARM_AT_REST[0]), Curve(ARM_AT_REST[1]), Curve(0.0)
        self.stoop, self.lean, self.kick, self.wave = Curve(0.0), Curve(0.0), Curve(0.0), Curve(0.0)
        self._jumps: list[tuple[float, float, float]] = []

    @property
    def tall(self) -> float:
        """Height as it appears at this depth."""
        return self.thing.height * float(nearness(self.depth))

    @property
    def heading(self) -> int:
        return 1 if self.facing.value > 0 else -1

    def turn(self, time: float, facing: int) -> None:
        if facing != self.heading:
            self.facing.to(time, time + 0.2, float(facing))

    def walk(self, start: float, end: float, x: float, backwards: bool = False) -> None:
        if abs(x - self.x.value) < 1e-6:
            return
        direction = 1 if x > self.x.value else -1
        self.turn(start, -direction if backwards else direction)
        self.x.to(start, end, x, smooth=0.5)

    def put_hands(self, start: float, end: float, forward: float, up: float) -> None:
        """Moves both hands to a point relative to the feet, in shares of the height."""
        self.hand_x.to(start, end, forward)
        self.hand_y.to(start, end, up)
        self.reach.to(start, end, 1.0)

    def rest_hands(self, start: float, end: float) -> None:
        self.reach.to(start, end, 0.0)
        self.hand_x.to(start, end, ARM_AT_REST[0])
        self.hand_y.to(start, end, ARM_AT_REST[1])

    def jump(self, start: float, end: float, height: float) -> None:
        self._jumps.append((start, end, height))

    def track(self, times: np.ndarray) -> Track:
        lift = self.lift(times)
        for start, end, height in self._jumps:
            share = ((times - start) / (end - start)).clip(0, 1)
            lift = lift + 4 * height * share * (1 - share)
        return Track(self.x(times), np.full(len(times), self.depth), lift, np.zeros(len(times)))

    def hands(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the hands are when they reach: x, and lift above the ground."""
        track = self.track(times)
        x = track.x + self.facing(times) * self.hand_x(times) * self.tall
        return x, track.lift + self.hand_y(times) * self.tall

    def poses(self, times: np.ndarray) -> Poses:
        """The times must be evenly spaced and start with the clip, as steps are counted along the way."""
        x = self.x(times)
        way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)))])
        step = float(times[1] - times[0]) if len(times) > 1 else 1.0
        speed = np.abs(np.gradient(x, step)) if len(times) > 1 else np.zeros(len(times))
        airborne = self.track(times).lift > 0.005
        return Poses(
            facing=self.facing(times),
            hand_x=self.hand_x(times),
            hand_y=self.hand_y(times),
            reach=self.reach(times),
            stoop=self.stoop(times),
            lean=self.lean(times) + 0.25 * (speed / self.tall).clip(0, 2.5) / 2.5,
            phase=2 * np.pi * way / (STRIDE * self.tall),
            gait=np.where(airborne, 0.6, (speed / self.tall / 0.5).clip(0, 1.35)),
            kick=self.kick(times),
            wave=self.wave(times),
        )


Path = Callable[[np.ndarray], Track]


class Prop:
    """A thing without a will: it rests somewhere until something moves it."""

    def __init__(self, thing: Thing, x: float, depth: float, lift: float = 0.0) -> None:
        self.thing = thing
        self._paths: list[tuple[float, Path]] = [(-np.inf, _resting(x, depth, lift, 0.0))]
        self.holders: list[tuple[float, float, Performer]] = []

    @property
    def tall(self) -> float:
        return self.thing.height * self.scale(0.0)

    def scale(self, time: float) -> float:
        return float(nearness(self.at(time)[1]))

    def at(self, time: float) -> tuple[float, float, float, float]:
        """x, depth, lift and angle at one time."""
        track = self._paths[-1][1](np.array([time]))
        return float(track.x[0]), float(track.depth[0]), float(track.lift[0]), float(track.angle[0])

    def rest(self, time: float) -> None:
        """Stays where it is."""
        self._paths.append((time, _resting(*self.at(time))))

    def hold(self, start: float, end: float, performer: Performer) -> None:
        """In the performer's hands until `end`, when it rests where it then is (or is sent on its way by another call)."""
        half = 0.45 * self.thing.height * float(nearness(performer.depth))
        _, _, _, angle = self.at(start)

        def path(times: np.ndarray) -> Track:
            x, up = performer.hands(times)
            return Track(
                x, np.full(len(times), performer.depth + 0.002), (up - half).clip(0), np.full(len(times), angle)
            )

        self._paths.append((start, path))
        self.holders.append((start, end, performer))

    def follow(self, start: float, performer: Performer, rolls: bool = False) -> None:
        """Is pushed or pulled: keeps its distance from the performer."""
        x, depth, lift, angle = self.at(start)
        offset = x - float(performer.x(np.array([start]))[0])
        radius = self.thing.height * float(nearness(depth)) / 2

        def path(times: np.ndarray) -> Track:
            now = performer.x(times) + offset
            turned = angle + (now - x) / radius if rolls else np.full(len(times), angle)
            return Track(now, np.full(len(times), depth), np.full(len(times), lift), turned)

        self._paths.append((start, path))

    def roll(self, start: float, end: float, x: float, smooth: float = 0.3, turns: bool = True) -> None:
        """Rolls along the ground; a toy car does not turn over."""
        first, depth, lift, angle = self.at(start)
        radius = self.thing.height * float(nearness(depth)) / 2
        curve = Curve(first)
        curve.to(start, end, x, smooth)

        def path(times: np.ndarray) -> Track:
            now = curve(times)
            turned = angle + (now - first) / radius * turns
            return Track(now, np.full(len(times), depth), np.full(len(times), lift), turned)

        self._paths.append((start, path))

    def fly(self, start: float, end: float, x: float, lift: float = 0.0, peak: float = 0.0, spin: float = 0.0) -> None:
        """Flies or falls to (x, lift) on a parabola, which rises by `peak` above the straight line, and stays there."""
        x0, depth, lift0, angle0 = self.at(start)

        def path(times: np.ndarray) -> Track:
            share = ((times - start) / (end - start)).clip(0, 1)
            up = lift0 + (lift - lift0) * share + 4 * peak * share * (1 - share)
            return Track(x0 + (x - x0) * share, np.full(len(times), depth), up, angle0 + spin * share)

        self._paths.append((start, path))

    def fall(self, start: float, bounce: float) -> float:
        """Falls to the ground and bounces twice, by `bounce` times the height each; returns when it comes to rest."""
        x, _, lift, _ = self.at(start)
        landed = start + (2 * max(lift, 1e-4) / GRAVITY) ** 0.5
        self.fly(start, landed, x, 0.0, peak=lift / 4)  # the straight line and a quarter make a pure fall
        for _ in range(2):
            lift *= bounce
            if lift > 0.004:
                end = landed + 2 * (2 * lift / GRAVITY) ** 0.5
                self.fly(landed, end, x, 0.0, peak=lift)
                landed = end
        return landed

    def track(self, times: np.ndarray) -> Track:
        starts = np.array([start for start, _ in self._paths])
        current = np.searchsorted(starts, times, side="right") - 1
        columns = np.zeros((4, len(times)))
        for index in np.unique(current):
            chosen = current == index
            track = self._paths[index][1](times[chosen])
            columns[:, chosen] = track.x, track.depth, track.lift, track.angle
        return Track(*columns)


def _resting(x: float, depth: float, lift: float, angle: float) -> Path:
    def path(times: np.ndarray) -> Track:
        x_, depth_, lift_, angle_ = (np.full(len(times), value) for value in (x, depth, lift, angle))
        return Track(x_, depth_, lift_, angle_)

    return path
