"""What the paper does not report: worked out by hand, by a plain loop, and what must not change it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.caption_statistics import caption_statistics, protocol_intervals
from eval.clips import PredictedClip, ReferenceClip, predicted_clips, reference_clips
from eval.text_similarity import text_similarity
from eval.track_pairing import pair_phrases
from tests.eval.phrase_clips import prediction, random_tubes, reference, shapes_noisy, shapes_truth
from tests.eval.test_calibration import model_output
from tests.records import make_caption

A, B, FAR = (0.0, 0.0, 20.0, 20.0), (10.0, 0.0, 30.0, 20.0), (60.0, 40.0, 80.0, 60.0)  # IoU of A and B is a third
HEAD_WORD = text_similarity("head-word")
TRUTH = {"a man": [A, A, None, None], "a cup": [None, FAR, FAR, FAR], "a dog": [A, None, None, None]}
SAID = {"the man": [B, None, A, None], "a red cup": [None, FAR, FAR, FAR], "a bicycle": [A, A, None, None]}


def statistics(truth, said, **options):
    return caption_statistics(truth, said, HEAD_WORD, **{"resamples": 50, **options})


def flat(found, names, prefix=""):
    """The numbers of nested objects by their path, without intervals."""
    numbers = {}
    for name, value in found.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and name != "intervals":
            numbers |= flat(value, names, f"{path}.")
        elif isinstance(value, float | int) and path.startswith(names):
            numbers[path] = value
    return numbers


def test_by_hand():
    found = statistics({"clip_0": reference(TRUTH)}, {"clip_0": prediction(SAID)})
    # Frames of the man: found, missed, wrong, neither; of the cup: three found, neither; a dog lost in one frame, rightly absent
    # in three; a bicycle invented in two.
    presence = found["presence"]
    paired = presence.pop("paired")
    assert presence == pytest.approx(
        {
            "accuracy": 9 / 14,
            "precision": 4 / 7,
            "recall": 4 / 6,
            "f1": 8 / 13,
            "phrase_frames": 14,
            "absent_share": 6 / 12,
        }
    )
    assert paired == pytest.approx(
        {"accuracy": 6 / 8, "precision": 4 / 5, "recall": 4 / 5, "f1": 4 / 5, "phrase_frames": 8}
    )
    # The man overlaps by a third in one of three frames, the cup fully.
    assert found["tracks"] == pytest.approx(
        {
            "mean_iou": (1 / 9 + 1) / 3,
            "mean_iou_paired": (1 / 9 + 1) / 2,
            "phrases": 3,
            "visible_phrases": 3,
            "predicted_phrases": 3,
            "pairs": 2,
            "visible_pairs": 2,
        }
    )
    flicker = found["flicker"]
    assert flicker.pop("paired") == pytest.approx({"truth": 1, "prediction": 2, "ratio": 2})
    assert flicker == pytest.approx({"truth": 1, "prediction": 5 / 3, "ratio": 5 / 3})
    assert found["boxes_per_frame"] == pytest.approx({"truth": 6 / 4, "prediction": 7 / 4, "ratio": 7 / 6})
    assert found["calibration"] is None
    assert found["intervals"]["presence"]["f1"] == pytest.approx({"mean": 8 / 13, "low": 8 / 13, "high": 8 / 13})


def test_a_clip_without_prediction_counts_as_one_without_phrases():
    truth = {"clip_0": reference(TRUTH), "clip_1": reference(TRUTH, "clip_1")}
    found = statistics(truth, {"clip_0": prediction(SAID), "unknown": prediction(SAID)})
    presence, tracks = found["presence"], found["tracks"]
    assert presence["recall"] == pytest.approx(4 / 12) and presence["precision"] == pytest.approx(4 / 7)
    assert presence["accuracy"] == pytest.approx((9 + 6) / (14 + 12))
    assert (tracks["phrases"], tracks["predicted_phrases"], tracks["pairs"]) == (6, 3, 2)
    assert tracks["mean_iou"] == pytest.approx((1 / 9 + 1) / 6)
    assert (
        presence["paired"]
        == statistics({"clip_0": truth["clip_0"]}, {"clip_0": prediction(SAID)})["presence"]["paired"]
    )


def test_no_prediction_at_all_is_no_number():
    found = statistics({"clip_0": reference(TRUTH)}, {})
    assert found["presence"]["accuracy"] == found["presence"]["absent_share"] == 0.5
    assert (found["presence"]["recall"], found["presence"]["f1"], found["tracks"]["mean_iou"]) == (0, 0, 0)
    for value in (
        found["presence"]["precision"],
        found["presence"]["paired"]["f1"],
        found["tracks"]["mean_iou_paired"],
        found["flicker"]["prediction"],
        found["intervals"]["tracks"]["mean_iou_paired"]["low"],
    ):
        assert math.isnan(value)
    with pytest.raises(ValueError, match="references: no clips; expected at least one"):
        statistics({}, {})


def test_only_frames_that_the_model_was_asked_about_count():
    center = PredictedClip("clip_0", "", (None, np.array([A, FAR]), None, None), ((), ("man", "cup"), (), ()))
    found = statistics({"clip_0": reference(TRUTH)}, {"clip_0": center})
    # Of the man, the cup and the dog, the second frame only.
    assert found["presence"]["phrase_frames"] == 3 and found["presence"]["f1"] == 1
    assert found["presence"]["absent_share"] == pytest.approx(1 / 3)
    assert found["tracks"]["visible_phrases"] == 2 and found["tracks"]["mean_iou"] == 1
    assert found["flicker"]["truth"] == 0  # no two frames in a row
    assert found["boxes_per_frame"] == {"truth": 2, "prediction": 2, "ratio": 1}


def test_truth_against_itself_is_perfect():
    truth = reference_clips(shapes_truth())
    found = statistics(truth, predicted_clips(shapes_truth(), truth))
    for group in (found["presence"], found["presence"]["paired"]):
        assert [group[name] for name in ("accuracy", "precision", "recall", "f1")] == [1, 1, 1, 1]
    assert found["tracks"]["mean_iou"] == found["tracks"]["mean_iou_paired"] == pytest.approx(1)
    assert found["flicker"]["ratio"] == found["flicker"]["paired"]["ratio"] == 1
    assert found["boxes_per_frame"]["ratio"] == 1
    assert found["calibration"] is None  # annotations are certain
    assert 0 < found["presence"]["absent_share"] < 1


def test_noise_is_seen_as_what_it_is():
    truth = reference_clips(shapes_truth())
    none, mild, strong = (
        statistics(truth, predicted_clips(shapes_noisy(level=level), truth))
        for level in ("none", "mild", "howtoground1m")
    )
    for group, name in (("presence", "f1"), ("presence", "accuracy"), ("tracks", "mean_iou")):
        assert none[group][name] > mild[group][name] > strong[group][name]
    # Gaps come and go, and a third of the boxes is lost.
    assert strong["flicker"]["paired"]["ratio"] > mild["flicker"]["paired"]["ratio"] > 1
    assert strong["boxes_per_frame"]["ratio"] < 0.8
    low, high = (strong["intervals"]["presence"]["f1"][end] for end in ("low", "high"))
    assert low < strong["presence"]["f1"] < high < mild["presence"]["f1"]


def test_counts_of_shapes_agree_with_a_plain_loop():
    truth = reference_clips(shapes_truth())
    said = predicted_clips(shapes_noisy(), truth)
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), 0)
    changes = {"truth": 0, "said": 0}
    phrases = {"truth": 0, "said": 0}
    for clip in pair_phrases(truth, said, HEAD_WORD):
        partner = dict(clip.pairs.tolist())
        for p in range(len(clip.truth.phrases)):
            for n in range(len(clip.asked)):
                is_there = bool(clip.truth.presence[p, n])
                is_said = p in partner and bool(clip.predicted.presence[partner[p], n])
                counts[("t" if is_there == is_said else "f") + ("p" if is_said else "n")] += 1
        for q in range(len(clip.predicted.phrases)):
            if q not in partner.values():
                counts["fp"] += int(clip.predicted.presence[q].sum())
        for name, tubes in (("truth", clip.truth), ("said", clip.predicted)):
            for row in tubes.presence.tolist():
                phrases[name] += 1
                changes[name] += sum(a != b for a, b in zip(row[1:], row[:-1], strict=True))
    found = statistics(truth, said)
    tp, fp, fn, tn = counts.values()
    assert found["presence"]["phrase_frames"] == tp + fp + fn + tn
    assert found["presence"]["accuracy"] == pytest.approx((tp + tn) / (tp + fp + fn + tn))
    assert found["presence"]["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found["flicker"]["truth"] == pytest.approx(changes["truth"] / phrases["truth"])
    assert found["flicker"]["prediction"] == pytest.approx(changes["said"] / phrases["said"])


@given(st.integers(0, 2**32))
def test_neither_order_nor_copies_matter(seed):
    rng = np.random.default_rng(seed)
    truth, said = [], []
    for n in range(3):
        truth.append(reference(random_tubes(rng, ["a red cup", "a man", "two dogs"], 5), f"v_{n}"))
        said.append(prediction(random_tubes(rng, ["a cup", "the old man", "a tree"], 5), f"v_{n}"))
    frames = rng.permutation(5)

    def shuffled(clip):
        orders = [rng.permutation(len(clip.boxes[n])) for n in frames]
        boxes = tuple(clip.boxes[n][order] for n, order in zip(frames, orders, strict=True))
        labels = tuple(tuple(clip.labels[n][i] for i in order) for n, order in zip(frames, orders, strict=True))
        return replace(clip, boxes=boxes, labels=labels)

    def score(truth, said):
        return statistics({c.key: c for c in truth}, {c.key: c for c in said}, resamples=2)

    found = score(truth, said)
    mixed = score([shuffled(clip) for clip in truth[::-1]], [shuffled(clip) for clip in said])
    # The order of frames matters to flicker alone, which is about nothing else.
    names = ("presence", "tracks", "boxes_per_frame")
    assert flat(mixed, names) == pytest.approx(flat(found, names), nan_ok=True)
    copies = [[replace(clip, key=f"copy_{clip.key}") for clip in clips] for clips in (truth, said)]
    twice = score(truth + copies[0], said + copies[1])
    names = ("presence.", "tracks.mean", "flicker", "boxes_per_frame")
    doubled = {name: value for name, value in flat(twice, names).items() if not name.endswith("phrase_frames")}
    assert doubled == pytest.approx({name: flat(found, names)[name] for name in doubled}, nan_ok=True)
    shares = flat(found, ("presence", "tracks.mean"))
    assert all(0 <= value <= 1 or math.isnan(value) for name, value in shares.items() if "frames" not in name)


def test_calibration_of_a_model():
    captions = [make_caption("v", n, seed=n) for n in range(12)]
    said = [model_output(caption, seed=n) for n, caption in enumerate(captions)]
    truth = reference_clips(captions)
    found = statistics(truth, predicted_clips(said, truth))["calibration"]
    confidence = np.concatenate([track.objectness for clip in said for track in clip.tracks])
    event = np.concatenate([track.presence for clip in captions for track in clip.tracks])
    assert found["clips"] == 12 and found["count"] == len(confidence) == 12 * 3 * 10
    assert found["Brier"] == pytest.approx(np.mean((confidence - event) ** 2), abs=1e-6)
    assert found["paired"]["Brier"] == found["Brier"]  # all phrases have partners
    # A phrase without a partner is nowhere: with the man only, the others' events are gone.
    alone = {
        key: replace(clip, source=replace(clip.source, tracks=clip.source.tracks[:1])) for key, clip in truth.items()
    }
    alone = {key: ReferenceClip.from_caption(clip.source) for key, clip in alone.items()}
    found = statistics(alone, predicted_clips(said, truth))["calibration"]
    men = np.concatenate([clip.tracks[0].objectness for clip in said])
    event = np.concatenate([clip.tracks[0].presence for clip in captions])
    assert found["count"] == 360 and found["paired"]["count"] == 120
    assert found["paired"]["Brier"] == pytest.approx(np.mean((men - event) ** 2), abs=1e-6)
    assert sum(b["frequency"] * b["count"] for b in found["bins"]) == pytest.approx(event.sum())


def test_intervals_of_the_benchmark_are_named_as_in_its_table():
    rows = [
        {
            "key": f"clip_{n}",
            "official": {"AP50": n / 10, "matches": 3, "center_frame": {"AP50": 0.5}},
            "captions": {"official": {"CIDEr": 1.0, "METEOR": 0.3}, "corrected": {"ROUGE_L": 0.5}},
        }
        for n in range(10)
    ]
    found = statistics({"clip_0": reference(TRUTH)}, {"clip_0": prediction(SAID)}, per_clip=rows)["intervals"]
    assert set(found) == {"presence", "presence_paired", "tracks", "flicker", "official", "corrected"}
    assert set(found["official"]) == {"AP50", "CIDEr", "AP50 (center)"} and set(found["corrected"]) == {"ROUGE_L"}
    assert found["official"]["AP50"]["mean"] == pytest.approx(0.45) and found["official"]["AP50"]["clips"] == 10
    assert protocol_intervals([]) == {}


def test_the_result_is_json():
    truth = reference_clips(shapes_truth())
    found = statistics(truth, predicted_clips(shapes_noisy(), truth))
    assert json.loads(json.dumps(found)) == found
    assert found == statistics(truth, predicted_clips(shapes_noisy(), truth))
