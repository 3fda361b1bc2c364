"""Pairing of phrases over a clip: against a search through all pairings, and whatever the order of frames and boxes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.boxes import iou
from eval.clips import PredictedClip, ReferenceClip, predicted_clips, reference_clips
from eval.text_similarity import text_similarity
from eval.track_pairing import best_pairs, pair_phrases, phrase_tubes, tube_ious
from modeling_grove.grounded_caption import GroundedCaption
from tests.eval.phrase_clips import prediction, random_tubes, reference, shapes_noisy, shapes_truth
from tests.records import make_caption

A, B, FAR = (0.0, 0.0, 20.0, 20.0), (10.0, 0.0, 30.0, 20.0), (60.0, 40.0, 80.0, 60.0)  # IoU of A and B is a third
HEAD_WORD = text_similarity("head-word")


def best_value(similarities: np.ndarray, overlaps: np.ndarray) -> float:
    """The value of the best pairing, by trying all of them."""
    rows, columns = similarities.shape
    worth = np.where(similarities >= 0.5, similarities + overlaps, 0.0)
    if rows > columns:
        worth, rows, columns = worth.T, columns, rows
    return max(sum(worth[n, at[n]] for n in range(rows)) for at in itertools.permutations(range(columns), rows))


def test_tube_iou_is_the_mean_over_frames_that_have_either():
    #                 frame: both equal, a third, only one, only the other, neither
    first = reference({"a": [A, A, A, None, None]})
    second = prediction({"b": [A, B, None, A, None]})
    tubes = [phrase_tubes(clip.boxes, clip.labels, (100, 80)) for clip in (first, second)]
    np.testing.assert_allclose(tube_ious(*tubes), [[(1 + 1 / 3) / 4]])
    nothing = phrase_tubes(first.boxes, [()] * 5, (100, 80), ["never there"])
    np.testing.assert_array_equal(tube_ious(nothing, nothing), [[0.0]])
    assert tube_ious(tubes[0], nothing).tolist() == [[0.0]]


def test_boxes_of_a_phrase_are_united_and_cut_at_the_border():
    boxes = [np.array([[0.0, 10, 20, 30], [50, 0, 130, 20], [1, 1, 2, 2]]), None, np.zeros((0, 4))]
    tubes = phrase_tubes(boxes, [("two cups", "Two Cups ", "a man"), (), ()], (100, 80))
    assert tubes.phrases == ("a man", "Two Cups ")
    np.testing.assert_array_equal(tubes.boxes[1, 0], [0, 0, 100, 30])
    np.testing.assert_array_equal(tubes.presence, [[True, False, False]] * 2)


def test_raw_and_processed_annotations_have_the_same_tubes():
    raw = make_caption(instances=3)
    for caption in (raw, *shapes_truth()):
        first, second = (ReferenceClip.from_caption(c) for c in (caption, caption.merged()))
        size = (caption.width, caption.height)
        ours, theirs = (phrase_tubes(clip.boxes, clip.labels, size, caption.phrases) for clip in (first, second))
        assert ours.phrases == theirs.phrases
        np.testing.assert_array_equal(ours.presence, theirs.presence)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_labels_that_are_none_and_surplus_boxes_belong_to_no_phrase():
    boxes = [np.array([A, B, FAR]), np.array([A])]
    tubes = phrase_tubes(boxes, [("a", None), ("a", "surplus label")], (100, 80))
    assert tubes.phrases == ("a",)
    np.testing.assert_array_equal(tubes.boxes[0], [A, A])


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
        lambda shape: st.tuples(*(arrays(np.float64, shape, elements=st.floats(0, 1)) for _ in range(2)))
    )
)
def test_no_pairing_is_better(tables):
    similarities, overlaps = tables
    pairs = best_pairs(similarities, overlaps)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    chosen = tuple(pairs.T)
    assert (similarities[chosen] >= 0.5).all()
    assert (similarities + overlaps)[chosen].sum() == pytest.approx(best_value(similarities, overlaps))


def test_overlap_decides_between_equal_words():
    truth = {"a man": [A, A], "another man": [FAR, FAR]}
    said = {"the man": [FAR, FAR], "a second man": [A, A]}
    (clip,) = pair_phrases({"clip_0": reference(truth)}, {"clip_0": prediction(said)}, HEAD_WORD)
    names = {(clip.truth.phrases[p], clip.predicted.phrases[q]) for p, q in clip.pairs.tolist()}
    assert names == {("a man", "a second man"), ("another man", "the man")}
    np.testing.assert_allclose(clip.tube_ious[tuple(clip.pairs.T)], 1)


def test_no_overlap_makes_up_for_other_words():
    clip = pair_phrases({"c": reference({"a cat": [A]})}, {"c": prediction({"a dog": [A]})}, HEAD_WORD)[0]
    assert clip.tube_ious.tolist() == [[1.0]] and clip.pairs.shape == (0, 2)


def test_similarity_of_exactly_the_threshold_is_enough():
    half = lambda first, second: np.full((len(first), len(second)), 0.5)  # noqa: E731
    clips = {"c": reference({"a cat": [A]})}, {"c": prediction({"a dog": [FAR]})}
    assert len(pair_phrases(*clips, half)[0].pairs) == 1
    assert len(pair_phrases(*clips, half, min_similarity=0.51)[0].pairs) == 0


def test_frames_without_a_question_and_without_an_answer():
    truth = reference({"a": [A, A, A, A]})
    said = PredictedClip("clip_0", "", (None, np.array([A]), None), ((), ("a",), ()))  # the last frame is missing
    (clip,) = pair_phrases({"clip_0": truth}, {"clip_0": said, "unknown": said}, HEAD_WORD)
    assert clip.asked.tolist() == [False, True, False, True]
    assert clip.truth.presence.tolist() == [[False, True, False, True]]
    assert clip.predicted.presence.tolist() == [[False, True, False, False]]
    (missing,) = pair_phrases({"clip_0": truth}, {}, HEAD_WORD)
    assert missing.asked.all() and missing.predicted.phrases == () and missing.pairs.shape == (0, 2)


def test_phrases_that_are_never_there_take_part():
    caption = make_caption()
    nothing = PredictedClip.from_caption(caption.with_threshold(1.0))
    (clip,) = pair_phrases({caption.key: ReferenceClip.from_caption(caption)}, {caption.key: nothing}, HEAD_WORD)
    assert len(clip.pairs) == 3 and not clip.predicted.presence.any()


def test_all_phrases_are_prepared_at_once():
    prepared = []

    class Similarity:
        def prepare(self, phrases):
            prepared.append(sorted(phrases))

        def __call__(self, first, second):
            return np.ones((len(first), len(second)))

    clips = {name: reference({name: [A], "both": [A]}) for name in "ab"}
    pair_phrases(clips, {"a": prediction({"said": [A], "both": [A]})}, Similarity())
    assert prepared == [["a", "b", "both", "said"]]


@given(st.integers(0, 2**32))
def test_order_of_frames_boxes_and_tracks_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth = random_tubes(rng, ["a red cup", "the cup", "a man"], 6)
    said = random_tubes(rng, ["a cup", "some cup", "two men", "man"], 6)
    frames = rng.permutation(6)

    def shuffled(tubes):
        names = rng.permutation([*tubes]).tolist()
        return {name: [tubes[name][n] for n in frames] for name in names}

    (clip,) = pair_phrases({"c": reference(truth)}, {"c": prediction(said)}, HEAD_WORD)
    (other,) = pair_phrases({"c": reference(shuffled(truth))}, {"c": prediction(shuffled(said))}, HEAD_WORD)
    np.testing.assert_array_equal(clip.pairs, other.pairs)
    np.testing.assert_allclose(clip.tube_ious, other.tube_ious)


def slow_tube_iou(first: GroundedCaption, second: GroundedCaption, phrase: str, other: str) -> float:
    """Frame by frame, from the tracks of merged captions."""
    tracks = [next(t for t in c.merged().tracks if t.phrase == p) for c, p in ((first, phrase), (second, other))]
    values = []
    for n in range(first.num_frames):
        there = [bool(track.presence[n]) for track in tracks]
        if all(there):
            values.append(float(iou(*(track.boxes[n].astype(np.float64) for track in tracks))))
        elif any(there):
            values.append(0.0)
    return sum(values) / len(values) if values else 0.0


def test_tubes_of_shapes_agree_with_a_plain_loop():
    truth = reference_clips(shapes_truth())
    said = predicted_clips(shapes_noisy(), truth)
    compared = 0
    for clip in pair_phrases(truth, said, HEAD_WORD):
        annotated, predicted = truth[clip.key].source, said[clip.key].source
        assert annotated is not None and predicted is not None
        if any(len(set(c.phrases)) < len(c.phrases) for c in (annotated, predicted)):
            continue  # two mentions of a label
        for p, q in itertools.product(range(len(clip.truth.phrases)), range(len(clip.predicted.phrases))):
            expected = slow_tube_iou(annotated, predicted, clip.truth.phrases[p], clip.predicted.phrases[q])
            assert clip.tube_ious[p, q] == pytest.approx(expected, abs=1e-12)
            compared += 1
    assert compared > 50
