"""The three commands, one after the other: records that validate, resume, and bad input in one line."""

import hashlib
import json

import numpy as np
import pytest

from dataset_builders.__main__ import main as dataset_command
from dataset_builders.reading import read_records
from dataset_builders.record import from_record, record_key, record_metadata
from eval.__main__ import main as eval_command
from pipeline_annotate.__main__ import main
from pipeline_annotate.clip_lists import read_table


@pytest.fixture(scope="module")
def stages(shapes, spacy_folder, tmp_path_factory):
    """All three files."""
    folder = tmp_path_factory.mktemp("stages")
    captioner = f"shapes:{shapes / 'train.frames.jsonl'}"
    assert main(["stage1", str(shapes / "videos"), "--clips", str(shapes / "train.jsonl"), "--captioner", captioner,
                 "--output", str(folder / "frames.jsonl")]) == 0  # fmt: skip
    assert (
        main(
            [
                "stage2",
                str(folder / "frames.jsonl"),
                "--spacy",
                str(spacy_folder),
                "--output",
                str(folder / "captions.jsonl"),
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "stage3",
                str(folder / "frames.jsonl"),
                str(folder / "captions.jsonl"),
                "--output",
                str(folder / "records.jsonl"),
            ]
        )
        == 0
    )
    return folder


def test_records_validate_and_say_how_they_were_made(stages, shapes, capsys):
    records = list(read_records(str(stages / "records.jsonl")))
    truth = {record_key(record): record for record in read_records(str(shapes / "train.jsonl"))}
    assert len(records) >= 11 and {record_key(record) for record in records} <= truth.keys()
    assert dataset_command(["validate", str(stages / "records.jsonl")]) == 0
    for record in records:
        made = record_metadata(record)["annotation"]
        assert (
            made["stage1"]["captioner"] == "shapes"
            and made["stage2"]["back_end"] == "rules" == made["stage3"]["back_end"]
        )
        assert made["stage2"]["spacy"].startswith("en_test_captions")
        caption = from_record(record)
        assert len(caption.spans) == len(caption.tracks), "one box a frame and phrase"
        assert caption.frame_indices.tolist() == truth[record_key(record)]["frame_indices"]


def test_boxes_are_near_the_truth(stages, shapes, capsys, tmp_path):
    files = ["--annotations", str(shapes / "train.jsonl"), "--predictions", str(stages / "records.jsonl")]
    options = ["--text-similarity", "head-word", "--output", str(tmp_path / "scores")]
    assert eval_command(["score", "iground", *files, *options]) == 0
    headline = json.loads((tmp_path / "scores" / "results.json").read_text(encoding="utf-8"))["headline"]
    assert headline["corrected"]["AP50"] > 30 and headline["corrected"]["Recall"] > 30


