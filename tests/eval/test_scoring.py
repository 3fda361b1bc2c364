"""Records and captions of all benchmarks, scored as `run` and training do it."""

import json
from dataclasses import replace

import pytest

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.importers.pointing import import_pointing
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.noise import NoiseModel, noise_generator
from dataset_builders.record import from_record, record_key, to_record
from dataset_builders.shapes import make_clip
from eval.results import PROTOCOLS
from eval.scoring import ScoreOptions, score_records
from tests.records import make_caption

from .score_command import (
    GOLDEN,
    LEMMAS,
    annotated_captions,
    golden,
    predicted_captions,
    same,
    score,
    write_captions,
)

QUICK = ScoreOptions(text_similarity="head-word", captions=False)


@pytest.fixture(scope="module")
def truth():
    return annotated_captions()


@pytest.fixture(scope="module")
def said(truth):
    return predicted_captions(truth)


class TestRecords:
    """The benchmarks on records and captions, as `run` scores them."""

    def test_iground(self, truth, said):
        records = [to_record(caption) for caption in truth]
        result = score_records("iground", records, said, QUICK)
        assert result.coverage["coverage"] == 1.0
        perfect = score_records("iground", records, truth, QUICK)
        assert perfect.headline["corrected"]["AP50"] == perfect.headline["corrected"]["Recall"] == 100
        assert 0 < result.headline["corrected"]["Recall"] <= 100

    def test_shapes_with_noise(self):
        """GroundedShapes and pseudo-labels of it, whose captions lack phrases and whose boxes are off."""
        captions = [make_clip(seed).caption for seed in range(3)]
        noisy = [NoiseModel().apply(caption, noise_generator(0, caption.key)) for caption in captions]
        result = score_records("iground", [*map(to_record, captions)], noisy, QUICK)
        assert 5 < result.headline["corrected"]["AP50"] < 60

    def test_vidstg(self):
        records = list(import_vidstg(GOLDEN / "vidstg" / "ground_truth.json", lambda problem: None))
        assert len(records) > 20
        result = score_records("vidstg", records, [from_record(record) for record in records], QUICK)
        assert result.metrics["corrected"]["declarative"]["msIoU"] == 1.0
        interval = result.statistics["intervals"]["corrected"]["msIoU (declarative)"]
        assert (interval["low"], interval["high"]) == (1.0, 1.0)

    def test_vidstg_as_files_of_both_kinds(self, tmp_path):
        annotations = GOLDEN / "vidstg" / "ground_truth.json"
        records = [*import_vidstg(annotations, lambda problem: None)]
        path = write_captions(tmp_path / "said.jsonl", map(from_record, records))
        (tmp_path / "truth.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        of_records = score("vidstg", tmp_path / "truth.jsonl", path)
        assert of_records.status == 0
        assert same(of_records.result["headline"]["corrected"]["msIoU (interrogative)"], 100)

    @pytest.mark.parametrize("benchmark", ["youcook_interactions", "grounding_youtube"])
    def test_pointing(self, benchmark, tmp_path):
        annotations = GOLDEN / benchmark / "ground_truth.json"
        records = [*import_pointing(annotations)]
        captions = [from_record(record) for record in records]
        result = score_records(benchmark, records, captions, QUICK)
        for protocol in PROTOCOLS:
            assert result.metrics[protocol]["accuracy"] == 1.0
            assert result.metrics[protocol]["valid"] == golden(benchmark, "expected.json")["total_valid"] + 8
        # The original's annotations, and predictions of ours.
        mixed = score(benchmark, annotations, write_captions(tmp_path / "said.jsonl", captions))
        assert mixed.result["metrics"] == result.metrics

    def test_activitynet_entities(self, tmp_path):
        document = golden("anet", "ground_truth.json")
        for entry in document["annotations"].values():
            entry |= {"width": 720, "height": 405, "fps": 25.0, "num_frames": 100_000}
        path = tmp_path / "anet.json"
        path.write_text(json.dumps(document))
        records = list(import_activitynet_entities([path], lambda problem: None))
        options = ScoreOptions(lemmas=LEMMAS)
        result = score_records("activitynet_entities", records, [from_record(record) for record in records], options)
        assert result.coverage["coverage"] == 1.0
        assert result.headline["corrected"]["F1_loc"] > 90

    def test_error_names_the_clip(self):
        record = to_record(make_caption("a", 7))
        with pytest.raises(ValueError, match="clip 'a_7'.*labels"):
            score_records("iground", [{**record, "labels": record["labels"][1:]}], [from_record(record)], QUICK)
        with pytest.raises(ValueError, match="clip 'a_7'.*expected one"):
            score_records("youcook_interactions", [record], [from_record(record)], QUICK)

    def test_unknown_benchmark(self, truth):
        with pytest.raises(ValueError, match="benchmark: got 'coco'"):
            score_records("coco", [], truth, QUICK)

    def test_predictions_on_other_frames(self, truth):
        records = [to_record(caption) for caption in truth]
        moved = [
            replace(c, frame_indices=c.frame_indices[:-1] + 1, timestamps=c.timestamps[:-1], tracks=()) for c in truth
        ]
        with pytest.raises(ValueError, match=f"clip '{record_key(records[0])}'.*frame_indices"):
            score_records("iground", records, moved, QUICK)
