"""Clips as the metrics see them: the order and lengths of lists are kept, and predictions find the frames of the annotation."""

from dataclasses import replace

import numpy as np
import pytest

from eval.clips import PredictedClip, ReferenceClip, by_key, places_of_frames, predicted_clips, reference_clips
from eval.results import check_protocols, coverage_of
from modeling_grove.grounded_caption import GroundedCaption
from tests.records import make_caption


def frames_of(caption: GroundedCaption, positions: list[int]) -> GroundedCaption:
    """The caption with some of its frames."""
    tracks = tuple(
        replace(t, boxes=t.boxes[positions], presence=t.presence[positions], objectness=t.objectness[positions])
        for t in caption.tracks
    )
    indices, times = caption.frame_indices[positions], caption.timestamps[positions]
    return replace(caption, tracks=tracks, frame_indices=indices, timestamps=times)


def test_boxes_of_a_caption_are_those_of_its_record():
    caption = make_caption(instances=2)
    clip, record = ReferenceClip.from_caption(caption), caption.to_dict()
    assert (clip.key, clip.num_frames, clip.source) == ("video_0", 10, caption)
    assert [list(labels) for labels in clip.labels] == record["labels"]
    for ours, theirs in zip(clip.boxes, record["bboxes"], strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, np.array(theirs, dtype=np.float32).reshape(-1, 4).astype(np.float64))


def test_a_caption_without_phrases_has_empty_frames():
    caption = replace(make_caption(), tracks=())
    clip = PredictedClip.from_caption(caption)
    assert [boxes.shape for boxes in clip.boxes] == [(0, 4)] * 10
    assert clip.scores is not None and [len(scores) for scores in clip.scores] == [0] * 10


def test_scores_are_the_objectness_of_what_is_present():
    caption = make_caption()
    tracks = tuple(replace(t, objectness=np.linspace(0.1, 0.9, 10, dtype=np.float32)) for t in caption.tracks)
    clip = PredictedClip.from_caption(replace(caption, tracks=tracks))
    assert clip.scores is not None
    np.testing.assert_allclose(clip.scores[0], [0.1] * 3, atol=1e-7)
    assert [len(scores) for scores in clip.scores] == [len(labels) for labels in clip.labels]


def test_predictions_are_put_on_the_annotated_frames():
    truth = make_caption()
    references = reference_clips([truth])
    (clip,) = predicted_clips([frames_of(truth, [2, 5])], references).values()
    assert [boxes is None for boxes in clip.boxes] == [n not in (2, 5) for n in range(10)]
    whole = PredictedClip.from_caption(truth)
    assert clip.boxes[5] is not None and whole.boxes[5] is not None
    np.testing.assert_array_equal(clip.boxes[5], whole.boxes[5])
    assert (clip.labels[5], clip.labels[4]) == (whole.labels[5], ())


def test_frames_that_are_not_annotated_are_dropped():
    truth = make_caption()
    references = reference_clips([frames_of(truth, [0, 3])])
    (clip,) = predicted_clips([truth], references).values()
    assert clip.num_frames == 2 and None not in [None if boxes is None else 0 for boxes in clip.boxes]


def test_predictions_of_other_frames_are_refused():
    truth = make_caption(end_frame=99)
    references = reference_clips([frames_of(truth, [0, 2])])
    with pytest.raises(
        ValueError, match="clip 'video_0': frame_indices: none of the predicted frames 5..15 is annotated"
    ):
        predicted_clips([frames_of(truth, [1, 3])], references)


def test_keys_are_unique_and_there_are_some():
    with pytest.raises(ValueError, match="clip 'video_0': there are two reference clips"):
        reference_clips([make_caption(), make_caption()])
    with pytest.raises(ValueError, match="no predicted clips"):
        predicted_clips([], {})


def test_predictions_of_unknown_clips_stay():
    truth, other = make_caption(), make_caption("other")
    assert list(predicted_clips([other, truth], reference_clips([truth]))) == ["other_0", "video_0"]


def test_coverage_counts_and_names_what_is_missing():
    keys = [f"clip_{n}" for n in range(10)]
    coverage = coverage_of(keys, {"clip_0", "clip_1", "elsewhere"}, num_examples=2)
    assert coverage == {"clips": 10, "predicted": 2, "coverage": 0.2, "missing": ["clip_2", "clip_3"]}


@pytest.mark.parametrize("protocols", [(), ("official", "paper")])
def test_unknown_protocols_are_refused(protocols):
    with pytest.raises(ValueError, match="protocols: got"):
        check_protocols(protocols)


def test_items_by_key_keep_their_order():
    clips = [make_caption(clip_id=n) for n in (2, 0, 1)]
    assert [*by_key("clip", clips)] == ["video_2", "video_0", "video_1"]
    with pytest.raises(ValueError, match=r"^clip 'video_0': there are two sentences of this key; keep one of them$"):
        by_key("sentence", [*clips, clips[1]])
    with pytest.raises(ValueError, match=r"^no sentences; expected at least one$"):
        by_key("sentence", [])


def test_places_of_frames():
    assert places_of_frames("a", np.array([5, 3, 9]), np.array([3, 4, 5])) == [1, None, 0]
    for predicted, shown in ((np.array([7, 8]), r"7\.\.8"), (np.zeros(0, dtype=int), "none")):
        message = rf"^clip 'a': frame_indices: none of the predicted frames {shown} is annotated, .* 3\.\.5"
        with pytest.raises(ValueError, match=message):
            places_of_frames("a", predicted, np.array([3, 4, 5]))
