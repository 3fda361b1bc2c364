"""What the events say is what can be seen: every story is played and measured."""

from collections.abc import Callable

import numpy as np
import pytest

from dataset_builders.shapes.motion import Performer, Prop
from dataset_builders.shapes.rendering import View
from dataset_builders.shapes.stage import Event, Stage
from dataset_builders.shapes.stories import LEVELS, PLOTS, RIDES, Cast, Plot, Ride
from dataset_builders.shapes.vocabulary import FURNITURE, WORDINGS

WIDE = View(128, 96)


class Film:
    """A played story, measured at any time."""

    def __init__(self, story: Plot | Ride, seed: int, view: View = WIDE, seconds: float = 4.0, side: int = 1) -> None:
        place = ("living room", "park")[seed % 2]
        self.stage = Stage(np.random.default_rng(seed), view, np.arange(int(20 * seconds)) / 20, seconds, place)
        cast = Cast(self.stage, LEVELS["medium"])
        if isinstance(story, Plot):
            cast.plot(story, side)
        else:
            cast.ride(story, side)

    def x(self, index: int, time: float) -> float:
        return float(self.stage.actors[index].track(np.array([time])).x[0])

    def lift(self, index: int, time: float) -> float:
        return float(self.stage.actors[index].track(np.array([time])).lift[0])

    def highest(self, index: int, event: Event) -> float:
        return float(self.stage.actors[index].track(np.linspace(event.start, event.end, 30)).lift.max())

    def outside(self, index: int, time: float) -> bool:
        return not -0.1 < self.x(index, time) < self.stage.view.width + 0.1

    def beyond(self, index: int, event: Event, time: float) -> float:
        """How far from the middle of the event's furniture, in halves of its width."""
        assert event.furniture is not None
        return abs(self.x(index, time) - self.x(event.furniture, time)) / (self.stage.things[event.furniture].width / 2)

    def holder(self, index: int, time: float) -> Performer | None:
        prop = self.stage.actors[index]
        assert isinstance(prop, Prop)
        return next((who for start, end, who in prop.holders if start <= time < end), None)


def _moves(film: Film, event: Event, index: int, distance: float) -> bool:
    return (film.x(index, event.end) - film.x(index, event.start)) * event.side > distance


def _held(film: Film, event: Event) -> bool:
    return film.holder(event.objects[0], event.end - 1e-3) is film.stage.actors[event.agents[0]]


def _on_ground(film: Film, event: Event) -> bool:
    prop = event.objects[0]
    return film.holder(prop, event.end) is None and film.lift(prop, event.end + 1) < 0.01


