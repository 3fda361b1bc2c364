"""Clips cut where the scene changes."""

import json

import av
import numpy as np
import pytest

from modeling_grove.video_file_grove import VideoFile
from modeling_grove.video_grove import read_video
from pipeline_annotate.__main__ import main
from pipeline_annotate.clip_lists import ClipRequest, read_table
from pipeline_annotate.scenes import cut_at_scenes, scene_starts

RATE = 10


def write_scenes(path, *seconds):
    """Scenes of slightly moving noise, each around another colour."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number, length in enumerate(seconds):
            colour = np.array([(200, 40, 40), (20, 20, 60), (240, 240, 230)][number % 3])
            picture = np.clip(colour + rng.integers(-5, 5, (64, 96, 3)), 0, 255).astype(np.uint8)
            for step in range(round(length * RATE)):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, step, axis=1), format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "cuts.mp4", 2.0, 3.5, 0.4, 2.0)
    write_scenes(folder / "one.mp4", 2.0)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def opened(path):
    return VideoFile(str(path), path.name, None)


def test_scenes_start_where_the_picture_changes(videos):
    assert scene_starts(opened(videos / "cuts.mp4")) == pytest.approx([2.0, 5.5, 5.9])
    assert scene_starts(opened(videos / "cuts.mp4"), start=2.5, end=5.7) == pytest.approx([5.5])
    assert scene_starts(opened(videos / "one.mp4")) == []


def test_seconds_are_those_of_clips_whatever_the_container_counts_from(videos, tmp_path):
    """A Matroska file whose first frame is at five seconds."""
    with av.open(str(videos / "cuts.mp4")) as source, av.open(str(tmp_path / "late.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = int(5 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                target.mux(packet)
    assert scene_starts(opened(tmp_path / "late.mkv")) == pytest.approx([2.0, 5.5, 5.9], abs=2e-3)
    found = cut_at_scenes(ClipRequest("late", 0, "late.mkv"), tmp_path, 0.3)
    assert [(clip.start, clip.end) for clip in found.clips][-1] == pytest.approx((5.9, 7.9), abs=2e-3)
    for clip in found.clips:
        assert len(read_video(tmp_path / "late.mkv", start_time=clip.start, end_time=clip.end).frames) > 5


def test_a_table_of_scenes(videos, tmp_path, capsys):
    table = tmp_path / "clips.jsonl"
    assert main(["scenes", str(videos), "--output", str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(table), "videos": 2, "clips": 4, "undecodable_video": 1,
    }  # fmt: skip
    clips = read_table(table)
    assert [(clip.key, clip.start, clip.end) for clip in clips] == [
        ("cuts_0", 0.0, 2.0),
        ("cuts_1", 2.0, 5.5),
        ("cuts_2", 5.9, 7.9),
        ("one_0", 0.0, 2.0),
    ]  # fmt: skip  (what is shorter than a second is no clip)


def test_long_scenes_are_cut_into_windows(videos, tmp_path):
    table = tmp_path / "clips.jsonl"
    assert main(["scenes", str(videos), "--window", "1.5", "--output", str(table)]) == 0
    spans = [(clip.start, clip.end) for clip in read_table(table) if clip.video_id == "cuts"]
    assert spans == [(0.0, 1.5), (2.0, 3.5), (3.5, 5.0), (5.9, 7.4)]


def test_parts_of_videos(videos, tmp_path):
    listed, table = tmp_path / "parts.csv", tmp_path / "clips.jsonl"
    listed.write_text("video,start,end\ncuts.mp4,1.0,4.0\n")
    assert main(["scenes", str(videos), "--clips", str(listed), "--output", str(table)]) == 0
    assert [(clip.start, clip.end) for clip in read_table(table)] == [(1.0, 2.0), (2.0, 4.0)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "1.5"], "expected a threshold in (0, 1)"),
        (["--window", "0.5"], "expected at least --least"),
        (["--clips", "frames.jsonl"], "is given in frames"),
    ],
)
def test_bad_input(options, said, videos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"video_id": "one", "clip_id": 0, "video_fname": "one.mp4", "clip_start_frame": 0, "clip_end_frame": 9}
    (tmp_path / "frames.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["scenes", str(videos), "--output", "clips.jsonl", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_table_that_was_begun_for_other_videos_is_not_gone_on_with(videos, tmp_path, capsys):
    table = tmp_path / "clips.jsonl"
    (tmp_path / "clips.part.jsonl").write_text(
        '{"video_id": "other", "clip_id": 0, "video": "other.mp4", "start": [0], "end": [2]}\n'
    )
    (tmp_path / "clips.part.settings.json").write_text(
        json.dumps({"threshold": 0.3, "least": 1.0, "window": None, "videos": "?"})
    )
    assert main(["scenes", str(videos), "--output", str(table)]) == 2
    assert "was made with other videos" in capsys.readouterr().err
