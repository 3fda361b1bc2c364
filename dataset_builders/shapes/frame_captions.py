"""Captions of single frames: what a captioner would say that sees one picture and knows nothing of before and after.

They are static statements ("a man holding a red cup", "two balls on the floor"), differ from frame to frame in what they
mention and in how much they say about it, and name only what is visible. Every phrase has its boxes and
tells which things it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeling_grove.text_grove import tag_spans

from .motion import Performer, Prop
from .stage import Event, Stage
from .things import Thing
from .vocabulary import PLACES, noun_phrase
from .wording import Members, Text

_MOST_STATEMENTS = 3


@dataclass(frozen=True)
class FramePhrase:
    """A noun phrase of a frame's caption: text, span in the caption, the things it means and their boxes `(n, 4)` xyxy."""

    text: str
    span: tuple[int, int]
    things: Members
    boxes: np.ndarray


@dataclass(frozen=True)
class FrameCaption:
    """The caption of one source frame, `frame_index` counted from 0 and `timestamp` in seconds."""

    frame_index: int
    timestamp: float
    caption: str
    phrases: tuple[FramePhrase, ...]

    @property
    def tagged_caption(self) -> str:
        """The caption with `<p>` and `</p>` around every phrase."""
        return tag_spans(self.caption, [phrase.span for phrase in self.phrases])

    def to_dict(self) -> dict[str, Any]:
        """JSON types; `bboxes`, `labels` and `things` have one entry a box, `phrases` one a phrase, as records have."""
        boxes = [
            (box, phrase, thing)
            for phrase in self.phrases
            for box, thing in zip(phrase.boxes, phrase.things, strict=True)
        ]
        return {
            "frame_index": self.frame_index,
            "timestamp": self.timestamp,
            "caption": self.caption,
            "tagged_caption": self.tagged_caption,
            "phrases": [phrase.text for phrase in self.phrases],
            "bboxes": [[float(value) for value in box] for box, _, _ in boxes],
            "labels": [phrase.text for _, phrase, _ in boxes],
            "things": [thing for _, _, thing in boxes],
        }


