"""The stage on which a clip is played: who and what is there, what happens when, and the camera that looks at it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .motion import Performer, Prop
from .rendering import Camera, Scene, View
from .things import Thing
from .vocabulary import FURNITURE, PLACES

OUTSIDE = 0.34  # how far beyond the edge of the frame somebody goes who leaves it
STORY_DEPTH, BEHIND_DEPTH, HIDING_DEPTH = (
    0.52,
    0.3,
    0.56,
)  # of the story, of who passes behind furniture, of that furniture


@dataclass(frozen=True)
class Event:
    """
    Something that happens. People and things are indices into the things of the scene.

    Args:
        verb (`str`): A key of `vocabulary.WORDINGS`.
        agents (`tuple[int, ...]`): Who or what does it; several do it together.
        objects (`tuple[int, ...]`): What it is done to.
        furniture (`int`, *optional*): Where.
        partner (`int`, *optional*): The other person.
        side (`int`): -1 to the left, 1 to the right, 0 where that does not matter.
        start (`float`), end (`float`): Seconds.
    """

    verb: str
    agents: tuple[int, ...]
    objects: tuple[int, ...] = ()
    furniture: int | None = None
    partner: int | None = None
    side: int = 0
    start: float = 0.0
    end: float = 0.0


class Stage:
    """
    Collects what a scene consists of.

    Args:
        rng (`np.random.Generator`): Decides everything that is left open.
        view ([`View`]): What of the world can be seen.
        times (`np.ndarray`): `(T,)` seconds of the frames.
        seconds (`float`): Length of the clip.
        place (`str`): One of `vocabulary.PLACES`.
    """

    def __init__(self, rng: np.random.Generator, view: View, times: np.ndarray, seconds: float, place: str) -> None:
        self.rng, self.view, self.times, self.seconds, self.place = rng, view, times, seconds, place
        self.actors: list[Performer | Prop] = []
        self.told: list[list[Event]] = []  # the events of each story, the main one first

    @property
    def things(self) -> list[Thing]:
        return [actor.thing for actor in self.actors]

    def index(self, actor: Performer | Prop) -> int:
        return next(index for index, other in enumerate(self.actors) if other is actor)

    def person(self, thing: Thing, x: float, depth: float, facing: int) -> Performer:
        performer = Performer(thing, x, depth, facing)
        self.actors.append(performer)
        return performer

    def prop(self, thing: Thing, x: float, depth: float, lift: float = 0.0) -> Prop:
        prop = Prop(thing, x, depth, lift)
        self.actors.append(prop)
        return prop

    def furniture_here(self, hides: bool | None = None, top: bool = False, covers: bool = False) -> list[str]:
        """Categories that fit the place; those that hide grown-ups, have a surface, or cover small things."""
        names = [name for name, kind in FURNITURE.items() if kind.indoors == PLACES[self.place].indoors]
        if hides is not None:
            names = [name for name in names if FURNITURE[name].hides == hides]
        if top:
            names = [name for name in names if FURNITURE[name].top]
        if covers:
            names = [name for name in names if name not in ("table", "bench", "tree")]
        return names

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def cuts(self, durations: Sequence[float], early: bool = False, late: bool = False) -> list[tuple[float, float]]:
        """
        When actions of these usual durations happen: one after another, stretched to the clip, with a rest before and after.
        With `early` and `late` that rest is longer, for what is not there yet and what is gone.
        """
        room = 1.15 if sum(durations) < 3 else 0.8
        before = room * self.rng.uniform(0.5, 1.7) if early else self.rng.uniform(0.15, 0.35)
        after = room * self.rng.uniform(0.9, 2.3) if late else self.rng.uniform(0.25, 0.7)
        usual = before + sum(durations) + after
        stretch = min(self.seconds / usual, 1.5)
        start = before * stretch
        if stretch * usual < self.seconds:  # a long clip: some of the rest comes first
            start += (self.seconds - stretch * usual) * self.rng.uniform(0.1, 0.4)
        ends = start + stretch * np.cumsum([0.0, *durations])
        return [(float(a), float(b)) for a, b in itertools.pairwise(ends)]

    def scene(self, camera: Camera, seed: int) -> Scene:
        """Everything evaluated at the times of the frames."""
        poses = [actor.poses(self.times) if isinstance(actor, Performer) else None for actor in self.actors]
        tracks = [actor.track(self.times) for actor in self.actors]
        return Scene(tuple(self.things), tuple(tracks), tuple(poses), camera, self.place, seed)


def still_camera(view: View, count: int) -> Camera:
    """Shows the whole stage."""
    return Camera(np.full(count, view.width / 2), np.full(count, 1 - view.height / 2), np.ones(count))


def moving_camera(
    rng: np.random.Generator, view: View, times: np.ndarray, shake: float, pan: float, zoom: float
) -> Camera:
    """
    A camera that is held in hands.

    Args:
        shake (`float`), pan (`float`): How far it trembles and turns sideways, in shares of the side of a square picture.
        zoom (`float`): Largest enlargement, from 1.
    """
    share = (times - times[0]) / max(float(times[-1] - times[0]), 1e-6)
    first, last = rng.uniform(-pan, pan, 2)
    near = np.sort(rng.uniform(1.0, zoom, 2))[:: 1 if rng.random() < 0.5 else -1]
    glide = share * share * (3 - 2 * share)
    zooms = near[0] + (near[1] - near[0]) * glide
    trembling = np.zeros((2, len(times)))
    for rate in (2.1, 3.7, 6.3):
        trembling += np.sin(rate * times + rng.uniform(0, 6.3, (2, 1))) * (shake / 3)
    x = view.width / 2 + first + (last - first) * glide + trembling[0]
    # Enlarging goes towards the ground, where things happen.
    y = 1 - view.height / 2 / zooms - 0.02 * (zooms - 1) + trembling[1]
    return Camera(x, y, zooms)
