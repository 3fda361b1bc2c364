"""Tracks: boxes with labels become one box a frame and phrase; what else is done to them is asked for."""

import numpy as np
import pytest

from pipeline_annotate.phrase_tracks import TrackOptions, distinct_phrases, make_tracks
from pipeline_annotate.video_captions import VideoCaption

from .captioned_clips import clip, frame

CAPTION = VideoCaption.from_tagged("<p>A man</p> holds <p>a cup</p> and <p>a book</p>.")


def square(left):
    return left, 0.0, left + 10.0, 10.0


def test_boxes_of_one_phrase_are_united_and_what_has_no_label_is_dropped():
    whole = clip(
        frame(0, "<p>a man</p>, <p>a hand</p> and <p>a tree</p>", (10, 10, 20, 30), (15, 5, 40, 20), (0, 0, 5, 5)),
        frame(2, "<p>a cup</p>", (1, 1, 2, 2)),
        frame(5, "nobody"),
    )
    assert distinct_phrases(whole) == ("a man", "a hand", "a tree", "a cup")
    labels = {"a man": 0, "a hand": 0, "a tree": None, "a cup": 1}
    caption, counts = make_tracks(whole, CAPTION, labels)

    man, cup, book = caption.tracks
    assert man.boxes[0].tolist() == [10, 5, 40, 30] and man.presence.tolist() == [True, False, False]
    assert cup.presence.tolist() == [False, True, False] and not book.presence.any()
    assert caption.frame_indices.tolist() == [0, 2, 5] and caption.timestamps.tolist() == [0, 0.4, 1.0]
    assert caption.tagged_caption == CAPTION.tagged_caption and +counts == {"no_label": 1}
    np.testing.assert_allclose(man.objectness, [0.9, 0, 0], atol=1e-6)


def test_a_least_score():
    whole = clip(frame(0, "<p>a man</p>", square(0), score=0.3), frame(1, "<p>a man</p>", square(0), score=0.6))
    caption, counts = make_tracks(whole, CAPTION, {"a man": 0}, TrackOptions(min_score=0.5))
    assert caption.tracks[0].presence.tolist() == [False, True] and +counts == {"low_score": 1}


def test_a_box_that_jumps_away_and_back_is_rejected_but_not_one_that_stays():
    def boxes(*lefts):
        whole = clip(*(frame(index, "<p>a man</p>", square(left)) for index, left in enumerate(lefts)))
        caption, counts = make_tracks(whole, CAPTION, {"a man": 0}, TrackOptions(reject_outliers=0.3))
        return caption.tracks[0].presence.tolist(), +counts

    assert boxes(0, 1, 60, 2, 3) == ([True, True, False, True, True], {"outlier": 1})
    assert boxes(0, 1, 60, 61, 62) == ([True] * 5, {})
    assert boxes(0, 60, 0) == ([True, False, True], {"outlier": 1})


def test_gaps_are_filled_in_a_straight_line_up_to_a_length():
    whole = clip(
        frame(0, "<p>a man</p>", square(0), score=0.8),
        *(frame(index, "nobody") for index in (1, 2)),
        frame(3, "<p>a man</p>", square(30), score=0.6),
        *(frame(index, "nobody") for index in range(4, 7)),
        frame(7, "<p>a man</p>", square(30)),
    )
    caption, counts = make_tracks(whole, CAPTION, {"a man": 0}, TrackOptions(fill_gaps=2))
    man = caption.tracks[0]
    assert man.presence.tolist() == [True] * 4 + [False] * 3 + [True] and +counts == {"filled": 2}
    np.testing.assert_allclose(man.boxes[:4, 0], [0, 10, 20, 30], atol=1e-5)
    np.testing.assert_allclose(man.objectness[:4], [0.8, 0.6, 0.6, 0.6], atol=1e-6)


def test_what_is_seen_too_seldom_is_not_seen():
    whole = clip("<p>a man</p> and <p>a cup</p>", "<p>a man</p>")
    caption, counts = make_tracks(whole, CAPTION, {"a man": 0, "a cup": 1}, TrackOptions(min_frames=2))
    assert [track.presence.sum() for track in caption.tracks] == [2, 0, 0] and +counts == {"short_track": 1}


@pytest.mark.parametrize(
    "wrong",
    [{"min_score": 2}, {"reject_outliers": -1}, {"fill_gaps": -1}, {"min_frames": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_outside_of_their_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackOptions(**wrong)
