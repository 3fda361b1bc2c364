"""Pointing accuracy: every recorded value of the original for both benchmarks, and what `corrected` does instead."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.importers.pointing import import_pointing
from dataset_builders.record import from_record
from eval.pointing import (
    SEGMENT_FIELDS,
    PointingPrediction,
    PointingReference,
    pointing_prediction,
    pointing_reference,
    read_original_pointing,
    score_pointing,
)
from tests.records import make_caption

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
BENCHMARKS = tuple(SEGMENT_FIELDS)
EDGE_CASES = [
    pytest.param(benchmark, case, id=f"{benchmark}-{case['name']}")
    for benchmark in BENCHMARKS
    for case in json.loads((GOLDEN / benchmark / "edge_cases.json").read_text())
]
BOX = np.array([[0.0, 0.0, 10.0, 10.0]], dtype=np.float32)
AWAY = BOX + 50


def read(benchmark, name):
    return json.loads((GOLDEN / benchmark / name).read_text())


def score_original(benchmark, annotations, predictions, *protocols):
    files = read_original_pointing(annotations, predictions, benchmark=benchmark)
    return score_pointing(*files, benchmark=benchmark, protocols=protocols or ("official", "corrected"))


def score(boxes, answer, *protocols):
    reference = PointingReference("a_0", np.array(boxes, dtype=float).reshape(-1, 4))
    predictions = [PointingPrediction("a_0", tuple(answer))]
    return score_pointing(
        [reference], predictions, benchmark="grounding_youtube", protocols=protocols or ("official", "corrected")
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS)
class TestOfficial:
    def test_recorded_accuracy(self, benchmark):
        expected = read(benchmark, "expected.json")
        result = score_original(
            benchmark, read(benchmark, "ground_truth.json"), read(benchmark, "predictions.json"), "official"
        )
        metrics = result.metrics["official"]
        assert (metrics["correct"], metrics["valid"]) == (expected["total_correct"], expected["total_valid"])
        assert result.headline["official"]["accuracy"] == expected["accuracy_percent"]
        assert result.benchmark == benchmark

    def test_recorded_segments(self, benchmark):
        expected = read(benchmark, "expected.json")["per_segment"]
        result = score_original(
            benchmark, read(benchmark, "ground_truth.json"), read(benchmark, "predictions.json"), "official"
        )
        assert [row["key"] for row in result.per_clip] == [*expected]
        for row in result.per_clip:
            wanted, got = expected[row["key"]], row["official"]
            assert (got["correct"], got["valid"]) == (wanted["total_correct"], wanted["total_valid"])
            assert 100 * got["accuracy"] == wanted["accuracy_percent"]
            assert (
                got["hits"].count(True) == got["correct"] and len(got["hits"]) - got["hits"].count(None) == got["valid"]
            )

    def test_files_of_the_other_benchmark(self, benchmark):
        (other,) = set(BENCHMARKS) - {benchmark}
        with pytest.raises(ValueError, match=rf"segment 0: {SEGMENT_FIELDS[benchmark]}: missing; .*other benchmark"):
            score_original(benchmark, read(other, "ground_truth.json"), read(other, "predictions.json"))


@pytest.mark.parametrize(("benchmark", "case"), EDGE_CASES)
def test_edge_case(benchmark, case):
    if "error" in case:
        with pytest.raises(ValueError, match="no predictions|segment 'a_0': ") as caught:
            score_original(benchmark, case["ground_truth"], case["predictions"], "official")
        assert "\n" not in str(caught.value)
        return
    result = score_original(benchmark, case["ground_truth"], case["predictions"], "official")
    metrics = result.metrics["official"]
    got = {
        "accuracy_percent": result.headline["official"]["accuracy"],
        "total_correct": metrics["correct"],
        "total_valid": metrics["valid"],
    }
    assert got == case["expected"]


class TestCorrected:
    def test_missing_seconds_are_misses(self):
        result = score([BOX] * 4, [BOX])
        assert result.metrics["official"] == {"accuracy": 1.0, "correct": 1, "valid": 1}
        assert result.metrics["corrected"] == {"accuracy": 0.25, "correct": 1, "valid": 4}
        assert result.warnings == {"seconds_not_predicted": 3}
        assert result.per_clip[0]["corrected"]["hits"] == [True, False, False, False]

    def test_a_missing_segment_is_missed(self):
        references = [PointingReference(key, BOX.astype(float)) for key in ("a_0", "b_0")]
        predictions = [PointingPrediction("a_0", (BOX,))]
        result = score_pointing(references, predictions, benchmark="grounding_youtube", protocols=("corrected",))
        assert result.metrics["corrected"] == {"accuracy": 0.5, "correct": 1, "valid": 2}
        assert result.coverage["missing"] == ["b_0"]
        with pytest.raises(ValueError, match=r"segment 'b_0': predictions: none \(as for 1 of 2\)"):
            score_pointing(references, predictions, benchmark="grounding_youtube")

    def test_no_box_is_a_miss(self):
        assert score([BOX], [BOX[:0]], "corrected").metrics["corrected"]["accuracy"] == 0.0
        with pytest.raises(ValueError, match=r"segment 'a_0': final_boxes\[0\]: got \[\]"):
            score([BOX], [BOX[:0]])

    def test_a_nan_spoils_its_own_box_only(self):
        result = score([BOX, BOX], [np.concatenate([BOX, BOX * np.nan]), np.concatenate([BOX * np.nan, BOX])])
        assert result.metrics["official"]["correct"] == 0
        assert result.per_clip[0]["corrected"]["hits"] == [True, False]
        assert result.warnings == {"seconds_with_nan_boxes": 2, "seconds_with_surplus_boxes": 2}

    def test_nothing_annotated_is_no_accuracy(self):
        result = score([BOX * np.nan], [BOX])
        assert result.headline["official"]["accuracy"] == 0.0
        assert math.isnan(result.headline["corrected"]["accuracy"])

    def test_borders_are_inside(self):
        centres = [(0, 0), (10, 10), (0, 10), (10.001, 5), (5, -0.001)]
        answers = [np.array([[x - 3, y - 2, x + 3, y + 2]]) for x, y in centres]
        assert score([BOX] * 5, answers).per_clip[0]["corrected"]["hits"] == [True, True, True, False, False]

    def test_surplus_seconds_are_ignored_and_counted(self):
        result = score([BOX], [BOX, AWAY])
        assert result.metrics["official"] == result.metrics["corrected"] == {"accuracy": 1.0, "correct": 1, "valid": 1}
        assert result.warnings == {"seconds_not_annotated": 1}


class TestBadInput:
    def test_predictions_for_another_split(self):
        reference = PointingReference("a_0", BOX.astype(float))
        with pytest.raises(ValueError, match="none of the 1 predicted keys"):
            score_pointing([reference], [PointingPrediction("z_9", (BOX,))], benchmark="youcook_interactions")

    def test_unknown_benchmark(self):
        with pytest.raises(ValueError, match="benchmark: got 'youcook', expected one of youcook_interactions"):
            score_pointing([], [], benchmark="youcook")

    @pytest.mark.parametrize(
        ("annotation", "prediction", "message"),
        [
            ({"segment_bboxes": None}, {}, "segment 'a_0': segment_bboxes: got a NoneType"),
            ({"segment_bboxes": [[1, 2]]}, {}, r"segment 'a_0': segment_bboxes\[0\]: got \[1, 2\]"),
            ({"segment_bboxes": [[1, 2, 3, float("nan")]]}, {}, r"segment 'a_0': segment_bboxes\[0\]: .*finite"),
            ({}, {"final_boxes": 3}, "segment 'a_0': final_boxes: got a int"),
            ({}, {"final_boxes": [[1, 2, 3, 4]]}, r"segment 'a_0': final_boxes\[0\]: got \[1, 2, 3, 4\]"),
            ({}, [], "segment 'a_0': got a list, expected an object"),
        ],
    )
    def test_original_files(self, annotation, prediction, message):
        segment = {"video_id": "a", "segment_youcook_idx": 0, "segment_bboxes": [[0, 0, 1, 1]]} | annotation
        with pytest.raises(ValueError, match=message):
            score_original("youcook_interactions", [segment], {"a_0": prediction})

    def test_files_that_are_something_else(self):
        with pytest.raises(ValueError, match="got a dict and a list, expected a list of segments"):
            read_original_pointing({}, [], benchmark="youcook_interactions")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
class TestRecords:
    def test_they_score_as_the_original_files(self, benchmark):
        records = [*import_pointing(GOLDEN / benchmark / "ground_truth.json")]
        by_original, answers = read_original_pointing(
            read(benchmark, "ground_truth.json"), read(benchmark, "predictions.json"), benchmark=benchmark
        )
        references = [pointing_reference(from_record(record)) for record in records]
        for ours, theirs in zip(references, by_original, strict=True):
            assert ours.key == theirs.key
            np.testing.assert_array_equal(ours.boxes, theirs.boxes)  # although records are float32
        ours, theirs = (
            score_pointing(found, answers, benchmark=benchmark).metrics for found in (references, by_original)
        )
        assert ours == theirs

    def test_perfect_answers_are_all_hits(self, benchmark):
        captions = [from_record(record) for record in import_pointing(GOLDEN / benchmark / "ground_truth.json")]
        result = score_pointing(
            [pointing_reference(caption) for caption in captions],
            [pointing_prediction(caption.with_threshold(1.0)) for caption in captions],  # objectness does not matter
            benchmark=benchmark,
        )
        assert result.metrics["official"]["accuracy"] == result.metrics["corrected"]["accuracy"] == 1.0

    def test_frames_are_found_by_their_number(self, benchmark):
        reference = PointingReference("a_0", np.concatenate([BOX, AWAY]).astype(float), np.array([30, 60]))
        answers = [PointingPrediction("a_0", (BOX, BOX, AWAY), np.array([30, 45, 60]))]
        assert score_pointing([reference], answers, benchmark=benchmark).metrics["official"]["accuracy"] == 1.0
        answers = [PointingPrediction("a_0", (BOX,), np.array([7]))]
        with pytest.raises(ValueError, match=r"^clip 'a_0': frame_indices: .*expected those of 30\.\.60"):
            score_pointing([reference], answers, benchmark=benchmark)

    def test_records_and_captions_can_be_given_as_they_are(self, benchmark):
        records = [*import_pointing(GOLDEN / benchmark / "ground_truth.json")]
        captions = [from_record(record).with_threshold(1.0) for record in records]
        made = [pointing_reference(from_record(r)) for r in records], [pointing_prediction(c) for c in captions[1:]]
        expected = score_pointing(*made, benchmark=benchmark, protocols=("corrected",))
        assert 0 < expected.metrics["corrected"]["accuracy"] < 1
        for references in (records, [from_record(record) for record in records]):
            result = score_pointing(references, captions[1:], benchmark=benchmark, protocols=("corrected",))
            assert (result.metrics, result.per_clip) == (expected.metrics, expected.per_clip)
        with pytest.raises(ValueError, match=r"^clip 'video_0': tracks: got 3, expected one"):
            score_pointing(records, [make_caption()], benchmark=benchmark)
        broken = records[0] | {"width": "x"}
        with pytest.raises(ValueError, match=f"^clip '{captions[0].key}': .*width"):
            score_pointing([broken], captions, benchmark=benchmark)
