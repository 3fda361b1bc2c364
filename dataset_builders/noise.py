"""Noise: turns true annotations into pseudo-labels like those of HowToGround1M.

The paper pre-trains on a million automatically annotated clips and fine-tunes on a few thousand clean ones. With true
annotations (GroundedShapes, say) and this model the same can be studied on a laptop.

What is known of the noise is the paper's Table 10 (boxes in runs of 6.4 frames, and in 56 of 100 frames of a phrase; see
`statistics`) and its Table 2: against human boxes the automatic ones have an AP50 of 27.1, with 0.61 boxes for one of
theirs in a frame. All scores being equal, AP50 is about precision times recall, so about two of three boxes overlap a true
one by half. The defaults of [`NoiseModel`] give these numbers for clips of some 45 frames in which objects are nearly always
visible. How the last third divides into boxes that are off and boxes of something else, and how often phrases are lost or
renamed, is not published: there the defaults are guesses. That the paper's automatic boxes are larger than its human ones
is left out, as those are of other clips.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path

from .command_line import emit, progress
from .head_nouns import head_part
from .record import from_record, record_metadata, to_record
from .sources import iter_source
from .statistics import PAPER, Statistics, statistics_table

# Words that annotators, and captioning models, use for the same thing. A word stands in one row.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("man", "guy", "person"),
    ("men", "guys", "people"),
    ("woman", "lady"),
    ("women", "ladies"),
    ("child", "kid"),
    ("children", "kids"),
    ("hand", "palm"),
    ("hands", "palms"),
    ("cup", "mug", "glass"),
    ("cups", "mugs", "glasses"),
    ("bowl", "dish"),
    ("bowls", "dishes"),
    ("plate", "platter"),
    ("plates", "platters"),
    ("pan", "skillet", "frying pan"),
    ("pot", "saucepan"),
    ("knife", "blade"),
    ("spoon", "ladle"),
    ("cutting board", "chopping board"),
    ("bottle", "flask"),
    ("bottles", "flasks"),
    ("ball", "sphere"),
    ("balls", "spheres"),
    ("toy car", "model car", "car"),
    ("toy cars", "model cars", "cars"),
    ("box", "crate", "carton"),
    ("boxes", "crates", "cartons"),
    ("book", "notebook"),
    ("books", "notebooks"),
    ("bucket", "pail"),
    ("buckets", "pails"),
    ("bag", "sack"),
    ("bags", "sacks"),
    ("teddy bear", "stuffed animal", "plush toy"),
    ("teddy bears", "stuffed animals", "plush toys"),
    ("table", "desk"),
    ("sofa", "couch"),
    ("cabinet", "cupboard", "wardrobe"),
    ("folding screen", "room divider"),
    ("bush", "shrub"),
    ("brick wall", "wall"),
)

_ARTICLE = re.compile(r"\b(an?)(\s+)$", re.IGNORECASE)
_VOWELS = "aeiou"
_MIN_SIDE = 1.0  # pixels; a box that noise and the border make smaller stays as it was


@dataclass(frozen=True)
class NoiseModel:
    """
    What happens to true annotations, each kind independently of the others. The defaults are those of HowToGround1M.

    Args:
        visible (`float`, *optional*, defaults to 0.6):
            Share of an object's frames in which it is found. 1 leaves no gaps.
        tube_length (`float`, *optional*, defaults to 7.8):
            Mean number of successive frames in which it is found, in an endless clip; the ends of a clip and of the object's
            own presence cut tubes shorter. At least `visible / (1 - visible)`.
        centre_jitter (`float`, *optional*, defaults to 0.16):
            Standard deviation of a box's centre, in widths and heights of the box.
        size_jitter (`float`, *optional*, defaults to 0.25):
            Standard deviation of the logarithms of its width and height.
        spurious (`float`, *optional*, defaults to 1.0):
            Mean number of times in a clip that a box of something else is given to an object, where it has none.
        spurious_length (`float`, *optional*, defaults to 3.0):
            Mean number of frames for which it is.
        missing_object (`float`, *optional*, defaults to 0.03):
            Probability that an object is never found: its phrase stays, without boxes.
        missing_phrase (`float`, *optional*, defaults to 0.05):
            Probability that a phrase of the caption is not taken for one: its words stay, without tag. One always remains.
        synonym (`float`, *optional*, defaults to 0.2):
            Probability that the noun of a phrase is replaced by another for the same thing, in phrase and caption.
        merge_instances (`bool`, *optional*, defaults to `True`):
            Whether the instances of a phrase become one box, their union (the processed form).
        synonyms (`tuple[tuple[str, ...], ...]`, *optional*):
            Rows of words that may replace one another, singular or plural. Each word stands in one row.

    Raises:
        `ValueError`: if a value is outside what it can mean.
    """

    visible: float = 0.6
    tube_length: float = 7.8
    centre_jitter: float = 0.16
    size_jitter: float = 0.25
    spurious: float = 1.0
    spurious_length: float = 3.0
    missing_object: float = 0.03
    missing_phrase: float = 0.05
    synonym: float = 0.2
    merge_instances: bool = True
    synonyms: tuple[tuple[str, ...], ...] = SYNONYMS

    def __post_init__(self) -> None:
        for name in ("visible", "missing_object", "missing_phrase", "synonym"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a probability in [0, 1], got {getattr(self, name)}")
        for name in ("centre_jitter", "size_jitter", "spurious"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)}")
        for name in ("tube_length", "spurious_length"):
            if not 1 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected at least 1 frame, got {getattr(self, name)}")
        if self.visible < 1 and self.visible > self.tube_length * (1 - self.visible):
            least = self.visible / (1 - self.visible)
            raise ValueError(
                f"tube_length: {self.visible:g} visible needs tubes of {least:.2f} frames, got {self.tube_length}"
            )
        words = [word.casefold() for row in self.synonyms for word in row]
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise ValueError(f"synonyms: {twice!r} stands in several places; expected each word once")

    def apply(self, caption: GroundedCaption, rng: np.random.Generator) -> GroundedCaption:
        """
        The pseudo-labels of a clip.

        Args:
            caption ([`GroundedCaption`]):
                The truth.
            rng (`np.random.Generator`):
                Decides everything; [`noise_generator`] makes the one that belongs to a clip.
        """
        if self.merge_instances:
            caption = caption.merged()
        caption = self._with_phrases_lost(caption, rng)
        size = np.array([caption.width, caption.height], dtype=np.float64)
        lost = {span: rng.random() < self.missing_object for span in caption.spans}
        tracks = [self._observed(track, lost[track.span], size, rng) for track in caption.tracks]
        return self._renamed(replace(caption, tracks=tuple(tracks)), rng)

    def _with_phrases_lost(self, caption: GroundedCaption, rng: np.random.Generator) -> GroundedCaption:
        spans = caption.spans
        draws = rng.random(len(spans))
        # The least likely one to be lost stays in any case.
        kept = {
            span for span, draw in zip(spans, draws, strict=True) if draw >= self.missing_phrase or draw == draws.max()
        }
        return replace(caption, tracks=tuple(track for track in caption.tracks if track.span in kept))

    def _observed(self, track: PhraseTrack, lost: bool, size: np.ndarray, rng: np.random.Generator) -> PhraseTrack:
        """The track with gaps, boxes that are off, and boxes of something else."""
        presence = track.presence & self._found(len(track.presence), rng) & (not lost)
        boxes = track.boxes.astype(np.float64)
        spurious = self._spurious(boxes[track.presence], presence, size, rng) if not lost else {}
        for frame, box in spurious.items():
            boxes[frame] = box
            presence[frame] = True
        boxes[presence] = self._jittered(boxes[presence], size, rng)
        boxes[~presence] = np.nan
        return replace(track, boxes=boxes.astype(np.float32), presence=presence, objectness=presence.astype(np.float32))

    def _found(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """In which frames a detector finds an object: two states that a frame leaves with constant probabilities."""
        if self.visible == 1:
            return np.ones(num_frames, dtype=bool)
        lose = 1 / self.tube_length
        find = lose * self.visible / (1 - self.visible)
        draws = rng.random(num_frames)
        found = np.zeros(num_frames, dtype=bool)
        for n, draw in enumerate(draws):
            found[n] = draw < (self.visible if n == 0 else 1 - lose if found[n - 1] else find)
        return found

    def _spurious(
        self, boxes: np.ndarray, presence: np.ndarray, size: np.ndarray, rng: np.random.Generator
    ) -> dict[int, np.ndarray]:
        """For some frames without a box, one as large as the object's boxes, somewhere in the frame."""
        found: dict[int, np.ndarray] = {}
        if len(boxes) == 0:
            return found
        for _ in range(rng.poisson(self.spurious)):
            like = boxes[rng.integers(len(boxes))]
            sides = np.minimum(like[2:] - like[:2], size)
            first, length = int(rng.integers(len(presence))), int(rng.geometric(1 / self.spurious_length))
            low = rng.uniform(0, size - sides)
            for frame in range(first, min(first + length, len(presence))):
                if not presence[frame]:
                    found[frame] = np.concatenate([low, low + sides])
        return found

    def _jittered(self, boxes: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Boxes `(N, 4)` moved and scaled, each on its own, inside the frame."""
        if not (self.centre_jitter or self.size_jitter):
            return boxes
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * rng.normal(0, self.centre_jitter, sides.shape)
        halves = sides / 2 * np.exp(rng.normal(0, self.size_jitter, sides.shape))
        moved = np.clip(np.concatenate([centres - halves, centres + halves], axis=1), 0, np.tile(size, 2))
        small = (moved[:, 2:] - moved[:, :2] < _MIN_SIDE).any(axis=1)
        return np.where(small[:, None], boxes, moved)

    def _renamed(self, caption: GroundedCaption, rng: np.random.Generator) -> GroundedCaption:
        """The caption with synonyms in some phrases, and its spans where the phrases now are."""
        phrases = [caption.caption[start:end] for start, end in caption.spans]
        renamed, words = [], {}
        for phrase in phrases:
            found = _find_synonym(phrase, rng, self.synonyms) if rng.random() < self.synonym else None
            renamed.append(_put(phrase, *found) if found else phrase)
            # "a cup ... the cup": the second is the same thing, unless another phrase has the word too.
            if found and sum(_word(found[0][0]).search(other) is not None for other in phrases) == 1:
                words[found[0][0].casefold()] = found[1]
        pieces, places, cursor, length = [], {}, 0, 0
        for span, phrase in zip(caption.spans, renamed, strict=True):
            pieces += [_replaced(caption.caption[cursor : span[0]], words), phrase]
            length += len(pieces[-2])
            places[span] = phrase, (length, length + len(phrase))
            cursor, length = span[1], length + len(phrase)
        text = "".join(pieces) + _replaced(caption.caption[cursor:], words)
        tracks = []
        for track in caption.tracks:
            phrase, span = places[track.span]
            same = caption.caption[slice(*track.span)] == phrase
            tracks.append(replace(track, phrase=track.phrase if same else phrase, span=span))
        return replace(caption, caption=text, tracks=tuple(tracks))


# The default is what HowToGround1M has; "mild" is what careful but hurried people might produce.
LEVELS = {
    "none": NoiseModel(
        visible=1,
        centre_jitter=0,
        size_jitter=0,
        spurious=0,
        missing_object=0,
        missing_phrase=0,
        synonym=0,
        merge_instances=False,
    ),
    "mild": NoiseModel(
        visible=0.9,
        tube_length=20,
        centre_jitter=0.05,
        size_jitter=0.08,
        spurious=0.1,
        missing_object=0.01,
        missing_phrase=0.02,
        synonym=0.1,
        merge_instances=False,
    ),
    "howtoground1m": NoiseModel(),
}


def noise_generator(seed: int, key: str) -> np.random.Generator:
    """The random numbers of a clip: the same for a seed and key, in whatever order and process clips are treated."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())])


def with_synonym(phrase: str, rng: np.random.Generator, synonyms: tuple[tuple[str, ...], ...] = SYNONYMS) -> str:
    """
    The phrase with another word for what it is about: "a cup of tea" becomes "a mug of tea". Case and article fit; a phrase
    without a word of the table stays as it is.
    """
    found = _find_synonym(phrase, rng, synonyms)
    return _put(phrase, *found) if found else phrase


def _find_synonym(
    phrase: str, rng: np.random.Generator, synonyms: tuple[tuple[str, ...], ...]
) -> tuple[re.Match[str], str] | None:
    """Where the noun of a phrase is, and another word for it."""
    rows = {word.casefold(): row for row in synonyms for word in row}
    if not rows:
        return None
    # Longer words first, so that "chess board" is not taken for a board.
    nouns = [*_word(*sorted(rows, key=len, reverse=True)).finditer(head_part(phrase))]
    noun = nouns[-1] if nouns else None
    row = rows[noun[0].casefold()] if noun else ()
    others = [word for word in row if noun and word.casefold() != noun[0].casefold()]
    return (noun, others[rng.integers(len(others))]) if noun and others else None


def _word(*words: str) -> re.Pattern[str]:
    """Matches any of the words, in any case."""
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)


