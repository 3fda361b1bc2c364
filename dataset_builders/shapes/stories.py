"""Which stories there are, who and what they need, and how a scene is put together from them for a level of difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import actions, rolling
from .actions import Act, carrying, top_of
from .motion import Performer, Prop, nearness
from .rolling import Course
from .stage import BEHIND_DEPTH, HIDING_DEPTH, OUTSIDE, STORY_DEPTH, Stage
from .things import Thing, draw_furniture, draw_object, draw_person
from .vocabulary import OBJECTS

_ANY = tuple(OBJECTS)
_ROLLING = tuple(name for name, kind in OBJECTS.items() if kind.rolls)
_PUSHED = ("box", "ball", "bucket", "toy car", "bag", "teddy bear")
_PULLED = ("box", "bucket", "toy car", "bag", "teddy bear")
_KICKED = ("ball", "ball", "box", "bucket", "teddy bear")
_THROWN = ("ball", "ball", "apple", "teddy bear", "bag", "book", "bottle")
_JUMPED = ("box", "bucket", "bag", "bowl", "ball")


@dataclass(frozen=True)
class Plot:
    """
    A story about a person. Places are shares of the way across the stage, in the direction of the story.

    Args:
        verbs (`tuple[str, ...]`): What happens.
        start (`float`): Where the person is at first; below 0 is out of the frame.
        props (`tuple[str, ...]`): Categories that the object may have; none for a story without one.
        prop (`float`): Where the object is at first; below 0 in the person's hands.
        furniture (`str`): "" for none, "any", "hides" (a person), "covers" (an object), "top" (to put things on) or "holds" (the
            object stands on it at first).
        spot (`float`): Where the furniture is.
        crowd (`bool`): Whether two or three may do it together.
        partner (`bool`): Whether there is another person.
    """

    verbs: tuple[str, ...]
    start: float = 0.14
    props: tuple[str, ...] = ()
    prop: float = 0.45
    furniture: str = ""
    spot: float = 0.5
    crowd: bool = False
    partner: bool = False


_OUT, _HELD = -1.0, -1.0

PLOTS: tuple[Plot, ...] = (
    *(Plot((verb,), crowd=True) for verb in ("walk", "run")),
    *(Plot((verb,), start=0.5, crowd=True) for verb in ("wave", "jump")),
    *(Plot(verbs, crowd=True) for verbs in (("walk", "wave"), ("walk", "jump"), ("run", "jump"))),
    *(Plot(("pass",), start=0.1, props=_ANY, prop=spot) for spot in (0.45, 0.55)),
    *(Plot(verbs, start=0.55, crowd=True) for verbs in (("leave",), ("wave", "leave"), ("leave", "return"))),
    *(
        Plot(("enter", *then), start=_OUT, crowd=True)
        for then in ((), ("wave",), ("jump",), ("leave",), ("wave", "leave"))
    ),
    *(Plot(("push", *then), props=_PUSHED, start=0.08, prop=0.36) for then in ((), ("wave",), ("jump",), ("leave",))),
    *(Plot(("pull", *then), props=_PULLED, start=0.6, prop=0.24) for then in ((), ("leave",), ("wave",))),
    *(
        Plot(("pick_up", *then), props=_ANY, start=0.1)
        for then in ((), ("carry",), ("carry", "put_down"), ("carry", "drop"), ("raise",), ("drop",), ("leave_with",))
    ),
    *(Plot(("pick_up", then), props=_THROWN, start=0.1) for then in ("throw", "throw_out")),
    *(
        Plot(("carry", *then), props=_ANY, prop=_HELD, start=0.14)
        for then in ((), ("put_down",), ("drop",), ("raise",))
    ),
    *(Plot((first, "leave"), props=_ANY, prop=_HELD, start=0.3) for first in ("put_down", "drop")),
    *(Plot(("throw_out", *then), props=_THROWN, prop=_HELD, start=0.4) for then in ((), ("wave",), ("jump",))),
    *(Plot(("kick", *then), props=_KICKED, start=0.1, prop=0.4) for then in ((), ("jump",))),
    *(Plot(("kick_out", *then), props=_KICKED, start=0.2, prop=0.5) for then in ((), ("wave",), ("jump",))),
    *(Plot(("jump_over", *then), props=_JUMPED, start=0.1, prop=0.5) for then in ((), ("leave",), ("wave",))),
    *(Plot(("enter", *then), props=_ANY, start=_OUT, prop=0.6) for then in (("pick_up",), ("pick_up", "leave_with"))),
    *(Plot(("enter", then), props=_KICKED, start=_OUT, prop=0.55) for then in ("kick_out", "push")),
    *(
        Plot(verbs, props=_ANY, start=0.08, prop=0.36, furniture="top", spot=0.76)
        for verbs in (("pick_up", "carry_to", "put_on"), ("pick_up", "put_on"))
    ),
    *(
        Plot(("carry_to", "put_on", *then), props=_ANY, start=0.12, prop=_HELD, furniture="top", spot=0.7)
        for then in ((), ("wave",), ("leave",))
    ),
    *(
        Plot(("take", *then), props=_ANY, start=0.68, furniture="holds", spot=0.24)
        for then in ((), ("carry",), ("leave_with",), ("carry", "drop"), ("raise",), ("carry", "put_down"))
    ),
    *(Plot(("go_behind", "emerge", *then), start=0.1, furniture="any") for then in ((), ("wave",), ("leave",))),
    *(Plot(("hide", *then), start=0.1, furniture="hides", spot=0.55, crowd=not then) for then in ((), ("appear",))),
    *(
        Plot(("appear", *then), start=0.42, furniture="hides", spot=0.42)
        for then in ((), ("wave",), ("jump",), ("leave",))
    ),
    *(
        Plot(("push_behind", *then), props=_PUSHED, start=0.08, prop=0.34, furniture="covers", spot=0.68)
        for then in ((), ("leave",), ("wave",))
    ),
    *(Plot(("give", *then), props=_ANY, prop=_HELD, start=0.12, partner=True) for then in ((), ("wave",), ("leave",))),
    Plot(("pick_up", "give"), props=_ANY, prop=0.36, start=0.06, partner=True),
)


@dataclass(frozen=True)
class Ride:
    """A story about things that move by themselves: as [`Plot`], for objects."""

    verbs: tuple[str, ...]
    props: tuple[str, ...] = _ROLLING
    start: float = 0.12
    furniture: str = ""
    spot: float = 0.5
    crowd: bool = False


RIDES: tuple[Ride, ...] = (
    Ride(("roll",), crowd=True),
    Ride(("roll_out",), start=0.4, crowd=True),
    Ride(("roll_in",), start=_OUT, crowd=True),
    Ride(("roll_in", "roll_out"), start=_OUT, crowd=True),
    Ride(("bounce",), ("ball",), crowd=True),
    Ride(("roll_past",), furniture="past"),
    Ride(("roll_behind", "emerge"), furniture="covers"),
    Ride(("roll_behind", "emerge", "roll_out"), furniture="covers", spot=0.42),
    Ride(("vanish",), furniture="covers", spot=0.58),
    Ride(("fall_off",), _ANY, furniture="holds", spot=0.4),
    Ride(("fall_off", "roll_out"), ("ball", "apple"), furniture="holds", spot=0.4),
)

# After these somebody or something cannot be seen, or could not before them.
GOING = {"leave", "leave_with", "hide", "throw_out", "kick_out", "roll_out", "vanish", "push_behind"}
COMING = {"enter", "appear", "roll_in"}


@dataclass(frozen=True)
class Level:
    """
    What a difficulty allows; numbers are probabilities unless said otherwise.

    Args:
        longest (`int`): Most verbs of a story.
        away (`float`): Of stories in which something cannot be seen for a while.
        furniture (`bool`): Whether stories may need any.
        side_story (`float`): Of another story at the same time.
        crowd (`float`): Of several doing the same, where a story allows that.
        strangers (`tuple[float, ...]`): Of 0, 1, 2, ... things that no caption mentions.
        look_alike (`float`): Of such a thing having the category of one in the story.
        scenery (`float`): Of furniture in the background.
        cover (`float`): Of furniture in the foreground, which may hide a part of the story.
        shake (`float`), pan (`float`), zoom (`float`): Of the camera, see `stage.moving_camera`.
        moving (`float`): Of a camera that moves.
    """

    longest: int = 3
    away: float = 0.0
    furniture: bool = True
    side_story: float = 0.0
    crowd: float = 0.0
    strangers: tuple[float, ...] = (1.0,)
    look_alike: float = 0.0
    scenery: float = 0.0
    cover: float = 0.0
    shake: float = 0.0
    pan: float = 0.0
    zoom: float = 1.0
    moving: float = 0.0


LEVELS: dict[str, Level] = {
    "easy": Level(longest=2, furniture=False, crowd=0.25),
    "medium": Level(
        away=0.82, side_story=0.12, crowd=0.35, strangers=(0.6, 0.4), look_alike=0.25, scenery=0.2,
        shake=0.003, pan=0.05, zoom=1.1, moving=0.4,
    ),
    "hard": Level(
        away=0.7, side_story=0.35, crowd=0.4, strangers=(0.1, 0.35, 0.35, 0.2), look_alike=0.7, scenery=0.4, cover=0.3,
        shake=0.012, pan=0.09, zoom=1.16, moving=1.0,
    ),
}  # fmt: skip


def _in_sight(story: Plot | Ride) -> bool:
    """Whether everything can be seen from the first frame to the last."""
    return not {*GOING, *COMING, "go_behind", "roll_behind"}.intersection(story.verbs)


def choose_story(rng: np.random.Generator, level: Level) -> Plot | Ride:
    """A random story that the level allows."""
    stays = bool(rng.random() >= level.away)
    stories: tuple[Plot | Ride, ...] = (*PLOTS, *RIDES)
    options = [
        story
        for story in stories
        if len(story.verbs) <= level.longest and (level.furniture or not story.furniture) and _in_sight(story) == stays
    ]
    return options[int(rng.integers(len(options)))]


class Cast:
    """Puts the people and things of stories on a stage."""

    def __init__(self, stage: Stage, level: Level) -> None:
        self.stage, self.level, self.rng = stage, level, stage.rng

    def _x(self, share: float, side: int) -> float:
        if share < 0:
            return -OUTSIDE if side > 0 else self.stage.view.width + OUTSIDE
        return self.stage.view.width * (share if side > 0 else 1 - share)

    def _furniture(self, need: str, x: float) -> Prop | None:
        if not need:
            return None
        categories = self.stage.furniture_here(
            hides=True if need == "hides" else None, top=need in ("top", "holds"), covers=need == "covers"
        )
        depth = {"top": STORY_DEPTH - 0.03, "holds": STORY_DEPTH - 0.03, "past": 0.15}.get(need, HIDING_DEPTH)
        return self.stage.prop(draw_furniture(self.rng, categories), x, depth)

    def _group(self, thing: Thing, allowed: bool, most: int) -> list[Thing]:
        """The thing alone, or with others of its category."""
        count = 1
        if allowed and self.stage.chance(self.level.crowd):
            count = int(self.rng.integers(2, most + 1))
        return [thing] * count

    def plot(
        self,
        plot: Plot,
        side: int,
        cuts: Sequence[tuple[float, float]] | None = None,
        depth: float | None = None,
        category: str | None = None,
    ) -> None:
        """Casts and plays the story of a person."""
        stage, rng = self.stage, self.rng
        behind = plot.furniture in ("any", "hides", "covers")
        lane = depth if depth is not None else BEHIND_DEPTH if behind else STORY_DEPTH
        furniture = self._furniture(plot.furniture, self._x(plot.spot, side))
        lead = draw_person(rng, category, avoid=stage.things)
        people = self._crowd(lead, plot.crowd)
        start = self._x(plot.start + (rng.uniform(-0.03, 0.03) if plot.start >= 0 else 0), side)
        facing = side if plot.furniture != "holds" and plot.verbs[0] != "pull" else -side
        gap = 0.24 if plot.verbs[0] != "hide" else 0.13
        ahead = gap * (len(people) - 1) * side * (0.5 if plot.start > 0.3 else 1.0 if plot.start > 0 else 0.0)
        agents = [
            stage.person(person, start + ahead - side * gap * number, lane + 0.02 * (number % 2), facing)
            for number, person in enumerate(people)
        ]
        partner = None
        if plot.partner:
            other = draw_person(rng, avoid=stage.things)
            partner = stage.person(other, self._x(0.76, side), lane - 0.01, -side)
        prop, passed = None, []
        if plot.verbs == ("pass",):
            passed = self._passed(plot, side, lane)
        elif plot.props:
            prop = self._prop(plot, side, agents[0], furniture)
        act = Act(stage, agents, side, prop, furniture, partner, passed)
        act.play(plot.verbs, cuts or self._cuts(plot.verbs, actions.DURATIONS))

    def _cuts(self, verbs: Sequence[str], durations: dict[str, float]) -> list[tuple[float, float]]:
        early, late = verbs[0] in COMING, verbs[-1] in GOING
        return self.stage.cuts([durations[verb] for verb in verbs], early=early, late=late)

    def _crowd(self, lead: Thing, allowed: bool) -> list[Thing]:
        people = self._group(lead, allowed and not any(t.category == lead.category for t in self.stage.things), 2)
        for number in range(1, len(people)):
            people[number] = draw_person(self.rng, lead.category, avoid=people[:number])
        return people

    def _passed(self, plot: Plot, side: int, lane: float) -> list[Prop]:
        things = self._group(draw_object(self.rng, plot.props, self.stage.things), True, 3)
        x = self._x(plot.prop, side)
        depth = lane + (0.2 if self.stage.chance(0.5) else -0.2)
        gap = 1.35 * things[0].width
        return [self.stage.prop(thing, x + gap * (n - (len(things) - 1) / 2), depth) for n, thing in enumerate(things)]

    def _prop(self, plot: Plot, side: int, agent: Performer, furniture: Prop | None) -> Prop:
        stage, thing = self.stage, draw_object(self.rng, plot.props, self.stage.things)
        if plot.prop < 0:
            prop = stage.prop(thing, agent.x.value, agent.depth)
            agent.put_hands(-1.0, -1.0, carrying(agent, prop), 0.55)
            prop.hold(-1.0, np.inf, agent)
            return prop
        if plot.furniture == "holds" and furniture is not None:
            lift, x = top_of(furniture, agent.depth), furniture.at(0)[0]
            edge = 0.42 * furniture.thing.width - 0.55 * thing.width
            return stage.prop(thing, x + side * edge, agent.depth + 0.002, lift)
        return stage.prop(thing, self._x(plot.prop, side), agent.depth + 0.002)

    def ride(
        self, ride: Ride, side: int, cuts: Sequence[tuple[float, float]] | None = None, depth: float | None = None
    ) -> None:
        """Casts and plays the story of things that move by themselves."""
        stage = self.stage
        furniture = self._furniture(ride.furniture, self._x(ride.spot, side))
        lane = STORY_DEPTH if ride.furniture in ("holds", "past", "") else BEHIND_DEPTH
        lane = lane if depth is None else depth
        things = self._group(draw_object(self.rng, ride.props, stage.things), ride.crowd, 3)
        x, lift = self._x(ride.start, side), 0.0
        if ride.furniture == "holds" and furniture is not None:
            x, lift = furniture.at(0)[0], top_of(furniture, lane)
        gap = 1.25 * things[0].width * float(nearness(lane))
        if ride.start > 0:
            x += side * gap * (len(things) - 1)
        props = [
            stage.prop(thing, x - side * gap * number, lane + 0.002 + 0.03 * (number % 2), lift)
            for number, thing in enumerate(things)
        ]
        Course(stage, props, side, furniture).play(ride.verbs, cuts or self._cuts(ride.verbs, rolling.DURATIONS))

    def side_story(self, main: Plot | Ride) -> None:
        """Something else that goes on all the time: a person far back, or a ball or a toy car in front."""
        stage, rng = self.stage, self.rng
        side = 1 if stage.chance(0.5) else -1
        whole = [(0.08 * stage.seconds, 0.92 * stage.seconds)]
        if isinstance(main, Ride) or stage.chance(0.5):
            verb = str(rng.choice(["wave", "jump", "walk"]))
            start = rng.uniform(0.2, 0.8) if verb != "walk" else 0.1
            self.plot(Plot((verb,), start=start), side, whole, depth=0.02, category=self._look_alike())
        else:
            self.ride(Ride((str(rng.choice(["roll", "bounce"])),), ("ball",)), side, whole, depth=0.93)

    def _look_alike(self) -> str | None:
        """The category of somebody on the stage whom only the clothes will tell from another of it, if there shall be one."""
        people = [thing for thing in self.stage.things if thing.kind == "person"]
        fits = [person.category for person in people if person.clothes]
        fits = [category for category in fits if sum(person.category == category for person in people) == 1]
        return fits[0] if fits and self.stage.chance(self.level.look_alike) else None

    def _bystander(self, x: float) -> None:
        category, people = self._look_alike(), [thing for thing in self.stage.things if thing.kind == "person"]
        if category or len({person.category for person in people}) < 3:
            person = draw_person(self.rng, category, avoid=people)
            self.stage.person(person, x, 0.04, 1 if self.stage.chance(0.5) else -1)

    def strangers(self) -> None:
        """Things that have no part in any story, none of which could be taken for one that has."""
        stage, rng = self.stage, self.rng
        mentioned = [thing for thing in stage.things if thing.kind == "object"]
        count = int(rng.choice(len(self.level.strangers), p=self.level.strangers))
        crowds = {thing.category for thing in mentioned if mentioned.count(thing) > 1}
        width = stage.view.width
        for number in range(count):
            if number and stage.chance(0.4):
                self._bystander(rng.uniform(0.08, 0.92) * width)
                continue
            own = {thing.category for thing in mentioned} - crowds
            own = {
                name for name in own if sum(thing.category == name for thing in stage.things) < 3
            }  # apples: 3 colours
            if own and stage.chance(self.level.look_alike):
                categories = sorted(own)
            else:
                categories = sorted(set(OBJECTS) - {thing.category for thing in mentioned})
            thing = draw_object(rng, categories, stage.things)
            stage.prop(thing, rng.uniform(0.08, 0.92) * width, rng.choice([0.05, 0.12, 0.9, 0.98]))
        if stage.chance(self.level.scenery):
            self._scenery(rng.uniform(0.15, 0.85) * width, 0.0)
        if stage.chance(self.level.cover):
            x = rng.uniform(0.02, 0.22)  # where things come and go rather than where they happen
            self._scenery((x if stage.chance(0.5) else 1 - x) * width, 1.08, covers=True)

    def _scenery(self, x: float, depth: float, covers: bool = False) -> None:
        taken = {thing.category for thing in self.stage.things}
        names = [name for name in self.stage.furniture_here() if name not in taken]
        if covers:  # low enough to look over, and nothing that somebody behind it seems to stand on
            names = [name for name in names if name in ("sofa", "bush")]
        if names:
            self.stage.prop(draw_furniture(self.rng, names), x, depth)


def tell(stage: Stage, level: Level) -> None:
    """Fills a stage with a story, and what else the level has."""
    cast, story = Cast(stage, level), choose_story(stage.rng, level)
    side = 1 if stage.chance(0.5) else -1
    if isinstance(story, Plot):
        cast.plot(story, side)
    else:
        cast.ride(story, side)
    if stage.chance(level.side_story):
        cast.side_story(story)
    cast.strangers()
