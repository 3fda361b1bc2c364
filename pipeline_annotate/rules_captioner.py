"""
Stage 2 without a language model: who is seen most, what they do to what, in one sentence.

    things     phrases of all frames, those that can mean the same thing taken together
    salience   the number of frames that speak of a thing
    actions    what is said of the most salient person, or without people of the thing of which most is said, by the number of
               frames that say it; up to two in the order in which they are seen; then, if somebody else does something too,
               "while ..."

Statements of single frames are static ("a man holding a cup"). Where two of them follow one another, what must have happened
between them is said instead: who reaches for a thing and then holds it picks it up, and what is on the ground first and then behind
a sofa moves behind it (the paper's prompt asks the language model for the same).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataset_builders.shapes.vocabulary import third_person

from .facts import Fact
from .frame_captions import CaptionedClip
from .nouns import Noun, can_be_same, read_noun, similarity
from .stage_files import Dropped
from .video_captions import ClipFacts, VideoCaption

_STATES = ("be", "stand", "sit", "lie", "have", "see", "appear", "show", "look", "wear", "contain", "feature")
# (what is said before, what is said after): what happened, of the same things.
_BETWEEN: Mapping[tuple[str, str], str] = {
    ("reach", "hold"): "pick up",
    ("reach", "carry"): "pick up",
    ("reach", "hold up"): "pick up",
    ("hold", "reach"): "put down",
    ("carry", "reach"): "put down",
}


@dataclass
class Thing:
    """
    What several phrases mean.

    Args:
        noun ([`Noun`]): of its most frequent phrase.
        phrases (`Counter[str]`): how many frames call it what.
        frames (`list[int]`): numbers of the frames that speak of it.
    """

    noun: Noun
    phrases: Counter[str] = field(default_factory=Counter)
    frames: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its most frequent phrase; of equally frequent ones the longest."""
        return max(self.phrases, key=lambda phrase: (self.phrases[phrase], len(phrase), phrase))

    @property
    def salience(self) -> int:
        """Frames that speak of it."""
        return len(self.frames)


@dataclass(frozen=True)
class Action:
    """
    What a thing does, with how many frames say so, and the middle one of them.

    Args:
        subject (`int`), object (`int` or `None`): numbers of things.
        lemma (`str`): of the verb.
        place (`tuple[str, int]` or `None`): a preposition and the number of a thing.
        count (`int`): frames.
        middle (`float`): number of the middle frame.
    """

    subject: int
    lemma: str
    object: int | None
    place: tuple[str, int] | None
    count: int
    middle: float


class RulesCaptioner:
    """
    The back end `rules` of stage 2 (see the module).

    Args:
        min_share (`float`, *optional*, defaults to 0.1): of the frames that an action is said of, to be told.
        max_actions (`int`, *optional*, defaults to 2): of the main subject.
    """

    def __init__(self, min_share: float = 0.1, max_actions: int = 2):
        if not 0 <= min_share <= 1 or max_actions < 1:
            raise ValueError(
                f"min_share {min_share}, max_actions {max_actions}; expected a share in [0, 1] and at least 1 action"
            )
        self.min_share, self.max_actions = min_share, max_actions

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"back_end": "rules", "min_share": self.min_share, "max_actions": self.max_actions}

    def write(self, clips: Sequence[ClipFacts]) -> list[VideoCaption | Dropped]:
        """A caption for each clip."""
        return [self._write(clip) for clip in clips]

    def _write(self, facts: ClipFacts) -> VideoCaption | Dropped:
        things = things_of(facts.clip)
        if not things:
            return Dropped(facts.clip.key, "nothing_named", "no frame has a phrase")
        actions = self._actions(things, facts.facts)
        people = [number for number, thing in enumerate(things) if thing.noun.is_person]
        main = max(people or range(len(things)), key=lambda number: self._weight(number, things, actions))
        told = self._told(main, actions)
        sentence = _Sentence(things)
        sentence.name(main)
        for position, action in enumerate(told):
            sentence.say("and then" if position else "")
            sentence.does(action)
        if not told:
            sentence.say("are seen" if things[main].noun.is_plural else "is seen")
        beside = self._beside(main, told, things, actions)
        if beside is not None:
            sentence.say("while")
            sentence.name(beside.subject)
            sentence.does(beside)
        return sentence.finish()

    def _weight(self, number: int, things: Sequence[Thing], actions: Sequence[Action]) -> tuple[int, int, int]:
        """What makes a thing the main one: what it does, to others before alone, then how much is said of it at all."""
        mine = [action for action in actions if action.subject == number]
        doing = sum(a.count * (2 if a.object is not None else 1) for a in mine if a.lemma not in _STATES)
        return doing, sum(action.count for action in mine), things[number].salience

    def _actions(self, things: Sequence[Thing], facts: Sequence[Sequence[Fact]]) -> list[Action]:
        """All that is said often enough, the most frequent first."""
        found: dict[tuple[int, str, int | None, tuple[str, int] | None], list[int]] = {}
        for number, of_frame in enumerate(facts):
            for fact in of_frame:
                subject = _which(fact.subject, things)
                target = None if fact.object is None else _which(fact.object, things)
                if subject is None or (fact.object is not None and target is None):
                    continue
                found_at = [(word, _which(name, things)) for word, name in fact.places]
                places = [(word, thing) for word, thing in found_at if thing is not None]
                lemma = fact.lemma
                if target is None and places and lemma in ("reach", "jump") and places[0][0] in ("for", "over"):
                    target, places = places[0][1], []
                where = next((place for place in places if place[1] not in (subject, target)), None)
                frames = found.setdefault((subject, lemma, target, where), [])
                if number not in frames:
                    frames.append(number)
        least = max(2, self.min_share * len(facts)) if len(facts) > 2 else 1
        actions = [
            Action(*what, len(frames), statistics.median(frames))
            for what, frames in found.items()
            if len(frames) >= least
        ]
        return sorted(actions, key=lambda action: (-action.count, action.middle, action.lemma))

    def _told(self, main: int, actions: Sequence[Action]) -> list[Action]:
        """What is told of the main thing, in the order of time."""
        of_main = [action for action in actions if action.subject == main]
        moving = [action for action in of_main if action.lemma not in _STATES]
        if not any(action.lemma not in _STATES for action in of_main):
            return _moved(of_main)
        chosen = sorted(moving[: self.max_actions], key=lambda action: action.middle)
        if len(chosen) > 1 and chosen[0].object is not None and chosen[0].object == chosen[1].object:
            between = _BETWEEN.get((chosen[0].lemma, chosen[1].lemma))
            if between:
                first, second = chosen
                chosen = [Action(main, between, first.object, second.place, first.count + second.count, first.middle)]
        return chosen

    def _beside(
        self, main: int, told: Sequence[Action], things: Sequence[Thing], actions: Sequence[Action]
    ) -> Action | None:
        """What another one does meanwhile, if much is said of it."""
        named = {main, *(action.object for action in told), *(action.place[1] for action in told if action.place)}
        for action in actions:
            others = (action.object, action.place[1] if action.place else None)
            if action.subject not in named and action.lemma not in _STATES and main not in others:
                return action if things[action.subject].noun.is_person or not told else None
        return None


