"""Lists of clips: folders, tables in every layout, windows, and what is held back."""

import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from pipeline_annotate.clip_lists import ClipRequest, clips_of_folder, cut, read_table, windows, without


def test_all_videos_of_a_folder_in_the_order_of_their_names(tmp_path):
    for name in ("b.mp4", "a/one.MKV", "a/notes.txt", "c.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = clips_of_folder(tmp_path)
    assert [(clip.key, clip.video_fname) for clip in found] == [
        ("a-one_0", "a/one.MKV"),
        ("b_0", "b.mp4"),
        ("c_0", "c.webm"),
    ]
    with pytest.raises(ValueError, match="no videos"):
        clips_of_folder(tmp_path / "nowhere")
    (tmp_path / "b.webm").touch()
    with pytest.raises(ValueError, match=r"b.mp4 and b.webm would both be 'b'"):
        clips_of_folder(tmp_path)


ROWS = [
    {"video": "a.mp4", "start": 0.5, "end": 8.0},
    {"video": "a.mp4", "start": 8.0, "end": None},
    {"video": "b/c.mp4", "start": None, "end": None},
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_in_every_format(tmp_path, suffix):
    path = tmp_path / f"clips.{suffix}"
    if suffix == "csv":
        lines = [
            "video,start,end",
            *(",".join("" if value is None else str(value) for value in row.values()) for row in ROWS),
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read_table(path) == [
        ClipRequest("a", 0, "a.mp4", 0.5, 8.0),
        ClipRequest("a", 1, "a.mp4", 8.0),
        ClipRequest("b-c", 0, "b/c.mp4"),
    ]


def test_records_give_their_frames_and_howtocaption_its_lists(tmp_path):
    record = {
        "video_id": "v",
        "clip_id": 7,
        "video_fname": "v.mp4",
        "clip_start_frame": 10,
        "clip_end_frame": 90,
        "fps": 5,
    }
    (tmp_path / "records.jsonl").write_text(json.dumps(record), encoding="utf-8")
    assert read_table(tmp_path / "records.jsonl") == [ClipRequest("v", 7, "v.mp4", start_frame=10, end_frame=90)]
    captions = {"x": {"start": [0, 8], "end": [8, 16], "text": [["a"], ["b"]]}}
    (tmp_path / "howto.json").write_text(json.dumps(captions), encoding="utf-8")
    assert read_table(tmp_path / "howto.json") == [
        ClipRequest("x", 0, "x.mp4", 0.0, 8.0),
        ClipRequest("x", 1, "x.mp4", 8.0, 16.0),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"video": "../a.mp4"}], "row 1: video: expected a file below the folder of videos, got '../a.mp4'"),
        ([{"video": "a.mp4", "start": 9, "end": 3}], "row 1: a.mp4: start 9.0, end 3.0; expected 0 <= start < end"),
        ([{"video": "a.mp4", "start": "soon"}], "row 1: could not convert string to float: 'soon'"),
        (
            [{"video": "a.mp4", "clip_id": 1}, {"video": "a.mp4", "clip_id": 1}],
            "row 2: the key 'a_1' is row 1's already",
        ),
        ([{"video": "a.mp4", "end": -1}], "row 1: a.mp4: start None, end -1.0"),
        ([{"video": "a.mp4", "clip_start_frame": 5, "clip_end_frame": 2}], "row 1: a.mp4: frames 5..2"),
        ([{"title": "a"}], "row 1: expected a column `video` (or `video_fname`, `video_id`), got title"),
        ([{"video": "a.mp4", "start": [1, 2], "end": [3]}], "row 1: a: start has 2 entries; expected as many in end"),
        ([], "no clips"),
    ],
)
def test_rows_that_do_not_fit_are_one_line(tmp_path, rows, message):
    path = tmp_path / "clips.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_table(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_windows_of_one_length_with_the_rest():
    whole = ClipRequest("a", 0, "a.mp4")
    cut = windows(whole, duration=20.5, seconds=8)
    assert [(clip.clip_id, clip.start, clip.end) for clip in cut] == [(0, 0, 8), (1, 8, 16), (2, 16, 20.5)]
    assert len(windows(whole, duration=16.5, seconds=8)) == 2  # half a second is left out
    assert len(windows(whole, duration=0.5, seconds=8)) == 1
    part = windows(ClipRequest("a", 3, "a.mp4", 4.0, 12.0), duration=20.5, seconds=4)
    assert [(clip.clip_id, clip.start, clip.end) for clip in part] == [(3, 4, 8), (4, 8, 12)]
    with pytest.raises(ValueError, match="windows of 0 s"):
        windows(whole, 10, 0)


def test_clips_are_cut_by_what_their_videos_say_of_their_length(shapes):
    name = next((shapes / "videos").iterdir()).name
    asked = [ClipRequest("v", 0, name), ClipRequest("gone", 0, "gone.mp4")]
    found = cut(asked, shapes / "videos", 1.5)  # of four seconds
    assert [(clip.key, clip.start) for clip in found] == [("v_0", 0), ("v_1", 1.5), ("v_2", 3.0), ("gone_0", None)]
    with pytest.raises(ValueError, match="two clips would have the key 'v_1'"):
        cut([asked[0], ClipRequest("v", 1, name)], shapes / "videos", 1.5)


def test_what_is_held_back_is_left_out():
    clips = [ClipRequest("a", 0, "a.mp4"), ClipRequest("b", 0, "b.mp4")]
    assert without(clips, {"a"}) == clips[1:]
