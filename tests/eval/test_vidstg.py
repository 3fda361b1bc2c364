"""VidSTG: every recorded value of the original, what `corrected` does instead, and 3,996 real entries end to end."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.record import from_record, record_key
from eval.vidstg import METRICS, score_vidstg
from eval.vidstg_sentences import (
    VidstgPrediction,
    VidstgReference,
    read_original_vidstg,
    vidstg_prediction,
    vidstg_reference,
    vidstg_reference_of,
)
from tests.records import make_caption

GOLDEN = Path(__file__).parents[1] / "golden" / "eval" / "vidstg"
REAL = Path(__file__).parents[3] / "shared" / "data" / "annotations" / "vidstg_val_annotations.json"
NAMES = {"gt_viou": "msIoU", "gt_viou@0.3": "vIoU@0.3", "gt_viou@0.5": "vIoU@0.5"}


def read(name):
    return json.loads((GOLDEN / name).read_text())


EDGE_CASES = {case["name"]: case for case in read("edge_cases.json")}


def score_original(annotations, predictions, *protocols):
    return score_vidstg(
        *read_original_vidstg(annotations, predictions), protocols=protocols or ("official", "corrected")
    )


def square(x=10.0, y=10.0, side=20.0):
    return np.array([[x, y, x + side, y + side]], dtype=np.float32)


def clip(frames=(0, 5, 10, 15), boxes=None, end=20, qtype="declarative", fps=25.0):
    boxes = np.repeat(square().astype(float), len(frames), axis=0) if boxes is None else np.array(boxes, dtype=float)
    return VidstgReference("a_0", qtype, fps, (0, end), np.array(frames), boxes)


def answer(frames=(0, 5, 10, 15), boxes=None, qtype="declarative", key="a_0"):
    return VidstgPrediction(key, np.array(frames, dtype=int), tuple(boxes or [square()] * len(frames)), qtype)


def corrected(reference, prediction):
    result = score_vidstg([reference], [prediction], protocols=("corrected",))
    return result.per_clip[0]["corrected"], result.warnings


class TestOfficial:
    def test_recorded_summary_is_reproduced_to_the_last_bit(self):
        expected = read("expected.json")
        result = score_original(read("ground_truth.json"), read("predictions.json"), "official")
        for name, value in expected["summary_fps5"].items():
            qtype, metric = name.split("_", 1)
            assert result.metrics["official"][qtype][NAMES[metric]] == value
        row = {f"{NAMES[name.split('_', 1)[1]]} ({name.split('_', 1)[0]})" for name in expected["summary_fps5"]}
        assert {*result.headline["official"]} == row and len(row) == 6
        for name, value in expected["summary_fps5"].items():
            qtype, metric = name.split("_", 1)
            assert result.headline["official"][f"{NAMES[metric]} ({qtype})"] == 100 * value
        assert result.coverage == {"clips": 30, "predicted": 30, "coverage": 1.0, "missing": []}

    def test_recorded_videos_and_frames_are_reproduced_to_the_last_bit(self):
        expected = read("expected.json")["per_video"]
        result = score_original(read("ground_truth.json"), read("predictions.json"), "official")
        assert [row["key"] for row in result.per_clip] == [*expected]
        for row in result.per_clip:
            wanted, got = expected[row["key"]], row["official"]
            assert got["frame_indices"] == wanted["frame_ids"]
            np.testing.assert_array_equal(got["frame_iou"], wanted["frame_iou"])
            assert got["qtype"] == wanted["qtype"]
            assert {old: got[new] for old, new in NAMES.items()} == {old: wanted[old] for old in NAMES}

    @pytest.mark.parametrize("name", [name for name, case in EDGE_CASES.items() if "expected" in case])
    def test_edge_case(self, name):
        case = EDGE_CASES[name]
        result = score_original(case["ground_truth"], case["predictions"], "official")
        wanted = {name.split("_", 1)[1]: value for name, value in case["expected"].items()}
        (qtype,) = {name.split("_", 1)[0] for name in case["expected"]}
        got = result.metrics["official"][qtype]
        np.testing.assert_array_equal([got[NAMES[name]] for name in wanted], [*wanted.values()])
        np.testing.assert_array_equal(
            [row["official"]["msIoU"] for row in result.per_clip], [*case["per_video_gt_viou"].values()]
        )

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("missing_video", "no predictions"),
            ("missing_frame", r"video 'a_0': frame_ids: frame 10 .*expected all of 4"),
            ("length_mismatch", r"video 'a_0': boxes: got 2 lists of boxes for 4 frame_ids"),
            ("fps_below_5", r"video 'a_0': fps: got 4, expected at least 5"),
        ],
    )
    def test_where_the_original_stops_the_error_is_one_line(self, name, message):
        case = EDGE_CASES[name]
        assert "error" in case
        with pytest.raises(ValueError, match=message) as caught:
            score_original(case["ground_truth"], case["predictions"], "official")
        assert "\n" not in str(caught.value)

    def test_all_recorded_edge_cases_are_tested(self):
        stops = {"missing_video", "missing_frame", "length_mismatch", "fps_below_5"}
        assert {name for name, case in EDGE_CASES.items() if "expected" not in case} == stops

    def test_one_missing_video_of_two_stops(self):
        references = [
            clip(),
            VidstgReference("b_0", "declarative", 25.0, (0, 2), np.array([0]), square().astype(float)),
        ]
        with pytest.raises(ValueError, match=r"video 'b_0': predictions: none \(as for 1 of 2\)"):
            score_vidstg(references, [answer()], protocols=("official",))
        result = score_vidstg(references, [answer()], protocols=("corrected",))
        assert result.metrics["corrected"]["declarative"]["msIoU"] == 0.5
        assert result.coverage["missing"] == ["b_0"]


class TestCorrected:
    def test_last_annotated_frame_of_the_tube_counts(self):
        reference = clip(end=16)  # frame 15 is the last of the tube, which the original leaves out
        result = score_vidstg([reference], [answer(boxes=[square()] * 3 + [square(50)])])
        assert result.per_clip[0]["official"]["frame_indices"] == [0, 5, 10]
        assert result.metrics["official"]["declarative"]["msIoU"] == 1.0
        assert result.metrics["corrected"]["declarative"]["msIoU"] == 0.75

    def test_missing_frame_scores_nothing(self):
        score, warnings = corrected(clip(), answer(frames=(0, 5)))
        assert score["msIoU"] == pytest.approx(0.5, abs=1e-7) and warnings["frames_not_predicted"] == 2

    @pytest.mark.parametrize(
        "box", [square() * np.nan, square()[:, [2, 3, 0, 1]], square(side=0.0), square()[:0], square() * np.inf]
    )
    def test_a_box_that_covers_nothing_costs_its_frame_alone(self, box):
        score, _ = corrected(clip(), answer(boxes=[box, square(), square(), square()]))
        assert score["frame_iou"][0] == 0.0
        assert score["msIoU"] == 0.75 and score["vIoU@0.5"] == 1.0

    def test_frames_do_not_count_where_the_annotation_has_no_area(self):
        boxes = [[10, 10, 10, 10]] * 3 + [[10, 10, 30, 30]]
        score, warnings = corrected(clip(boxes=boxes), answer(boxes=[square(side=0.0)] * 3 + [square()]))
        assert score["msIoU"] == 1.0 and score["frame_indices"] == [15]
        assert warnings["annotated_boxes_without_area"] == 3

    def test_the_type_is_that_of_the_annotation(self):
        case = EDGE_CASES["qtype_taken_from_predictions"]
        result = score_original(case["ground_truth"], case["predictions"])
        assert [*result.metrics["official"]] == ["declarative"] and [*result.metrics["corrected"]] == ["interrogative"]
        assert result.warnings["question_types_that_differ"] == 1

    def test_below_5_frames_a_second_every_frame_counts(self):
        case = EDGE_CASES["fps_below_5"]
        result = score_original(case["ground_truth"], case["predictions"], "corrected")
        assert result.per_clip[0]["corrected"]["frame_indices"] == [*range(20)]

    def test_annotated_frames_without_a_box_are_left_out(self):
        reference = clip(boxes=[[10, 10, 30, 30]] * 3 + [[np.nan] * 4])
        score, warnings = corrected(reference, answer())
        assert score["frame_indices"] == [0, 5, 10] and score["msIoU"] == 1.0
        assert warnings["annotated_frames_without_box"] == 1
        with pytest.raises(ValueError, match="video 'a_0': trajectories: frame 15 of the tube has no box"):
            score_vidstg([reference], [answer()])

    def test_a_sentence_without_any_box_is_left_out(self):
        bare = VidstgReference("b_0", "declarative", 25.0, (0, 2), np.array([0]), np.full((1, 4), np.nan))
        result = score_vidstg([clip(), bare], [answer()], protocols=("corrected",))
        assert result.metrics["corrected"]["declarative"]["msIoU"] == 1.0
        assert result.metrics["corrected"]["declarative"]["videos"] == 1
        assert all(math.isnan(result.per_clip[1]["corrected"][name]) for name in METRICS)
        assert result.warnings == {"annotated_frames_without_box": 1, "sentences_without_box": 1}


class TestWhatIsTolerated:
    def test_it_is_counted(self):
        odd = [np.concatenate([square(), square(50)]), square() * np.nan, square()[:, [2, 3, 0, 1]], square()]
        prediction = answer(frames=(0, 5, 10, 15, 15), boxes=[*odd, square()], qtype="interrogative")
        result = score_vidstg([clip()], [prediction, answer(key="elsewhere")])
        assert result.warnings == {
            "unknown_videos": 1,
            "frames_with_surplus_boxes": 1,
            "frames_with_nan_boxes": 1,
            "frames_with_undefined_iou": 1,
            "frames_with_inverted_boxes": 1,
            "duplicate_frames": 1,
            "question_types_that_differ": 1,
        }
        assert math.isnan(result.metrics["official"]["interrogative"]["msIoU"])
        assert result.metrics["corrected"]["declarative"]["msIoU"] == 0.5

    def test_a_clean_run_warns_of_nothing(self):
        assert not score_vidstg([clip()], [answer()]).warnings


class TestBadInput:
    def test_predictions_for_another_split(self):
        with pytest.raises(ValueError, match="none of the 1 predicted keys .*'b_3'.* like 'a_0'; .*another split"):
            score_vidstg([clip()], [answer(key="b_3")], protocols=("corrected",))

    def test_nothing_at_all(self):
        with pytest.raises(ValueError, match="no annotated sentences"):
            score_vidstg([], [answer()])
        with pytest.raises(ValueError, match="no predictions"):
            score_vidstg([clip()], [])

    def test_a_key_twice(self):
        with pytest.raises(ValueError, match="'a_0': there are two predictions of this key"):
            score_vidstg([clip()], [answer(), answer()])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda g, p: g.pop("trajectories"), "annotations: trajectories: missing"),
            (lambda g, p: g["videos"][0].pop("fps"), "video 'a_0': fps: missing"),
            (lambda g, p: g["videos"][0].update(fps="25"), "video 'a_0': fps: got '25', expected a number"),
            (lambda g, p: g["videos"][0].update(tube_end_frame=0), r"video 'a_0': tube_end_frame: got 0\.\.0"),
            (lambda g, p: g["videos"][0].update(tube_end_frame=10**9), r"tube_end_frame: got 0\.\.1e\+09"),
            (lambda g, p: g["videos"][0].update(tube_end_frame=7.5), r"tube_end_frame: got 0\.\.7\.5"),
            (lambda g, p: g["videos"][0].update(target_id=7), "video 'a_0': trajectories: nothing of object 7"),
            (lambda g, p: g["videos"][0].update(qtype="x"), "video 'a_0': qtype: got 'x'"),
            (lambda g, p: g["trajectories"]["a"]["0"]["5"].update(bbox=[1, 2]), r"frame 5: bbox: got \[1, 2\]"),
            (lambda g, p: g["trajectories"]["a"]["0"].pop("5"), "trajectories: frame 5 of the tube has no box"),
            (lambda g, p: p["a_0"].pop("boxes"), "video 'a_0': boxes: missing"),
            (lambda g, p: p["a_0"].update(frame_ids=["x"]), "video 'a_0': frame_ids: got"),
            (
                lambda g, p: p["a_0"]["boxes"].__setitem__(1, [1, 2, 3, 4]),
                r"video 'a_0': boxes\[1\]: got \[1, 2, 3, 4\]",
            ),
            (lambda g, p: p["a_0"]["boxes"].__setitem__(1, None), r"video 'a_0': boxes\[1\]: got None"),
        ],
    )
    def test_original_files(self, change, message):
        case = json.loads(json.dumps(EDGE_CASES["fps_29.97_rate_is_5"]))
        change(case["ground_truth"], case["predictions"])
        with pytest.raises(ValueError, match=message) as caught:
            score_original(case["ground_truth"], case["predictions"])
        assert "\n" not in str(caught.value)

    def test_predictions_that_are_no_object(self):
        with pytest.raises(ValueError, match="predictions: got a list"):
            read_original_vidstg(read("ground_truth.json"), [])


@pytest.fixture(scope="module")
def records():
    return [*import_vidstg(GOLDEN / "ground_truth.json")]


class TestRecords:
    """The same annotations through the importer, and answers as `GroundedCaption`, give what the original's files do."""

    def test_they_score_as_the_original_files(self, records):
        references = [vidstg_reference_of(record) for record in records]
        by_original, _ = read_original_vidstg(read("ground_truth.json"), read("predictions.json"))
        assert len(references) == len(by_original) == 30
        for ours, theirs in zip(references, by_original, strict=True):
            assert (ours.qtype, ours.fps, ours.tube) == (theirs.qtype, theirs.fps, theirs.tube)
            np.testing.assert_array_equal(ours.frame_indices, theirs.frame_indices)
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-10)  # although records are float32

    def test_perfect_answers_score_one(self, records):
        references = [vidstg_reference_of(record) for record in records]
        predictions = [vidstg_prediction(from_record(record)) for record in records]
        result = score_vidstg(references, predictions)
        for values in result.metrics["corrected"].values():
            assert values["msIoU"] == values["vIoU@0.5"] == 1
        # Two tubes of one frame, of which the original scores no frame and hence 0.
        empty = [row["key"] for row in result.per_clip if not row["official"]["frame_indices"]]
        assert [row["key"] for row in result.per_clip if row["official"]["msIoU"] < 0.999] == empty != []

    def test_without_a_tube_the_frames_with_a_box_count(self, records):
        caption = from_record(records[0])
        reference = vidstg_reference(caption, "declarative")
        np.testing.assert_array_equal(reference.frame_indices, caption.frame_indices[caption.tracks[0].presence])
        result = score_vidstg([reference], [vidstg_prediction(caption)])
        assert len(result.per_clip[0]["official"]["frame_indices"]) == caption.tracks[0].presence.sum()

    def test_objectness_does_not_matter(self, records):
        caption = from_record(records[0])
        unsure = vidstg_prediction(caption.with_threshold(1.0))
        assert (
            score_vidstg([vidstg_reference_of(records[0])], [unsure]).metrics["corrected"]["declarative"]["msIoU"] == 1
        )

    def test_records_and_captions_can_be_given_as_they_are(self, records):
        captions = [from_record(record).with_threshold(1.0) for record in records]
        made = [vidstg_reference_of(record) for record in records], [vidstg_prediction(c) for c in captions]
        expected = score_vidstg(*made)
        result = score_vidstg(records, captions)
        assert (result.metrics, result.per_clip) == (expected.metrics, expected.per_clip)

    def test_captions_as_references_need_the_type_of_their_sentence(self, records):
        captions = [from_record(record) for record in records]
        types = {reference.key: reference.qtype for reference in map(vidstg_reference_of, records)}
        result = score_vidstg(captions, captions, question_types=types)
        videos = {qtype: values["videos"] for qtype, values in result.metrics["corrected"].items()}
        assert videos == {qtype: [*types.values()].count(qtype) for qtype in ("declarative", "interrogative")}
        assert {values["msIoU"] for values in result.metrics["corrected"].values()} == {1.0}
        key = captions[3].key
        for given in (None, {}, {name: qtype for name, qtype in types.items() if name != key}):
            with pytest.raises(ValueError, match=f"^clip '{captions[0].key if not given else key}': question_types: "):
                score_vidstg(captions, captions, question_types=given)

    def test_captions_that_are_no_single_sentence_are_named(self, records):
        with pytest.raises(ValueError, match=r"^clip 'video_0': tracks: got 3, expected one"):
            score_vidstg(records, [make_caption()])
        with pytest.raises(ValueError, match=r"^clip 'video_0': tracks: got 3, expected one"):
            score_vidstg([make_caption()], [from_record(records[0])], question_types={"video_0": "declarative"})
        broken = records[0] | {"bboxes": [[[1, 2, 3]], *records[0]["bboxes"][1:]]}
        with pytest.raises(ValueError, match=f"^clip '{record_key(broken)}': .*boxes"):
            score_vidstg([broken], [from_record(records[0])])

    def test_a_record_without_boxes_is_an_error(self, records):
        record = {**records[0], "bboxes": [[]] * len(records[0]["bboxes"]), "labels": [[]] * len(records[0]["labels"])}
        record |= {"track_ids": [[]] * len(record["bboxes"]), "scores": [[]] * len(record["bboxes"])}
        with pytest.raises(ValueError, match="bboxes: no frame has a box"):
            vidstg_reference_of(record)


