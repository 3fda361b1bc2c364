"""`pipeline("grounded-video-captioning")` on the untrained demo model: what goes in, what comes out, and in which order."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import modeling_grove
from modeling_grove import GroundedCaption, VideoDecodeError

CAPTION = "A <p>dog</p> chases a <p>red ball</p>."


@pytest.fixture(scope="module")
def captioner(demo_checkpoint):
    return pipeline("grounded-video-captioning", model=str(demo_checkpoint), max_new_tokens=8, device="cpu")


@pytest.fixture(scope="module")
def videos() -> list[np.ndarray]:
    """Decoded clips of 11, 3 and 8 frames."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (count, 48, 64, 3), dtype=np.uint8) for count in (11, 3, 8)]


def assert_same(first: GroundedCaption, second: GroundedCaption, tolerance: float = 1e-3) -> None:
    assert first.caption == second.caption
    assert first.phrases == second.phrases
    for ours, theirs in zip(first.tracks, second.tracks, strict=True):
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=tolerance)
        np.testing.assert_allclose(ours.objectness, theirs.objectness, atol=tolerance)


def test_is_registered(captioner):
    assert isinstance(captioner, modeling_grove.GroundedVideoCaptioningPipeline)


def test_file(captioner, example_clip):
    result = captioner(example_clip, end_time=2.0)
    assert isinstance(result, GroundedCaption)
    assert (result.video_id, result.video_fname) == ("clip", "clip.mp4") and result.caption
    assert np.diff(result.timestamps) == pytest.approx(0.2, abs=0.01)
    assert result.timestamps[-1] <= 2.0
    assert captioner(str(example_clip), end_time=2.0) == result
    assert captioner(example_clip.read_bytes(), end_time=2.0).caption == result.caption


def test_given_caption(captioner, videos):
    result = captioner(videos[0], caption=CAPTION)
    assert result.caption == "A dog chases a red ball."
    assert result.tagged_caption == CAPTION
    assert all(track.boxes.shape == (11, 4) and np.isfinite(track.boxes).all() for track in result.tracks)
    named = captioner(videos[0], caption="A dog chases a red ball.", phrases=["dog", "red ball"])
    assert_same(named, result)


def test_batches_equal_one_at_a_time(captioner, videos):
    captions = [CAPTION, "<p>Two people</p> sit.", "<p>A</p> b <p>c</p> d <p>e</p>"]
    alone = [captioner(video, caption=caption) for video, caption in zip(videos, captions, strict=True)]
    for batch_size in (2, 3):
        together = captioner(videos, caption=captions, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)
    generated = captioner(videos, batch_size=3)
    for video, result in zip(videos, generated, strict=True):
        assert_same(captioner(video), result)


def test_stack_is_a_list_of_videos(captioner, videos):
    stack = np.stack([videos[2], videos[2][::-1]])
    results = captioner(stack, caption=[CAPTION] * 2)
    assert isinstance(results, list) and len(results) == 2
    assert_same(results[1], captioner(stack[1], caption=CAPTION))


def test_iterators_stay_lazy(captioner, videos):
    seen = []

    def feed():
        for video in itertools.cycle(videos):
            seen.append(len(video))
            yield video

    results = captioner(feed(), batch_size=2)
    assert next(results).num_frames == 11
    assert next(results).num_frames == 3
    assert len(seen) == 2


def test_threshold_only_moves_presence(captioner, videos):
    low, high = (captioner(videos[0], caption=CAPTION, objectness_threshold=value) for value in (0.0, 1.0))
    assert all(track.presence.all() for track in low.tracks)
    assert not any(track.presence.any() for track in high.tracks)
    assert low.with_threshold(1.0) == high


def test_original_windows(captioner, videos):
    """11 frames: the original grounds four windows where two suffice; frames it shares with ours only agree when T % 8 == 0."""
    sliding, covering = (captioner(videos[2], caption=CAPTION, windows=windows) for windows in ("sliding", "covering"))
    assert_same(sliding, covering)
    assert captioner(videos[0], windows="sliding").num_frames == 11


def test_window_batch_size_changes_nothing(captioner, videos):
    one, many = (captioner(videos[0], caption=CAPTION, window_batch_size=size) for size in (1, 8))
    assert_same(one, many)


def test_progress(captioner, videos):
    steps: list[tuple[str, int, int]] = []
    captioner(videos[0], caption=CAPTION, window_batch_size=1, on_progress=lambda *step: steps.append(step))
    assert steps == [
        ("encoding windows", 1, 2),
        ("encoding windows", 2, 2),
        ("grounding windows", 1, 2),
        ("grounding windows", 2, 2),
    ]


def test_stream(captioner, example_clip):
    clips = list(captioner.stream(example_clip, clip_seconds=2.0))
    assert len(clips) > 2
    assert clips[0].clip_start_frame == 0
    for before, after in itertools.pairwise(clips):
        assert after.clip_start_frame == before.clip_end_frame + 1
    assert len({clip.key for clip in clips}) == len(clips)
    first = captioner(example_clip, end_frame=clips[0].clip_end_frame)
    assert first == clips[0]


def test_stream_refuses_a_caption(captioner, example_clip):
    with pytest.raises(ValueError, match="writes a caption of its own"):
        next(captioner.stream(example_clip, clip_seconds=2.0, caption=CAPTION))


def test_pixels_stay_where_they_were_made(captioner, videos):
    """The rest goes to the model's device; "meta" stands for one that is not the CPU."""
    model_inputs = captioner.preprocess([videos[0]])
    moved = captioner._ensure_tensor_on_device(model_inputs, torch.device("meta"))["inputs"]
    assert moved["input_ids"].is_meta and moved["attention_mask"].is_meta
    assert not moved["pixel_values_videos"].is_meta and not moved["grounding_pixel_values_videos"].is_meta


def test_generation_arguments_reach_generate(captioner, videos):
    short = captioner(videos[2], max_new_tokens=1)
    longer = captioner(videos[2], max_new_tokens=16)
    assert len(short.caption) < len(longer.caption)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"caption": ["a", "b"]}, "Got 2 caption values for 1 videos"),
        ({"caption": "a dog", "phrases": ["cat"]}, "cat"),
        ({"windows": "random"}, "windows is 'random'; expected 'covering'"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2"),
    ],
)
def test_errors(captioner, videos, arguments, message):
    with pytest.raises(ValueError, match=message):
        captioner(videos[0], **arguments)


def test_broken_video(captioner, tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(VideoDecodeError):
        captioner(broken)


def test_real_clips(captioner, real_videos):
    for video in real_videos:
        result = captioner(video, caption="<p>Something</p> moves.", start_time=1.0, end_time=3.0)
        assert result.timestamps[0] == pytest.approx(1.0, abs=0.05) and result.timestamps[-1] <= 3.0
        assert result.width >= 320 and result.num_frames >= 8
