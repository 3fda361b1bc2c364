"""What a stream gives: every sample once, with the right frames, and bad ones counted."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

from dataset_builders.record import from_record
from dataset_builders.stream import GroundedCaptionStream, StreamSource
from dataset_builders.tar_shards import write_shard
from modeling_grove import GroveProcessor
from modeling_grove.windows_grove import segment_midpoints, training_segments
from tests.dataset_builders.stream_shards import NUM_FRAMES, members, write_shards
from tests.records import make_record, make_videos
from tests.synthetic_clips import GREY_LEVELS, frame_numbers


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two shards of clips with video."""
    folder = tmp_path_factory.mktemp("clips")
    write_shards(folder, [5, 4], with_video=True)
    return folder


@pytest.mark.parametrize(
    ("counts", "world_size", "workers", "buffer"),
    [
        ([7, 5, 6, 9], 2, 2, 4),
        ([3, 3, 3, 3, 3, 3, 3, 3], 2, 2, 100),
        ([11], 2, 2, 3),  # fewer shards than consumers
        ([2, 9], 3, 2, 1),
        ([4, 1], 3, 3, 2),  # fewer samples than consumers
        ([6, 8], 1, 1, 0),
    ],
)
def test_ranks_and_workers_see_every_sample_once(tmp_path, counts, world_size, workers, buffer):
    keys = write_shards(tmp_path, counts)
    orders = []
    for epoch in (0, 1):
        seen = []
        for rank in range(world_size):
            stream = GroundedCaptionStream(
                tmp_path, rank=rank, world_size=world_size, shuffle_buffer=buffer, repeat=False, decode=False
            )
            consumers = [stream.consumer(worker, workers, epoch=epoch) for worker in range(workers)]
            mine = [sample.key for consumer in consumers for sample in consumer]
            assert len(mine) == len(stream)
            seen += mine
        assert sorted(seen) == sorted(keys)
        orders.append(seen)
    assert (orders[0] == orders[1]) == (buffer == 0)


def test_samples_are_whole_clips(clips):
    samples = {sample.key: sample for sample in GroundedCaptionStream(clips, repeat=False, seed=4)}
    assert len(samples) == 9
    for key, sample in samples.items():
        video_id, clip_id = key.split("_")
        caption = from_record(make_record(video_id, int(clip_id))).merged()
        assert sample.caption == caption
        assert sample.frames.shape == (8, 48, 64, 3) and sample.frames.dtype == np.uint8
        shown = caption.frame_indices[sample.frame_positions]
        assert frame_numbers(sample.frames) == [number % GREY_LEVELS for number in shown]
        segments = training_segments(caption.num_frames, 8)
        assert all(s <= p < e for p, (s, e) in zip(sample.frame_positions, segments, strict=True))
        assert (sample.source, sample.epoch, sample.worker) == (0, 0, 0)
    assert sorted(sample.draw for sample in samples.values()) == list(range(1, 10))


def test_frames_depend_on_the_sample_and_not_on_who_draws_it(clips):
    def positions(**options):
        stream = GroundedCaptionStream(clips, repeat=False, seed=options.pop("seed", 0))
        workers = options.get("num_workers", 1)
        consumers = [stream.consumer(worker, **options) for worker in range(workers)]
        return {sample.key: sample.frame_positions.tolist() for consumer in consumers for sample in consumer}

    assert positions() == positions(num_workers=3)
    assert positions() != positions(seed=1)
    assert positions() != positions(epoch=1)


def test_midpoints_and_all_frames(clips):
    for sample in GroundedCaptionStream(clips, repeat=False, frames="midpoints", num_frames=4):
        assert sample.frame_positions.tolist() == segment_midpoints(sample.caption.num_frames, 4).tolist()
        assert len(sample.frames) == 4
    sample = next(iter(GroundedCaptionStream(clips, frames="all")))
    assert len(sample.frames) == sample.caption.num_frames == 10


