"""Ablations: from result folders to tables, JSON and pictures, with the paper's numbers beside ours."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builders.noise import NoiseModel, noise_generator
from dataset_builders.record import to_record
from dataset_builders.shapes.world import ShapesConfig, iter_clips
from eval.__main__ import main
from eval.ablation_tables import OURS, PAPER
from eval.ablations.data_scale import read_label, scale_lines, scale_notes, scale_points
from eval.ablations.paper_comparison import comparison, headline_name
from eval.ablations.pictures import scale_panels
from eval.ablations.result_folder import ResultFolder, named_folders, read_captions
from eval.ablations.threshold_sweep import THRESHOLDS, sweep_table, threshold_sweep
from eval.iground import score_iground
from eval.paper import ADAPTERS, ANNOTATION, IGROUND
from eval.result_files import write_results
from eval.scoring import ScoreOptions, score_records
from eval.text_similarity import text_similarity
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from tests.records import make_caption

SCORES = {"METEOR": 15.0, "CIDEr": 60.0, "AP50": 30.0, "Recall": 20.0}
CENTER_SCORES = {"AP50 (center)": 25.0, "Recall (center)": 18.0}


def result(headline: dict[str, float | None], clips: int = 7, folder: str = "") -> ResultFolder:
    interval = {"AP50": {"mean": 0.3, "low": 0.28, "high": 0.33}, "Recall": {"mean": 0.2, "low": None, "high": None}}
    results = {
        "benchmark": "iground",
        "headline": {
            "official": headline,
            "corrected": {name: value and value + 1 for name, value in headline.items()},
        },
        "statistics": {"intervals": {"official": interval}},
        "coverage": {"clips": clips},
        "data": {"name": "val.jsonl"},
    }
    return ResultFolder(Path(folder), results)


def save(folder: Path, results: ResultFolder) -> str:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(dict(results.results)), encoding="utf-8")
    return str(folder)


def as_predicted(truth: GroundedCaption, skill: float = 1.6) -> GroundedCaption:
    """A model's answer: one box a phrase in every frame, a little off, with an objectness that is often right."""
    rng = noise_generator(0, truth.key)
    noise = NoiseModel(
        visible=1, centre_jitter=0.08, size_jitter=0.1, spurious=0, missing_object=0, missing_phrase=0.1, synonym=0
    )
    tracks = []
    for track in noise.apply(truth, rng).tracks:
        seen = np.flatnonzero(track.presence)
        nearest = seen[np.abs(seen[None] - np.arange(len(track.presence))[:, None]).argmin(axis=1)]
        logits = np.where(track.presence, skill, -skill) + rng.normal(0, 1.3, len(track.presence))
        objectness = (1 / (1 + np.exp(-logits))).astype(np.float32)
        tracks.append(replace(track, boxes=track.boxes[nearest], presence=objectness > 0.5, objectness=objectness))
    return replace(truth, tracks=tuple(tracks))


@pytest.fixture(scope="module")
def truths() -> list[GroundedCaption]:
    # Those with a phrase that is never visible are left out: the noise has no box to begin with.
    clips = (clip.caption for clip in iter_clips("validation", 10, config=ShapesConfig(64, 64, seconds=3.0)))
    return [clip for clip in clips if all(track.presence.any() for track in clip.tracks)]


@pytest.fixture(scope="module")
def predictions(truths) -> list[GroundedCaption]:
    return [as_predicted(truth) for truth in truths]


@pytest.fixture(scope="module")
def sweep(truths, predictions):
    return threshold_sweep(truths, predictions, text_similarity("head-word"))