def _moved(states: Sequence[Action]) -> list[Action]:
    """What a thing did of which only is said where it was: if that changed it moved, to where it was last."""
    places = sorted((action for action in states if action.lemma == "be"), key=lambda action: action.middle)
    if len({action.place for action in places}) < 2:
        return list(states[:1])
    last = next((action for action in reversed(places) if action.place is not None), places[-1])
    return [replace(last, lemma="move")]


class _Sentence:
    """A sentence in the making; the first mention of a thing is a phrase."""

    def __init__(self, things: Sequence[Thing]):
        self.things, self.text = things, ""
        self.spans: list[tuple[int, int]] = []
        self._named: set[int] = set()

    def say(self, words: str) -> None:
        """Adds words."""
        self.text += f"{' ' if self.text and words else ''}{words}"

    def name(self, number: int) -> None:
        """Names a thing: in full the first time, then by its noun."""
        phrase = self.things[number].name
        if number in self._named:
            self.say(f"the {self.things[number].noun.head}")
            return
        self._named.add(number)
        self.say(phrase)
        self.spans.append((len(self.text) - len(phrase), len(self.text)))

    def does(self, action: Action) -> None:
        """Says what is done."""
        verb, *rest = action.lemma.split()
        plural = self.things[action.subject].noun.is_plural
        forms = ("is", "are") if verb == "be" else (third_person(verb), verb)
        self.say(" ".join([forms[plural], *rest]))
        if action.object is not None:
            if action.lemma in ("reach", "jump"):
                self.say("for" if verb == "reach" else "over")
            self.name(action.object)
        if action.place is not None:
            self.say(action.place[0])
            self.name(action.place[1])

    def finish(self) -> VideoCaption:
        """The sentence with a capital and a full stop."""
        text = self.text[:1].upper() + self.text[1:]
        return VideoCaption(f"{text}.", tuple(self.spans))


def things_of(clip: CaptionedClip) -> list[Thing]:
    """What the phrases of a clip's frames mean, the most salient first."""
    counted: Counter[str] = Counter()
    for frame in clip.frames:
        counted.update({phrase.text.lower() for phrase in frame.phrases})
    things: list[Thing] = []
    owner: dict[str, int] = {}
    for text, count in sorted(counted.items(), key=lambda item: (-item[1], -len(item[0]), item[0])):
        noun = read_noun(text)
        fitting = [
            number
            for number, thing in enumerate(things)
            if can_be_same(noun, thing.noun) and noun.is_plural == thing.noun.is_plural
        ]
        if fitting:
            owner[text] = max(fitting, key=lambda number: similarity(noun, things[number].noun))
        else:
            owner[text] = len(things)
            things.append(Thing(noun))
        things[owner[text]].phrases[text] += count
    for number, frame in enumerate(clip.frames):
        for place in sorted({owner[phrase.text.lower()] for phrase in frame.phrases}):
            things[place].frames.append(number)
    return sorted(things, key=lambda thing: -thing.salience)


def _which(name: str, things: Sequence[Thing]) -> int | None:
    """The thing that a name means: of those that it can mean, the one that it shares most words with."""
    noun = read_noun(name)
    fitting = [number for number, thing in enumerate(things) if can_be_same(noun, thing.noun)]
    return max(fitting, key=lambda number: (similarity(noun, things[number].noun), -number), default=None)


__all__ = ["Action", "RulesCaptioner", "Thing", "things_of"]
