"""The clips of a benchmark: exactly the annotated frames, of whatever form the data has."""

import json
from typing import Any

import numpy as np
import pytest
from huggingface_hub import upload_folder

from dataset_builders.__main__ import main as dataset_builders
from dataset_builders.shapes import make_clip
from dataset_builders.shapes.world import clip_seed
from eval.benchmark_data import BenchmarkData
from eval.clip_pictures import at_frames
from eval.scoring import ScoreOptions, score_records
from modeling_grove.video_grove import VideoDecodeError
from tests.eval.tiny_benchmarks import BENCHMARKS, NUM_FRAMES, VIDEOS, write_benchmark
from tests.records import make_record, make_videos
from tests.synthetic_clips import GREY_LEVELS, encode, frame_numbers

FRAMES = {"iground": [*range(0, NUM_FRAMES, 5)], "vidstg": [10, 15, 20, 25, 30], "youcook_interactions": [0, 25]}
FRAMES["grounding_youtube"] = FRAMES["youcook_interactions"]


def numbers(frames: list[int]) -> list[int]:
    """What a numbered frame shows of its number."""
    return [frame % GREY_LEVELS for frame in frames]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_exactly_the_annotated_frames(benchmark, tmp_path):
    records, videos = write_benchmark(tmp_path, benchmark)
    data = BenchmarkData(benchmark, str(records), videos=videos)
    clips = list(data)
    assert data.total == len(clips) == 2 and [clip.caption.video_id for clip in clips] == VIDEOS
    for clip in clips:
        read = clip.read()
        expected = FRAMES.get(benchmark, clip.caption.frame_indices.tolist())
        assert read.frame_indices.tolist() == clip.frames.tolist() == expected
        assert frame_numbers(read.frames) == numbers(expected)
        assert np.allclose(read.timestamps * 25, expected)
    assert len(clips[0].frames) == {"activitynet_entities": 10}.get(benchmark, len(clips[0].frames))


def test_clips_of_shards_and_of_the_hub(tmp_path, hub_repo):
    """The mp4 of a clip begins at the clip; its frames are named as those of the source."""
    records = tmp_path / "records.jsonl"
    made = [make_record(VIDEOS[0], 0, end_frame=24), make_record(VIDEOS[0], 1, start_frame=15, end_frame=49)]
    records.write_text("".join(json.dumps(record) + "\n" for record in made))
    videos = make_videos(tmp_path / "videos", VIDEOS[:1])
    shards = tmp_path / "shards"
    arguments = [
        "shard",
        "--annotations",
        str(records),
        "--output",
        str(shards),
        "--videos",
        str(videos),
        "--split",
        "val",
    ]
    assert dataset_builders(arguments) == 0
    repo = hub_repo("dataset")
    commit = upload_folder(repo_id=repo, repo_type="dataset", folder_path=shards).oid
    for source in (str(shards), repo):
        data = BenchmarkData("iground", source, "val")
        assert data.total == 2
        for clip, record in zip(data, made, strict=True):
            read = clip.read()
            assert read.frame_indices.tolist() == record["frame_indices"]
            assert frame_numbers(read.frames) == numbers(record["frame_indices"])
    there = data.describe()
    assert (there["name"], there["hub_id"], there["revision"], there["split"]) == (repo, repo, commit, "val")
    assert BenchmarkData("iground", data.source, "val").describe() == there  # as the other processes of a run have it
    local = BenchmarkData("iground", str(shards), "val", limit=1)
    assert (local.total, len(list(local))) == (1, 1)
    assert local.describe() | {"fingerprint": ""} == {
        "name": "shards", "hub_id": None, "revision": None, "fingerprint": "", "config": None, "split": "val", "limit": 1,
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(local.describe())


def test_shapes_are_made_on_the_spot():
    data = BenchmarkData("iground", "shapes:7:2", "val")
    assert data.total == 2
    clips = list(data)
    made = make_clip(clip_seed("validation", 1, 7), video_id=clips[1].caption.video_id)
    assert clips[1].caption == made.caption and clips[1].record == made.to_record()
    assert np.array_equal(clips[1].read().frames, made.frames[made.caption.frame_indices])


def test_what_cannot_be_read_is_a_problem_of_its_clip(tmp_path):
    made = [
        make_record(name) for name in ("fine", "other_size", "short", "broken", "missing", "scaled", "slow", "varies")
    ]
    made.append({**make_record("outside"), "video_fname": "../fine.mp4"})
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in made))
    videos = make_videos(tmp_path / "videos", ["fine"])
    encode(videos / "other_size.mp4", width=48, height=48)
    encode(videos / "scaled.mp4", width=128, height=96)
    encode(videos / "short.mp4", num_frames=44)
    encode(videos / "slow.mp4", fps=20)
    encode(videos / "varies.mp4", milliseconds=[30 * n + 10 * (n % 3) for n in range(50)])
    (videos / "broken.mp4").write_bytes(b"no video")
    problems = {}
    for clip in BenchmarkData("iground", str(records), videos=videos):
        try:
            read = clip.read()
            assert (read.width, read.height) == (64, 48)
        except VideoDecodeError as error:
            problems[clip.caption.video_id] = str(error)
    assert {*problems} == {"other_size", "short", "broken", "missing", "slow", "outside"}
    assert "48 x 48, but the clip was annotated on 64 x 48" in problems["other_size"]
    assert problems["short"] == "short.mp4: the video ends with frame 43, but frame 45 is annotated"
    assert problems["missing"] == "no video 'missing.mp4' in the folder of videos"
    clip = next(iter(BenchmarkData("iground", str(records))))
    with pytest.raises(VideoDecodeError, match="name the folder of the source videos with --videos"):
        clip.read()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shapes:0:0", "no clips in 'shapes:0:0'"),
        ("shapes:x", "expected shapes:SEED"),
        ("there/is/none", "no shards at"),
        ("org/there-is-none", "there-is-none"),
        ("empty.jsonl", "no clips in"),
    ],
)
def test_no_data(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=message):
        list(BenchmarkData("iground", source, "val" if "shapes" in source or "/" in source else None))