@pytest.fixture(scope="module")
def real_files():
    """All sentences of the 3,996 validation entries, with trajectories that follow a line: the real ones are in VidOR."""
    rng = np.random.default_rng(0)
    videos, trajectories, predictions = [], {}, {}
    for number, entry in enumerate(json.loads(REAL.read_text())):
        first, end = entry["temporal_gt"]["begin_fid"], entry["temporal_gt"]["end_fid"]
        sentences = [("declarative", s) for s in entry["captions"]] + [("interrogative", s) for s in entry["questions"]]
        for place, (qtype, sentence) in enumerate(sentences):
            key = f"{entry['vid']}_{number}_{place}"
            videos.append(
                {
                    "video_id": key,
                    "original_video_id": f"{entry['vid']}_{number}",
                    "video_path": f"{entry['vid']}.mp4",
                    "fps": entry["fps"],
                    "width": entry["width"],
                    "height": entry["height"],
                    "tube_start_frame": first,
                    "tube_end_frame": end,
                    "start_frame": entry["used_segment"]["begin_fid"],
                    "end_frame": entry["used_segment"]["end_fid"],
                    "target_id": sentence["target_id"],
                    "qtype": qtype,
                    "caption": sentence["description"],
                }
            )
            frames = range(first, end, int(entry["fps"] / 5))
            start = rng.uniform(0, 0.4, 2) * [entry["width"], entry["height"]]
            size = rng.uniform(0.2, 0.4, 2) * [entry["width"], entry["height"]]
            track = trajectories.setdefault(f"{entry['vid']}_{number}", {}).setdefault(str(sentence["target_id"]), {})
            for frame in frames:
                moved = start + 0.1 * size * (frame - first) / (end - first)
                track.setdefault(str(frame), {"bbox": [*moved.tolist(), *size.tolist()]})
            # Of every frame the box moved to the right by a share of its width, so that the IoU is known.
            share = number % 4 / 4
            boxes = np.array([track[str(frame)]["bbox"] for frame in frames])
            left = boxes[:, 0] + share * boxes[:, 2]
            corners = np.stack([left, boxes[:, 1], left + boxes[:, 2], boxes[:, 1] + boxes[:, 3]], axis=1)
            predictions[key] = {"frame_ids": [*frames], "boxes": corners[:, None].tolist(), "qtype": qtype}
    return {"videos": videos, "trajectories": trajectories}, predictions


