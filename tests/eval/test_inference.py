"""A model over clips: predictions on the annotation's frames, under its names, whatever shares a batch."""

import json
import shutil

import numpy as np
import pytest

from eval.benchmark_data import BenchmarkData
from eval.inference import InferenceOptions, load_model, run_clips
from tests.eval.tiny_benchmarks import write_benchmark
from tests.records import make_record, make_videos


@pytest.fixture(scope="module")
def captioner(demo_checkpoint):
    return load_model(str(demo_checkpoint), device="cpu")


def test_a_batch_gives_what_its_clips_give_alone(captioner, tmp_path):
    """Clips of other lengths share a batch; one that does not decode is a problem, and the others are as they are."""
    names = ["a", "b", "broken", "c"]
    made = [make_record(name, n, seed=n, end_frame=49 - 10 * n) for n, name in enumerate(names)]
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in made))
    videos = make_videos(tmp_path / "videos", ["a", "b", "c"])
    (videos / "broken.mp4").write_bytes(b"no video")
    found = {}
    for size in (1, 3):
        clips = ((n // size, clip) for n, clip in enumerate(BenchmarkData("iground", str(records), videos=videos)))
        options = InferenceOptions(batch_size=size, max_new_tokens=24)
        found[size] = list(run_clips(captioner, "iground", clips, options, workers=3))
        assert [outcome.key for outcome in found[size]] == [f"{name}_{n}" for n, name in enumerate(names)]
    assert [n for n, outcome in enumerate(found[3]) if outcome.problem] == [2]
    assert "broken.mp4" in (found[3][2].problem or "") and found[3][2].prediction is None
    for alone, together, record in zip(found[1], found[3], made, strict=True):
        if alone.prediction is None or together.prediction is None:
            continue
        one, other = alone.prediction, together.prediction
        assert one.frame_indices.tolist() == record["frame_indices"] and one.video_fname == record["video_fname"]
        assert (one.clip_start_frame, one.clip_end_frame) == (record["clip_start_frame"], record["clip_end_frame"])
        assert (one.width, one.height, one.fps) == (record["width"], record["height"], record["fps"])
        assert one.caption == other.caption and one.phrases == other.phrases
        assert alone.seconds > 0 and one.num_frames == len(record["frame_indices"])
        for track, same in zip(one.tracks, other.tracks, strict=True):
            assert np.allclose(track.boxes, same.boxes, atol=0.05, equal_nan=True)
    assert any(outcome.prediction.tracks for outcome in found[1] if outcome.prediction is not None)


def test_a_given_sentence_is_one_phrase(captioner, tmp_path):
    records, videos = write_benchmark(tmp_path, "vidstg")
    clips = list(BenchmarkData("vidstg", str(records), videos=videos))
    for outcome, clip in zip(run_clips(captioner, "vidstg", enumerate(clips), InferenceOptions()), clips, strict=True):
        prediction = outcome.prediction
        assert prediction is not None and prediction.phrases == [clip.record["caption"]]
        assert prediction.tracks[0].presence.all() and np.isfinite(prediction.tracks[0].boxes).all()


def test_the_models_options_reach_the_model(captioner, tmp_path):
    records, videos = write_benchmark(tmp_path, "iground")

    def captions(**options) -> list[str]:
        clips = enumerate(BenchmarkData("iground", str(records), videos=videos))
        outcomes = run_clips(captioner, "iground", clips, InferenceOptions(**options))
        return [outcome.prediction.caption for outcome in outcomes if outcome.prediction is not None]

    short, long = captions(max_new_tokens=3), captions(max_new_tokens=30)
    assert all(len(few) < len(many) for few, many in zip(short, long, strict=True))
    with pytest.raises(ValueError, match="windows is 'other'"):
        captions(windows="other")


@pytest.mark.parametrize("name", ["batch_size", "window_batch_size", "max_new_tokens", "num_beams"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')}: expected at least 1, got 0$"):
        InferenceOptions(**{name: 0})


def test_a_model_that_cannot_be_loaded_says_why_in_one_line(demo_checkpoint, tmp_path):
    """Whatever is wrong: nothing there, weights that are torn or of another kind, or another model."""
    with pytest.raises(ValueError, match=r"^--model: cannot load a GROVE model from [^\n]*[^:\n]$"):
        load_model(str(tmp_path))
    copied = tmp_path / "grove-demo"
    shutil.copytree(demo_checkpoint, copied)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"^--model: cannot load a GROVE model from [^\n]*: [^\n]*incomplete[^\n]*$"):
        load_model(str(copied))
    weights.unlink()
    with pytest.raises(ValueError, match=r"^--model: cannot load a GROVE model from [^\n]*: [^\n]*safetensors[^\n]*$"):
        load_model(str(copied))