class TestThresholdSweep:
    def test_every_threshold_is_that_of_scoring_alone(self, truths, predictions, sweep):
        assert [row["threshold"] for row in sweep] == list(THRESHOLDS) == [round(n / 20, 2) for n in range(20)]
        for row in (sweep[4], sweep[10]):
            clips = [clip.with_threshold(row["threshold"]) for clip in predictions]
            alone = score_iground(truths, clips, similarity=text_similarity("head-word"), captions=False)
            for protocol in ("official", "corrected"):
                means = alone.metrics[protocol]["all"]["per_video"]
                assert row[protocol] == pytest.approx({name: 100 * means[name] for name in ("AP50", "Recall")})
                low, high = row["intervals"][protocol]["AP50"]
                assert low <= row[protocol]["AP50"] <= high and low < high

    def test_fewer_boxes_with_every_threshold(self, sweep):
        boxes = [row["boxes_per_frame"] for row in sweep]
        matched = [row["corrected"]["Recall"] for row in sweep]
        for values in (boxes, matched):
            assert all(a >= b for a, b in itertools.pairwise(values)) and values[0] > values[-1]

    def test_boxes_that_are_cut_off_last_are_the_most_precise(self, sweep):
        assert sweep[16]["presence"]["precision"] > sweep[0]["presence"]["precision"] + 5

    def test_a_threshold_that_leaves_nothing_is_scored_too(self, truths, predictions):
        (row,) = threshold_sweep(truths, predictions, text_similarity("head-word"), thresholds=(0.9999999,))
        # Without any box the original crashes.
        assert row["official"] == {"AP50": None, "Recall": None}
        assert row["corrected"] == {"AP50": 0, "Recall": 0}
        assert row["presence"]["recall"] == 0 and row["boxes_per_frame"] == 0
        assert " - |" in sweep_table([row])

    def test_the_table_has_a_line_a_threshold_and_the_papers_numbers_at_one_half(self, sweep):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in sweep_table(sweep).splitlines()]
        assert len(lines) == 22
        paper = {line[0]: (line[1], line[4]) for line in lines[2:]}
        assert paper.pop("0.50") == ("42.0", "26.9")
        assert set(paper.values()) == {("-", "-")}

    def test_annotation_has_no_thresholds(self, truths):
        with pytest.raises(ValueError, match="^predictions: objectness is 0 or 1 everywhere"):
            threshold_sweep(truths, truths, text_similarity("head-word"))

    def test_predictions_of_another_split_are_refused(self, truths, predictions):
        other = [replace(clip, video_id="other") for clip in predictions]
        with pytest.raises(ValueError, match="none of the .* is annotated .*such as 'other_0'.*another split"):
            threshold_sweep(truths, other, text_similarity("head-word"))

    def test_predictions_of_some_frames_are_refused(self, truths, predictions):
        first = predictions[0]
        tracks = tuple(
            PhraseTrack(t.phrase, t.span, t.boxes[1:], t.presence[1:], t.objectness[1:]) for t in first.tracks
        )
        short = replace(first, tracks=tracks, frame_indices=first.frame_indices[1:], timestamps=first.timestamps[1:])
        with pytest.raises(ValueError, match="some annotated frames are not predicted"):
            threshold_sweep(truths, [short, *predictions[1:]], text_similarity("head-word"))


class TestComparison:
    def test_our_numbers_stand_under_the_papers(self):
        lines = comparison(ADAPTERS, {"unfreeze": result(SCORES), "mine": result(SCORES)})
        assert [(line.key, line.numbers) for line in lines] == [
            ("both", PAPER),
            ("unfreeze", PAPER),
            ("unfreeze", OURS["official"]),
            ("unfreeze", OURS["corrected"]),
            ("adapters", PAPER),
            ("mine", OURS["official"]),
            ("mine", OURS["corrected"]),
        ]
        assert lines[1].values["AP50"] == 39.2
        assert lines[2].values == SCORES and lines[2].intervals == {"AP50": pytest.approx((28, 33))}
        assert lines[3].values["AP50"] == 31 and not lines[3].intervals
        assert lines[5].title == "mine"

    def test_center_and_all_take_their_own_numbers(self):
        lines = comparison(IGROUND, {"pt": result({**SCORES, **CENTER_SCORES})})
        ours = {line.group: line.values for line in lines if line.numbers == OURS["official"]}
        assert ours["all frames"] == SCORES
        assert ours["center frame"] == {**SCORES, "AP50": 25.0, "Recall": 18.0}
        assert headline_name("METEOR", "center frame") == "METEOR"

    def test_a_captioner_of_single_frames_has_no_line_for_all_frames(self):
        scores = {"METEOR": 10.0, "CIDEr": 30.0, **CENTER_SCORES}
        lines = comparison(IGROUND, {"glamm": result(scores)})
        assert {line.group for line in lines if line.numbers != PAPER} == {"center frame"}

    def test_the_average_needs_all_columns(self):
        whole, without = result(SCORES), result({**SCORES, "METEOR": None})
        lines = comparison(ANNOTATION, {"proposed": whole, "frame": without})
        averages = {line.key: line.values["Average"] for line in lines if line.numbers == OURS["official"]}
        assert averages == {"proposed": pytest.approx(31.25), "frame": None}


