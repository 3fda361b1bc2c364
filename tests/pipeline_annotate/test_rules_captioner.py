"""Captions by rules: who is seen most, and what they do, in one sentence."""

import pytest

from pipeline_annotate.rules_captioner import RulesCaptioner, things_of
from pipeline_annotate.stage_files import Dropped
from pipeline_annotate.video_captions import CaptionChecks, VideoCaption

from .captioned_clips import clip, facts


def written(clip, *frames):
    (caption,) = RulesCaptioner().write([facts(clip, *frames)])
    return caption.tagged_caption


def test_phrases_that_can_mean_the_same_are_one_thing_by_its_usual_name():
    whole = clip("<p>a man in a blue shirt</p>", "<p>a man in a blue shirt</p> and <p>a red cup</p>",
                 "<p>a guy</p> and <p>a blue cup</p>", "<p>a big red mug</p> and <p>two red cups</p>")  # fmt: skip
    things = things_of(whole)
    assert (things[0].name, things[0].salience) == ("a man in a blue shirt", 3)
    assert sorted(thing.name for thing in things[1:]) == ["a big red mug", "a blue cup", "two red cups"]


def test_a_person_and_what_they_do_in_the_order_of_time():
    whole = clip(*["<p>a child</p> and <p>a red ball</p>"] * 6)
    kick, wave = ("child: kick: red ball",), ("child: wave:",)
    assert written(whole, kick, kick, wave, wave, wave, ()) == "<p>A child</p> kicks <p>a red ball</p> and then waves."
    assert written(whole, wave, wave, wave, kick, kick, ()) == "<p>A child</p> waves and then kicks <p>a red ball</p>."


def test_what_happened_between_two_statements():
    whole = clip(*["<p>a woman</p> and <p>a green bag</p>"] * 6)
    reach, hold = ("woman: reach: : for green bag",), ("woman: hold: green bag",)
    assert written(whole, reach, reach, hold, hold, hold, hold) == "<p>A woman</p> picks up <p>a green bag</p>."
    assert written(whole, hold, hold, hold, reach, reach, ()) == "<p>A woman</p> puts down <p>a green bag</p>."


def test_groups_have_verbs_of_groups_and_places_that_are_things_are_phrases():
    whole = clip(*["<p>two men</p>, <p>a box</p> and <p>a sofa</p>"] * 4)
    push = ("two men: push: box: behind sofa",)
    assert written(whole, push, push, push, push) == "<p>Two men</p> push <p>a box</p> behind <p>a sofa</p>."


def test_without_people_what_changes_its_place_moves():
    whole = clip(*["<p>an orange sofa</p> and <p>a ball</p>"] * 6)
    ground, behind = ("ball: be: : on floor",), ("ball: be: : behind orange sofa",)
    assert (
        written(whole, ground, ground, ground, behind, behind, behind)
        == "<p>A ball</p> moves behind <p>an orange sofa</p>."
    )
    assert written(whole, *[()] * 6) == "<p>An orange sofa</p> is seen."


def test_what_stays_where_it_is_does_not_move():
    whole = clip(*["<p>a man</p> and <p>a hat</p>"] * 4)
    assert written(whole, *[("man: wear: hat",)] * 4) == "<p>A man</p> wears <p>a hat</p>."
    assert written(whole, *[("man: sit:",)] * 4) == "<p>A man</p> sits."
    assert written(whole, *[("man: be: : in hat", "man: wear: hat")] * 4) == "<p>A man</p> is in <p>a hat</p>."


def test_another_one_comes_after_while():
    whole = clip(*["<p>a man</p>, <p>a box</p> and <p>a woman</p>"] * 4)
    both = ("man: push: box", "woman: wave:")
    assert written(whole, both, both, both, both) == "<p>A man</p> pushes <p>a box</p> while <p>a woman</p> waves."


def test_what_one_frame_in_twenty_says_is_not_told():
    whole = clip(*["<p>a man</p> and <p>a box</p>"] * 40)
    assert written(whole, *[("man: walk:",)] * 38, *[("man: kick: box",)] * 2) == "<p>A man</p> walks."


def test_nothing_that_is_named_is_no_caption():
    (dropped,) = RulesCaptioner().write([facts(clip("an empty room"), ())])
    assert dropped == Dropped("video_0", "nothing_named", "no frame has a phrase")
    with pytest.raises(ValueError, match="min_share 2"):
        RulesCaptioner(min_share=2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<p>A man</p> holds <p>a red cup</p>.", None),
        ("<p>Men</p> walk.", "caption_length"),
        ("<p>A man</p> holds <p>a cup</p>. He waves.", "several_sentences"),
        ("A man holds a cup.", "number_of_phrases"),
        ("<p>A man</p> rides <p>a horse</p>.", "unknown_thing"),
        ("<p>A woman</p> holds <p>a mug</p>.", None),  # people are people, and a mug is a cup
    ],
)
def test_checks_of_captions(text, reason):
    whole = clip("<p>a man</p> holding <p>a red cup</p>")
    found = CaptionChecks().check(VideoCaption.from_tagged(text), whole)
    assert (found and found.reason) == reason
    if reason == "unknown_thing":
        assert CaptionChecks(known_things=False).check(VideoCaption.from_tagged(text), whole) is None


def test_tags_that_do_not_pair():
    for text, message in (
        ("<p>a man walks", "unclosed"),
        ("a man</p> walks", "closes no phrase"),
        ("<p>a <p>man</p></p> walks", "inside another"),
    ):
        with pytest.raises(ValueError, match=message):
            VideoCaption.from_tagged(text)