class Observer:
    """
    Sees one frame of a played stage.

    Args:
        stage ([`Stage`]): With all stories played.
        time (`float`): Seconds of the frame.
        boxes (`np.ndarray` of shape `(N, 4)`), presence (`np.ndarray` of shape `(N,)`): Of all things in the frame.
        rng (`np.random.Generator`): Chooses what to mention and how.
    """

    def __init__(
        self, stage: Stage, time: float, boxes: np.ndarray, presence: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.stage, self.time, self.boxes, self.presence, self.rng = stage, time, boxes, presence, rng
        self.things = stage.things
        self._described: set[int] = set()

    def describe(self, frame_index: int) -> FrameCaption:
        """The caption of the frame."""
        text, place = Text(self.things, self.stage.place), PLACES[self.stage.place]
        statements = self._statements()
        for number, (members, words, others) in enumerate(statements):
            if number:
                text.say("and" if number == len(statements) - 1 else ",")
            self._name(text, members)
            for word, other in zip(words, (*others, ()), strict=True):
                text.say(word)
                if other:
                    self._name(text, other)
        if not statements:
            text.say(f"an empty scene {place.said}")
        elif len(statements) == 1 and place.ground not in text.text and self.rng.random() < 0.3:
            text.say(place.said)
        text.finish()
        phrases = [
            FramePhrase(text.text[slice(*span)], span, members, self.boxes[list(members)])
            for members, span in sorted(text.spans.items(), key=lambda item: item[1])
        ]
        return FrameCaption(frame_index, self.time, text.text, tuple(phrases))

    def _name(self, text: Text, members: Members) -> None:
        """Names things with all their attributes or, now and then, fewer of them."""
        group, words = [self.things[index] for index in members], None
        if self.rng.random() < 0.25:
            first = group[0]
            shared = [thing.color for thing in group if thing.color] if first.kind != "person" else []
            color = (first.color,) if shared and all(color == first.color for color in shared) else ()
            words = noun_phrase(first.category, color, len(group))
            if self._ambiguous(group, color):
                words = None
        text.name(members, words)
        self._described.update(members)

    def _ambiguous(self, group: Sequence[Thing], color: tuple[str, ...]) -> bool:
        """Whether the shorter name fits something else in sight."""
        fits = [
            thing
            for thing, seen in zip(self.things, self.presence, strict=True)
            if seen and thing.category == group[0].category and (not color or thing.color == color[0])
        ]
        return len(fits) > len(group)

    def _statements(self) -> list[tuple[Members, tuple[str, ...], tuple[Members, ...]]]:
        """Subject, the words after it, and the things named between those words."""
        statements: list[tuple[Members, tuple[str, ...], tuple[Members, ...]]] = []
        acting = {index for story in self.stage.told for event in story for index in (*event.agents, *event.objects)}
        order = [
            *sorted(acting),
            *self.rng.permutation([i for i in range(len(self.things)) if i not in acting]).tolist(),
        ]
        order.sort(key=lambda index: (index not in acting, self.things[index].kind != "person"))
        mentioned: set[int] = set()
        for index in order:
            if len(statements) == _MOST_STATEMENTS or index in mentioned or not self.presence[index]:
                continue
            if index not in acting and statements and self.rng.random() < 0.5:
                continue
            if isinstance(actor := self.stage.actors[index], Performer):
                words, others = self._person(index, actor)
            else:
                words, others = self._object(index, actor)
            if words == ("",) and self.things[index].kind != "furniture":
                continue
            members = self._alike(index, words, others)
            mentioned.update(members, *others)
            statements.append((members, words, others))
        return statements

    def _alike(self, index: int, words: tuple[str, ...], others: tuple[Members, ...]) -> Members:
        """The thing and those like it of which the same is to be said: the others of a crowd."""
        crowds = [event.agents if index in event.agents else event.objects for story in self.stage.told for event in story
                  if index in event.agents or index in event.objects]  # fmt: skip
        crowd = crowds[0] if crowds else (index,)
        return tuple(
            other
            for other in sorted(crowd)
            if other == index or (self.presence[other] and self._say(other) == (words, others))
        )

    def _say(self, index: int) -> tuple[tuple[str, ...], tuple[Members, ...]]:
        actor = self.stage.actors[index]
        return self._person(index, actor) if isinstance(actor, Performer) else self._object(index, actor)

    def _event(self, index: int) -> Event | None:
        """What a thing is doing now."""
        for story in self.stage.told:
            for event in story:
                if index in event.agents and event.start <= self.time < event.end:
                    return event
        return None

    def _held(self, performer: Performer) -> int | None:
        """What somebody holds now, if it is visible."""
        for index, actor in enumerate(self.stage.actors):
            if isinstance(actor, Prop) and self.presence[index] and self._holder(actor) is performer:
                return index
        return None

    def _holder(self, prop: Prop) -> Performer | None:
        return next((who for start, end, who in prop.holders if start <= self.time < end), None)

    def _person(self, index: int, performer: Performer) -> tuple[tuple[str, ...], tuple[Members, ...]]:
        """What a person seems to be doing."""
        now, ground = np.array([self.time]), PLACES[self.stage.place].ground
        event, held = self._event(index), self._held(performer)
        moving = abs(float(performer.x(now + 0.08)[0] - performer.x(now - 0.08)[0])) > 0.02
        jumping = float(performer.track(now).lift[0]) > 0.02
        if held is not None:
            high = float(performer.hand_y(now)[0]) > 0.85
            return ("holding up" if high else "carrying" if moving else "holding", ""), ((held,),)
        if event is not None and event.objects and all(self.presence[i] for i in event.objects):
            gripping = float(performer.reach(now)[0]) > 0.5
            doing = {"push": "pushing", "push_behind": "pushing", "pull": "pulling"}.get(event.verb, "reaching for")
            if event.verb in ("kick", "kick_out") and abs(float(performer.kick(now)[0])) > 0.1:
                return ("kicking", ""), (event.objects,)
            if event.verb == "jump_over" and jumping:
                return ("jumping over", ""), (event.objects,)
            if gripping and event.verb in ("push", "push_behind", "pull", "pick_up", "take"):
                return (doing, ""), (event.objects,)
        spot = event.furniture if event is not None and event.verb in ("go_behind", "hide", "appear") else None
        if spot is not None and self.presence[spot] and self._near(index, spot):
            return ("behind", ""), ((spot,),)
        if jumping:
            return ("in the air",), ()
        if event is not None and event.verb == "wave":
            return ("waving",), ()
        if moving:
            return ("running" if event is not None and event.verb == "run" else f"walking on the {ground}",), ()
        return ("standing",), ()

    def _near(self, index: int, other: int) -> bool:
        a, b = self.boxes[index], self.boxes[other]
        return bool(a[0] < b[2] and b[0] < a[2])

    def _object(self, index: int, prop: Prop) -> tuple[tuple[str, ...], tuple[Members, ...]]:
        """Where a thing is; nothing of what somebody holds, which is said of that person."""
        if self.things[index].kind == "furniture":
            return ("",), ()
        if self._holder(prop) is not None:
            return ("",), ()
        now, ground = np.array([self.time]), PLACES[self.stage.place].ground
        track = prop.track(now)
        lift, x, depth = float(track.lift[0]), float(track.x[0]), float(track.depth[0])
        still = (
            abs(float(prop.track(now - 0.08).lift[0]) - lift) + abs(float(prop.track(now + 0.08).lift[0]) - lift) < 1e-3
        )
        for other, actor in enumerate(self.stage.actors):
            if self.things[other].kind != "furniture" or not self.presence[other] or not isinstance(actor, Prop):
                continue
            where, _, _, _ = actor.at(self.time)
            across = abs(where - x) < self.things[other].width / 2 + 0.02
            if across and lift > 0.05 and still:
                return ("on", ""), ((other,),)
            if across and lift < 0.02 and actor.at(self.time)[1] > depth and self._near(index, other):
                return ("behind", ""), ((other,),)
        return ("in the air" if lift > 0.03 else f"on the {ground}",), ()