class TestScale:
    @pytest.mark.parametrize(
        ("label", "point"),
        [
            ("pt:1k", ("pt", 1000)),
            ("PT+FT:1M", ("pt+ft", 1_000_000)),
            ("pt:2.5k", ("pt", 2500)),
            ("mine:10_000", ("mine", 10_000)),
            ("pt+ft:0", ("pt+ft", 0)),
        ],
    )
    def test_labels(self, label, point):
        assert read_label(label) == point

    @pytest.mark.parametrize("label", ["pt", "pt:", "pt:many", ":10", "pt:1g", "pt:-1"])
    def test_wrong_labels_are_named(self, label):
        with pytest.raises(ValueError, match=r"expected CURVE:CLIPS"):
            read_label(label)

    def test_points_are_ordered_and_the_papers_row_follows_its_curve(self):
        labels = ["mine:5k", "pt+ft:10k", "pt:10k", "pt+ft:1k", "pt:1k"]
        points = scale_points({label: result(SCORES) for label in labels})
        assert [(point.curve, point.clips) for point in points] == [
            ("pt", 1000), ("pt", 10_000), ("pt+ft", 1000), ("pt+ft", 10_000), ("mine", 5000)
        ]  # fmt: skip
        lines = scale_lines(points)
        (place,) = [n for n, line in enumerate(lines) if line.numbers == PAPER]
        assert lines[place - 1].key == "pt+ft" and lines[place + 1].key == "mine"
        assert lines[place].values["CIDEr"] == 92.6 and lines[place].title == "1,000,000"

    def test_one_point_has_one_result(self):
        with pytest.raises(ValueError, match="pt:1000: two results"):
            scale_points({"pt:1k": result(SCORES), "pt:1000": result(SCORES)})

    def test_a_reader_learns_what_the_brackets_are(self):
        notes = scale_notes(scale_points({"pt:1k": result(SCORES)}))
        assert "In brackets: 95 % confidence intervals over clips." in notes
        without = replace(result(SCORES), results={**result(SCORES).results, "statistics": {}})
        assert not any("brackets" in note for note in scale_notes(scale_points({"pt:1k": without})))

    def test_a_panel_says_what_it_has_no_number_of(self):
        captions = {name: SCORES[name] for name in ("METEOR", "CIDEr")}
        points = {"pt:1k": result(SCORES), "pt+ft:0": result(captions), "mine:1k": result(captions)}
        assert {panel.title: panel.missing for panel in scale_panels(scale_points(points), "official")} == {
            "CIDEr": [],
            "AP50": ["fine-tuned only", "mine"],
            "Recall": ["fine-tuned only", "mine"],
        }


class TestFolders:
    def test_what_scoring_writes_is_read(self, truths, predictions, tmp_path):
        options = ScoreOptions(text_similarity="head-word", captions=False, resamples=50)
        records = [to_record(truth) for truth in truths]
        scored = score_records("iground", records, predictions, options)
        write_results(tmp_path, scored, references=records, predictions=predictions)
        folder = ResultFolder.load(tmp_path)
        assert folder.references() == truths and folder.predictions() == predictions
        assert folder.protocols == ["official", "corrected"]
        for protocol in folder.protocols:
            value, bounds = folder.value(protocol, "AP50"), folder.interval(protocol, "AP50")
            assert value == scored.headline[protocol]["AP50"]
            assert bounds is not None and bounds[0] <= value <= bounds[1]
        assert folder.value("official", "METEOR") is None
        assert folder.measured_on == f"{len(truths)} clips"

    def test_the_data_are_named_with_the_number_of_clips(self):
        assert result(SCORES, 1500).measured_on == "val.jsonl, 1,500 clips"
        shapes = {"data": {"name": "GroundedShapes (seed 7, 4 clips)"}, "coverage": {"clips": 4}}
        assert ResultFolder(Path(), shapes).measured_on == "GroundedShapes (seed 7, 4 clips)"
        assert ResultFolder(Path(), {}).measured_on == "unnamed data"

    def test_folders_that_are_none_are_named(self, tmp_path):
        with pytest.raises(ValueError, match="has no results.json; expected a folder"):
            ResultFolder.load(tmp_path)
        for text, message in [
            ('{"benchmark": "vidstg", "headline": {"official": {}}}', "benchmark: got 'vidstg', expected 'iground'"),
            ('{"benchmark": "iground", "headline": {}}', "headline: expected the scores by protocol"),
            ("[]", "headline: expected the scores by protocol"),
        ]:
            (tmp_path / "results.json").write_text(text, encoding="utf-8")
            with pytest.raises(ValueError, match=message):
                ResultFolder.load(tmp_path)
        with pytest.raises(ValueError, match=r"references.jsonl: no such file; pass the records .* --annotations"):
            ResultFolder(tmp_path, {}).references()

    def test_a_wrong_line_is_named_with_clip_and_field(self, tmp_path):
        record = to_record(make_caption())
        file = tmp_path / "references.jsonl"
        file.write_text(json.dumps(record) + "\n" + json.dumps({**record, "fps": None}) + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"references.jsonl: entry 2: clip 'video_0': fps: missing"):
            read_captions(file)
        file.write_text("", encoding="utf-8")
        with pytest.raises(ValueError, match="empty"):
            read_captions(file)

    def test_names_are_given_once(self):
        assert named_folders(["PT+FT=a=b", "own=c"]) == {"pt+ft": Path("a=b"), "own": Path("c")}
        for values, message in [
            (["a"], "expected NAME=DIR"),
            (["=a"], "NAME=DIR"),
            (["a=b", "A=c"], "'a' is given twice"),
        ]:
            with pytest.raises(ValueError, match=message):
                named_folders(values)