SEEN: dict[str, Callable[[Film, Event], bool]] = {
    "walk": lambda f, e: all(_moves(f, e, a, 0.3) for a in e.agents),
    "run": lambda f, e: all(_moves(f, e, a, 0.3) for a in e.agents),
    "pass": lambda f, e: all(
        (f.x(e.agents[0], e.start) - f.x(o, e.start)) * (f.x(e.agents[0], e.end) - f.x(o, e.end)) < 0 for o in e.objects
    ),
    "leave": lambda f, e: all(f.outside(a, e.end) and not f.outside(a, e.start) for a in e.agents),
    "leave_with": lambda f, e: f.outside(e.agents[0], e.end) and f.outside(e.objects[0], e.end) and _held(f, e),
    "enter": lambda f, e: all(f.outside(a, e.start) for a in e.agents) and not f.outside(e.agents[0], e.end),
    "return": lambda f, e: f.outside(e.agents[0], e.start) and not f.outside(e.agents[0], e.end),
    "go_behind": lambda f, e: f.beyond(e.agents[0], e, e.start) > 1 > 0.2 > f.beyond(e.agents[0], e, e.end),
    "emerge": lambda f, e: _moves(f, e, e.agents[0], 0.25),
    "hide": lambda f, e: all(f.beyond(a, e, e.start) > 0.9 > f.beyond(a, e, e.end) for a in e.agents),
    "appear": lambda f, e: f.beyond(e.agents[0], e, e.start) < 0.3 and f.beyond(e.agents[0], e, e.end) > 1,
    "wave": lambda f, e: all(
        np.ptp(f.stage.actors[a].poses(np.linspace(e.start, e.end, 9)).wave) > 5 for a in e.agents
    ),
    "jump": lambda f, e: all(f.highest(a, e) > 0.1 and f.lift(a, e.end + 0.1) == 0 for a in e.agents),
    "jump_over": lambda f, e: f.highest(e.agents[0], e) > 0.1 and _moves(f, e, e.agents[0], 0.2),
    "push": lambda f, e: _moves(f, e, e.objects[0], 0.25) and f.highest(e.objects[0], e) == 0,
    "push_behind": lambda f, e: f.beyond(e.objects[0], e, e.end) < 0.1 and f.beyond(e.agents[0], e, e.end) > 0.9,
    "pull": lambda f, e: _moves(f, e, e.objects[0], 0.2) and _moves(f, e, e.agents[0], 0.1),
    "pick_up": lambda f, e: f.lift(e.objects[0], e.start) == 0 and f.lift(e.objects[0], e.end) > 0.08 and _held(f, e),
    "take": lambda f, e: f.lift(e.objects[0], e.start) > 0.08 and _held(f, e),
    "carry": lambda f, e: _moves(f, e, e.objects[0], 0.15) and _held(f, e),
    "carry_to": lambda f, e: _held(f, e) and f.beyond(e.objects[0], e, e.end) < 1.1,
    "put_down": _on_ground,
    "put_on": lambda f, e: f.lift(e.objects[0], e.end + 1) > 0.1 and f.beyond(e.objects[0], e, e.end) < 1.05,
    "drop": _on_ground,
    "throw": lambda f, e: _moves(f, e, e.objects[0], 0.3) and f.highest(e.objects[0], e) > 0.35 and _on_ground(f, e),
    "throw_out": lambda f, e: f.outside(e.objects[0], e.end) and f.highest(e.objects[0], e) > 0.3,
    "kick": lambda f, e: _moves(f, e, e.objects[0], 0.3),
    "kick_out": lambda f, e: f.outside(e.objects[0], e.end) and not f.outside(e.objects[0], e.start),
    "raise": lambda f, e: f.lift(e.objects[0], e.end) > f.lift(e.objects[0], e.start) + 0.15,
    "give": lambda f, e: f.holder(e.objects[0], e.end) is f.stage.actors[e.partner or 0],
    "roll": lambda f, e: all(_moves(f, e, a, 0.3) for a in e.agents),
    "roll_past": lambda f, e: _moves(f, e, e.agents[0], 0.5) and f.beyond(e.agents[0], e, e.end) > 0.9,
    "roll_out": lambda f, e: all(f.outside(a, e.end) for a in e.agents) and not f.outside(e.agents[0], e.start),
    "roll_in": lambda f, e: all(f.outside(a, e.start) for a in e.agents) and not f.outside(e.agents[0], e.end),
    "roll_behind": lambda f, e: f.beyond(e.agents[0], e, e.start) > 1 and f.beyond(e.agents[0], e, e.end) < 0.1,
    "vanish": lambda f, e: f.beyond(e.agents[0], e, e.start) > 1 and f.beyond(e.agents[0], e, e.end) < 0.1,
    "bounce": lambda f, e: all(_moves(f, e, a, 0.3) and f.highest(a, e) > 0.2 for a in e.agents),
    "fall_off": lambda f, e: f.lift(e.agents[0], e.start) > 0.1 and f.lift(e.agents[0], e.end) < 0.01,
}


def test_every_verb_has_a_story():
    played = {verb for story in (*PLOTS, *RIDES) for verb in story.verbs}
    assert played == set(SEEN) == set(WORDINGS)


@pytest.mark.parametrize("story", [*PLOTS, *RIDES], ids=lambda story: "-".join(story.verbs))
@pytest.mark.parametrize("side", [1, -1])
def test_events_can_be_seen(story, side):
    for seed in range(4):
        film = Film(story, seed, View(96, 96) if seed == 3 else WIDE, seconds=(4.0, 8.0)[seed == 2], side=side)
        events = film.stage.told[0]
        assert [event.verb for event in events] == list(story.verbs)
        for event in events:
            assert 0 <= event.start < event.end <= film.stage.seconds + 1e-6
            assert SEEN[event.verb](film, event), (event, film.stage.things)


def test_held_things_are_in_the_hands_and_never_jump():
    for story in PLOTS:
        if not story.props or story.verbs == ("pass",):
            continue
        film = Film(story, seed=1)
        times = np.arange(0, film.stage.seconds, 0.01)
        for actor in film.stage.actors:
            if isinstance(actor, Prop) and actor.thing.kind == "object":
                track = actor.track(times)
                assert np.hypot(np.diff(track.x), np.diff(track.lift)).max() < 0.06, story
                for start, end, who in actor.holders:
                    held = (times >= start) & (times < end)
                    hands_x, _ = who.hands(times[held])
                    assert np.abs(track.x[held] - hands_x).max() < 1e-9


def test_nobody_hides_behind_something_smaller():
    for kind in FURNITURE.values():
        assert not kind.hides or (kind.height > 0.58 and kind.width > 0.3)
