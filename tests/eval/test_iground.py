"""Scoring iGround: what goes in and comes out, what the corrected protocol does with odd clips, and bad input."""

import math
from dataclasses import replace

import numpy as np
import pytest

from eval.iground import score_iground
from modeling_grove.grounded_caption import GroundedCaption
from tests.eval.iground_cases import HEAD_WORD, prediction, predictions, read, reference, references
from tests.records import make_caption

BOX, OTHER = [10, 10, 60, 60], [70, 70, 90, 90]


def score(truth, answers, **options):
    return score_iground(truth, answers, **{"similarity": HEAD_WORD, "captions": False} | options)


def corrected(truth, answers, **options):
    return score(truth, answers, protocols=("corrected",), **options)


def per_video(result, protocol="corrected", frames="all"):
    block = result.metrics[protocol][frames]["per_video"]
    return block["AP50"], block["Recall"], block["mIoU"]


@pytest.fixture
def truth():
    return reference([[BOX], [BOX, OTHER]], [["a cup"], ["a cup", "a dog"]])


@pytest.fixture
def answers():
    return prediction([[BOX], [BOX, OTHER]], [["the cup"], ["the cup", "the dog"]])


def test_captions_score_as_their_clips():
    captions = [make_caption(clip_id=n, seed=n, instances=2) for n in range(3)]
    result = score(captions, captions)
    assert per_video(result) == (1.0, 1.0, pytest.approx(1.0))
    assert result.benchmark == "iground"
    assert result.coverage == {"clips": 3, "predicted": 3, "coverage": 1.0, "missing": []}
    assert [row["key"] for row in result.per_clip] == [caption.key for caption in captions]
    assert [*result.metrics] == [*result.headline] == ["official", "corrected"]
    assert result.headline["corrected"] == {
        "AP50": 100.0,
        "Recall": 100.0,
        "AP50 (center)": 100.0,
        "Recall (center)": 100.0,
    }
    assert {*result.metrics["official"]} == {"clips", "text_similarity", "all", "center_frame", "center_8"}


def test_rows_have_the_scores_of_every_set_of_frames(truth, answers):
    row = score([truth], [answers]).per_clip[0]
    assert {*row["official"]} == {
        *("AP50", "Recall", "mIoU", "matches", "labels", "frame_mIoU", "matched_pairs", "center_frame", "center_8")
    }
    # (x, y, width, height) of the second object is (70, 70, 20, 20): the original never finds it.
    assert row["official"]["matched_pairs"] == {"0": [[0, 0]], "1": [[0, 0]]}
    assert (row["official"]["matches"], row["official"]["labels"]) == (2, 3)
    assert row["official"]["frame_mIoU"] == [1.0, 0.25]
    assert (row["corrected"]["matches"], row["corrected"]["truth_boxes"]) == (3, 3)
    assert row["corrected"]["frame_mIoU"] == [1.0, 1.0]
    assert row["corrected"]["center_frame"] == {
        "AP50": 1.0,
        "Recall": 1.0,
        "mIoU": 1.0,
        "matches": 2,
        "truth_boxes": 2,
        "frame_mIoU": [1.0],
    }


def test_missing_clips_score_nothing_in_corrected_and_are_left_out_officially(truth, answers):
    missing = replace(truth, key="w_0")
    result = score([missing, truth], [answers])
    assert per_video(result) == (0.5, 0.5, 0.5)
    assert per_video(result, "official")[0] == 1.0
    assert (result.metrics["official"]["clips"], result.metrics["corrected"]["clips"]) == (1, 2)
    assert result.warnings == {"clip_not_predicted": 1}
    assert result.coverage["missing"] == ["w_0"]
    assert "official" not in result.per_clip[0] and result.per_clip[0]["corrected"]["AP50"] == 0.0


def test_clips_with_empty_lists_count_in_corrected(truth, answers):
    result = score([replace(truth, key="w_0"), truth], [prediction([], [], key="w_0"), answers])
    assert per_video(result) == (0.5, 0.5, 0.5)
    assert result.metrics["official"]["clips"] == 1 and result.warnings["clip_with_empty_lists"] == 1
    assert result.coverage["predicted"] == 2


