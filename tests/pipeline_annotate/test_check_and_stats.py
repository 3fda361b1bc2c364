"""Before a run whether it can start and what it costs; while it runs and after it what became of the clips."""

import json
import re
import shutil

import pytest

from pipeline_annotate.__main__ import main
from pipeline_annotate.check import spread
from pipeline_annotate.clip_lists import read_table


def settings(shapes, spacy_folder):
    return ["--clips", str(shapes / "train.jsonl"), "--captioner", f"shapes:{shapes / 'train.frames.jsonl'}",
            "--spacy", str(spacy_folder)]  # fmt: skip


def test_check_times_a_sample_and_says_what_all_will_cost(shapes, spacy_folder, capsys):
    line = ["check", str(shapes / "videos"), *settings(shapes, spacy_folder), "--sample", "3", "--project", "1000000"]
    assert main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found["checks"]} >= {"torch", "spaCy model", "captioner", "language model", "clips"}
    assert all(one["ok"] for one in found["checks"])
    sample = found["sample"]
    assert sum(sample["clips"].values()) == 3 and min(sample["seconds"].values()) > 0
    assert sample["projected_hours"] == pytest.approx(sum(sample["seconds"].values()) / 3 * 1e6 / 3600)
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "ok      captioner: shapes:" in text and "1,000,000 clips:" in text
    assert re.search("[CG]PU hours, divided by", text) and "Sample: 3 clips\n" in text


def test_check_says_what_is_missing(shapes, spacy_folder, tmp_path, capsys):
    line = ["check", str(shapes / "videos"), "--clips", str(shapes / "train.jsonl"), "--captioner", f"glamm:{tmp_path}",
            "--spacy", "en_core_web_nowhere", "--language-model", "http:llama@http://127.0.0.1:9",
            "--tracker", "bytetrack"]  # fmt: skip
    assert main(line) == 2
    text = capsys.readouterr().out
    for said in ("MISSING spaCy model: no spaCy model", "MISSING captioner: GLaMM", "MISSING language model: http://127.0.0.1:9",
                 "ok      tracker: bytetrack", "Missing: spaCy model, captioner, language model; nothing was timed."):  # fmt: skip
        assert said in text


def test_a_sample_is_spread_over_the_list(shapes):
    clips = read_table(shapes / "train.jsonl")
    assert spread(clips, 3) == [clips[2], clips[6], clips[10]] and spread(clips, 99) == clips


@pytest.fixture(scope="module")
def finished(shapes, spacy_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "annotated"
    videos = folder.parent / "videos"
    shutil.copytree(shapes / "videos", videos)
    clips = read_table(shapes / "train.jsonl")
    (videos / clips[5].video_fname).write_bytes(b"no video")
    line = ["run", str(videos), *settings(shapes, spacy_folder), "--clips-per-part", "4", "--output", str(folder)]
    assert main(line) == 0
    return folder


def test_stats_of_a_run(finished, capsys):
    assert main(["stats", str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["requested"], found["parts"], found["finished"]) == (12, 3, 3)
    assert found["stages"]["frames"] == {"done": 11, "dropped": {"undecodable_video": 1}}
    told = json.loads((finished / "stats.json").read_text())
    assert found["boxes"] == told["boxes"] and found["statistics"]["clips"] == told["clips"]["annotated"]
    assert main(["stats", str(finished)]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 parts are finished" in text and "1 undecodable_video" in text
    assert "HowToGround1M (paper)" in text and "avg tube length" in text


def test_stats_while_a_run_goes_on(finished, tmp_path, capsys):
    running = tmp_path / "running"
    shutil.copytree(finished, running)
    part = running / "parts" / "00002"
    for name in ("captions", "records"):
        (part / f"{name}.jsonl").unlink()
        (part / f"{name}.dropped.jsonl").unlink()
    (part / "frames.jsonl").rename(part / "frames.part.jsonl")
    (part / "frames.dropped.jsonl").rename(part / "frames.part.dropped.jsonl")
    with (part / "frames.part.jsonl").open("a") as file:
        file.write('{"half a line')
    assert main(["stats", str(running), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["finished"] == 2 and found["stages"]["frames"]["done"] == 11
    assert found["stages"]["captions"]["done"] < 11


def test_stats_of_no_run(tmp_path, capsys):
    (tmp_path / "plan.json").write_text('{"samples": 3}')
    assert main(["stats", str(tmp_path)]) == 2
    assert "is no plan of `python -m pipeline_annotate run`" in capsys.readouterr().err
    (tmp_path / "plan.json").unlink()
    assert main(["stats", str(tmp_path)]) == 2
    assert "no plan.json; expected the --output" in capsys.readouterr().err
