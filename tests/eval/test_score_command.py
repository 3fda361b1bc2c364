"""The `score` command: what it takes, prints and writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.record import from_record, record_key, to_record
from eval.__main__ import main
from eval.results import PROTOCOLS
from eval.score_command import video_finder
from modeling_grove.grounded_caption import GroundedCaption
from tests.records import make_videos

from .score_command import (
    GOLDEN,
    LEMMAS,
    TINY_BERT,
    annotated_captions,
    command,
    golden,
    predicted_captions,
    refused,
    same,
    score,
    write_captions,
)

HEAD = ("--text-similarity", "head-word", "--no-captions")
CLIPS_MISSING = "33 of 34 clips are predicted (97.1 %); missing: vis012_14\n"
FILES = GOLDEN / "iground" / "ground_truth.json", GOLDEN / "iground" / "predictions.json"


@pytest.fixture(scope="module")
def truth():
    return annotated_captions()


@pytest.fixture(scope="module")
def said(truth):
    return predicted_captions(truth)


@pytest.fixture(scope="module")
def folder(truth, said, tmp_path_factory):
    """A result folder with pictures, and what was printed. Two of the videos are there."""
    place = tmp_path_factory.mktemp("scored")
    videos = make_videos(place / "videos" / "deeper", ["video0", "video1"])
    files = write_captions(place / "truth.jsonl", truth), write_captions(place / "said.jsonl", said)
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
        files = write_captions(tmp_path / "truth.jsonl", truth), write_captions(tmp_path / "said.jsonl", said[1:])
        assert score("iground", *files, *HEAD).status == 0
        strict = score("iground", *files, *HEAD, "--strict")
        assert strict.status == 2 and strict.result is not None
        assert strict.error.splitlines() == [
            "error: 5 of 6 clips are predicted (83.3 %); missing: video0_0; --strict wants all of them"
        ]
        whole = score("iground", files[0], write_captions(tmp_path / "said.jsonl", said), *HEAD, "--strict")
        assert whole.status == 0 and whole.error == ""

    def test_statistics(self, truth, said, tmp_path):
        files = write_captions(tmp_path / "truth.jsonl", truth), write_captions(tmp_path / "said.jsonl", said)
        statistics = score("iground", *files, *HEAD).result["statistics"]
        assert 0 < statistics["presence"]["f1"] <= 1 and 0 < statistics["tracks"]["mean_iou"] < 1
        assert 0 < statistics["calibration"]["ECE"] < 0.5
        for protocol in PROTOCOLS:
            interval = statistics["intervals"][protocol]["AP50"]
            assert interval["low"] <= interval["mean"] <= interval["high"] and interval["clips"] == 6
        assert score("iground", *files, *HEAD, "--no-statistics").result["statistics"] == {}

    def test_calibration_is_in_the_table(self, truth, said, tmp_path, capsys):
        files = write_captions(tmp_path / "truth.jsonl", truth), write_captions(tmp_path / "said.jsonl", said)
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


class TestRefused:
    """What cannot work is said before anything is read: the files are not even there."""

    def error(self, benchmark, *options):
        return refused(score(benchmark, "nowhere.jsonl", "neither.jsonl", *options))

    @pytest.mark.parametrize(
        ("benchmark", "options", "message"),
        [
            ("iground", ["--split", "val"], "--split: nowhere.jsonl is one file"),
            ("iground", ["--lemmas", "zzz"], "--lemmas: is for activitynet_entities alone, got iground"),
            ("vidstg", ["--device", "cpu"], "--device: is for the text model"),
            ("iground", ["--device", "cpu", *HEAD], "--device: is for the text model"),
            ("iground", ["--device", "foo"], "--device: got 'foo'; expected one that this machine has: cpu"),
            ("iground", ["--worst", "-1"], "--worst: expected the number"),
            ("vidstg", ["--videos", "."], "--videos: is for --worst"),
            ("iground", ["--videos", "nope", "--worst", "1", "--output", "out"], "--videos: nope is no folder"),
        ],
    )
    def test_option(self, benchmark, options, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert message in self.error(benchmark, *options)
        assert not [*tmp_path.iterdir()]

    def test_places_to_write(self, tmp_path):
        file = tmp_path / "file"
        file.write_text("kept")
        (tmp_path / "run.json").write_text("{}")
        assert f"--per-clip: {tmp_path} is a folder" in self.error("iground", "--per-clip", tmp_path)
        assert f"--output: {file} is a file" in self.error("iground", "--output", file)
        assert "has the predictions of a run" in self.error("iground", "--output", tmp_path)
        assert file.read_text() == "kept" and len([*tmp_path.iterdir()]) == 2

    def test_split_file_beside_records(self, truth, said, tmp_path):
        files = write_captions(tmp_path / "truth.jsonl", truth), write_captions(tmp_path / "said.jsonl", said)
        error = refused(score("activitynet_entities", *files, "--split-file", tmp_path / "none.json", "--split", "val"))
        assert "--split-file" in error and "has records" in error

    def test_files_of_the_original_cannot_be_drawn(self, tmp_path):
        files = GOLDEN / "vidstg" / "ground_truth.json", GOLDEN / "vidstg" / "predictions.json"
        assert "--worst" in refused(score("vidstg", *files, "--worst", 1, "--output", tmp_path / "out"))
        assert not (tmp_path / "out").exists()


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

    def test_no_folder_of_the_lemmas(self, tmp_path):
        anet = GOLDEN / "anet"
        files = anet / "ground_truth.json", anet / "predictions.json"
        options = "--split-file", anet / "split.json", "--lemmas", LEMMAS, "--output", tmp_path / "out"
        assert score("activitynet_entities", *files, *options).status == 0
        text = (tmp_path / "out" / "results.json").read_text()
        results = json.loads(text)
        assert str(anet.parent) not in text
        assert (
            results["settings"]["lemmas"] == "table:lemma_table.json" and "text_similarity" not in results["settings"]
        )
        assert results["data"] == {"name": "ground_truth.json", "split": "validation"}

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

    def test_worst_of_another_benchmark(self, tmp_path):
        records = [*import_vidstg(GOLDEN / "vidstg" / "ground_truth.json", lambda problem: None)]
        (tmp_path / "truth.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        said = write_captions(tmp_path / "said.jsonl", map(from_record, records[1:]))
        out = "--output", tmp_path / "out", "--worst", 2, "--protocol", "corrected"
        answer = score("vidstg", tmp_path / "truth.jsonl", said, *out)
        assert answer.status == 0
        pictures = sorted(path.name for path in (tmp_path / "out" / "worst").glob("*.png"))
        assert len(pictures) == 2 and pictures[0] == f"01_{record_key(records[0])}.png"  # the one without a prediction

    def test_videos_of_one_name_are_not_mixed_up(self, truth, tmp_path, caplog):
        names = [caption.video_fname for caption in truth[:3]]
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        for path in ("a", "b", "."):
            (tmp_path / path / names[0]).write_text("")
        for path in ("a", "b"):
            (tmp_path / path / names[1]).write_text("")
        (tmp_path / "a" / names[2]).write_text("")
        find = video_finder(tmp_path, [truth[0], to_record(truth[1]), *truth[2:]])
        found = [find(caption.key) for caption in truth[:4]]
        assert found == [tmp_path / names[0], None, tmp_path / "a" / names[2], None]
        assert f"{truth[1].key}: 2 videos below --videos are called '{names[1]}'" in caplog.text

    def test_files_of_the_original_leave_no_half_data_set(self, tmp_path):
        (tmp_path / "predictions.jsonl").write_text("{}")
        answer = score("iground", *FILES, *HEAD, "--output", tmp_path, "--worst", 1, "--videos", tmp_path)
        assert answer.status == 0
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"results.json", "clips.jsonl", "worst"}  # nothing of an earlier result


class TestProcesses:
    """The command in processes of its own, as it is typed."""

    def test_value(self):
        files = ("--annotations", FILES[0], "--predictions", FILES[1])
        bert = ("--text-similarity", "bert", "--text-model", TINY_BERT, "--no-captions")
        arguments = ("-m", "eval", "score", "iground", *files, *bert, "--protocol", "official", "--json")
        done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120)
        recorded = golden("iground", "expected.json")["runs"]["all"]["per_video"]
        values = json.loads(done.stdout)["metrics"]["official"]["all"]["per_video"]
        assert (done.returncode, done.stderr) == (0, CLIPS_MISSING)  # no bar where there is no terminal
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