def test_clips_without_annotated_boxes(truth, answers):
    empty = reference([[], []], [[], []], key="w_0")
    nothing, something = (
        prediction([boxes, []], [labels, []], key="w_0") for boxes, labels in (([], []), ([BOX], ["x"]))
    )
    assert per_video(corrected([truth, empty], [answers, nothing])) == (1.0, 1.0, 1.0)
    assert per_video(corrected([truth, empty], [answers, something])) == (0.5, 1.0, 0.5)
    result = corrected([empty], [nothing])
    assert all(map(math.isnan, per_video(result))) and math.isnan(
        result.metrics["corrected"]["all"]["flattening"]["AP50"]
    )
    assert result.warnings["clips_without_annotated_boxes"] == 1


def test_boxes_are_cut_at_the_border_and_keep_their_fractions():
    truth = reference([[[-20.5, 0, 40.5, 50], [200, 0, 300, 50]]], [["a cup", "a dog"]])
    answer = prediction([[[0, 0, 40.5, 80]]], [["a cup"]])
    ap50, recall, miou = per_video(corrected([truth], [answer]))
    # The second annotated box lies outside the frame.
    assert (ap50, recall, miou) == (1.0, 1.0, 50 / 80)
    warnings = corrected([truth], [answer]).warnings
    assert warnings["annotated_boxes_beyond_frame"] == 2 and warnings["annotated_boxes_without_area"] == 1


def test_boxes_without_a_label_are_right_in_place_only():
    truth = reference([[BOX, OTHER]], [["a cup", "a dog"]])
    answer = prediction([[BOX, OTHER]], [["a cup"]])
    result = score([truth], [answer])
    assert per_video(result) == (1.0, 0.5, 1.0)
    assert per_video(result, "official")[0] == pytest.approx(0.505, abs=1e-3)
    assert result.warnings["boxes_without_label"] == 1


def test_a_label_that_is_no_text_is_like_no_other():
    boxes = [[BOX, [5, 5, 90, 70]]]
    result = score([reference(boxes, [["a cup", "a dog"]])], [prediction(boxes, [["a cup", None]])])
    assert per_video(result) == (1.0, 0.5, 1.0)
    assert result.per_clip[0]["official"]["matches"] == 0
    assert result.warnings["frames_with_null_label"] == 1


def test_corrected_recall_tries_every_pair():
    # The predicted dog lies closest to the annotated cup, where the original ends; both have an admissible partner.
    truth = reference([[[0, 0, 60, 60], [0, 0, 60, 75]]], [["a cup", "a dog"]])
    answer = prediction([[[0, 0, 60, 60], [0, 0, 60, 75]]], [["a dog", "a cup"]])
    result = score([truth], [answer])
    assert result.metrics["official"]["all"]["per_video"]["Recall"] == 0.0
    assert result.metrics["corrected"]["all"]["per_video"]["Recall"] == 1.0


def test_centres_are_those_of_equal_parts():
    count = 20
    boxes = [[[0, 0, n + 1, 50]] for n in range(count)]
    truth = reference(boxes, [["a cup"]] * count)
    rows = score([truth], [prediction([[[0, 0, 20, 50]]] * count, [["a cup"]] * count)]).per_clip
    # Parts have two frames each, the last one six: the middles of their borders.
    expected = [(n + 1) / 20 for n in (1, 3, 5, 7, 9, 11, 13, 17)]
    assert rows[0]["corrected"]["center_8"]["frame_mIoU"] == pytest.approx(expected)
    assert rows[0]["corrected"]["center_frame"]["frame_mIoU"] == pytest.approx([11 / 20])


def test_merged_instances_are_the_processed_form():
    raw = [make_caption(clip_id=n, seed=n, instances=2) for n in range(2)]
    # Two tracks of a mention are one label, as in the files of the original.
    assert any(len(labels) != len({*labels}) for caption in raw for labels in caption.to_dict()["labels"])
    processed = [caption.merged() for caption in raw]
    answers = [with_noise(caption) for caption in processed]
    merged = score(raw, answers, merge_instances=True)
    assert merged.metrics == score(processed, answers).metrics
    assert merged.metrics != score(raw, answers).metrics


def with_noise(caption: GroundedCaption) -> GroundedCaption:
    rng = np.random.default_rng(0)
    tracks = [replace(t, boxes=t.boxes + rng.normal(0, 3, t.boxes.shape)) for t in caption.tracks]
    return replace(caption, tracks=tuple(tracks))


def test_more_statistics_on_request(truth, answers):
    plain, more = score([truth], [answers]), score([truth], [answers], coco_stats=True)
    assert "AP" not in plain.metrics["corrected"]["all"]["flattening"]
    assert more.metrics["corrected"]["all"]["flattening"]["AP"] == 1.0
    assert len(more.metrics["official"]["all"]["flattening"]["coco_stats"]) == 12
    assert len(more.per_clip[0]["official"]["coco_stats"]) == 12


