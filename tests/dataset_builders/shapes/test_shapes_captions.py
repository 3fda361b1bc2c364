"""Captions of clips and frames: many forms, correct English, exact phrases."""

import itertools
import json
import re

import numpy as np
import pytest

from dataset_builders.shapes import ShapesConfig, iter_clips
from dataset_builders.shapes.captions import Narrator
from dataset_builders.shapes.rendering import View
from dataset_builders.shapes.stage import Stage
from dataset_builders.shapes.stories import LEVELS, tell
from dataset_builders.shapes.things import group_phrase
from dataset_builders.shapes.vocabulary import (
    PASSIVES,
    PLACES,
    PLURALS,
    WORDINGS,
    all_words,
    gerund,
    noun_phrase,
    third_person,
)
from dataset_builders.shapes.wording import Text
from modeling_grove.text_grove import read_tagged_caption

PRONOUNS = {"he", "she", "it", "they", "him", "her", "them", "his", "its", "their", "this", "that", "these", "those"}
BASE = {wording.split()[0] for wordings in WORDINGS.values() for wording in wordings}


def told(seed: int, difficulty: str, varied: bool = True) -> tuple[Stage, Text]:
    """A scene and its caption, without rendering."""
    rng = np.random.default_rng([seed, 5])
    stage = Stage(rng, View(128, 96), np.arange(20) / 5, 4.0, str(rng.choice(list(PLACES))))
    tell(stage, LEVELS[difficulty])
    return stage, Narrator(rng, stage.things, stage.place, varied).tell(stage.told)


@pytest.fixture(scope="module")
def captions() -> list[tuple[Stage, Text]]:
    return [told(seed, difficulty) for difficulty in LEVELS for seed in range(250)]


def test_there_are_hundreds_of_sentence_forms(captions):
    forms = {text.form for _, text in captions}
    assert len(forms) >= 300
    plain = {told(seed, "medium", varied=False)[1].form for seed in range(250)}
    assert 20 < len(plain) < 120
    patterns = (
        "while",
        "as <",
        "before",
        "after",
        "who then",
        "there is",
        "can be seen",
        "first",
        "and then",
        "<place>,",
    )
    for pattern in patterns:
        assert any(pattern in form for form in forms), pattern


def test_phrases_are_exactly_where_their_spans_say(captions):
    for stage, text in captions:
        assert text.spans
        for members, (start, end) in text.spans.items():
            said, full = text.text[start:end], group_phrase([stage.things[index] for index in members])
            assert said == full or (start == 0 and said == full[0].upper() + full[1:])
        ordered = sorted(text.spans.values())
        assert all(first[1] < second[0] for first, second in itertools.pairwise(ordered))
        named = {index for members in text.spans for index in members}
        acting = {index for story in stage.told for event in story for index in (*event.agents, *event.objects)}
        assert acting <= named


def test_sentences_are_correct_english(captions):
    vocabulary = all_words()
    for _, text in captions:
        caption = text.text
        assert caption[0].isupper() and caption.endswith(".") and caption.count(".") == 1
        words = re.findall(r"[a-z]+", caption.lower())
        assert set(words) <= vocabulary, set(words) - vocabulary
        assert not PRONOUNS.intersection(words)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|,\S|\b(\w+) \1\b", caption, re.IGNORECASE), caption
        assert not re.search(r"\b(two|three) (?:\w+ )*?(man|woman|child|ball|apple|car|box)\b(?! )", caption), caption


def test_verbs_agree_with_their_subjects(captions):
    plural = singular = 0
    for stage, text in captions:
        event = stage.told[0][0]
        match = re.match(r"<\w+> (?:first )?(\w+)", text.form)
        if match is None or match[1] in ("can", "is", "are"):
            assert (
                match is None
                or match[1] == "can"
                or (match[1] == "are") == (len(event.agents) > 1)
                or "by <" in text.form
            )
        elif len(event.agents) > 1:
            plural += 1
            assert match[1] in BASE
        else:
            singular += 1
            assert match[1] in {third_person(verb) for verb in BASE}
    assert plural > 20 and singular > 300