@pytest.mark.parametrize("option", ["split", "config"])
def test_a_file_has_neither_splits_nor_configurations(option, tmp_path):
    records, videos = write_benchmark(tmp_path, "iground")
    with pytest.raises(ValueError, match=f"--{option}: got 'val', but a file of records has none; leave it out"):
        BenchmarkData("iground", str(records), videos=videos, **{option: "val"})


@pytest.mark.parametrize(
    ("windows", "frames", "corrected"), [("covering", [*range(10, 31, 5)], 100), ("sliding", [10, 15, 20, 25], 80)]
)
def test_a_perfect_model_is_perfect_on_vidstg(windows, frames, corrected, tmp_path):
    """The original's frames lack the last one of the tube, which its evaluation does not count."""
    records, videos = write_benchmark(tmp_path, "vidstg")
    clips = list(BenchmarkData("vidstg", str(records), videos=videos, windows=windows))
    assert [clip.frames.tolist() for clip in clips] == [frames] * 2
    perfect = [at_frames(clip.caption, np.isin(clip.caption.frame_indices, clip.frames)) for clip in clips]
    headline = score_records("vidstg", [clip.record for clip in clips], perfect, ScoreOptions()).headline
    for protocol, expected in (("official", 100), ("corrected", corrected)):
        values = [value for name, value in headline[protocol].items() if "msIoU" in name]
        assert len(values) == 2 and np.allclose(values, expected)


@pytest.mark.parametrize(
    ("benchmark", "data", "message"),
    [
        ("youcook_interactions", "shapes", r"clip 'shapes-3-test-000000_0': tracks: got \d, expected one"),
        ("grounding_youtube", "vidstg", "clip 'first_0': metadata.temporal_gt: there is one, as in VidSTG"),
        ("vidstg", "shapes", "clip 'shapes-3-test-000000_0': metadata: expected `temporal_gt`"),
        ("vidstg", "youcook_interactions", "clip 'first_0': metadata: expected `temporal_gt`"),
        ("activitynet_entities", "shapes", "clip 'shapes-3-test-000000_0': metadata: tokens: expected a list"),
    ],
)
def test_data_of_another_benchmark_is_found_when_it_is_read(benchmark, data, message, tmp_path):
    arguments: dict[str, Any]
    if data == "shapes":
        arguments = {"source": "shapes:3:1", "split": "test"}
    else:
        arguments = {"source": str(write_benchmark(tmp_path, data)[0])}
    with pytest.raises(ValueError, match=f"^--data: {message}[^\n]*$"):
        next(iter(BenchmarkData(benchmark, **arguments)))


def test_annotations_that_are_wrong_name_clip_and_field(tmp_path):
    records = tmp_path / "records.jsonl"
    good = make_record("video", 3)
    for changed, message in (
        ([good, good], "clip 'video_3': the data has two clips of this key"),
        ([{**good, "fps": -1}], "clip 'video_3': fps: expected a positive number"),
        ([{"fps": 25}], "without video_id or clip_id"),
    ):
        records.write_text("".join(json.dumps(record) + "\n" for record in changed))
        with pytest.raises(ValueError, match=message):
            list(BenchmarkData("iground", str(records)))
        with pytest.raises(ValueError, match=message):  # also before any clip is run
            BenchmarkData("iground", str(records)).check()
    records.write_text(json.dumps(good))
    with pytest.raises(ValueError, match="clip 'video_3': metadata: expected `temporal_gt`"):
        list(BenchmarkData("vidstg", str(records)))
