"""What the demo does, without its page: clips that it takes and does not, captions of one's own, thresholds, files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from transformers import pipeline

import modeling_grove  # noqa: F401  (registers GROVE)
from hub_cards.space.captioning import (
    MAX_CAPTION,
    Captioner,
    Grounding,
    Limits,
    check_clip,
    highlighted,
    read_own_caption,
    view_json,
    with_threshold,
    write_page,
    write_record,
    write_video,
)
from modeling_grove import GroundedCaption, read_video
from tests.conftest import ROOT
from tests.synthetic_clips import encode

SHAPES = ROOT / "examples" / "shapes.mp4"


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> Captioner:
    model = pipeline("grounded-video-captioning", model=str(ROOT / "checkpoints" / "grove-tiny"), device="cpu")
    return Captioner(model, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def grounding(captioner) -> Grounding:
    return captioner.run(SHAPES)


def test_a_clip_is_captioned(grounding):
    assert grounding.caption.phrases == ["a man", "a brick wall"] and grounding.threshold == 0.5
    clip = read_video(grounding.folder / "clip.mp4", target_fps=None)
    assert len(clip.frames) == 40


def test_a_caption_of_ones_own_is_grounded(captioner):
    """A thing that is not in the clip stays absent; the part of the clip is respected, and progress told."""
    told = []
    own = "[A man]  comes out from behind\n[a brick wall] and waves to [a dog]."
    found = captioner.run(SHAPES, own, 1.0, 3.0, lambda *stage: told.append(stage)).caption
    assert found.caption == "A man comes out from behind a brick wall and waves to a dog."
    assert found.phrases == ["A man", "a brick wall", "a dog"]
    assert (found.clip_start_frame, found.clip_end_frame) == (10, 29)
    assert [bool(track.presence.any()) for track in found.tracks] == [True, True, False]
    assert told and all(0 <= done <= total for _, done, total in told)
    assert [label for _, label in highlighted(found) if label] == ["#ff5252", "#26c6da", "absent"]


def test_the_threshold_moves_presence_without_the_model(grounding):
    assert with_threshold(grounding, grounding.threshold) is grounding.caption
    assert with_threshold(grounding, 0.3) == grounding.caption.with_threshold(0.3)
    labels = [label for _, label in highlighted(with_threshold(grounding, 1.0))]
    assert labels.count("absent") == 2


def test_the_files_say_what_is_shown(grounding, tmp_path):
    """JSON, COCO, the page and the video; COCO is read by its own library."""
    threshold = float(np.median(grounding.caption.tracks[0].objectness))
    caption = grounding.caption.with_threshold(threshold)
    record, coco = write_record(grounding, threshold)
    assert GroundedCaption.load(record) == caption
    annotations = COCO(coco).dataset["annotations"]
    assert len(annotations) == sum(int(track.presence.sum()) for track in caption.tracks)
    page = Path(write_page(grounding))
    assert page.name == "shapes.html" and "a brick wall" in page.read_text(encoding="utf-8")
    drawn = read_video(write_video(grounding, threshold), target_fps=None)
    assert len(drawn.frames) == 40 and drawn.height > grounding.caption.height
    data = json.loads(view_json(grounding, "gradio_api/file=folder"))
    assert data["video"] == "gradio_api/file=folder/clip.mp4" and data["caption"] is False
    assert data["record"] == grounding.caption.to_dict()


@pytest.mark.parametrize("name", ["50% off #1.mp4", ".mp4", "../a.mp4", "\u00e9\u00e8.mp4", "a" * 300])
def test_files_have_names_that_files_can_have(grounding, name, tmp_path):
    odd = replace(grounding, caption=replace(grounding.caption, video_id=name), folder=tmp_path)
    record, coco = write_record(odd, 0.5)
    assert Path(record).parent == Path(coco).parent == tmp_path
    assert json.loads(Path(record).read_text(encoding="utf-8"))["video_id"] == name


def test_results_are_apart_and_can_be_removed(captioner):
    first, second = (captioner.run(SHAPES, "[A man] waves.", 0, 0.5) for _ in range(2))
    assert first.folder != second.folder and len(first.folder.name) > 20
    first.remove()
    assert not first.folder.exists() and second.folder.exists()


def test_clips_that_are_no_clips(tmp_path):
    """One line that a user understands; what is sound passes."""
    text, empty, video = tmp_path / "notes.mp4", tmp_path / "empty.mp4", tmp_path / "video.mkv"
    text.write_text("not a video\n" * 50)
    empty.touch()
    encode(video, num_frames=50, width=200, height=48)
    check_clip(video, None, None, Limits())
    check_clip(video, 0.5, 1.0, Limits(seconds=0.5))
    for path, part, limits, message in (
        (text, (None, None), Limits(), "notes.mp4: not a video"),
        (empty, (None, None), Limits(), "empty.mp4: "),
        (text, (None, None), Limits(megabytes=0.0005), "The file has 0 MB; the demo takes up to 0.0005 MB"),
        (video, (None, None), Limits(seconds=1), "The clip has 2 s; the demo takes up to 1 s"),
        (video, (0.1, 1.9), Limits(seconds=1), "The clip has 2 s; the demo takes up to 1 s"),
        (video, (None, None), Limits(side=100), "The picture is 200 x 48; the demo takes sides of up to 100 pixels"),
        (video, (1.0, 1.0), Limits(), "has to end after its start"),
        (video, (60.0, None), Limits(), "60"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            check_clip(path, *part, limits)
        assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_no_clip_at_all(captioner):
    with pytest.raises(ValueError, match="There is no clip yet"):
        captioner.run(None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A dog runs.", "no phrase to ground"),
        ("[A dog runs.", "without its partner"),
        ("A] dog [runs.", "without its partner"),
        ("[] runs.", "without its partner"),
        ("[a dog] " * 80, f"takes up to {MAX_CAPTION}"),
    ],
)
def test_captions_that_cannot_be_grounded(text, message):
    with pytest.raises(ValueError, match=message):
        read_own_caption(text)


def test_captions_of_ones_own_are_read():
    assert read_own_caption(" \n ") is None
    assert read_own_caption("[A dog]\n runs.") == "<p>A dog</p> runs."
    assert read_own_caption("A <p>dog</p> runs.") == "A <p>dog</p> runs."
