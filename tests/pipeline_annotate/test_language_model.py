"""Stages 2 and 3 by a language model: prompts, strict reading, one more try, and what is set aside."""

import json

import pytest

from pipeline_annotate.language_model import (
    LanguageModelCaptioner,
    LanguageModelClassifier,
    UnreadableAnswer,
    prompt,
    read_answer,
)
from pipeline_annotate.phrase_labels import Question
from pipeline_annotate.stage_files import Dropped

from .captioned_clips import clip, facts


class Canned:
    """Gives the answers that it was given, and keeps the conversations."""

    def __init__(self, *answers):
        self.answers, self.asked = [*answers], []

    def describe(self):
        return {"back_end": "canned"}

    def answer(self, conversations):
        self.asked += conversations
        return [self.answers.pop(0) for _ in conversations]


def test_prompts_have_as_many_examples_as_the_papers_and_a_hash():
    for name, count in (("video_caption", 2), ("video_caption_whole", 2), ("phrase_label", 5)):
        text, examples, digest = prompt(name)
        assert len(examples) == count and len(digest) == 16 and "JSON object" in text
    key, label = prompt("video_caption")[1][0]["answer"], prompt("phrase_label")[1][0]
    assert [*key] == ["CAPTION"] and label["answer"]["CATEGORY"] in label["categories"]


CLIP = clip("<p>a man</p> holding <p>a cup</p>", "<p>a man</p>")


def test_facts_are_asked_about_and_the_caption_is_read():
    model = Canned('Here you are: {"CAPTION": "<p>A man</p> lifts  <p>a cup</p>."}')
    (caption,) = LanguageModelCaptioner(model).write([facts(CLIP, ("man: hold: cup: in kitchen",), ())])

    assert caption.caption == "A man lifts a cup." and caption.phrases == ["A man", "a cup"]
    (messages,) = model.asked
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert messages[-1]["content"] == '[[["man", "holding", "cup", ["in", "kitchen"]]], []]'
    assert json.loads(messages[2]["content"]) == prompt("video_caption")[1][0]["answer"]


def test_whole_captions_instead_of_facts():
    model = Canned('{"CAPTION": "<p>A man</p> lifts <p>a cup</p>."}')
    captioner = LanguageModelCaptioner(model, whole_captions=True)
    captioner.write([facts(CLIP, (), ())])
    assert (
        model.asked[0][-1]["content"] == '["a man holding a cup", "a man"]' and captioner.describe()["whole_captions"]
    )


def test_frames_that_say_the_same_are_asked_about_once_and_of_many_some():
    model = Canned(*['{"CAPTION": "<p>A man</p> waves."}'] * 2)
    same = clip(*["<p>a man</p>"] * 3)
    many = clip(*["<p>a man</p>"] * 100)
    said = [(f"man: hold: cup {number}",) for number in range(100)]
    LanguageModelCaptioner(model).write([facts(same, *[("man: wave:",)] * 3), facts(many, *said)])
    first, second = (json.loads(messages[-1]["content"]) for messages in model.asked)
    assert first == [[["man", "waveing"]]] and len(second) == 40
    assert second[0][0][2] == "cup 0" and second[-1][0][2] == "cup 99"


def test_what_cannot_be_read_is_asked_for_once_more_and_then_set_aside():
    good = '{"CAPTION": "<p>A man</p> waves."}'
    model = Canned("I cannot see the video.", good, '{"CAPTION": "<p>A man waves."}', good, '{"CAPTION": "A man')
    found = LanguageModelCaptioner(model).write([facts(CLIP, (), ()) for _ in range(3)])

    first, second, third = found
    assert first.caption == second.caption == "A man waves."
    assert (
        isinstance(third, Dropped) and third.reason == "unreadable_answer" and "expected a JSON object" in third.message
    )
    assert len(model.asked) == 5
    assert model.asked[3][-2] == {"role": "assistant", "content": "I cannot see the video."}
    assert "expected a JSON object with the key CAPTION" in model.asked[3][-1]["content"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "expected a JSON object"),
        ("{'CAPTION': 'a'}", "expected JSON"),
        ('{"CAPTION": ""}', "the single key CAPTION"),
        ('{"CAPTION": ["a"]}', "the single key CAPTION"),
        ('{"CAPTION": "a", "WHY": "b"}', "the single key CAPTION"),
        ('{"TITLE": "a"}', "the single key CAPTION"),
        ('{"CAPTION": "a \\ud83d"}', "whole characters"),
    ],
)
def test_answers_are_read_strictly(answer, message):
    with pytest.raises(UnreadableAnswer, match=message):
        read_answer(answer, "CAPTION")


def test_labels_are_asked_for_phrase_by_phrase():
    questions = [Question(("a guy", "a tree", "a mug"), ("A man", "a cup")), Question(("a hand",), ("a woman",))]
    answers = ["a man", "None", "a bottle", "A WOMAN", "still a bottle"]
    model = Canned(*(json.dumps({"CATEGORY": answer}) for answer in answers))
    assert LanguageModelClassifier(model).classify(questions) == [[0, None, None], [0]]
    assert [messages[-1]["content"] for messages in model.asked[:2]] == [
        '{"name": "a guy", "categories": ["A man", "a cup"]}', '{"name": "a tree", "categories": ["A man", "a cup"]}'
    ]  # fmt: skip
    assert "expected one of ['A man', 'a cup', 'None'], got 'a bottle'" in model.asked[4][-1]["content"]
    assert len(model.asked[0]) == 12


def test_likelihoods_need_a_model_that_gives_them():
    with pytest.raises(ValueError, match="only the back end `transformers`"):
        LanguageModelClassifier(Canned(), by_likelihood=True)