def test_a_phrase_fits_nothing_else_in_the_scene(captions):
    for stage, text in captions:
        for members in text.spans:
            first = stage.things[members[0]]
            for index, thing in enumerate(stage.things):
                if index in members or thing.category != first.category or thing.kind == "furniture":
                    continue
                assert thing.color != first.color, text.text
                assert thing.kind == "object" or len(members) > 1 or first.clothes, text.text


def test_wordings_can_be_inflected():
    assert [third_person(verb) for verb in ("push", "carry", "go", "toss", "wave", "let")] == [
        *("pushes", "carries", "goes", "tosses", "waves", "lets")
    ]
    assert [
        gerund(verb) for verb in ("push", "take", "put", "run", "carry", "leave", "hop", "drop", "enter", "appear")
    ] == [
        *(
            "pushing",
            "taking",
            "putting",
            "running",
            "carrying",
            "leaving",
            "hopping",
            "dropping",
            "entering",
            "appearing",
        )
    ]
    for verb in BASE:
        assert re.fullmatch(r"[a-z]+ing", gerund(verb)) and third_person(verb).endswith("s")
    assert set(PASSIVES) < set(WORDINGS)
    assert noun_phrase("apple") == "an apple" and noun_phrase("cup", ("orange", "striped")) == "an orange striped cup"
    assert noun_phrase("child", count=2) == "two children" and noun_phrase("box", ("red",), 3) == "three red boxes"


def test_crowds_are_one_phrase_with_a_track_for_each():
    clips = list(iter_clips("train", 30, seed=2, config=ShapesConfig(48, 48, fps=5, difficulty="hard")))
    crowds = [clip for clip in clips if len(clip.caption.tracks) > len(clip.caption.phrases)]
    assert crowds
    for clip in crowds:
        assert re.search(r"\b(two|three)\b", clip.caption.caption, re.IGNORECASE)
        assert len(clip.caption.merged().tracks) == len(clip.caption.phrases)


def test_frame_captions_say_what_is_visible_and_where():
    said = set()
    for clip in iter_clips("train", 25, seed=3, config=ShapesConfig(64, 48, fps=5)):
        assert [frame.frame_index for frame in clip.frame_captions] == clip.caption.frame_indices.tolist()
        for frame in clip.frame_captions:
            assert read_tagged_caption(frame.tagged_caption)[0] == frame.caption
            for phrase in frame.phrases:
                assert frame.caption[slice(*phrase.span)] == phrase.text
                for thing, box in zip(phrase.things, phrase.boxes, strict=True):
                    assert clip.presence[thing, frame.frame_index]
                    assert np.array_equal(box, clip.boxes[thing, frame.frame_index])
                    category = clip.things[thing].category
                    assert category in phrase.text.lower() or PLURALS.get(category, category) in phrase.text.lower()
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|,\S", frame.caption, re.IGNORECASE), frame.caption
            data = json.loads(json.dumps(frame.to_dict()))
            assert len(data["bboxes"]) == len(data["labels"]) == len(data["things"])
            assert set(data["labels"]) <= set(data["phrases"])
            said.update(
                re.findall(r"holding|carrying|pushing|standing|walking|on the|in the air|behind|waving", frame.caption)
            )
    assert len(said) >= 7


def test_frame_captions_know_who_holds_what():
    seen = 0
    for clip in iter_clips("train", 40, seed=4, config=ShapesConfig(64, 48, fps=5, difficulty="easy")):
        held = [e for story in clip.events for e in story if e.verb in ("carry", "raise")]
        for event in held:
            middle = (event.start + event.end) / 2
            frame = min(clip.frame_captions, key=lambda frame: abs(frame.timestamp - middle))
            if event.start < frame.timestamp < event.end:
                seen += 1
                assert re.search("holding|carrying", frame.caption), frame.caption
    assert seen > 3
