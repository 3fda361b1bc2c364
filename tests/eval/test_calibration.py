"""Calibration: by hand, of simulated models, and which predictions have probabilities at all."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.record import from_record, to_record
from eval.calibration import calibration, has_probabilities, phrase_objectness
from eval.clips import PredictedClip, ReferenceClip
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from tests.eval.test_clips import frames_of
from tests.records import make_caption


def model_output(caption: GroundedCaption, seed: int = 0) -> GroundedCaption:
    """The caption as a model gives it: a box and a probability in every frame."""
    rng, tracks = np.random.default_rng(seed), []
    for track in caption.tracks:
        boxes = np.where(np.isnan(track.boxes), 5.0, track.boxes) + np.array([0, 0, 1, 1])
        tracks.append(replace(track, boxes=boxes, objectness=rng.random(len(boxes)).astype(np.float32)))
    return replace(caption, tracks=tuple(tracks)).with_threshold(0.5)


def test_by_hand():
    found = calibration(np.array([0.95, 1.0, 0.75, 0.05]), np.array([True, False, True, False]))
    assert found["count"] == 4
    assert found["Brier"] == pytest.approx((0.05**2 + 1 + 0.25**2 + 0.05**2) / 4)
    # Bins: two of mean 0.975 and frequency 0.5, one of 0.75 and 1, one of 0.05 and 0.
    assert found["ECE"] == pytest.approx((2 * 0.475 + 0.25 + 0.05) / 4)
    assert [(b["low"], b["high"], b["count"]) for b in found["bins"]] == [(0.0, 0.1, 1), (0.7, 0.8, 1), (0.9, 1.0, 2)]
    assert found["bins"][2]["confidence"] == pytest.approx(0.975) and found["bins"][2]["frequency"] == 0.5


def test_of_a_model_that_knows_and_of_one_that_is_too_sure():
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    honest = calibration(confidence, rng.random(200_000) < confidence)
    assert honest["ECE"] < 0.01
    assert honest["Brier"] == pytest.approx(1 / 6, abs=0.003)  # the mean of p (1 - p)
    sure = calibration(np.full(1000, 0.9), np.arange(1000) < 600)
    assert sure["ECE"] == pytest.approx(0.3) and len(sure["bins"]) == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_against_a_plain_loop(items, num_bins):
    confidence, event = (np.array(values) for values in zip(*items, strict=True))
    found = calibration(confidence, event, num_bins)
    error = 0.0
    for n in range(num_bins):
        inside = [(c, e) for c, e in items if min(int(c * num_bins), num_bins - 1) == n]
        if inside:
            error += abs(sum(c for c, _ in inside) - sum(e for _, e in inside)) / len(items)
    assert found["ECE"] == pytest.approx(error, abs=1e-12)
    assert sum(b["count"] for b in found["bins"]) == len(items)
    assert 0 <= found["ECE"] <= 1 and found["Brier"] == pytest.approx(np.mean((confidence - event) ** 2))


def test_of_nothing_and_of_what_is_no_probability():
    nothing = calibration(np.zeros(0), np.zeros(0, dtype=bool))
    assert math.isnan(nothing["ECE"]) and math.isnan(nothing["Brier"]) and nothing["bins"] == []
    with pytest.raises(ValueError, match=r"confidence: expected values in \[0, 1\], got 0.5..1.5"):
        calibration(np.array([0.5, 1.5]), np.array([True, True]))
    with pytest.raises(ValueError, match=r"confidence: expected one for each of \(1,\) events, got \(2,\)"):
        calibration(np.zeros(2), np.zeros(1, dtype=bool))


def test_annotations_and_records_have_no_probabilities():
    caption = make_caption()
    said = model_output(caption)
    assert has_probabilities(said) and has_probabilities(GroundedCaption.from_dict(said.to_dict()))
    assert not has_probabilities(caption)
    assert not has_probabilities(from_record(to_record(said)))  # those of absent frames are lost
    assert not has_probabilities(replace(said, tracks=()))
    clip = PredictedClip.from_caption(said)
    assert phrase_objectness(ReferenceClip.from_caption(caption), replace(clip, source=None), ("A man",)) is None


def test_objectness_is_that_of_the_annotated_frames():
    caption = make_caption()
    said = model_output(caption)
    phrases = ("a knife", "A man", "two onions")
    some = frames_of(caption, [1, 4, 5])
    found = phrase_objectness(ReferenceClip.from_caption(some), PredictedClip.from_caption(said), phrases)
    tracks = {track.phrase: track for track in said.tracks}
    np.testing.assert_allclose(found, [tracks[name].objectness[[1, 4, 5]] for name in phrases])
    # Annotated frames that were not predicted have none.
    fewer = PredictedClip.from_caption(frames_of(said, [4, 5, 7]))
    found = phrase_objectness(ReferenceClip.from_caption(some), fewer, phrases)
    assert found is not None
    np.testing.assert_array_equal(np.isnan(found), [[True, False, False]] * 3)
    # Without the source frames of the annotation, frames are counted from the first one.
    bare = replace(ReferenceClip.from_caption(some), source=None)
    found = phrase_objectness(bare, PredictedClip.from_caption(said), phrases)
    np.testing.assert_allclose(found, [tracks[name].objectness[:3] for name in phrases])


def test_tracks_of_one_name_give_the_highest():
    caption = make_caption(instances=2)
    said = model_output(caption)
    pair: list[PhraseTrack] = [track for track in said.tracks if track.phrase == "two onions"]
    clip = ReferenceClip.from_caption(caption)
    found = phrase_objectness(clip, PredictedClip.from_caption(said), ("A man", "Two onions", "a knife"))
    assert len(pair) == 2 and found is not None
    np.testing.assert_allclose(found[1], np.maximum(pair[0].objectness, pair[1].objectness))