def test_short_clips_repeat_frames(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    cut = json.dumps({"clip": {"first_frame": 0, "num_frames": NUM_FRAMES, "cut": "encode"}})
    record = make_record("short", 0, end_frame=14)
    content = members("short", 0, True)
    write_shard(folder / "a.tar", [("short_0", {**content, "json": json.dumps({**record, "metadata": cut}).encode()})])
    (sample,) = GroundedCaptionStream(folder, repeat=False)
    assert sample.frame_positions.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert frame_numbers(sample.frames) == [0, 0, 0, 5, 5, 5, 10, 10]


def test_encoded_samples(clips, tmp_path):
    write_shards(tmp_path, [2])
    encoded = list(GroundedCaptionStream([clips, tmp_path], repeat=False, decode=False))
    assert len(encoded) == 11
    for sample in encoded:
        assert from_record(sample.record).key == sample.key
        assert (sample.mp4 is None) == (sample.source == 1)


def test_videos_from_a_folder(tmp_path):
    write_shards(tmp_path / "shards", [3, 2])
    videos = make_videos(tmp_path / "videos", ["v0"])
    stream = GroundedCaptionStream(StreamSource(tmp_path / "shards", videos=videos), repeat=False, max_skipped=2)
    consumer = stream.consumer()
    samples = list(consumer)
    assert {sample.key for sample in samples} == {"v0_0", "v0_1", "v0_2"}
    assert consumer.skips.counts == {"no_video": 2}
    for sample in samples:
        shown = sample.caption.frame_indices[sample.frame_positions]
        assert frame_numbers(sample.frames) == [number % GREY_LEVELS for number in shown]


def test_videos_outside_of_the_folder_are_not_read(tmp_path, example_clip):
    shards = tmp_path / "shards"
    shards.mkdir()
    names = [f"../{example_clip.name}", str(example_clip)]
    write_shard(shards / "a.tar", [(f"v_{i}", members("v", i, video_fname=name)) for i, name in enumerate(names)])
    shutil.copy(example_clip, tmp_path)
    consumer = GroundedCaptionStream(StreamSource(shards, videos=shards), repeat=False).consumer()
    assert list(consumer) == [] and consumer.skips.counts == {"bad_record": 2}


def test_a_name_that_no_file_can_have(tmp_path):
    write_shard(tmp_path / "a.tar", [("v_0", members("v", 0, video_fname=f"{'x' * 300}.mp4"))])
    consumer = GroundedCaptionStream(StreamSource(tmp_path, videos=tmp_path), repeat=False).consumer()
    assert list(consumer) == [] and consumer.skips.counts == {"no_video": 1}


def test_a_manifest_spares_counting(tmp_path):
    write_shards(tmp_path / "default", [3, 4])
    shards = [{"name": f"default/shard-{i}.tar", "num_samples": n} for i, n in enumerate([3, 4])]
    manifest = {"configs": {"default": {"with_video": False, "splits": {"train": {"shards": shards}}}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    stream = GroundedCaptionStream(StreamSource(tmp_path, config="default", split="train"), repeat=False, decode=False)
    assert [shard.num_samples for shard in stream.shards[0]] == [3, 4]
    assert len(stream) == len(list(stream)) == 7
    assert len(GroundedCaptionStream(tmp_path / "default" / "*-1.tar", repeat=False, decode=False)) == 4


class TestDamage:
    """Every kind of damage is skipped, counted by its reason, and too much of it is an error."""

    @pytest.fixture
    def damaged(self, tmp_path):
        good = members("v", 0, True)
        empty = json.loads(good["json"])
        empty["bboxes"] = empty["labels"] = empty["track_ids"] = empty["scores"] = [[] for _ in empty["bboxes"]]
        samples = [
            ("v_0", good),
            ("v_1", {**good, "json": b"{"}),
            ("v_2", {**good, "json": b"[1, 2]"}),
            ("v_3", {**good, "json": json.dumps({"caption": 3}).encode()}),
            ("v_4", {**good, "mp4": good["mp4"][: len(good["mp4"]) // 3]}),
            ("v_5", {**good, "mp4": b"no video at all"}),
            ("v_6", {"json": good["json"]}),
            ("v_7", {**good, "json": json.dumps(empty).encode()}),
            ("v_8", members("v", 8, True, metadata="{}")),
            ("v_9", good),
        ]
        write_shard(tmp_path / "a.tar", samples)
        return tmp_path

    counts = {"bad_json": 2, "bad_record": 2, "bad_video": 2, "no_video": 1, "no_visible_object": 1}

    def test_reasons(self, damaged):
        consumer = GroundedCaptionStream(damaged, repeat=False, max_skipped=7).consumer()
        assert sorted(sample.key for sample in consumer) == ["v_0", "v_9"]
        assert consumer.skips.counts == self.counts
        assert consumer.made == 10

    def test_limit(self, damaged):
        stream = GroundedCaptionStream(damaged, repeat=False, max_skipped=6, shuffle_buffer=0)
        message = r"worker 0 of rank 0: 7 of 9 samples are damaged, and max_skipped=6 allows 6 \(.*bad_json 2.*a.tar: sample 8"
        with pytest.raises(ValueError, match=message):
            list(stream)
        with pytest.raises(ValueError, match="max_skipped=0.003 allows 3"):
            list(GroundedCaptionStream(damaged, repeat=False, max_skipped=0.003))

    def test_before_the_start_counts(self, damaged):
        stream = GroundedCaptionStream(damaged, repeat=False, max_skipped=6, shuffle_buffer=0)
        with pytest.raises(ValueError, match="7 of 4 samples"):
            list(stream.consumer(start=3, damaged=6))

    def test_clips_without_objects_can_be_kept(self, damaged):
        consumer = GroundedCaptionStream(damaged, repeat=False, max_skipped=7, keep_empty=True).consumer()
        kept = {sample.key: sample for sample in consumer}
        assert set(kept) == {"v_0", "v_7", "v_9"} and len(kept["v_7"].frames) == 8

    def test_an_endless_stream_of_nothing_ends(self, tmp_path):
        record = members("v", 0, True)
        empty = json.loads(record["json"])
        empty["bboxes"] = empty["labels"] = empty["track_ids"] = empty["scores"] = [[] for _ in empty["bboxes"]]
        content = {**record, "json": json.dumps(empty).encode()}
        write_shard(tmp_path / "a.tar", [(f"v_{i}", content) for i in range(3)])
        with pytest.raises(
            ValueError, match="none of 7 samples drawn one after another can be used.*no object is visible"
        ):
            next(iter(GroundedCaptionStream(tmp_path)))

    @pytest.mark.parametrize("buffer", [0, 4, 100])
    def test_truncated_shard(self, tmp_path, buffer):
        """A shard cut off after it was counted loses its last samples and no other, for every consumer."""
        keys = write_shards(tmp_path, [10, 10])
        streams = [
            GroundedCaptionStream(
                tmp_path, rank=rank, world_size=3, shuffle_buffer=buffer, repeat=False, decode=False, max_skipped=20
            )
            for rank in range(3)
        ]
        whole = (tmp_path / "shard-0.tar").read_bytes()
        (tmp_path / "shard-0.tar").write_bytes(whole[: whole.index(b"v0_6.json") + 700])
        seen, counts = [], {}
        for stream in streams:
            consumer = stream.consumer()
            seen += [sample.key for sample in consumer]
            for reason, count in consumer.skips.counts.items():
                counts[reason] = counts.get(reason, 0) + count
        assert sorted(seen) == sorted(key for key in keys if key not in {"v0_6", "v0_7", "v0_8", "v0_9"})
        assert counts == {"truncated": 1, "missing": 3}

    def test_bad_samples_at_the_ends_of_parts(self, tmp_path):
        """Whoever's part a bad sample is in counts it, once."""
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for i in range(9):  # in parts of three
                info = tarfile.TarInfo(f"v_{i}.{'txt' if i in (2, 3, 8) else 'json'}")
                content = members("v", i)["json"]
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        counts, seen = [], []
        for rank in range(3):
            stream = GroundedCaptionStream(tmp_path, rank=rank, world_size=3, repeat=False, decode=False)
            consumer = stream.consumer()
            seen += [sample.key for sample in consumer]
            counts.append(consumer.skips.counts["no_json"])
        assert sorted(seen) == [f"v_{i}" for i in (0, 1, 4, 5, 6, 7)]
        assert counts == [1, 1, 1]


def test_the_processor_takes_what_the_stream_gives(clips, demo_checkpoint):
    processor = GroveProcessor.from_pretrained(demo_checkpoint)
    stream = GroundedCaptionStream(clips, repeat=False, num_frames=processor.video_processor.window_size)
    samples = list(stream)
    batch = processor.prepare_training(
        [sample.caption for sample in samples],
        [sample.frames for sample in samples],
        [sample.frame_positions for sample in samples],
    )
    assert batch["box_labels"].shape == (9, 8, 3, 4) and batch["objectness_labels"].shape == (9, 8, 3)
    for row, sample in enumerate(samples):
        for column, track in enumerate(sorted(sample.caption.tracks, key=lambda track: track.span)):
            presence = track.presence[sample.frame_positions]
            assert np.array_equal(batch["objectness_labels"][row, :, column].numpy(), presence)
            x1, _, x2, _ = track.boxes[sample.frame_positions][presence].T
            centers = batch["box_labels"][row, :, column, 0].numpy()[presence]
            np.testing.assert_allclose(centers, (x1 + x2) / 2 / sample.caption.width, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank must be in 0..1"),
        ({"rank": 0}, "give both rank and world_size"),
        ({"max_skipped": -1}, "max_skipped must be"),
        ({"max_skipped": 1.5}, "max_skipped must be"),
        ({"num_frames": 0}, "num_frames must be an integer of at least 1, got 0"),
        ({"frames": "first"}, "frames must be one of"),
        ({"shuffle_buffer": -1}, "shuffle_buffer must be an integer of at least 0, got -1"),
        ({"shuffle_buffer": 2.5}, "shuffle_buffer must be an integer of at least 0, got 2.5"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"max_skipped": True}, "max_skipped must be a number .* got True"),
        ({"max_skipped": None}, "max_skipped must be a number .* got None"),
        ({"rank": 0.0, "world_size": 1}, "rank must be an integer, got 0.0"),
        ({"rank": 0, "world_size": 100}, "source 0 has 9 samples for 100 consumers"),
    ],
)
def test_wrong_options(clips, options, message):
    with pytest.raises(ValueError, match=message):
        GroundedCaptionStream(clips, **options)


def test_wrong_sources(clips, tmp_path):
    with pytest.raises(ValueError, match="no shards at"):
        GroundedCaptionStream(tmp_path / "*.tar")
    with pytest.raises(ValueError, match="1 of 2 sources have a weight"):
        GroundedCaptionStream([StreamSource(clips, weight=1.0), clips])
    with pytest.raises(ValueError, match="no samples"):
        GroundedCaptionStream([])
    with pytest.raises(TypeError, match="endless stream has no length"):
        len(GroundedCaptionStream(clips))
