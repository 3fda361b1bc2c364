"""Trackers in place of stage 3: labels from few frames, the rest by following boxes or pictures."""

import dataclasses
import sys

import av
import numpy as np
import pytest
import torch

from dataset_builders.reading import read_records
from dataset_builders.record import from_record, record_metadata
from pipeline_annotate.__main__ import main
from pipeline_annotate.frame_captions import CaptionedClip, FrameCaption, FramePhrase
from pipeline_annotate.phrase_tracks import make_tracks
from pipeline_annotate.sam2_tracker import Sam2Tracker, _prepared
from pipeline_annotate.stage2 import read_clips
from pipeline_annotate.stage3 import label_clips
from pipeline_annotate.video_captions import CaptionedVideo, VideoCaption
from pipeline_annotate.visual_trackers import ByteTracker, boxes_by_language, labelled_frames

from . import tiny_models
from .captioned_clips import clip, frame

CAPTION = VideoCaption.from_tagged("<p>A cup</p> and <p>a book</p> slide.")
LABELS = {"a cup": 0, "a book": 1, "a vase": None}


def sliding(calls):
    """A cup that slides to the right, called as `calls` says, and a book that lies still far below."""
    return clip(
        *(
            frame(number, f"<p>{call}</p> and <p>a book</p>", (4 * number, 0, 4 * number + 20, 20), (0, 60, 20, 80))
            for number, call in enumerate(calls)
        )
    )


def test_labels_come_from_frames_in_the_middle_of_equal_parts():
    assert labelled_frames(sliding(["a cup"] * 10), 5) == {1, 3, 5, 7, 9}
    assert labelled_frames(sliding(["a cup"] * 3), 5) == {0, 1, 2}


def test_a_thing_has_the_label_that_it_has_most_often_in_the_labelled_frames():
    calls = ["a vase", "a cup", "a vase", "a cup", "a vase", "a book", "a vase", "a cup", "a vase", "a vase"]
    boxes = ByteTracker().track(sliding(calls), LABELS)
    # By language the sliding thing would be a cup in three frames, and a book in one.
    assert [box.label for box in boxes if box.box[1] == 0] == [0] * 10
    assert [box.label for box in boxes if box.box[1] == 60] == [1] * 10
    caption, counts = make_tracks(sliding(calls), CAPTION, LABELS, tracker=ByteTracker())
    assert all(track.presence.all() for track in caption.tracks) and counts["no_label"] == 0
    by_language, counts = make_tracks(sliding(calls), CAPTION, LABELS)
    assert by_language.tracks[0].presence.sum() == 3 and counts["no_label"] == 6


def test_a_thing_that_is_in_none_of_the_labelled_frames_has_no_label():
    frames = [frame(number, "<p>a cup</p>", (0, 0, 20, 20)) for number in range(10)]
    for number in (4, 6):
        boxes = (0, 0, 20, 20), (60, 60, 80, 80)
        frames[number] = frame(number, "<p>a cup</p> and <p>a book</p>", *boxes)
    boxes = ByteTracker().track(clip(*frames), LABELS)
    assert [box.label for box in boxes if box.box[0] == 60] == [None, None]


def test_a_box_that_nothing_follows_keeps_its_own_label():
    assert [box.label for box in ByteTracker().track(sliding(["a cup"]), LABELS)] == [0, 1]
    jumping = clip(*(frame(number, "<p>a cup</p>", (0, 30 * number, 5, 30 * number + 5)) for number in range(3)))
    assert [box.label for box in ByteTracker().track(jumping, LABELS)] == [0, 0, 0]


def test_frames_without_boxes_do_not_end_a_thing_at_once():
    frames = [frame(number, "<p>a cup</p>", (0, 0, 20, 20)) for number in range(10)]
    frames[2], frames[3] = frame(2, "nothing"), frame(3, "nothing")
    frames[5] = frame(5, "<p>a vase</p>", (0, 0, 20, 20))
    assert [box.label for box in ByteTracker().track(clip(*frames), LABELS)] == [0] * 8


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ValueError, match="`trackers` is not installed; `pip install trackers`"):
        ByteTracker()


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    return tiny_models.sam2(tmp_path_factory.mktemp("models") / "sam2")


def test_sam2_gives_boxes_in_all_frames_of_what_is_labelled(frames, shapes, sam2):
    captioned = next(read_clips(frames))
    labels = {phrase.text.lower(): 0 for one in captioned.frames for phrase in one.phrases}
    tracker = Sam2Tracker(str(sam2), shapes / "videos")
    found = tracker.track(captioned, labels)
    assert [box.frame for box in found] == [*range(len(captioned.frames))] and {box.label for box in found} == {0}
    boxes = np.stack([box.box for box in found])
    assert (boxes >= 0).all() and (boxes <= 64).all()
    assert tracker.track(captioned, dict.fromkeys(labels)) == []
    again = np.stack([box.box for box in tracker.track(captioned, labels)])
    np.testing.assert_array_equal(again, boxes)


