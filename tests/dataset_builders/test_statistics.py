"""Statistics: each column on a data set small enough to count by hand, and the command."""

import json

import numpy as np
import pytest

from dataset_builders.__main__ import main
from dataset_builders.record import processed, to_record
from dataset_builders.statistics import PAPER, Statistics, statistics_table
from dataset_builders.tar_shards import write_shard
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.text_grove import read_tagged_caption
from tests.records import make_record


def caption_of(tagged: str, presence: list[tuple[int, list[int]]], clip_id: int = 0) -> GroundedCaption:
    """A clip at 10 frames a second, every second annotated; boxes of 10 x 20 for each (phrase, presence)."""
    caption, phrases = read_tagged_caption(tagged)
    tracks = []
    for phrase, flags in presence:
        visible = np.array(flags, bool)
        boxes = np.where(visible[:, None], np.float32([0, 0, 10, 20]), np.float32(np.nan))
        tracks.append(PhraseTrack(*phrases[phrase], boxes, visible, visible.astype(np.float32)))
    indices = 2 * np.arange(len(presence[0][1]))
    return GroundedCaption(
        caption,
        tuple(tracks),
        "video",
        clip_id,
        "video.mp4",
        10.0,
        64,
        48,
        0,
        2 * len(indices) - 1,
        indices,
        indices / 10,
    )


def test_every_column():
    statistics = Statistics()
    first = caption_of(
        "<p>A man</p> cuts <p>an onion</p>, a man's job.", [(0, [1, 1, 1, 0, 1, 1]), (1, [0, 1, 1, 0, 0, 0])]
    )
    second = caption_of("<p>a MAN</p> runs", [(0, [0, 1])], clip_id=1)
    for clip in (first, second):
        statistics.add(to_record(clip))
    assert statistics.as_dict() == {
        "videos": 1,
        "clips": 2,
        "captions": 2,
        "noun_phrases": 3,
        "unique_noun_phrases": 2,
        "unique_terms": 8,  # a man cuts an onion man's job runs
        "frames": 8,
        "annotated_frames": 6,
        "box_instances": 8,
        "frames_per_clip": 4.0,
        "duration": pytest.approx((1.2 + 0.4) / 2),
        "instances_per_clip": 4.0,
        "box_width": 10.0,
        "box_height": 20.0,
        "tube_length": 8 / 4,
        "caption_length": (8 + 3) / 2,
        "phrases_per_clip": 1.5,
        "presence_rate": 8 / (6 + 6 + 2),
    }


def test_instances_have_tubes_of_their_own_but_share_the_presence_of_their_phrase():
    raw = to_record(caption_of("<p>two cups</p> stand", [(0, [1, 1, 0, 0]), (0, [0, 1, 1, 0])]))
    statistics, united = Statistics(), Statistics()
    statistics.add(raw)
    united.add(processed(raw))
    assert [s.as_dict()["tube_length"] for s in (statistics, united)] == [2.0, 3.0]
    assert [s.as_dict()["presence_rate"] for s in (statistics, united)] == [0.75, 0.75]
    assert [s.as_dict()["box_instances"] for s in (statistics, united)] == [4, 3]


def test_merging_is_adding():
    records = [make_record(f"video{n % 3}", n, seed=n, instances=1 + n % 2) for n in range(8)]
    whole, halves = Statistics(), [Statistics(), Statistics()]
    for n, record in enumerate(records):
        whole.add(record)
        halves[n % 2].add(record)
    halves[0].merge(halves[1])
    assert halves[0].as_dict() == pytest.approx(whole.as_dict())


def test_nothing_has_no_averages():
    empty = Statistics().as_dict()
    assert empty["clips"] == 0 and empty["tube_length"] is None
    assert "avg tube length" in statistics_table({"nothing": empty})
    bare = make_record()
    bare.update({name: [[] for _ in bare["bboxes"]] for name in ("bboxes", "labels", "track_ids", "scores")})
    statistics = Statistics()
    statistics.add(bare)
    assert statistics.as_dict()["box_width"] is None and statistics.as_dict()["presence_rate"] == 0


def test_a_bad_record_adds_nothing():
    statistics = Statistics()
    with pytest.raises(ValueError, match="labels: 1 frames"):
        statistics.add({**make_record(), "labels": [[]]})
    assert statistics.as_dict() == Statistics().as_dict()


def test_the_published_numbers_agree_with_how_they_are_read():
    """80.1 boxes a clip in tubes of 6.4 frames, and 3.2 phrases a clip: a tube is a run, not all frames of a phrase."""
    paper = PAPER["HowToGround1M (paper)"]
    assert paper["box_instances"] / paper["clips"] == pytest.approx(paper["instances_per_clip"], abs=0.05)
    frames_of_a_phrase = paper["instances_per_clip"] / paper["phrases_per_clip"]
    assert frames_of_a_phrase == pytest.approx(25, abs=0.1) and paper["tube_length"] < frames_of_a_phrase / 3
    assert paper["annotated_frames"] < paper["clips"] * paper["frames_per_clip"]


def test_command(tmp_path, capsys):
    records = [make_record(clip_id=n, seed=n) for n in range(4)]
    jsonl = tmp_path / "records.jsonl"
    jsonl.write_text("".join(json.dumps(record) + "\n" for record in records[:3]))
    shard = tmp_path / "records.tar"
    write_shard(shard, [("video_3", {"json": json.dumps(records[3]).encode()})])
    assert main(["stats", str(jsonl), str(shard), "--json", "--compare"]) == 0
    columns = json.loads(capsys.readouterr().out)
    assert [columns[name]["clips"] for name in (str(jsonl), str(shard), "together")] == [3, 1, 4]
    assert columns["iGround (paper)"]["tube_length"] == 29.0
    assert main(["stats", str(jsonl)]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["records.jsonl"]
    assert "avg tube length (frames)" in table and "together" not in table


def test_command_names_what_is_wrong(tmp_path, capsys):
    jsonl = tmp_path / "records.jsonl"
    jsonl.write_text(json.dumps(make_record()) + "\n" + json.dumps({**make_record(), "width": 0}) + "\n")
    assert main(["stats", str(jsonl)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "record 2: width: expected a positive number" in error
