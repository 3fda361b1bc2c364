"""Records of single frames."""

import json

import pytest

from dataset_builders.__main__ import main
from dataset_builders.record import from_record, record_key
from dataset_builders.record_checks import check_record
from dataset_builders.shapes import iter_clips
from dataset_builders.shapes.stills import stills
from dataset_builders.shapes.world import ShapesConfig


@pytest.fixture(scope="module")
def clip():
    return next(iter(iter_clips("train", 1, 3, ShapesConfig(64, 64, seconds=2.0))))


def test_a_still_has_what_its_frame_shows(clip):
    made = {record["clip_id"]: from_record(record) for record in stills(clip.to_record(), clip.frames_record())}

    shown = [caption for caption in clip.frame_captions if caption.phrases]
    assert [*made] == [caption.frame_index for caption in shown]
    for caption in shown:
        still = made[caption.frame_index]
        assert still.caption == caption.caption and still.num_frames == 1
        assert still.frame_indices.tolist() == [caption.frame_index]
        boxes = [box for phrase in caption.phrases for box in phrase.boxes.tolist()]
        assert sorted(track.boxes[0].tolist() for track in still.tracks) == sorted(boxes)
        assert all(track.presence.all() for track in still.tracks)


def test_some_of_them_evenly_spread(clip):
    all_of_them = [record["clip_id"] for record in stills(clip.to_record(), clip.frames_record())]
    three = [record["clip_id"] for record in stills(clip.to_record(), clip.frames_record(), 3)]

    assert three == [all_of_them[0], all_of_them[round((len(all_of_them) - 1) / 2)], all_of_them[-1]]


def test_frames_of_another_clip(clip):
    other = {**clip.frames_record(), "video_id": "other"}

    with pytest.raises(ValueError, match="frame captions of 'other_0' beside the record of"):
        next(stills(clip.to_record(), other))


def test_the_command(tmp_path, capsys):
    shapes = ["shapes", "--output", str(tmp_path), "--split", "train=2", "--size", "64x64", "--seconds", "2"]
    assert main(shapes) == 0
    capsys.readouterr()

    output = tmp_path / "stills.jsonl"
    assert main(["stills", str(tmp_path / "train.jsonl"), "--per-clip", "2", "--output", str(output), "--json"]) == 0

    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert json.loads(capsys.readouterr().out) == {"records": str(output), "stills": len(records)}
    assert len({record_key(record) for record in records}) == len(records) == 4
    assert not [problem for record in records for problem in check_record(record)]


def test_bad_options(tmp_path, capsys):
    assert main(["stills", str(tmp_path / "none.jsonl"), "--output", str(tmp_path / "out.jsonl")]) == 2
    assert main(["stills", "x", "--per-clip", "0", "--output", str(tmp_path / "out.jsonl")]) == 2
    assert "--per-clip: expected at least 1, got 0" in capsys.readouterr().err
