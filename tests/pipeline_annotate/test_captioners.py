"""Stage 1: frames of several clips in one batch, results in order, and clips that cannot be read."""

import threading

import numpy as np
import pytest

from dataset_builders.reading import read_records
from pipeline_annotate.captioners import Frame, caption_clips
from pipeline_annotate.clip_lists import ClipRequest, read_table
from pipeline_annotate.frame_captions import CaptionedClip, FrameCaption
from pipeline_annotate.shapes_captioner import FrameNoise, ShapesCaptioner
from pipeline_annotate.stage_files import Dropped

PERFECT = FrameNoise(synonym=0, wrong_noun=0, no_box=0, invented=0, centre_jitter=0, size_jitter=0)


class Counting:
    """Says which frame it saw, and keeps the sizes of batches."""

    def __init__(self):
        self.batches = []

    def describe(self):
        return {"captioner": "counting"}

    def caption(self, frames):
        self.batches.append([(frame.key, frame.frame_index) for frame in frames])
        return [
            FrameCaption(frame.frame_index, frame.timestamp, f"{frame.key} {frame.pixels.shape}", ())
            for frame in frames
        ]


def test_batches_go_across_clips_and_results_come_in_order(shapes):
    requests, captioner = read_table(shapes / "train.jsonl")[:3], Counting()
    found = list(caption_clips(requests, shapes / "videos", captioner, batch_size=16))

    assert [clip.key for clip in found] == [request.key for request in requests]
    total = sum(len(clip.frames) for clip in found)
    assert [len(batch) for batch in captioner.batches] == [16] * (total // 16) + [total % 16] * (total % 16 > 0)
    assert any(len({key for key, _ in batch}) > 1 for batch in captioner.batches)
    for clip in found:
        assert {frame.caption for frame in clip.frames} == {f"{clip.key} (64, 64, 3)"}
        assert clip.provenance["stage1"] == {"captioner": "counting"} and clip.provenance["target_fps"] == 5.0
        assert {*clip.provenance["versions"]} == {"grove-video", "torch", "transformers"}
        assert [index for batch in captioner.batches for key, index in batch if key == clip.key] == [
            f.frame_index for f in clip.frames
        ]


def test_a_clip_that_cannot_be_read_is_named_and_the_others_go_on(shapes, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    requests = read_table(shapes / "train.jsonl")[:2]
    (videos / requests[0].video_fname).write_bytes((shapes / "videos" / requests[0].video_fname).read_bytes())
    (videos / requests[1].video_fname).write_bytes(b"no video")
    asked = [requests[1], ClipRequest("gone", 0, "gone.mp4"), requests[0]]
    broken, gone, clip = caption_clips(asked, videos, Counting())
    assert (broken.key, broken.reason) == (requests[1].key, "undecodable_video")
    assert isinstance(gone, Dropped) and gone.reason == "missing_video" and isinstance(clip, CaptionedClip)


def test_an_error_of_the_captioner_ends_the_decoder_too(shapes):
    class Failing(Counting):
        def caption(self, frames):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(caption_clips(read_table(shapes / "train.jsonl"), shapes / "videos", Failing()))
    assert not [thread for thread in threading.enumerate() if thread.name == "decoder"]


def test_an_error_of_the_list_of_clips_comes_through(shapes):
    def requests():
        yield read_table(shapes / "train.jsonl")[0]
        raise ValueError("row 2: no clip")

    with pytest.raises(ValueError, match="row 2"):
        list(caption_clips(requests(), shapes / "videos", Counting()))


def test_the_captioner_of_shapes_without_errors_says_the_truth(shapes):
    captioner = ShapesCaptioner(shapes / "train.frames.jsonl", PERFECT)
    for clip, record in zip(caption_clips(read_table(shapes / "train.jsonl"), shapes / "videos", captioner),
                            read_records(str(shapes / "train.jsonl")), strict=True):  # fmt: skip
        assert [frame.frame_index for frame in clip.frames] == record["frame_indices"]
        for frame, boxes, labels in zip(clip.frames, record["bboxes"], record["labels"], strict=True):
            for phrase in frame.phrases:  # what both speak of in the same words has the same boxes
                known = [box for box, label in zip(boxes, labels, strict=True) if label.lower() == phrase.text]
                if len(known) == len(phrase.boxes) == 1:
                    np.testing.assert_allclose(phrase.boxes, known, atol=0.01)


def test_its_errors_are_as_frequent_as_asked_and_do_not_depend_on_batches(shapes):
    requests, path = read_table(shapes / "train.jsonl"), shapes / "train.frames.jsonl"

    def said(noise, seed=0, batch_size=16):
        clips = caption_clips(requests, shapes / "videos", ShapesCaptioner(path, noise, seed), batch_size=batch_size)
        return [frame.to_dict() for clip in clips for frame in clip.frames]

    truth, usual = said(PERFECT), said(FrameNoise())
    assert usual == said(FrameNoise(), batch_size=5) != said(FrameNoise(), seed=1)
    phrases = sum(len(frame["phrases"]) for frame in truth)
    invented = sum(len(one["phrases"]) - len(two["phrases"]) for one, two in zip(usual, truth, strict=True))
    boxes = [sum(len(frame["bboxes"]) for frame in frames) for frames in (truth, usual)]
    other = sum(
        one != two
        for a, b in zip(usual, truth, strict=True)
        for one, two in zip(a["phrases"], b["phrases"], strict=False)
    )
    assert 0.08 * len(truth) < invented < 0.22 * len(truth)
    assert 0.83 < (boxes[1] - invented) / boxes[0] < 0.96
    assert 0.08 < other / phrases < 0.25


def test_frames_of_another_world_are_an_error(shapes):
    captioner = ShapesCaptioner(shapes / "train.frames.jsonl")
    with pytest.raises(ValueError, match="nothing of frame 3 of 'other_0'"):
        captioner.caption([Frame("other_0", 3, 0.0, np.zeros((64, 64, 3), np.uint8))])
    with pytest.raises(ValueError, match="no list of frames"):
        ShapesCaptioner(shapes / "train.jsonl")
