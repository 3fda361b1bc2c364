"""The file of clip scores, and which clips are the worst."""

import math

import numpy as np
import pytest

from eval.per_clip import read_per_clip, score_paths, value_at, worst, write_per_clip

ROWS = [
    {"key": "b_0", "official": {"AP50": 0.5, "center_frame": {"AP50": -1.0}}},
    {"key": "c_0", "official": {"AP50": math.nan}},
    {"key": "a_0", "official": {"AP50": 0.5}},
    {"key": "d_0", "official": {"AP50": 1 / 3, "frame_mIoU": [0.25]}},
    {"key": "e_0"},
]


def test_the_lowest_come_first_and_equal_ones_by_key():
    assert worst(ROWS, ("official", "AP50"), 9) == [("d_0", 1 / 3), ("a_0", 0.5), ("b_0", 0.5)]
    assert worst(ROWS, ("official", "AP50"), 1) == [("d_0", 1 / 3)]
    assert worst(ROWS, ("official", "center_frame", "AP50"), 3) == [("b_0", -1.0)]
    assert worst(ROWS, ("official", "AP50"), 0) == [] == worst([], ("official", "AP50"), 3)


def test_a_score_that_no_clip_has_is_an_error_that_lists_the_others():
    with pytest.raises(
        ValueError, match="no clip has a score 'official/AP'; the rows have official/AP50, official/center"
    ):
        worst(ROWS, ("official", "AP"), 3)
    with pytest.raises(ValueError, match="count: expected at least 0 clips, got -1"):
        worst(ROWS, ("official", "AP50"), -1)


def test_paths_are_those_of_numbers():
    assert score_paths(ROWS) == ["official/AP50", "official/center_frame/AP50"]
    assert math.isnan(value_at(ROWS[0], ("official", "center_frame")))  # an object, no number
    assert math.isnan(value_at({"hit": True}, ("hit",)))
    assert value_at({"count": 3}, ("count",)) == 3.0


def test_every_digit_survives_and_nan_becomes_null(tmp_path):
    path = tmp_path / "clips.jsonl"
    values = {"key": "\u00e9_0", "corrected": {"AP50": 0.1 + 0.2, "mIoU": np.float64(1 / 3), "matches": np.int64(4)}}
    assert write_per_clip(iter([*ROWS, values]), path) == 6
    read = read_per_clip(path)
    assert read[5] == values and read[0] == ROWS[0] and read[1] == {"key": "c_0", "official": {"AP50": None}}
    assert [file.name for file in tmp_path.iterdir()] == ["clips.jsonl"]


def test_a_failing_row_leaves_the_old_file(tmp_path):
    path = tmp_path / "clips.jsonl"
    write_per_clip(ROWS, path)
    with pytest.raises(TypeError):
        write_per_clip([*ROWS, {"key": object()}], path)
    assert len(read_per_clip(path)) == 5 and len(list(tmp_path.iterdir())) == 1


def test_what_is_no_row_is_named(tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_text('{"key": "a_0", "x": 1}\n{"AP50": 1, "clip": "a"}\n')
    with pytest.raises(ValueError, match=r"clips.jsonl: line 2: key: expected the clip's key, got None"):
        read_per_clip(path)
    path.write_text('{"key": "a_0", "x": 1}\n{"key": "b_0", "x"')
    with pytest.raises(ValueError, match="line 2.*cut off"):
        read_per_clip(path)