def _put(text: str, place: re.Match[str], word: str) -> str:
    """The text with a word in that place; case and article fit."""
    before, article = text[: place.start()], _ARTICLE.search(text, 0, place.start())
    if article:
        fitting = article[1][0] + ("n" if word[0].casefold() in _VOWELS else "")
        before = text[: article.start()] + fitting + article[2]
    return before + (word[0].upper() + word[1:] if place[0][0].isupper() else word) + text[place.end() :]


def _replaced(text: str, words: dict[str, str]) -> str:
    """The text with other words for some, wherever they stand."""
    longest_first = sorted(words, key=len, reverse=True)
    for place in reversed([*_word(*longest_first).finditer(text)] if words else []):
        text = _put(text, place, words[place[0].casefold()])
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="true records: JSONL or JSON file, shard, or folder or hf:// repository of shards",
    )
    parser.add_argument("--config", help="configuration of a repository of shards")
    parser.add_argument("--split", help="split of a repository of shards")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="JSONL to write the pseudo-labels to"
    )
    parser.add_argument("--level", choices=LEVELS, default="howtoground1m", help="how noisy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other noise (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the statistics as one line of JSON")


def run(args: argparse.Namespace) -> int:
    if args.seed < 0:
        raise ValueError(f"--seed: expected a number of at least 0, got {args.seed}")
    model = LEVELS[args.level]
    before, after = Statistics(), Statistics()
    records = (record for record, _ in iter_source(args.input, args.config, args.split))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, record in enumerate(progress(records, "adding noise"), start=1):
            try:
                truth = from_record(record)
                metadata = record_metadata(record)
            except ValueError as error:
                raise ValueError(f"{args.input}: record {number}: {error}; see `validate`") from None
            noisy = model.apply(truth, noise_generator(args.seed, truth.key))
            result = to_record(noisy, {**metadata, "noise": {"level": args.level, "seed": args.seed}})
            file.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
            before.add(record)
            after.add(result)
    columns = {"before": before.as_dict(), "after": after.as_dict()}
    name = "HowToGround1M (paper)"
    emit(columns, statistics_table({**columns, name: PAPER[name]}), as_json=args.json)
    return 0


__all__ = ["LEVELS", "SYNONYMS", "NoiseModel", "noise_generator", "with_synonym"]
