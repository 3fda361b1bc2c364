"""The `shard` command: what it writes, leaves out and counts, and that nothing that happens on the way changes a byte."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from dataset_builders.clips import clip_frames
from dataset_builders.record import processed
from dataset_builders.tar_shards import iter_shard
from modeling_grove.video_grove import read_video
from tests.dataset_builders.shard_runs import Records, files, make_records, manifest_of, read, shard, write_jsonl
from tests.records import make_record, make_videos
from tests.synthetic_clips import encode, frame_numbers, truncate


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good videos, a broken one, one of another size, one of another rate and one that is too short."""
    folder = make_videos(tmp_path_factory.mktemp("videos"), ["a", "b", "c"])
    truncate(folder / "a.mp4", folder / "broken.mp4", 0.3)
    encode(folder / "large.mp4", num_frames=50, width=96, height=64)
    encode(folder / "slow.mp4", num_frames=50, fps=10)
    encode(folder / "short.mp4", num_frames=30)
    return folder


@pytest.fixture(scope="module")
def records() -> Records:
    return make_records()


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory, records: Records) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("annotations") / "train.jsonl", records)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, annotations: Path, videos: Path) -> Path:
    """A run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "set"
    assert shard(annotations, output, "--videos", videos, "--samples-per-shard", 4) == 0
    return output


def test_layout(whole: Path) -> None:
    names = [f"train-{i:05d}-of-00004.tar" for i in range(4)]
    expected = {*(f"{config}/{name}" for config in ("default", "default_video") for name in names)}
    assert files(whole).keys() == expected | {"manifest.json", "README.md"}


def test_records_come_back_as_they_were(whole: Path, records: Records) -> None:
    samples = read(whole, "default")
    assert [record for _, record, _ in samples] == records
    assert [key for key, _, _ in samples] == [f"{r['video_id']}_{r['clip_id']}" for r in records]
    assert all(clip is None for _, _, clip in samples)


def test_ids_that_datasets_would_hide_are_kept(tmp_path: Path) -> None:
    records = [make_record(name) for name in ("__abcdefghi", "_abcdefghij", "-abcdefghij")]
    assert shard(write_jsonl(tmp_path / "records.jsonl", records), tmp_path / "out") == 0
    assert [record for _, record, _ in read(tmp_path / "out", "default")] == records
    rows = load_dataset(str(tmp_path / "out"), split="train", streaming=True)
    assert [row["json"]["video_id"] for row in rows] == [record["video_id"] for record in records]


def test_clips_show_the_annotated_frames(whole: Path, records: Records, videos: Path) -> None:
    samples = read(whole, "default_video")
    usable = [record for record in records if record["video_id"] in "abc"]
    assert [key for key, _, _ in samples] == [f"{r['video_id']}_{r['clip_id']}" for r in usable]
    cuts = set()
    for (_, record, mp4), original in zip(samples, usable, strict=True):
        clip = json.loads(record["metadata"])["clip"]
        assert clip["first_frame"] == original["clip_start_frame"]
        assert clip["num_frames"] == original["clip_end_frame"] + 1 - original["clip_start_frame"]
        assert {**record, "metadata": original["metadata"]} == original
        source = read_video(videos / record["video_fname"], target_fps=None)
        shown = read_video(mp4, target_fps=None).frames[clip_frames(record)]
        assert frame_numbers(shown) == frame_numbers(source.frames[record["frame_indices"]])
        cuts.add(clip["cut"])
    assert cuts == {"copy", "encode"}


def test_manifest(whole: Path, records: Records) -> None:
    manifest = manifest_of(whole)
    assert manifest["version"] == 1
    assert manifest["name"] == "set"
    for config, with_video, number in (("default", False, 15), ("default_video", True, 9)):
        entry = manifest["configs"][config]
        split = entry["splits"]["train"]
        assert entry["with_video"] is with_video
        assert split["num_records"] == sum(shard["num_samples"] for shard in split["shards"]) == number
        assert split["num_bytes"] == sum(shard["num_bytes"] for shard in split["shards"])
        for entry in split["shards"]:
            content = (whole / entry["name"]).read_bytes()
            assert (entry["num_bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
            assert entry["num_samples"] == sum(1 for _ in iter_shard(whole / entry["name"]))
    counts = manifest["counts"]["default"]["train"]
    assert counts["boxes"] == sum(len(boxes) for record in records for boxes in record["bboxes"])
    assert counts["frames"] == sum(len(record["bboxes"]) for record in records)
    assert (counts["records"], counts["accepted"], counts["rejected"], counts["unreadable"]) == (15, 15, 0, 0)
    cuts = manifest["counts"]["default_video"]["train"]
    assert cuts["copied"] + cuts["encoded"] == cuts["clips"] == 9
    place = {"config": "default_video", "split": "train"}
    assert manifest["missing_videos"] == [{**place, "video": "absent.mp4", "num_records": 3}]
    assert [(e["key"], e["video"]) for e in manifest["broken_videos"]] == [
        (f"broken_{i}", "broken.mp4") for i in range(3)
    ]
    assert all("not a video" in e["message"] for e in manifest["broken_videos"])


def test_summary_names_what_is_left_out(
    annotations: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard(annotations, tmp_path / "out", "--videos", videos, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["shards"], summary["made"], summary["accepted"], summary["clips"]) == (1, 1, 15, 9)
    assert (summary["missing"], summary["missing_videos"], summary["broken"]) == (3, 1, 3)
    assert shard(annotations, tmp_path / "out", "--videos", videos) == 0
    printed = capsys.readouterr().out
    assert "15 records" in printed
    assert "0 of them made now" in printed
    assert "3 without a video (1 videos missing), 3 that cannot be cut" in printed
    assert "broken.mp4: not a video" in printed
    assert "--overwrite tries again" in printed


def test_a_video_that_is_not_the_annotated_one_is_broken(videos: Path, tmp_path: Path) -> None:
    records = [make_record("large"), make_record("slow"), make_record("short"), make_record("a")]
    assert shard(write_jsonl(tmp_path / "a.jsonl", records), tmp_path / "out", "--videos", videos) == 0
    messages = {e["key"]: e["message"] for e in manifest_of(tmp_path / "out")["broken_videos"]}
    assert messages == {
        "large_0": "large.mp4: the video is 96 x 64, but the record was annotated on one of 64 x 48 at 25 fps",
        "slow_0": "slow.mp4: the video has 10 frames a second, but the record was annotated on one of 64 x 48 at 25 fps",
        "short_0": "short.mp4: the video ends with frame 29, but the record annotates frame 45",
    }
    assert [key for key, _, _ in read(tmp_path / "out", "default_video")] == ["a_0"]


def test_no_clip_at_all_is_a_failure(annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert shard(annotations, tmp_path / "out", "--videos", tmp_path / "empty") == 2
    assert "error: none of the 15 clips could be cut" in capsys.readouterr().err
    assert len(read(tmp_path / "out", "default")) == 15


def test_invalid_records_are_left_out_counted_and_set_aside(
    tmp_path: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [records[0], {**records[1], "fps": -1}, records[2], records[0]])
    with path.open("a") as file:
        file.write('{"video_id": "cut o')
    assert shard(path, tmp_path / "out", "--rejected", tmp_path / "rejected.jsonl") == 0
    assert [record for _, record, _ in read(tmp_path / "out", "default")] == [records[0], records[2]]
    reasons = {"duplicate_key": 1, "out_of_range": 1, "unreadable": 1}
    assert manifest_of(tmp_path / "out")["rejected"] == {"default": {"train": reasons}}
    aside = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [entry["problems"][0]["reason"] for entry in aside] == ["out_of_range", "duplicate_key", "unreadable"]
    assert aside[1]["record"] == records[0]
    assert "2 of 4 records" in capsys.readouterr().out


def test_nothing_valid_is_an_error_and_leaves_the_way_free(
    tmp_path: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [{**records[0], "fps": -1}])
    assert shard(bad, tmp_path / "out") == 2
    assert "none of the 1 records can be used (out_of_range 1)" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert shard(write_jsonl(tmp_path / "good.jsonl", records), tmp_path / "out") == 0


def test_order_and_shuffling(tmp_path: Path, annotations: Path, records: Records) -> None:
    orders = []
    for name, options in {
        "plain": (),
        "one": ("--shuffle", 1),
        "again": ("--shuffle", 1),
        "two": ("--shuffle", 2),
    }.items():
        assert shard(annotations, tmp_path / name, "--samples-per-shard", 4, *options) == 0
        orders.append([record for _, record, _ in read(tmp_path / name, "default")])
    plain, one, again, two = orders
    assert plain == records
    assert one == again
    assert plain != one != two
    key = lambda record: (record["video_id"], record["clip_id"])  # noqa: E731
    assert sorted(one, key=key) == sorted(two, key=key) == sorted(plain, key=key)


def test_processed_and_several_annotation_files(tmp_path: Path, records: Records) -> None:
    first, second = (write_jsonl(tmp_path / f"{i}.jsonl", part) for i, part in enumerate((records[:5], records[5:])))
    assert shard(first, tmp_path / "out", "--annotations", second, "--processed") == 0
    assert [record for _, record, _ in read(tmp_path / "out", "default")] == [processed(record) for record in records]
    assert any(processed(record) != record for record in records)


def test_released_records_get_every_field(tmp_path: Path, records: Records) -> None:
    ours = ("frame_indices", "timestamps", "track_phrases", "track_ids", "scores", "metadata")
    plain = [make_record("a", i) for i in range(3)]
    released = [{name: value for name, value in record.items() if name not in ours} for record in plain]
    assert shard(write_jsonl(tmp_path / "a.jsonl", released), tmp_path / "out") == 0
    assert [record for _, record, _ in read(tmp_path / "out", "default")] == plain


def test_runs_into_one_folder_add_up_in_any_order(tmp_path: Path, records: Records, videos: Path) -> None:
    runs = [
        (records[:6], ("--config", "processed", "--processed", "--videos", videos, "--license", "cc-by-nc-sa-4.0")),
        (records[6:9], ("--split", "validation", "--config", "processed", "--processed", "--name", "Test set")),
        (records[:6], ("--config", "raw")),
    ]
    for name, order in (("forth", (0, 1, 2)), ("back", (2, 1, 0))):
        for number in order:
            path = write_jsonl(tmp_path / f"{number}.jsonl", runs[number][0])
            assert shard(path, tmp_path / name, *runs[number][1]) == 0
    assert files(tmp_path / "forth") == files(tmp_path / "back")
    manifest = manifest_of(tmp_path / "forth")
    assert {name: [*entry["splits"]] for name, entry in manifest["configs"].items()} == {
        "processed": ["train", "validation"],
        "processed_video": ["train"],
        "raw": ["train"],
    }
    assert (manifest["name"], manifest["license"], manifest["language"]) == ("Test set", "cc-by-nc-sa-4.0", ["en"])


def test_a_card_changed_by_hand_stays(tmp_path: Path, annotations: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert shard(annotations, tmp_path / "out") == 0
    assert shard(annotations, tmp_path / "out", "--license", "mit") == 0
    card = tmp_path / "out" / "README.md"
    assert "license: mit" in card.read_text()
    card.write_text("my own words")
    assert shard(annotations, tmp_path / "out", "--split", "test") == 0
    assert card.read_text() == "my own words"
    assert "was changed by hand and stays" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--config", "a/b"), "--config: expected letters"),
        (("--config", "a_video"), "leave out `_video`"),
        (("--split", "train-clean"), "--split: expected letters"),
        (("--samples-per-shard", "0"), "--samples-per-shard: expected a positive number"),
        (("--workers", "0"), "--workers: expected a positive number"),
        (("--videos", "nowhere"), "--videos: no such folder: 'nowhere'"),
        (("--annotations", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_meant(
    tmp_path: Path, annotations: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], message: str
) -> None:
    assert shard(annotations, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not [name for name in files(tmp_path) if name.endswith((".tar", ".json"))]


def test_a_shard_that_cannot_be_written_ends_the_run_in_one_line(
    tmp_path: Path, annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "default").write_text("a file in the way")
    assert shard(annotations, tmp_path / "out", "--samples-per-shard", 4) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_boxes_are_those_of_the_input_to_the_last_bit(whole: Path, records: Records) -> None:
    for (_, written, _), record in zip(read(whole, "default"), records, strict=True):
        ours, theirs = ([np.array(boxes, np.float32).tobytes() for boxes in r["bboxes"]] for r in (written, record))
        assert ours == theirs
