"""What annotations are worth where the truth is known."""

import json

import numpy as np
import pytest

from dataset_builders.record import to_record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from pipeline_annotate.__main__ import main
from pipeline_annotate.frame_wise import MiddleFrameCaptioner, SameWordsClassifier
from pipeline_annotate.phrase_labels import Question
from pipeline_annotate.quality import (
    CONSISTENCY,
    METRICS,
    Way,
    frame_labels,
    label_consistency,
    measure,
    quality_table,
    ways,
)
from pipeline_annotate.stage_files import Dropped
from tests.conftest import ROOT

from .captioned_clips import clip, facts, frame

GROVE = ROOT / "checkpoints" / "grove-tiny"
ENCODER = ROOT / "tests" / "golden" / "eval" / "iground" / "tiny_bert"


def truth(*boxes):
    """A record of one object with a box, or none, in each frame."""
    seen = np.array([box is not None for box in boxes])
    given = np.array([box or (np.nan,) * 4 for box in boxes], np.float32)
    track = PhraseTrack("a cup", (0, 5), given, seen, seen.astype(np.float32))
    count = len(boxes)
    frames = np.arange(count), np.arange(count) / 5
    caption = GroundedCaption("a cup rolls", (track,), "video", 0, "video.mp4", 5.0, 100, 100, 0, 99, *frames)
    return to_record(caption)


def test_consistency_is_the_share_of_the_most_frequent_label_among_boxes_that_meet_the_object():
    box = (0.0, 0.0, 10.0, 10.0)
    captioned = clip(
        frame(0, "<p>a cup</p> and <p>a tree</p>", (0, 0, 10, 9), (50, 50, 60, 60)),
        frame(1, "<p>a mug</p>", (1, 0, 10, 10)),
        frame(2, "<p>a cup</p>", (0, 0, 10, 10)),
        frame(3, "<p>a cup</p>", (20, 0, 30, 10)),  # does not meet it
        frame(4, "<p>a bowl</p>", (0, 0, 10, 10)),  # not to be seen there
    )
    found = frame_labels([captioned])
    assert label_consistency([truth(box, box, box, box, None)], found) == pytest.approx(2 / 3)
    assert np.isnan(label_consistency([truth(None, box)], {}))


def test_the_middle_frames_caption_and_labels_of_the_same_words():
    named = clip("an empty room", "<p>a man</p> waves", "<p>a woman</p> and <p>a cup</p>", "an empty room")
    empty = clip("an empty room", name="other")
    caption, dropped = MiddleFrameCaptioner().write([facts(named, *[()] * 4), facts(empty, ())])
    assert caption.tagged_caption == "<p>a woman</p> and <p>a cup</p>"
    assert isinstance(dropped, Dropped) and dropped.key == "other_0"
    question = Question(("a cup", "a mug"), ("A woman", "A cup"))
    assert SameWordsClassifier().classify([question]) == [[1, None]]


def test_the_table_has_means_and_half_of_the_range():
    results = [dict.fromkeys((*METRICS, CONSISTENCY, "clips"), value) for value in (50.0, 54.0)]
    line = quality_table({"a way": results}).splitlines()[-1]
    assert line.count("52.0 ± 2.0") == 4 and line.rstrip(" |").endswith(" 52")


def test_a_way_that_gives_nothing_is_worth_nothing(pipeline, tmp_path):
    empty = clip("an empty room", "an empty room")
    worth = measure(Way(MiddleFrameCaptioner()), [empty], pipeline, tmp_path / "no.jsonl", tmp_path / "folder")
    assert [worth[name] for name in (*METRICS, "clips")] == [0, 0, 0, 0] and np.isnan(worth[CONSISTENCY])
    assert not (tmp_path / "folder" / "records.jsonl").read_text()


@pytest.mark.slow
def test_three_stages_are_better_than_frames_alone(spacy_folder, tmp_path, capsys):
    line = [
        "quality",
        "--clips",
        "16",
        "--seeds",
        "0",
        "--workers",
        "1",
        "--spacy",
        str(spacy_folder),
        "--output",
        str(tmp_path),
        "--video-captioner",
        f"grove:{GROVE}",
        "--similarity",
        str(ENCODER),
    ]
    assert main([*line, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["rows"]
    others = [
        "a tracker (ByteTrack) in place of stage 3",
        "labels by rules and an encoder (tiny_bert)",
        "a video captioner (grove:grove-tiny) in place of stage 2",
    ]
    assert [*rows] == [*ways(), *others] and all(len(results) == 1 for results in rows.values())
    frames, full = (
        np.mean([result["AP50"] for result in rows[name]]) for name in ("frame by frame", "all three stages")
    )
    consistent = [
        np.mean([result["label consistency"] for result in rows[name]])
        for name in ("frame by frame", "all three stages")
    ]
    assert full > 1.3 * frames and consistent[1] > consistent[0] + 5
    document = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert (
        "| all three stages " in document
        and "16 clips" in document
        and json.loads((tmp_path / "quality.json").read_text())
    )
