"""What things do by themselves: balls roll and bounce, toy cars drive, things fall off tables."""

from __future__ import annotations

from collections.abc import Sequence

from .motion import Prop, nearness
from .stage import OUTSIDE, Event, Stage

# Seconds that a motion usually takes.
DURATIONS: dict[str, float] = {
    "roll": 2.2, "roll_past": 2.4, "roll_out": 1.9, "roll_in": 1.8, "roll_behind": 1.3, "emerge": 1.2, "vanish": 1.8,
    "bounce": 2.8, "fall_off": 1.5,
}  # fmt: skip


class Course:
    """
    The story of a thing, or of a few that do the same, in one direction.

    Args:
        stage ([`Stage`]): Where.
        props (`list[Prop]`): What moves; several keep their distance from each other.
        side (`int`): Where to, 1 to the right and -1 to the left.
        furniture ([`Prop`], *optional*): What they pass, hide behind or fall off.
    """

    def __init__(self, stage: Stage, props: list[Prop], side: int, furniture: Prop | None = None) -> None:
        self.stage, self.props, self.side, self._furniture = stage, props, side, furniture
        self._offsets = [prop.at(0)[0] - props[0].at(0)[0] for prop in props]
        self._spread = max(abs(offset) for offset in self._offsets)

    @property
    def furniture(self) -> Prop:
        assert self._furniture is not None
        return self._furniture

    def play(self, verbs: Sequence[str], cuts: Sequence[tuple[float, float]]) -> list[Event]:
        """Plays one verb after another; returns the events, which the stage keeps as a story."""
        actions = {
            "roll": self._roll, "roll_past": self._roll, "roll_out": self._roll_out, "roll_in": self._roll_in,
            "roll_behind": self._roll_behind, "vanish": self._roll_behind, "emerge": self._emerge,
            "bounce": self._bounce, "fall_off": self._fall_off,
        }  # fmt: skip
        events = []
        for verb, (start, end) in zip(verbs, cuts, strict=True):
            actions[verb](start, end)
            spot = verb in ("roll_past", "roll_behind", "vanish", "fall_off")
            events.append(
                Event(
                    verb,
                    tuple(self.stage.index(prop) for prop in self.props),
                    furniture=self.stage.index(self.furniture) if spot else None,
                    side=-self.side if verb == "roll_in" else self.side,
                    start=start,
                    end=end,
                )
            )
        self.stage.told.append(events)
        return events

    def at(self, share: float) -> float:
        """A place on the way across the stage, from 0 where it begins to 1 where it ends."""
        return self.stage.view.width * (share if self.side > 0 else 1 - share)

    def _all_roll(self, start: float, end: float, x: float, smooth: float) -> None:
        for prop, offset in zip(self.props, self._offsets, strict=True):
            prop.roll(start, end, x + offset, smooth, turns=prop.thing.category != "toy car")

    def _roll(self, start: float, end: float) -> None:
        self._all_roll(start, end, self.at(0.86), 0.4)

    def _roll_out(self, start: float, end: float) -> None:
        self._all_roll(start, end, self.at(1.0) + self.side * (OUTSIDE + self._spread), 0.1)

    def _roll_in(self, start: float, end: float) -> None:
        self._all_roll(start, end, self.at(0.7), 0.5)

    def _roll_behind(self, start: float, end: float) -> None:
        self._all_roll(start, end, self.furniture.at(0)[0], 0.1)

    def _emerge(self, start: float, end: float) -> None:
        self._all_roll(start, end, self.furniture.at(0)[0] + self.side * (self.furniture.thing.width / 2 + 0.14), 0.1)

    def _bounce(self, start: float, end: float) -> None:
        hops = 4
        for prop, offset in zip(self.props, self._offsets, strict=True):
            first, goal = prop.at(start)[0], self.at(0.86) + offset
            for hop in range(hops):
                begin, land = (start + (end - start) * n / hops for n in (hop, hop + 1))
                prop.fly(begin, land, first + (goal - first) * (hop + 1) / hops, peak=0.3 * 0.8**hop)

    def _fall_off(self, start: float, end: float) -> None:
        prop = self.props[0]
        edge = self.furniture.at(0)[0] + self.side * 0.5 * self.furniture.thing.width * float(nearness(prop.at(0)[1]))
        off = start + 0.4 * (end - start)
        turns = prop.thing.category in ("ball", "apple")
        prop.roll(start, off, edge + self.side * 0.04, 0.6, turns=turns)
        landed = off + 0.3 * (end - start)
        goal = edge + self.side * 0.14
        prop.fly(off, landed, goal, 0.0, peak=prop.at(off)[2] / 4)
        prop.fly(landed, end, goal + self.side * 0.05, 0.0, peak=0.05 if turns else 0.02)
