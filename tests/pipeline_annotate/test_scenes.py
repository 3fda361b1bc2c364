"""Clips cut where the scene changes."""

import json

import av
import numpy as np
import pytest

from pipeline_annotate.__main__ import main
from pipeline_annotate.clip_lists import read_table
from pipeline_annotate.scenes import scene_starts

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


def test_scenes_start_where_the_picture_changes(videos):
    assert scene_starts(videos / "cuts.mp4") == pytest.approx([2.0, 5.5, 5.9])
    assert scene_starts(videos / "cuts.mp4", start=2.5, end=5.7) == pytest.approx([5.5])
    assert scene_starts(videos / "one.mp4") == []


def test_a_table_of_scenes(videos, tmp_path, capsys):
    table = tmp_path / "clips.jsonl"
    assert main(["scenes", str(videos), "--output", str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(table), "written": 2, "undecodable_video": 1}
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
