"""Every word of GroundedShapes: what there is, what it looks like, what can happen, and how it is said.

The vocabulary is small on purpose, so that a tiny model can learn it, and closed: [`all_words`] lists what captions can
contain. A wording's first word is its verb, in the base form; `{o}`, `{f}` and `{p}` stand for the noun phrases of the object,
the furniture and the other person. The first wording of a verb is the usual one.
"""

import re
from typing import NamedTuple

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "red": (206, 44, 48),
    "orange": (240, 132, 34),
    "yellow": (246, 206, 56),
    "green": (52, 150, 74),
    "blue": (44, 96, 204),
    "purple": (132, 70, 176),
    "pink": (244, 142, 184),
    "brown": (128, 82, 48),
    "black": (48, 48, 54),
    "white": (242, 240, 234),
    "gray": (138, 144, 150),
}
BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
NEUTRAL = ("black", "white", "gray")


class ObjectKind(NamedTuple):
    """Width and height as shares of the object's size, the colours it comes in, and what it can do."""

    width: float
    height: float
    colors: tuple[str, ...]
    rolls: bool = False
    patterned: bool = True


OBJECTS: dict[str, ObjectKind] = {
    "ball": ObjectKind(1.0, 1.0, BRIGHT, rolls=True),
    "apple": ObjectKind(0.92, 0.98, ("red", "green", "yellow"), rolls=True, patterned=False),
    "toy car": ObjectKind(1.5, 0.8, (*BRIGHT, "black", "white"), rolls=True, patterned=False),
    "box": ObjectKind(1.25, 1.1, (*BRIGHT, "brown", "white")),
    "cup": ObjectKind(1.1, 0.95, (*BRIGHT, "black", "white")),
    "plate": ObjectKind(1.4, 0.62, (*BRIGHT, "white"), patterned=False),
    "bottle": ObjectKind(0.5, 1.4, ("green", "brown", "blue", "red", "yellow", "purple"), patterned=False),
    "book": ObjectKind(0.95, 1.15, (*BRIGHT, "brown", "black"), patterned=False),
    "bowl": ObjectKind(1.35, 0.78, (*BRIGHT, "white", "black")),
    "bucket": ObjectKind(1.0, 1.2, (*BRIGHT, "gray", "black")),
    "bag": ObjectKind(1.05, 1.25, (*BRIGHT, "brown", "black")),
    "teddy bear": ObjectKind(1.0, 1.25, ("brown", "white", "pink", "yellow", "blue"), patterned=False),
}
SIZES = {"small": 0.125, "medium": 0.165, "big": 0.215}  # of a square picture's side
PATTERNS = ("plain", "striped", "dotted")  # plain is never said

PEOPLE = {"man": 0.58, "woman": 0.54, "child": 0.39}  # category: height
GARMENTS = {"man": "shirt", "woman": "dress", "child": "shirt"}


class FurnitureKind(NamedTuple):
    """Width, height, colours (none: the category says it all), where it stands, what it is good for."""

    width: float
    height: float
    colors: tuple[str, ...]
    indoors: bool
    hides: bool  # a grown-up who stands behind it cannot be seen
    top: float = 0.0  # height of a surface on which things can be put, 0 for none


FURNITURE: dict[str, FurnitureKind] = {
    "table": FurnitureKind(0.42, 0.27, ("brown", "white", "black", "gray"), True, False, top=0.245),
    "sofa": FurnitureKind(0.54, 0.34, ("gray", "green", "blue", "purple", "brown", "orange"), True, False),
    "cabinet": FurnitureKind(0.36, 0.64, ("brown", "white", "gray", "blue", "green"), True, True),
    "folding screen": FurnitureKind(0.46, 0.66, ("white", "red", "green", "blue", "brown"), True, True),
    "bench": FurnitureKind(0.46, 0.26, ("brown", "green", "white", "gray"), False, False, top=0.16),
    "bush": FurnitureKind(0.5, 0.36, (), False, False),
    "brick wall": FurnitureKind(0.44, 0.62, (), False, True),
    "fence": FurnitureKind(0.5, 0.6, ("white", "brown", "green", "gray"), False, True),
    "tree": FurnitureKind(0.46, 0.78, (), False, False),
}


