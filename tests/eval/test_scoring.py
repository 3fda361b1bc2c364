"""The `score` command: options, what it writes, and the benchmarks on records of ours."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.importers.pointing import import_pointing
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.noise import NoiseModel, noise_generator
from dataset_builders.record import from_record, record_key, to_record
from dataset_builders.shapes import make_clip
from eval.__main__ import main
from eval.results import PROTOCOLS
from eval.scoring import ScoreOptions, score_records
from modeling_grove.grounded_caption import GroundedCaption
from tests.records import make_caption, make_videos

from .score_command import GOLDEN, LEMMAS, TINY_BERT, command, golden, refused, same, score

HEAD = ("--text-similarity", "head-word", "--no-captions")
QUICK = ScoreOptions(text_similarity="head-word", captions=False)
FILES = GOLDEN / "iground" / "ground_truth.json", GOLDEN / "iground" / "predictions.json"


def written(path, captions):
    path.write_text("".join(f"{json.dumps(caption.to_dict())}\n" for caption in captions), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def truth():
    """Annotated clips of 10 frames, whose phrases come and go."""
    return [make_caption(f"video{n}", n, seed=n) for n in range(6)]


@pytest.fixture(scope="module")
def said(truth):
    """Predictions with objectness: boxes a little off, and not always there."""
    rng = np.random.default_rng(5)
    captions = []
    for caption in truth:
        tracks = []
        for track in caption.tracks:
            boxes = np.nan_to_num(track.boxes, nan=5.0) + rng.normal(0, 1, track.boxes.shape)
            objectness = np.clip(0.8 * track.presence + rng.uniform(0, 0.3, len(boxes)), 0, 1)
            tracks.append(replace(track, boxes=boxes, presence=objectness > 0.5, objectness=objectness))
        captions.append(replace(caption, tracks=tuple(tracks)))
    return captions


@pytest.fixture(scope="module")
def folder(truth, said, tmp_path_factory):
    """A result folder with pictures, and what was printed. Two of the videos are there."""
    place = tmp_path_factory.mktemp("scored")
    videos = make_videos(place / "videos" / "deeper", ["video0", "video1"])
    files = written(place / "truth.jsonl", truth), written(place / "said.jsonl", said)
    out = place / "out"
    answer = score("iground", *files, *HEAD, "--output", out, "--worst", 3, "--videos", videos.parent)
    assert answer.status == 0
    return out, answer.result


class TestCommand:
    def test_both_protocols_side_by_side(self):
        answer = score("iground", *FILES, *HEAD)
        assert [*answer.result["headline"]] == [*answer.result["metrics"]] == [*PROTOCOLS]
        alone = score("iground", *FILES, *HEAD, "--protocol", "corrected")
        assert [*alone.result["headline"]] == ["corrected"]
        assert alone.result["metrics"]["corrected"] == answer.result["metrics"]["corrected"]

    def test_table_for_people(self, capsys):
        result = command(
            "score", "iground", "--annotations", FILES[0], "--predictions", FILES[1], *HEAD, "--json"
        ).result
        assert main(["score", "iground", "--annotations", str(FILES[0]), "--predictions", str(FILES[1]), *HEAD]) == 0
        text = capsys.readouterr().out
        lines = {line.split("  ")[0]: line for line in text.splitlines()}
        assert lines["iground"].split() == ["iground", "official", "corrected"]
        for protocol in PROTOCOLS:
            assert f"{result['headline'][protocol]['AP50']:.2f} [" in lines["AP50"]
        assert "33 of 34 clips are predicted (97.1 %); missing: vis012_14" in text
        assert "presence" in text and "inverted boxes" in text

    def test_clips_only_if_asked(self):
        files = "--annotations", FILES[0], "--predictions", FILES[1]
        assert "per_clip" not in command("score", "iground", *files, *HEAD, "--json").result
        assert "--json" in refused(command("score", "iground", *files, *HEAD, "--with-clips"))

    def test_strict(self, truth, said, tmp_path):
        files = written(tmp_path / "truth.jsonl", truth), written(tmp_path / "said.jsonl", said[1:])
        assert score("iground", *files, *HEAD).status == 0
        strict = score("iground", *files, *HEAD, "--strict")
        assert strict.status == 2 and strict.result is not None
        assert strict.error.splitlines() == [
            "error: 5 of 6 clips are predicted (83.3 %); missing: video0_0; --strict wants all of them"
        ]
        whole = score("iground", files[0], written(tmp_path / "said.jsonl", said), *HEAD, "--strict")
        assert whole.status == 0 and whole.error == ""

    def test_statistics(self, truth, said, tmp_path):
        files = written(tmp_path / "truth.jsonl", truth), written(tmp_path / "said.jsonl", said)
        statistics = score("iground", *files, *HEAD).result["statistics"]
        assert 0 < statistics["presence"]["f1"] <= 1 and 0 < statistics["tracks"]["mean_iou"] < 1
        assert 0 < statistics["calibration"]["ECE"] < 0.5
        for protocol in PROTOCOLS:
            interval = statistics["intervals"][protocol]["AP50"]
            assert interval["low"] <= interval["mean"] <= interval["high"] and interval["clips"] == 6
        assert score("iground", *files, *HEAD, "--no-statistics").result["statistics"] == {}

    def test_calibration_is_in_the_table(self, truth, said, tmp_path, capsys):
        files = written(tmp_path / "truth.jsonl", truth), written(tmp_path / "said.jsonl", said)
        main(["score", "iground", "--annotations", str(files[0]), "--predictions", str(files[1]), *HEAD])
        assert "ECE 0." in capsys.readouterr().out

    def test_per_clip_file(self, tmp_path):
        path = tmp_path / "more" / "clips.jsonl"
        answer = score("iground", *FILES, *HEAD, "--per-clip", path)
        assert [json.loads(line) for line in path.read_text().splitlines()] == answer.result["per_clip"]

    def test_merged_instances(self):
        raw, merged = (
            score("iground", *FILES, *HEAD, "--protocol", "corrected", *more).result["per_clip"]
            for more in ((), ("--merge-instances",))
        )
        boxes = [[row["corrected"]["truth_boxes"] for row in rows] for rows in (raw, merged)]
        assert all(few <= many for many, few in zip(*boxes, strict=True)) and sum(boxes[1]) < sum(boxes[0])

    def test_unknown_text_model(self, tmp_path):
        assert "head-word" in refused(score("iground", *FILES, "--text-model", tmp_path))

    def test_worst_needs_a_folder(self):
        assert "--output" in refused(score("iground", *FILES, *HEAD, "--worst", "2"))

    def test_help_shows_how_to_convert(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["score", "--help"])
        assert ended.value.code == 0
        assert "json.dump(clips, file, default=lambda array: array.tolist())" in capsys.readouterr().out


class TestFolder:
    def test_results(self, folder):
        out, printed = folder
        results = json.loads((out / "results.json").read_text())
        for name in ("benchmark", "headline", "metrics", "statistics", "coverage", "warnings"):
            assert results[name] == printed[name]
        assert results["data"] == {"name": "truth.jsonl", "split": None} and results["predictions"] == "said.jsonl"
        assert results["settings"]["text_similarity"] == "head-word" and results["versions"]["numpy"]

    def test_no_path_of_this_machine(self, folder):
        out, _ = folder
        for path in out.glob("*.json*"):
            text = path.read_text()
            assert str(out.parent) not in text and str(Path.cwd()) not in text

    def test_what_was_scored(self, folder, truth, said):
        out, printed = folder
        assert [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()] == printed["per_clip"]
        references = [json.loads(line) for line in (out / "references.jsonl").read_text().splitlines()]
        assert [from_record(record) for record in references] == truth
        predictions = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        assert [GroundedCaption.from_dict(line) for line in predictions] == said

    def test_scored_again_it_is_the_same(self, folder):
        out, printed = folder
        again = score("iground", out / "references.jsonl", out / "predictions.jsonl", *HEAD)
        assert again.result == printed

    def test_worst_clips(self, folder):
        out, printed = folder
        order = sorted((row["corrected"]["AP50"], row["key"]) for row in printed["per_clip"])
        pictures = sorted(path.name for path in (out / "worst").glob("*.png"))
        assert pictures == [f"{n:02d}_{key}.png" for n, (_, key) in enumerate(order[:3], start=1)]
        assert (out / "worst" / "index.html").is_file()

    def test_files_of_the_original_leave_no_half_data_set(self, tmp_path):
        (tmp_path / "predictions.jsonl").write_text("{}")
        answer = score("iground", *FILES, *HEAD, "--output", tmp_path, "--worst", 1, "--videos", tmp_path)
        assert answer.status == 0
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"results.json", "clips.jsonl", "worst"}  # nothing of an earlier result


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
        path = written(tmp_path / "said.jsonl", map(from_record, records))
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
        mixed = score(benchmark, annotations, written(tmp_path / "said.jsonl", captions))
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


class TestProcesses:
    """The command in processes of its own, as it is typed."""

    def test_value(self):
        files = ("--annotations", FILES[0], "--predictions", FILES[1])
        bert = ("--text-similarity", "bert", "--text-model", TINY_BERT, "--no-captions")
        arguments = ("-m", "eval", "score", "iground", *files, *bert, "--protocol", "official", "--json")
        done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120)
        recorded = golden("iground", "expected.json")["runs"]["all"]["per_video"]
        values = json.loads(done.stdout)["metrics"]["official"]["all"]["per_video"]
        assert done.returncode == 0
        assert same(values["Recall"], recorded["Recall_bert"]) and same(values["AP50"], recorded["AP50"])

    def test_error_is_one_line(self, tmp_path):
        """And it comes before anything is imported that only some metrics or pictures need."""
        path = tmp_path / "said.jsonl"
        path.write_text("")
        arguments = ["score", "iground", "--annotations", str(FILES[0]), "--predictions", str(path)]
        code = (
            f"import sys; from eval.__main__ import main; status = main({arguments!r}); "
            "late = {'matplotlib', 'evaluate', 'spacy', 'pycocoevalcap', 'pycocotools'} & sys.modules.keys(); "
            "sys.exit(f'imported {late}' if late else status)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.splitlines() == [f"error: {path}: no clip in it; expected the predictions"]