def test_sam2_is_prompted_as_its_own_processor_does(frames, shapes, sam2, monkeypatch):
    """Coordinates and labels of the prompts, and the pictures, against transformers' code."""
    from transformers.models.sam2_video import modeling_sam2_video, processing_sam2_video

    sessions = []
    tracker = Sam2Tracker(str(sam2), shapes / "videos")
    forward = type(tracker.model).forward

    def watched(self, session, *args, **kwargs):
        sessions.append(session)
        return forward(self, session, *args, **kwargs)

    monkeypatch.setattr(type(tracker.model), "forward", watched)
    captioned = next(read_clips(frames))
    labels = {phrase.text.lower(): 0 for one in captioned.frames for phrase in one.phrases}
    tracker.track(captioned, labels)
    (ours,) = {id(session): session for session in sessions}.values()

    processor = object.__new__(processing_sam2_video.Sam2VideoProcessor)
    processor.target_size, processor.point_pad_value = 64, -10
    boxes = boxes_by_language(captioned, labels)
    for number, prompts in ours.point_inputs_per_obj[0].items():
        mine = np.stack([box.box for box in boxes if box.frame == number])
        united = [*mine[:, :2].min(0).tolist(), *mine[:, 2:].max(0).tolist()]
        theirs = modeling_sam2_video.Sam2VideoInferenceSession(
            video=torch.zeros(20, 3, 64, 64), video_height=64, video_width=64, dtype=torch.float32
        )
        processor.process_new_points_or_boxes_for_video_frame(theirs, number, [7], input_boxes=[[united]])
        expected = theirs.point_inputs_per_obj[0][number]
        torch.testing.assert_close(prompts["point_coords"], expected["point_coords"])
        assert torch.equal(prompts["point_labels"], expected["point_labels"])


def test_pictures_are_normalised_as_imagenet_is():
    grey = np.full((2, 30, 40, 3), 255, np.uint8)
    prepared = _prepared(grey, 64)
    assert prepared.shape == (2, 3, 64, 64)
    torch.testing.assert_close(
        prepared[1, :, 5, 5], (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )


@pytest.mark.parametrize("name", ["bytetrack", "sam2"])
def test_trackers_from_the_command_line(name, frames, shapes, spacy_folder, sam2, tmp_path):
    captions, records = tmp_path / "captions.jsonl", tmp_path / "records.jsonl"
    assert main(["stage2", str(frames), "--spacy", str(spacy_folder), "--output", str(captions)]) == 0
    tracker = f"sam2:{sam2}" if name == "sam2" else name
    line = ["stage3", str(frames), str(captions), "--tracker", tracker, "--output", str(records)]
    assert main([*line, "--videos", str(shapes / "videos")]) == 0
    made = list(read_records(str(records)))
    assert made and all(from_record(record).tracks for record in made)
    said = record_metadata(made[0])["annotation"]["stage3"]["tracker"]
    assert said["tracker"] == name and said["labelled_frames"] == 5


def test_what_a_tracker_needs(frames, sam2, tmp_path, capsys):
    line = ["stage3", str(frames), str(frames), "--output", str(tmp_path / "records.jsonl"), "--tracker"]
    for name, said in (
        (f"sam2:{sam2}", "give the folder of the videos with --videos"),
        ("sam2", "expected sam2:MODEL or bytetrack"),
        (f"sam2:{tmp_path / 'nothing'}", "cannot be loaded"),
    ):
        videos = ["--videos", str(tmp_path)] if "nothing" in name else []
        assert main([*line, name, *videos]) == 2
        assert said in capsys.readouterr().err


def test_a_clip_that_cannot_be_looked_at_does_not_stop_the_others(frames, shapes, sam2):
    captioned = next(read_clips(frames))
    gone = dataclasses.replace(captioned, video_fname="gone.mp4", video_id="gone")
    many = tuple(frame(number, "<p>a cup</p>") for number in range(401))
    long = CaptionedClip("long", 0, "long.mp4", 5.0, 100, 100, 0, 400, many)
    caption = VideoCaption.from_tagged("<p>A cup</p> falls")
    pairs = [(one, CaptionedVideo(one.clip_fields(), caption)) for one in (gone, long, captioned)]
    found = [*label_clips(pairs, _First(), tracker=Sam2Tracker(str(sam2), shapes / "videos"))]
    assert [getattr(one, "reason", "made") for one in found] == ["missing_video", "too_many_frames", "made"]


class _First:
    """Everything is the first phrase."""

    def describe(self):
        return {"back_end": "first"}

    def classify(self, questions):
        return [[0] * len(question.phrases) for question in questions]


def test_sam2_sees_the_frames_of_stage_1_and_boxes_in_its_own_pixels(sam2, tmp_path):
    """A video that is no square, and a clip that begins in its middle."""
    shades = range(0, 240, 6)
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for shade in shades:
            picture = np.full((48, 96, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    frames = [FrameCaption(n, n / 10, "a cup", (FramePhrase("a cup", (0, 5), np.array([[24, 12, 48, 24]]), np.ones(1)),))
              for n in range(10, 30, 2)]  # fmt: skip
    captioned = CaptionedClip("video", 0, "video.mp4", 10.0, 96, 48, 10, 29, tuple(frames))
    tracker = Sam2Tracker(str(sam2), tmp_path)
    pictures = tracker._pictures(captioned)
    assert pictures.shape == (10, 48, 96, 3)
    np.testing.assert_allclose(pictures.mean((1, 2, 3)), [shades[n] for n in range(10, 30, 2)], atol=4)

    prompts = []
    encode = tracker.model.prompt_encoder.forward

    def watched(input_points=None, **kwargs):
        prompts.append(input_points)
        return encode(input_points=input_points, **kwargs)

    tracker.model.prompt_encoder.forward = watched
    found = tracker.track(captioned, {"a cup": 0})
    corners = [one for one in prompts if one is not None and one.shape[-2] >= 2]
    assert len(corners) == 5  # the labelled frames
    for one in corners:
        np.testing.assert_allclose(one[0, 0, :2].numpy(), [[16, 16], [32, 32]])  # of 64 x 64
    boxes = np.stack([box.box for box in found])
    assert boxes[:, 2].max() > 64 and boxes[:, 3].max() <= 48  # pixels of the video
