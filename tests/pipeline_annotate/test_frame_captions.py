"""Frame captions: what is written is read again, and what does not fit together is one line."""

import json
import re

import numpy as np
import pytest

from pipeline_annotate.frame_captions import CaptionedClip, FramePhrase

from .captioned_clips import clip, frame


def test_a_clip_comes_back_as_it_was():
    whole = clip(
        frame(0, "<p>a man</p> hands <p>a man</p> <p>a cup</p>", (1, 2, 3, 4), (5, 6, 7, 8.25), None),
        frame(3, "nothing to be seen"),
    )
    line = json.loads(json.dumps(whole.to_dict()))
    again = CaptionedClip.from_dict(line)

    assert line["frames"][0]["box_phrases"] == [0, 1] and line["frames"][0]["labels"] == ["a man", "a man"]
    assert again.to_dict() == whole.to_dict() and again.key == "video_0"
    first, second, cup = again.frames[0].phrases
    assert first.boxes.tolist() == [[1, 2, 3, 4]] and second.boxes.tolist() == [[5, 6, 7, 8.25]] and not len(cup.boxes)
    assert (first.span, second.span, cup.span) == ((0, 5), (12, 17), (18, 23))


def test_boxes_without_owners_belong_to_the_phrase_of_their_label():
    line = clip("<p>a man</p> and <p>a cup</p>").to_dict()
    for name in ("box_phrases", "scores", "spans"):
        del line["frames"][0][name]
    line["frames"][0]["labels"] = ["a cup", "a man"]
    again = CaptionedClip.from_dict(line)
    assert [len(phrase.boxes) for phrase in again.frames[0].phrases] == [1, 1]
    assert again.frames[0].phrases[0].scores.tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": None}, "fps: missing"),
        ({"frames": []}, "expected frames of increasing frame_index, got []"),
        ({"clip_start_frame": 5}, "0..1 are not in the clip's frames 5..99"),
        ({"frames": [{"frame_index": 1}]}, "not frame captions (KeyError: 'caption')"),
        ({"frames": 3}, "not frame captions (TypeError"),
    ],
)
def test_what_is_no_clip_is_one_line(change, message):
    line = clip("<p>a man</p> walks", "<p>a man</p> stands").to_dict() | change
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        CaptionedClip.from_dict(line)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box_phrases": [0, 4]}, "box_phrases: 4 is no index into 2 phrases"),
        ({"scores": [0.5]}, "2 bboxes, 2 box_phrases, 1 scores"),
        ({"scores": [0.5, 1.5]}, "expected 1 numbers in [0, 1]"),
        ({"bboxes": [[1, 2, 3, 4], [9, 2, 3, 4]]}, "expected finite [x1, y1, x2, y2]"),
    ],
)
def test_frames_that_do_not_fit_together(change, message):
    line = clip("<p>a man</p> and <p>a cup</p>").to_dict()
    line["frames"][0] |= change
    with pytest.raises(ValueError, match=re.escape(message)):
        CaptionedClip.from_dict(line)


def test_a_phrase_needs_a_score_for_every_box():
    with pytest.raises(ValueError, match="expected 1 numbers"):
        FramePhrase("a cup", (0, 5), np.zeros((1, 4)), np.zeros(2))