class TestCommand:
    def check(self, output: Path, study: str, pictures: list[str]) -> dict:
        assert sorted(path.name for path in output.iterdir()) == sorted([f"{study}.json", f"{study}.md", *pictures])
        page = (output / f"{study}.md").read_text(encoding="utf-8")
        for name in pictures:
            assert f"]({name})" in page
            with Image.open(output / name) as picture:
                picture.verify()
        return json.loads((output / f"{study}.json").read_text(encoding="utf-8"))

    @pytest.mark.parametrize(
        ("study", "key"), [("adapters", "both"), ("annotation", "tracker"), ("baselines", "pt+ft")]
    )
    def test_a_table_of_the_paper(self, study, key, tmp_path, capsys):
        folder = save(tmp_path / "result", result({**SCORES, **CENTER_SCORES}))
        output = tmp_path / "out"
        assert main(["ablate", study, f"{key}={folder}", "--output", str(output)]) == 0
        printed = capsys.readouterr().out
        assert "ours, corrected" in printed and "Ours, " + key + ": val.jsonl, 7 clips." in printed
        content = self.check(output, study, [f"{study}.png"])
        assert content["study"] == study and str(tmp_path) not in json.dumps(content)
        assert any(line["key"] == key and line["numbers"] == OURS["official"] for line in content["lines"])

    def test_scale_has_a_picture_for_each_protocol(self, tmp_path, capsys):
        folders = [
            f"{name}={save(tmp_path / name.replace(':', '_'), result(SCORES))}"
            for name in ("pt:1k", "pt:10k", "pt+ft:0")
        ]
        output = tmp_path / "out"
        assert main(["ablate", "scale", *folders, "--output", str(output), "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == self.check(output, "scale", ["scale.png", "scale_corrected.png"])
        titles = [line["title"] for line in printed["lines"] if line["numbers"] != "ours, corrected"]
        assert titles == ["1,000", "10,000", "0", "1,000,000"]

    def test_threshold_from_a_run(self, truths, predictions, tmp_path, capsys):
        folder = Path(save(tmp_path / "run", result(SCORES, len(truths))))
        lines = {
            "predictions.jsonl": [clip.to_dict() for clip in predictions],
            "val.jsonl": [to_record(t) for t in truths],
        }
        for name, values in lines.items():
            (folder / name).write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
        command = [
            "ablate",
            "threshold",
            str(folder),
            "--text-similarity",
            "head-word",
            "--output",
            str(tmp_path / "out"),
        ]
        assert main(command) == 2
        assert "--annotations" in capsys.readouterr().err
        assert main([*command, "--annotations", str(folder / "val.jsonl")]) == 0
        assert "Highest: AP50 (official) at" in capsys.readouterr().out
        content = self.check(tmp_path / "out", "threshold", ["threshold.png"])
        assert len(content["rows"]) == 20 and content["text_similarity"] == "head-word"
        values = [row["corrected"]["AP50"] for row in content["rows"]]
        assert all(math.isfinite(value) for value in values) and max(values) > 30

    def test_mistakes_are_one_line(self, tmp_path, capsys):
        assert main(["ablate", "adapters", "both=nowhere", "--output", str(tmp_path / "out")]) == 2
        assert "nowhere: has no results.json" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
