"""Captions of clips: what happens, in one sentence of a small grammar.

A sentence has a pattern (how clauses are joined), a wording for every verb, and at times a second clause for what else
goes on and the place. Together these give several hundred sentence forms, of which the usual ones are the most
frequent. There are no pronouns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .stage import Event
from .stories import GOING
from .things import Thing
from .vocabulary import PASSIVES, PLACES, WORDINGS
from .wording import Text

# Patterns by the number of verbs, the usual one first: name and how often it is chosen.
PATTERNS: dict[int, dict[str, float]] = {
    1: {
        "plain": 0.5,
        "progressive": 0.15,
        "place first": 0.1,
        "place last": 0.05,
        "passive": 0.12,
        "there": 0.05,
        "seen": 0.03,
    },
    2: {
        "and": 0.48,
        "and then": 0.16,
        "then": 0.08,
        "before": 0.07,
        "after": 0.07,
        "first": 0.05,
        "passive": 0.05,
        "place first": 0.04,
    },
    3: {"and": 0.5, "and then": 0.2, "before": 0.12, "after": 0.12, "place first": 0.06},
}
# What joins the clause about something else that goes on.
JOINTS: dict[str, float] = {"while": 0.6, "as": 0.15, "and": 0.1, "while first": 0.15}
_WORDING_SHARES = (0.64, 0.22, 0.14)


class Narrator:
    """
    Writes the caption of a scene.

    Args:
        rng (`np.random.Generator`): Chooses among the ways to say it.
        things (`Sequence[Thing]`), place (`str`): Of the scene.
        varied (`bool`): Whether to choose at all; else everything is said in the usual way.
    """

    def __init__(self, rng: np.random.Generator, things: Sequence[Thing], place: str, varied: bool = True) -> None:
        self.rng, self.varied = rng, varied
        self.text = Text(things, place)

    def _choose(self, shares: dict[str, float]) -> str:
        if not self.varied:
            return next(iter(shares))
        weights = np.array(list(shares.values()))
        return str(self.rng.choice(list(shares), p=weights / weights.sum()))

    def _wording(self, verb: str) -> str:
        return self._choose(dict(zip(WORDINGS[verb], _WORDING_SHARES, strict=True)))

    def tell(self, stories: Sequence[Sequence[Event]]) -> Text:
        """One sentence about the first story, with a clause about the second if there is one."""
        main, text = stories[0], self.text
        joint = self._choose(JOINTS) if len(stories) > 1 else ""
        patterns = dict(PATTERNS[len(main)])
        if main[0].verb not in PASSIVES or len(main[0].objects) != 1:
            patterns.pop("passive", None)
        if GOING.intersection(event.verb for event in main):
            patterns.pop("place last", None)
        if joint:  # the sentence is long enough
            patterns = {name: share for name, share in patterns.items() if not name.startswith("place")}
        if joint == "while first":
            text.say("while")
            self._meanwhile(stories[1])
            text.say(",")
        self._main(main, self._choose(patterns))
        if joint == "and":
            text.say(", and")
            self._meanwhile(stories[1])
        elif joint in ("while", "as"):
            text.say(", while" if joint == "while" else "as")
            self._meanwhile(stories[1])
        text.finish()
        return text

    def _meanwhile(self, story: Sequence[Event]) -> None:
        self.text.name(story[0].agents)
        if self.varied and self.rng.random() < 0.25:
            self._progressive(story[0])
        else:
            self._finite(story[0])

    def _finite(self, event: Event) -> None:
        self.text.verb_phrase(event, self._wording(event.verb), "finite")

    def _gerund(self, event: Event) -> None:
        self.text.verb_phrase(event, self._wording(event.verb), "gerund")

    def _progressive(self, event: Event) -> None:
        self.text.say("is" if len(event.agents) == 1 else "are")
        self._gerund(event)

    def _main(self, events: Sequence[Event], pattern: str) -> None:
        text, first, said = self.text, events[0], PLACES[self.text.place].said
        if pattern == "place first":
            text.say(f"{said},", "<place>,")
        if pattern == "passive":
            self._passive(events)
        elif pattern == "there":
            text.say("there is" if len(first.agents) == 1 else "there are")
            text.name(first.agents)
            self._gerund(first)
        elif pattern == "after":
            text.say("after")
            self._gerund(first)
            text.say(",")
            text.name(first.agents)
            self._series(events[1:], "and")
        else:
            text.name(first.agents)
            self._predicates(events, pattern)
        if pattern == "place last":
            text.say(said, "<place>")

    def _predicates(self, events: Sequence[Event], pattern: str) -> None:
        text = self.text
        if pattern == "progressive":
            self._progressive(events[0])
        elif pattern == "seen":
            text.say("can be seen")
            self._gerund(events[0])
        elif pattern == "before":
            self._series(events[:-1], "and")
            text.say("before")
            self._gerund(events[-1])
        elif pattern == "first":
            text.say("first")
            self._series(events, "and then")
        elif pattern == "then":
            self._series(events, ", then")
        else:
            self._series(events, "and then" if pattern == "and then" else "and")

    def _series(self, events: Sequence[Event], last: str) -> None:
        """Clauses with commas between them, and `last` before the last one."""
        for number, event in enumerate(events):
            if number:
                self.text.say(last if number == len(events) - 1 else ",")
            self._finite(event)

    def _passive(self, events: Sequence[Event]) -> None:
        self.text.words(events[0], PASSIVES[events[0].verb].split())
        for event in events[1:]:
            self.text.say(", who then")
            self._finite(event)