class Place(NamedTuple):
    """Where a clip plays: how it is said, what things lie on there, and whether it has furniture for indoors."""

    said: str
    ground: str
    indoors: bool


PLACES: dict[str, Place] = {
    "living room": Place("in a living room", "floor", True),
    "kitchen": Place("in a kitchen", "floor", True),
    "park": Place("in a park", "grass", False),
    "street": Place("on a street", "ground", False),
    "beach": Place("on a beach", "sand", False),
}

PLURALS = {
    **{
        noun: f"{noun}s"
        for noun in ("ball", "apple", "toy car", "cup", "plate", "bottle", "book", "bowl", "bucket", "bag")
    },
    "box": "boxes",
    "teddy bear": "teddy bears",
    "man": "men",
    "woman": "women",
    "child": "children",
}
NUMBERS = {2: "two", 3: "three"}
SIDES = {-1: "left", 1: "right"}

# Verb: wordings, the usual one first. {dir} is "to the left" or "to the right", {side} "left" or "right", {ground} "floor".
WORDINGS: dict[str, tuple[str, ...]] = {
    "walk": ("walk {dir}", "move {dir}", "stroll {dir}"),
    "run": ("run {dir}", "rush {dir}", "hurry {dir}"),
    "pass": ("walk past {o}", "go past {o}", "move past {o}"),
    "leave": ("walk out of the frame", "leave the frame on the {side}", "go out of view"),
    "leave_with": ("walk away with {o}", "carry {o} out of the frame", "leave with {o}"),
    "enter": ("come in from the {side}", "walk in from the {side}", "enter from the {side}"),
    "return": ("come back", "return", "walk back in"),
    "go_behind": ("walk behind {f}", "pass behind {f}", "go behind {f}"),
    "emerge": ("come out on the other side", "reappear on the other side", "show up again on the other side"),
    "hide": ("hide behind {f}", "disappear behind {f}", "go into hiding behind {f}"),
    "appear": ("come out from behind {f}", "step out from behind {f}", "appear from behind {f}"),
    "wave": ("wave", "wave a hand", "give a wave"),
    "jump": ("jump up", "jump into the air", "hop up and down"),
    "jump_over": ("jump over {o}", "leap over {o}", "hop over {o}"),
    "push": ("push {o} {dir}", "shove {o} {dir}", "slide {o} {dir}"),
    "push_behind": ("push {o} behind {f}", "shove {o} behind {f}", "slide {o} behind {f}"),
    "pull": ("pull {o} {dir}", "drag {o} {dir}", "tug {o} {dir}"),
    "pick_up": ("pick up {o}", "lift {o} from the {ground}", "pick {o} up from the {ground}"),
    "take": ("take {o} from {f}", "pick up {o} from {f}", "lift {o} from {f}"),
    "carry": ("carry {o} {dir}", "bring {o} {dir}", "move {o} {dir}"),
    "carry_to": ("carry {o} to {f}", "bring {o} to {f}", "take {o} to {f}"),
    "put_down": ("put {o} down", "set {o} down", "place {o} on the {ground}"),
    "put_on": ("put {o} on {f}", "place {o} on {f}", "set {o} down on {f}"),
    "drop": ("drop {o}", "let go of {o}", "let {o} fall to the {ground}"),
    "throw": ("throw {o} {dir}", "toss {o} {dir}", "hurl {o} {dir}"),
    "throw_out": ("throw {o} out of the frame", "toss {o} out of view", "hurl {o} away"),
    "kick": ("kick {o} {dir}", "boot {o} {dir}", "shoot {o} {dir}"),
    "kick_out": ("kick {o} out of the frame", "boot {o} out of view", "shoot {o} away"),
    "raise": ("raise {o}", "hold {o} up high", "lift {o} overhead"),
    "give": ("give {o} to {p}", "hand {o} to {p}", "pass {o} to {p}"),
    "roll": ("roll {dir}", "move {dir}", "travel {dir}"),
    "roll_past": ("roll past {f}", "move past {f}", "go past {f}"),
    "roll_out": ("roll out of the frame", "leave the frame on the {side}", "roll out of view"),
    "roll_in": ("roll in from the {side}", "come in from the {side}", "enter from the {side}"),
    "roll_behind": ("roll behind {f}", "pass behind {f}", "move behind {f}"),
    "vanish": ("disappear behind {f}", "vanish behind {f}", "roll out of sight behind {f}"),
    "bounce": ("bounce {dir}", "hop {dir}", "jump along {dir}"),
    "fall_off": ("fall off {f}", "drop from {f}", "tumble off {f}"),
}
# What the passive says; the others have none.
PASSIVES: dict[str, str] = {
    "push": "{o} {be} pushed {dir} by {a}",
    "push_behind": "{o} {be} pushed behind {f} by {a}",
    "pull": "{o} {be} pulled {dir} by {a}",
    "pick_up": "{o} {be} picked up by {a}",
    "take": "{o} {be} taken from {f} by {a}",
    "carry": "{o} {be} carried {dir} by {a}",
    "put_on": "{o} {be} put on {f} by {a}",
    "drop": "{o} {be} dropped by {a}",
    "throw": "{o} {be} thrown {dir} by {a}",
    "throw_out": "{o} {be} thrown out of the frame by {a}",
    "kick": "{o} {be} kicked {dir} by {a}",
    "kick_out": "{o} {be} kicked out of the frame by {a}",
    "raise": "{o} {be} raised by {a}",
    "give": "{o} {be} given to {p} by {a}",
}