def test_a_stage_that_was_stopped_goes_on_and_gives_the_same_bytes(stages, shapes, tmp_path, capsys):
    whole = (stages / "frames.jsonl").read_bytes()
    part, settings = tmp_path / "frames.part.jsonl", tmp_path / "frames.part.settings.json"
    part.write_bytes(whole[: whole.find(b"\n", len(whole) // 2) + 30])  # some clips, and the beginning of one
    line = ["stage1", str(shapes / "videos"), "--clips", str(shapes / "train.jsonl"), "--captioner",
            f"shapes:{shapes / 'train.frames.jsonl'}", "--output", str(tmp_path / "frames.jsonl")]  # fmt: skip
    assert main([*line, "--fps", "2"]) == 2  # without a stamp nobody knows what they were made with
    assert "give another --output" in capsys.readouterr().err
    listed = hashlib.sha256(
        repr([str((shapes / "videos").resolve()), *read_table(shapes / "train.jsonl")]).encode()
    ).hexdigest()
    made = json.loads(whole.splitlines()[0])["provenance"] | {"clips": listed[:16]}
    del made["versions"]
    settings.write_text(json.dumps(made), encoding="utf-8")
    assert main([*line, "--seed", "1"]) == 2
    assert "give another --output" in capsys.readouterr().err
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 12
    assert (tmp_path / "frames.jsonl").read_bytes() == whole and not part.exists() and not settings.exists()
    assert main(line) == 2
    assert "is there already" in capsys.readouterr().err


def test_clips_without_a_caption_or_boxes_are_counted(stages, spacy_folder, tmp_path, capsys):
    lines = [json.loads(line) for line in (stages / "frames.jsonl").read_text(encoding="utf-8").splitlines()[:3]]
    for frame in lines[0]["frames"]:  # nothing is named
        frame |= {"caption": "an empty room", "tagged_caption": "an empty room", "phrases": [], "spans": [], "bboxes": [],
                  "labels": [], "box_phrases": [], "scores": []}  # fmt: skip
    for frame in lines[1]["frames"]:  # nothing has a box
        frame |= {"bboxes": [], "labels": [], "box_phrases": [], "scores": []}
    (tmp_path / "frames.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    frames, captions = str(tmp_path / "frames.jsonl"), str(tmp_path / "captions.jsonl")
    assert main(["stage2", frames, "--spacy", str(spacy_folder), "--output", captions, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": captions, "written": 2, "nothing_named": 1}
    assert main(["stage3", frames, captions, "--output", str(tmp_path / "records.jsonl"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["written"] == 1 and counts["no_boxes"] == 1
    (dropped,) = map(json.loads, (tmp_path / "records.dropped.jsonl").read_text(encoding="utf-8").splitlines())
    assert dropped["key"] == f"{lines[1]['video_id']}_{lines[1]['clip_id']}" and "has a box" in dropped["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage1", "nowhere", "--captioner", "shapes:x", "--output", "o.jsonl"], "nowhere: no such folder of videos"),
        (["stage1", ".", "--captioner", "glamm", "--output", "o.jsonl"], "--captioner: got 'glamm'; expected"),
        (["stage1", ".", "--captioner", "shapes:x", "--fps", "0", "--output", "o.jsonl"], "--fps 0.0"),
        (
            ["stage1", ".", "--captioner", "shapes:x", "--output", "o.json"],
            "o.json: expected a file that ends with .jsonl",
        ),
        (["stage1", ".", "--captioner", "", "--output", "o.jsonl"], "--captioner: got ''"),
        (["stage1", ".", "--captioner", "shapes:x", "--fps", "nan", "--output", "o.jsonl"], "--fps nan"),
        (["stage1", ".", "--captioner", "shapes:x", "--window", "0", "--output", "o.jsonl"], "--window: expected"),
        (["stage2", "nowhere.jsonl", "--max-words", "-1", "--output", "o.jsonl"], "max_words -1"),
        (["stage2", "nowhere.jsonl", "--whole-captions", "--output", "o.jsonl"], "--whole-captions: the rules"),
        (["stage3", "nowhere.jsonl", "x.jsonl", "--by-likelihood", "--output", "o.jsonl"], "--by-likelihood: only"),
        (["stage2", "nowhere.jsonl", "--spacy", "nothing", "--output", "o.jsonl"], "python -m spacy download nothing"),
        (
            ["stage3", "nowhere.jsonl", "nowhere.jsonl", "--fill-gaps", "-1", "--output", "o.jsonl"],
            "fill_gaps: expected at least 0",
        ),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.mp4").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_captions_of_other_clips_are_named(stages, tmp_path, capsys):
    lines = (stages / "frames.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "frames.jsonl").write_text("\n".join(lines[:2]), encoding="utf-8")
    assert (
        main(
            [
                "stage3",
                str(tmp_path / "frames.jsonl"),
                str(stages / "captions.jsonl"),
                "--output",
                str(tmp_path / "r.jsonl"),
            ]
        )
        == 2
    )
    assert "is not in" in capsys.readouterr().err


def test_boxes_of_a_phrase_are_the_union_of_those_of_its_words(stages):
    """Record by record: a present box of the record holds every box of a frame's phrase of the same words."""
    frames = {
        record_key(clip): clip
        for clip in map(json.loads, (stages / "frames.jsonl").read_text(encoding="utf-8").splitlines())
    }
    checked = 0
    for record in read_records(str(stages / "records.jsonl")):
        caption = from_record(record)
        for number, frame in enumerate(frames[record_key(record)]["frames"]):
            for track in caption.tracks:
                mine = [
                    box
                    for box, label in zip(frame["bboxes"], frame["labels"], strict=True)
                    if label == track.phrase.lower()
                ]
                for box in mine:
                    assert track.presence[number]
                    assert (np.array(box[:2]) >= track.boxes[number][:2] - 0.01).all()
                    assert (np.array(box[2:]) <= track.boxes[number][2:] + 0.01).all()
                    checked += 1
    assert checked > 30