@pytest.mark.skipif(not REAL.exists(), reason=f"no {REAL.name} in ../shared/data/annotations")
class TestRealEntries:
    def test_the_scores_are_those_that_the_shift_gives(self, real_files):
        annotations, predictions = real_files
        result = score_original(annotations, predictions)
        kinds = {qtype: values["videos"] for qtype, values in result.metrics["corrected"].items()}
        assert sum(kinds.values()) == len(annotations["videos"]) > 3996
        assert result.coverage["coverage"] == 1.0 and not result.warnings
        share = np.array([int(row["key"].split("_")[1]) % 4 / 4 for row in result.per_clip])
        overlap = (1 - share) / (1 + share)
        for protocol in ("official", "corrected"):
            np.testing.assert_allclose([row[protocol]["msIoU"] for row in result.per_clip], overlap, atol=1e-5)
        for qtype in kinds:
            expected = np.mean([(1 - i / 4) / (1 + i / 4) for i in range(4)])
            assert result.metrics["corrected"][qtype]["msIoU"] == pytest.approx(expected, abs=0.02)

    @pytest.mark.slow  # half a minute, most of it in the importer
    def test_the_importer_keeps_the_frames_of_the_protocol(self, real_files, tmp_path):
        annotations, _ = real_files
        path = tmp_path / "prepared.json"
        path.write_text(json.dumps(annotations))
        references = [vidstg_reference_of(record) for record in import_vidstg(path)]
        by_original, _ = read_original_vidstg(annotations, {})
        for ours, theirs in zip(references, by_original, strict=True):
            np.testing.assert_array_equal(ours.frame_indices, theirs.frame_indices)
            assert ours.tube == theirs.tube and ours.qtype == theirs.qtype