def third_person(verb: str) -> str:
    """ "push" -> "pushes"."""
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}s"


_DOUBLED = {"let", "hop", "put", "set", "drop", "run", "drag", "tug", "step", "stop"}


def gerund(verb: str) -> str:
    """ "take" -> "taking"."""
    if verb in _DOUBLED:
        return f"{verb}{verb[-1]}ing"
    return f"{verb[:-1]}ing" if re.search(r"[^eo]e$", verb) else f"{verb}ing"


def article(noun_phrase: str) -> str:
    """ "orange cup" -> "an orange cup"."""
    return f"{'an' if noun_phrase[0] in 'aeiou' else 'a'} {noun_phrase}"


def noun_phrase(noun: str, adjectives: tuple[str, ...] = (), count: int = 1) -> str:
    """ "a red cup", "two red cups"."""
    words = " ".join((*adjectives, noun if count == 1 else PLURALS[noun]))
    return article(words) if count == 1 else f"{NUMBERS[count]} {words}"


def all_words() -> set[str]:
    """Every word that a caption of a clip can contain, in lower case."""
    nouns = {*OBJECTS, *PEOPLE, *FURNITURE, *PLURALS.values(), *GARMENTS.values()}
    verbs = {wording.split()[0] for wordings in WORDINGS.values() for wording in wordings}
    phrases = [text for wordings in WORDINGS.values() for text in wordings] + list(PASSIVES.values())
    words = {word for text in phrases for word in text.split() if not word.startswith("{")}
    words |= {third_person(verb) for verb in verbs} | {gerund(verb) for verb in verbs}
    words |= {word for noun in nouns for word in noun.split()} | set(COLORS) | set(SIZES) | set(PATTERNS)
    words |= {word for place in PLACES.values() for word in (*place.said.split(), place.ground)}
    words |= {*NUMBERS.values(), *SIDES.values()}
    return words | set(
        re.findall(r"\w+", "a an the is are and then before after first while as who there can be seen to in on by")
    )
