"""Putting sentences together: a text that knows where its noun phrases are and which things they name."""

from __future__ import annotations

from collections.abc import Sequence

from .stage import Event
from .things import Thing, group_phrase
from .vocabulary import PLACES, PLURALS, SIDES, gerund, third_person

Members = tuple[int, ...]


class Text:
    """
    A sentence in the making.

    A group of things is named in full when it first comes up, which is a phrase with a span, and then as "the cup" or
    "the men", which is not: like the captions of the paper, ours tie a thing to its boxes once.

    Args:
        things (`Sequence[Thing]`): The things of the scene.
        place (`str`): One of `vocabulary.PLACES`.
    """

    def __init__(self, things: Sequence[Thing], place: str) -> None:
        self.things, self.place = things, place
        self.text = ""
        self.form = (
            ""  # the text with its nouns, sides and places left out: what two captions of one sentence form share
        )
        self.spans: dict[Members, tuple[int, int]] = {}

    def say(self, words: str, form: str | None = None) -> None:
        """Adds words; a comma or full stop follows without a blank. `form` is what they are in the form, if not themselves."""
        for name, addition in (("text", words), ("form", words if form is None else form)):
            before = getattr(self, name)
            blank = " " if before and addition and addition[0] not in ",." else ""
            setattr(self, name, before + blank + addition)

    def name(self, members: Members, words: str | None = None) -> None:
        """Names things: in full, or in `words`, the first time; by their noun afterwards."""
        kind = self.things[members[0]].kind + ("s" if len(members) > 1 else "")
        if members in self.spans:
            self.say(f"the {self._noun(members)}", f"the <{kind}>")
            return
        words = words or group_phrase([self.things[index] for index in members])
        self.say(words, f"<{kind}>")
        self.spans[members] = (len(self.text) - len(words), len(self.text))

    def _noun(self, members: Members) -> str:
        """ "cup"; "red cup" if there is talk of another cup too."""
        thing = self.things[members[0]]
        noun = thing.category if len(members) == 1 else PLURALS[thing.category]
        others = {index for group in self.spans if group != members for index in group}
        if all(self.things[index].category != thing.category for index in others):
            return noun
        return f"{noun} {thing.clothes}".strip() if thing.kind == "person" else " ".join((*thing.adjectives, noun))

    def verb_phrase(self, event: Event, wording: str, form: str) -> None:
        """
        Says what happens.

        Args:
            event ([`Event`]): What.
            wording (`str`): "put {o} down".
            form (`str`): "finite" ("puts", "put"), "gerund" ("putting"), or "base".
        """
        verb, *rest = wording.split()
        if form == "gerund":
            self.say(gerund(verb))
        else:
            self.say(third_person(verb) if form == "finite" and len(event.agents) == 1 else verb)
        self.words(event, rest)

    def words(self, event: Event, words: Sequence[str]) -> None:
        """Says words, with what stands in braces filled in from the event."""
        for word in words:
            if word == "{a}":
                self.name(event.agents)
            elif word == "{o}":
                self.name(event.objects)
            elif word == "{f}" and event.furniture is not None:
                self.name((event.furniture,))
            elif word == "{p}" and event.partner is not None:
                self.name((event.partner,))
            elif word == "{dir}":
                self.say(f"to the {SIDES[event.side]}", "to the <side>")
            elif word == "{side}":
                self.say(SIDES[event.side], "<side>")
            elif word == "{ground}":
                self.say(PLACES[self.place].ground, "<ground>")
            elif word == "{be}":
                self.say("is" if len(event.objects) == 1 else "are")
            else:
                self.say(word)

    def finish(self) -> None:
        """Ends the sentence and gives it its capital."""
        self.say(".")
        self.text = self.text[0].upper() + self.text[1:]
