"""What people do: every verb as a direction for the performer and the things involved.

An [`Act`] is a story about one person, or about a few who do the same, in one direction (1 to the right, -1 to the left).
Each of its methods plays one verb between two moments, goes on from where the one before ended, and reports the event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .motion import Performer, Prop, nearness
from .stage import OUTSIDE, Event, Stage
from .vocabulary import FURNITURE

_CARRY_UP, _PUSH_FORWARD = 0.55, 0.33  # of the hands, in shares of the person's height

# Seconds that an action usually takes.
DURATIONS: dict[str, float] = {
    "walk": 1.6, "run": 1.1, "pass": 1.9, "leave": 1.2, "leave_with": 1.3, "enter": 1.3, "return": 1.5,
    "go_behind": 1.1, "emerge": 1.0, "hide": 1.3, "appear": 1.3, "wave": 1.5, "jump": 1.2, "jump_over": 1.6,
    "push": 2.1, "push_behind": 2.2, "pull": 2.1, "pick_up": 1.4, "take": 1.4, "carry": 1.3, "carry_to": 1.3,
    "put_down": 0.9, "put_on": 0.9, "drop": 0.9, "throw": 1.3, "throw_out": 1.2, "kick": 1.4, "kick_out": 1.4,
    "raise": 1.0, "give": 1.4,
}  # fmt: skip


def hands_needed(performer: Performer, prop: Prop, lift: float) -> tuple[float, float, float]:
    """Where the hands must be to grip a thing that stands at this height, forward and up, and how much to stoop for it."""
    scale = float(nearness(performer.depth)) / performer.tall
    up = lift / performer.tall + 0.45 * prop.thing.height * scale
    forward = min(0.2 + 0.42 * prop.thing.width * scale, 0.42)
    return forward, up, min(max((0.46 - up) / 0.36, 0.0), 1.0)


def carrying(performer: Performer, prop: Prop) -> float:
    """How far in front the hands hold a thing."""
    return min(0.13 + 0.42 * prop.thing.width * float(nearness(performer.depth)) / performer.tall, 0.34)


class Act:
    """
    One person's story.

    Args:
        stage ([`Stage`]): Where.
        agents (`list[Performer]`): Who; several keep their distance from each other.
        side (`int`): Where to.
        prop ([`Prop`], *optional*): With what.
        furniture ([`Prop`], *optional*): Where.
        partner ([`Performer`], *optional*): With whom.
        passed (sequence of [`Prop`]): What is walked past.
    """

    def __init__(
        self,
        stage: Stage,
        agents: list[Performer],
        side: int,
        prop: Prop | None = None,
        furniture: Prop | None = None,
        partner: Performer | None = None,
        passed: Sequence[Prop] = (),
    ) -> None:
        self.stage, self.agents, self.side = stage, agents, side
        self.me, self.passed, self._partner, self._prop, self._furniture = (
            agents[0],
            list(passed),
            partner,
            prop,
            furniture,
        )
        self._offsets = [agent.x.value - self.me.x.value for agent in agents]

    # Who must be there for a verb that needs them.
    @property
    def prop(self) -> Prop:
        assert self._prop is not None
        return self._prop

    @property
    def furniture(self) -> Prop:
        assert self._furniture is not None
        return self._furniture

    @property
    def partner(self) -> Performer:
        assert self._partner is not None
        return self._partner

    def play(self, verbs: Sequence[str], cuts: Sequence[tuple[float, float]]) -> list[Event]:
        """Plays one verb after another; returns the events, which the stage keeps as a story."""
        actions: dict[str, Callable[[float, float], int | None]] = {
            "walk": self._walk, "run": self._walk, "pass": self._walk, "leave": self._leave, "leave_with": self._leave,
            "enter": self._enter, "return": self._return, "go_behind": self._go_behind, "emerge": self._emerge,
            "hide": self._hide, "appear": self._appear, "wave": self._wave, "jump": self._jump, "jump_over": self._jump_over,
            "push": self._push, "push_behind": self._push_behind, "pull": self._pull, "pick_up": self._pick_up,
            "take": self._pick_up, "carry": self._carry, "carry_to": self._carry_to, "put_down": self._put_down,
            "put_on": self._put_on, "drop": self._drop, "throw": self._throw, "throw_out": self._throw_out,
            "kick": self._kick, "kick_out": self._kick_out, "raise": self._raise, "give": self._give,
        }  # fmt: skip
        events = []
        for verb, (start, end) in zip(verbs, cuts, strict=True):
            side = actions[verb](start, end)
            events.append(self._event(verb, self.side if side is None else side, start, end))
        self.stage.told.append(events)
        return events

    def _event(self, verb: str, side: int, start: float, end: float) -> Event:
        index, objects = self.stage.index, [self._prop] if self._prop else self.passed
        spots = ("go_behind", "hide", "appear", "push_behind", "take", "carry_to", "put_on")
        alone = ("walk", "run", "leave", "enter", "return", "go_behind", "emerge", "hide", "appear", "wave", "jump")
        return Event(
            verb,
            tuple(index(agent) for agent in self.agents),
            () if verb in alone else tuple(index(thing) for thing in objects if thing is not None),
            index(self.furniture) if verb in spots else None,
            index(self.partner) if verb == "give" else None,
            side,
            start,
            end,
        )

    def at(self, share: float) -> float:
        """A place on the way across the stage, from 0 where it begins to 1 where it ends."""
        return self.stage.view.width * (share if self.side > 0 else 1 - share)

    def _all_walk(self, start: float, end: float, x: float) -> None:
        for agent, offset in zip(self.agents, self._offsets, strict=True):
            agent.walk(start, end, x + offset)

    def _approach(self, start: float, end: float, distance: float, behind: int | None = None) -> float:
        """Walks up to the thing; returns when there. `behind` is the side of it to stand on, else the nearer one."""
        x = self.prop.at(start)[0]
        side = behind or (-1 if self.me.x.value < x else 1)
        goal = x + side * distance
        way = abs(goal - self.me.x.value)
        there = start
        if way > 0.01:
            there = start + min(0.5 * (end - start), way / 0.42)
            self.me.walk(start, there, goal)
        turns = self.me.heading == side
        self.me.turn(there, -side)
        return there + 0.2 * turns

    # Going about.

    def _walk(self, start: float, end: float) -> None:
        self._all_walk(start, end, self.at(0.84))

    def _leave(self, start: float, end: float) -> int:
        width = self.stage.view.width
        spread = max(abs(offset) for offset in self._offsets)
        self._all_walk(start, end, width + OUTSIDE + spread if self.side > 0 else -OUTSIDE - spread)
        return self.side

    def _enter(self, start: float, end: float) -> int:
        self._all_walk(start, end, self.at(0.3))
        return -self.side

    def _return(self, start: float, end: float) -> int:
        self._all_walk(start + 0.25 * (end - start), end, self.at(0.62))
        return self.side

    def _go_behind(self, start: float, end: float) -> None:
        x = self.furniture.at(0)[0]
        for agent, offset in zip(self.agents, self._offsets, strict=True):
            agent.turn(start, self.side)
            agent.x.to(start, end, x + offset, smooth=0.15)

    def _emerge(self, start: float, end: float) -> None:
        goal = self.furniture.at(0)[0] + self.side * (self.furniture.thing.width / 2 + 0.16)
        for agent, offset in zip(self.agents, self._offsets, strict=True):
            agent.turn(start, self.side)
            agent.x.to(start, end, goal + offset, smooth=0.15)

    def _hide(self, start: float, end: float) -> None:
        self._all_walk(start, end - 0.2, self.furniture.at(0)[0])
        for agent in self.agents:
            agent.stoop.to(end - 0.5, end, 0.45)

    def _appear(self, start: float, end: float) -> None:
        for agent in self.agents:
            agent.stoop.to(start, start + 0.3, 0.0)
        self._all_walk(start + 0.15, end, self.furniture.at(0)[0] + self.side * (self.furniture.thing.width / 2 + 0.22))

    def _wave(self, start: float, end: float) -> None:
        for agent in self.agents:
            agent.wave.to(start, end, agent.wave.value + 6.0, smooth=0.0)

    def _jump(self, start: float, end: float) -> None:
        for number, agent in enumerate(self.agents):
            half = (end - start) / 2
            for hop in range(2):
                first = start + hop * half + 0.08 * number
                agent.jump(first + 0.1 * half, first + 0.85 * half, 0.16)

    def _jump_over(self, start: float, end: float) -> None:
        x = self.prop.at(start)[0]
        gap = 0.5 * self.prop.thing.width + 0.17
        ready = start + 0.35 * (end - start)
        self.me.walk(start, ready, x - self.side * gap)
        land = ready + 0.4 * (end - start)
        self.me.x.to(ready, land, x + self.side * gap, smooth=0.0)
        self.me.jump(ready, land, self.prop.tall + 0.1)
        self.me.walk(land, end, x + self.side * (gap + 0.1))

    # With a thing on the ground.

    def _grip_to_move(self, start: float, end: float, behind: int) -> float:
        scale = float(nearness(self.me.depth))
        up = min(0.58 * self.prop.thing.height * scale / self.me.tall, 0.55)
        distance = _PUSH_FORWARD * self.me.tall + 0.46 * self.prop.thing.width * scale
        there = self._approach(start, end, distance, behind)
        ready = there + 0.12 * (end - start)
        self.me.put_hands(there, ready, _PUSH_FORWARD, up)
        self.me.stoop.to(there, ready, 0.75 * min(max((0.5 - up) / 0.4, 0.0), 1.0))
        self.me.lean.to(there, ready, 0.12 if behind == -self.side else 0.0)
        return ready

    def _let_go(self, start: float, end: float) -> None:
        self.prop.rest(start)
        self.me.rest_hands(start, end)
        self.me.stoop.to(start, end, 0.0)
        self.me.lean.to(start, end, 0.0)

    def _push_to(self, start: float, end: float, x: float, rest: float = 0.1) -> None:
        ready = self._grip_to_move(start, end, -self.side)
        done = end - rest * (end - start)
        self.prop.follow(ready, self.me, rolls=self.prop.thing.category in ("ball", "apple"))
        self.me.x.to(ready, done, self.me.x.value + x - self.prop.at(ready)[0], smooth=0.4)
        self._let_go(done, end)

    def _push(self, start: float, end: float) -> None:
        self._push_to(start, end, self.at(0.82))

    def _push_behind(self, start: float, end: float) -> None:
        self._push_to(start, end, self.furniture.at(0)[0], rest=0.25)
        clear = self.furniture.at(0)[0] - self.side * (self.furniture.thing.width / 2 + 0.12)
        if clear * self.side < self.me.x.value * self.side:  # steps back into view
            self.me.walk(end - 0.2 * (end - start), end, clear, backwards=True)

    def _pull(self, start: float, end: float) -> None:
        ready = self._grip_to_move(start, end, self.side)
        done = end - 0.1 * (end - start)
        self.prop.follow(ready, self.me)
        self.me.lean.to(ready, ready + 0.2, -0.18)
        self.me.walk(ready, done, self.at(0.86), backwards=True)
        self._let_go(done, end)

    def _pick_up(self, start: float, end: float) -> None:
        lift = self.prop.at(start)[2]
        forward, up, stoop = hands_needed(self.me, self.prop, lift)
        there = self._approach(start, end, forward * self.me.tall)
        gripped = there + 0.45 * (end - there)
        self.me.put_hands(there, gripped, forward, up)
        self.me.stoop.to(there, gripped, stoop)
        self.prop.hold(gripped, np.inf, self.me)
        self.me.put_hands(gripped, end, carrying(self.me, self.prop), _CARRY_UP)
        self.me.stoop.to(gripped, end, 0.0)

    def _kick_to(self, start: float, end: float, x: float) -> None:
        scale = float(nearness(self.me.depth))
        distance = 0.26 * self.me.tall + 0.5 * self.prop.thing.width * scale
        there = self._approach(start, end - 0.35 * (end - start), distance, -self.side)
        swing = min(0.16, 0.1 * (end - start))
        self.me.kick.to(there, there + swing, -0.6)
        hit = there + 2 * swing
        self.me.kick.to(there + swing, hit, 1.0)
        self.me.kick.to(hit + 0.1, hit + 0.4, 0.0)
        if self.prop.thing.category in ("ball", "apple"):
            self.prop.roll(hit, end, x, smooth=0.0)
        else:
            self.prop.fly(hit, hit + 0.6 * (end - hit), x, 0.0, peak=0.12)

    def _kick(self, start: float, end: float) -> None:
        self._kick_to(start, end, self.at(0.84))

    def _kick_out(self, start: float, end: float) -> None:
        self._kick_to(start, end, self.at(1.0) + self.side * OUTSIDE)

    # With a thing in the hands.

    def _carry(self, start: float, end: float) -> None:
        self.me.walk(start, end, self.at(0.68))

    def _carry_to(self, start: float, end: float) -> None:
        forward = carrying(self.me, self.prop)
        self.me.walk(start, end, self._spot() - self.side * forward * self.me.tall)

    def _spot(self) -> float:
        """Where on the furniture things are put: near the edge from which the person comes."""
        scale = float(nearness(self.furniture.at(0)[1]))
        kind = self.furniture.thing
        return self.furniture.at(0)[0] - self.side * (0.42 * kind.width * scale - 0.55 * self.prop.thing.width * scale)

    def _set(self, start: float, end: float, lift: float) -> None:
        forward, up, stoop = hands_needed(self.me, self.prop, lift)
        if lift:  # straight ahead, where the person has stopped
            forward = carrying(self.me, self.prop)
        down = start + 0.55 * (end - start)
        self.me.put_hands(start, down, forward, up)
        self.me.stoop.to(start, down, stoop)
        self._release(down)
        self.prop.rest(down)
        self.me.rest_hands(down + 0.04, end)
        self.me.stoop.to(down + 0.04, end, 0.0)

    def _release(self, time: float) -> None:
        first, _, holder = self.prop.holders[-1]
        self.prop.holders[-1] = (first, time, holder)

    def _put_down(self, start: float, end: float) -> None:
        self._set(start, end, 0.0)

    def _put_on(self, start: float, end: float) -> None:
        there = start
        goal = self._spot() - self.side * carrying(self.me, self.prop) * self.me.tall
        if abs(goal - self.me.x.value) > 0.01:
            there = start + 0.5 * (end - start)
            self.me.walk(start, there, goal)
        self._set(there, end, top_of(self.furniture, self.me.depth))

    def _drop(self, start: float, end: float) -> None:
        loose = start + 0.3 * (end - start)
        self.me.put_hands(start, loose, 0.34, 0.62)
        self._release(loose)
        self.prop.fall(loose, 0.4 if self.prop.thing.category == "ball" else 0.12)
        self.me.rest_hands(loose + 0.25, end)

    def _throw_to(self, start: float, end: float, x: float, peak: float) -> None:
        back, loose = start + 0.3 * (end - start), start + 0.45 * (end - start)
        self.me.turn(start, self.side)
        self.me.put_hands(start, back, -0.08, 0.98)
        self.me.lean.to(start, back, -0.15)
        self.me.put_hands(back, loose, 0.28, 0.96)
        self.me.lean.to(back, loose, 0.2)
        self._release(loose)
        spin = 0.0 if self.prop.thing.category in ("toy car", "plate", "cup") else 4.0 * self.side
        self.prop.fly(loose, end - 0.05, x, 0.0, peak=peak, spin=spin if self.prop.thing.category == "ball" else 0.0)
        self.me.rest_hands(loose + 0.15, end)
        self.me.lean.to(loose + 0.15, end, 0.0)

    def _throw(self, start: float, end: float) -> None:
        self._throw_to(start, end, self.at(0.86), 0.22)

    def _throw_out(self, start: float, end: float) -> None:
        self._throw_to(start, end, self.at(1.0) + self.side * OUTSIDE, 0.18)

    def _raise(self, start: float, end: float) -> None:
        self.me.put_hands(start, start + 0.6 * (end - start), 0.06, 1.1)

    def _give(self, start: float, end: float) -> None:
        me, other, prop = self.me, self.partner, self.prop
        up = _CARRY_UP * min(me.tall, other.tall)
        mine, yours = max(carrying(me, prop), 0.28), max(carrying(other, prop), 0.28)
        near = start + 0.45 * (end - start)
        me.walk(start, near, other.x.value - self.side * (mine * me.tall + yours * other.tall))
        other.turn(start, -self.side)
        met = near + 0.25 * (end - start)
        me.put_hands(near - 0.1, met, mine, up / me.tall)
        other.put_hands(near - 0.1, met, yours, up / other.tall)
        self._release(met)
        prop.hold(met, np.inf, other)
        me.rest_hands(met + 0.05, end)
        other.put_hands(met + 0.05, end, carrying(other, prop), min(_CARRY_UP, up / other.tall + 0.05))


def top_of(furniture: Prop, depth: float) -> float:
    """Height of the surface above the ground line at `depth`, as it appears."""
    kind, (_, at, _, _) = FURNITURE[furniture.thing.category], furniture.at(0)
    return kind.top * float(nearness(at)) - 0.27 * (at - depth)