def test_one_set_of_frames_and_one_protocol(truth, answers):
    result = score([truth], [answers], protocols=("official",), frames=("center_frame",))
    assert {*result.metrics} == {"official"} and {*result.headline["official"]} == {"AP50 (center)", "Recall (center)"}
    assert "AP50" not in result.per_clip[0]["official"]


def test_a_prediction_of_the_centre_frame_alone():
    caption = make_caption(seed=1)
    centre = caption.num_frames // 2
    assert any(track.presence[centre] for track in caption.tracks)
    tracks = [
        replace(t, boxes=t.boxes[[centre]], presence=t.presence[[centre]], objectness=t.objectness[[centre]])
        for t in caption.tracks
    ]
    indices, times = caption.frame_indices[[centre]], caption.timestamps[[centre]]
    only = replace(caption, tracks=tuple(tracks), frame_indices=indices, timestamps=times)
    result = score([caption], [only])
    assert "all" not in result.metrics["corrected"] and per_video(result, frames="center_frame") == (1.0, 1.0, 1.0)
    assert result.warnings["frames_not_predicted"] == caption.num_frames - 1


@pytest.mark.java
def test_captions_of_missing_clips_and_line_separators():
    truth, answers = references(read("ground_truth.json")), predictions(read("predictions.json"))
    result = score(truth, answers, captions=True)
    official, ours = (result.metrics[protocol]["captions"] for protocol in ("official", "corrected"))
    assert ours["CIDEr"] < official["CIDEr"] and ours["METEOR"] < official["METEOR"]
    rows = {row["key"]: row for row in result.per_clip}
    assert rows["vis012_14"]["captions"] == {"corrected": dict.fromkeys(ours, pytest.approx(0.0, abs=1e-6))}
    assert result.headline["corrected"]["METEOR"] == 100 * ours["METEOR"]
    shifted = [replace(answers[0], caption=f"a\u2028{answers[0].caption}"), *answers[1:]]
    result = score(truth, shifted, captions=True)
    assert result.warnings["captions_with_line_separator"] == 1
    assert result.metrics["official"]["captions"]["CIDEr"] < 0.3 * official["CIDEr"]
    assert result.metrics["corrected"]["captions"]["CIDEr"] > 0.9 * ours["CIDEr"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "elsewhere_0"}, r"clip 'elsewhere_0': none of the 1 predicted clips .* another split"),
        (
            {"boxes": (np.array([BOX]),)},
            r"clip 'v_0': bboxes of the prediction: got 1 frames, expected the 2 annotated",
        ),
        ({"labels": ((),) * 4}, r"clip 'v_0': labels of the prediction: got 4 frames, expected the 2 annotated"),
        ({"scores": (np.ones(1),)}, r"clip 'v_0': scores of the prediction: got 1 frames, but bboxes has 2"),
        ({"scores": (np.ones(2),) * 2}, r"clip 'v_0': scores\[0\] of the prediction: got shape \(2,\) for 1 boxes"),
        ({"scores": (np.ones(1), np.array([1, np.nan]))}, r"clip 'v_0': bboxes\[1\] of the prediction: .*score nan"),
        ({"boxes": (np.array([BOX]), np.full((2, 4), np.nan))}, r"clip 'v_0': bboxes\[1\] of the prediction: box 0 is"),
        (
            {"boxes": (np.array([BOX]), np.zeros((2, 5)))},
            r"clip 'v_0': bboxes\[1\] of the prediction: got shape \(2, 5\)",
        ),
        (
            {"boxes": (), "labels": ()},
            r"clip 'v_0': bboxes of the prediction: an empty list, as in all predicted clips",
        ),
    ],
)
def test_bad_predictions(truth, answers, changes, message):
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        score([truth], [replace(answers, **changes)])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"boxes": (np.array([BOX]), np.array([BOX, [np.inf, 0, 1, 1]]))},
            r"clip 'v_0': bboxes\[1\] of the annotation: box 1",
        ),
        ({"labels": (("a cup",),)}, r"clip 'v_0': labels of the annotation: got 1 frames, but bboxes has 2"),
    ],
)
def test_bad_annotations(truth, answers, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        score([replace(truth, **changes)], [answers])


@pytest.mark.parametrize("frames", [("all",), ("center_frame",)])
def test_without_any_predicted_box_the_official_protocol_alone_is_an_error(truth, answers, frames):
    bare = replace(answers, labels=((), ()))
    message = r"^clip 'v_0': bboxes of the prediction: no box with a label, .* the corrected protocol$"
    with pytest.raises(ValueError, match=message):
        score([truth], [bare], protocols=("official",), frames=frames)


def test_without_any_predicted_box_the_corrected_protocol_scores_zero(truth, answers, caplog):
    bare = replace(answers, boxes=(np.zeros((0, 4)), np.zeros((0, 4))), labels=((), ()))
    result = score([truth], [bare])
    assert per_video(result) == (0.0, 0.0, 0.0)
    assert not {"all", "center_frame", "center_8"} & {*result.metrics["official"]}
    assert result.metrics["official"]["clips"] == 1 and "AP50" not in result.headline["official"]
    assert result.warnings == {"no_predicted_box": 3}  # one a set of frames
    reason = "no official scores, which need a predicted box with a label"
    assert caplog.messages == [f"frames of all, center_frame, center_8: {reason}"]


def test_a_center_without_predicted_boxes_is_left_out_of_the_official_scores_alone(truth, answers):
    first_only = replace(answers, boxes=(answers.boxes[0], np.zeros((0, 4))), labels=(answers.labels[0], ()))
    result = score([truth], [first_only])
    assert "all" in result.metrics["official"] and "center_frame" not in result.metrics["official"]
    assert per_video(result)[1] == pytest.approx(1 / 3)
    assert result.metrics["corrected"]["center_frame"]["per_video"]["AP50"] == 0.0


def test_frames_that_are_not_scored_are_said_once(truth, answers, caplog):
    center_only = replace(answers, boxes=(None, answers.boxes[1]))
    result = score([truth], [center_only])
    assert [*result.metrics["official"]] == [*result.metrics["corrected"]]
    assert caplog.messages == ["frames of all, center_8: not scored, as clip 'v_0' has frames without a prediction"]


@pytest.mark.parametrize("merge_instances", [False, True])
def test_a_label_that_is_a_list_is_like_no_other(merge_instances):
    truth = reference([[BOX, OTHER]], [["a cup", ["a", "dog"]]])
    answer = prediction([[BOX, OTHER]], [["a cup", ["a", "dog"]]])
    result = score([truth], [answer], merge_instances=merge_instances)
    assert per_video(result) == (1.0, 0.5, 1.0)
    assert result.warnings["frames_with_null_label"] == 1


def test_as_many_predicted_boxes_without_area_are_left_out_as_annotated_ones():
    flat = [10, 10, 10, 40]
    truth = reference([[BOX, flat]], [["a cup", "a dog"]])
    answer = prediction([[BOX, flat, flat]], [["a cup", "a dog", "a dog"]], scores=[[0.5, 0.9, 0.4]])
    # The surer one stays, as a false positive before the right box.
    assert per_video(corrected([truth], [answer])) == (0.5, 1.0, 0.5)
    perfect = prediction([[BOX, flat]], [["a cup", "a dog"]])
    assert per_video(corrected([truth], [perfect])) == (1.0, 1.0, 1.0)


def test_labels_of_numpy_are_text(truth, answers):
    labels = tuple(tuple(np.str_(label) for label in frame) for frame in answers.labels)
    for options in ({}, {"merge_instances": True}):
        result = score([truth], [replace(answers, labels=labels)], **options)
        assert not result.warnings["frames_with_null_label"]
        assert result.metrics == score([truth], [answers], **options).metrics


@pytest.mark.parametrize("options", [{"frames": ("middle",)}, {"frames": ()}, {"protocols": ("mine",)}])
def test_unknown_options(truth, answers, options):
    with pytest.raises(ValueError, match=r"^(frames|protocols): got .*; expected some of"):
        score([truth], [answers], **options)


def test_oddities_are_counted(truth, answers):
    odd = prediction(
        [[[60, 10, 10, 60], BOX], [[-5, 0, 200, 50], [100, 100, 130, 130]], [BOX]],
        [["a cup"], ["a cup", "a dog", "a man"], ["a cup"]],
    )
    result = score([truth, reference([[]], [["a cup"]], key="w_0")], [odd, replace(answers, key="x_0")])
    assert result.warnings == {
        "unknown_clip": 1,
        "clip_not_predicted": 1,
        "surplus_frame_dropped": 1,
        "boxes_without_label": 1,
        "labels_without_box": 1,
        "inverted_boxes": 1,
        "boxes_beyond_frame": 2,
        "boxes_without_area": 2,
        "annotated_labels_without_box": 1,
        "clips_without_annotated_boxes": 1,
    }
