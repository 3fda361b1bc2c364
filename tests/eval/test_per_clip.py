"""Rows of clip scores: their numbers, and their file."""

import math

import numpy as np
import pytest

from dataset_builders.reading import read_jsonl
from eval.per_clip import value_at, write_per_clip

ROWS = [
    {"key": "b_0", "official": {"AP50": 0.5, "center_frame": {"AP50": -1.0}}},
    {"key": "c_0", "official": {"AP50": math.nan}},
    {"key": "a_0", "official": {"AP50": 0.5}},
    {"key": "d_0", "official": {"AP50": 1 / 3, "frame_mIoU": [0.25]}},
    {"key": "e_0"},
]


def test_only_numbers_are_values():
    assert value_at(ROWS[0], ("official", "center_frame", "AP50")) == -1.0
    assert math.isnan(value_at(ROWS[4], ("official", "AP50")))
    assert math.isnan(value_at(ROWS[0], ("official", "center_frame")))  # an object, no number
    assert math.isnan(value_at({"hit": True}, ("hit",)))
    assert value_at({"count": 3}, ("count",)) == 3.0


def test_every_digit_survives_and_nan_becomes_null(tmp_path):
    path = tmp_path / "clips.jsonl"
    values = {"key": "\u00e9_0", "corrected": {"AP50": 0.1 + 0.2, "mIoU": np.float64(1 / 3), "matches": np.int64(4)}}
    assert write_per_clip(iter([*ROWS, values]), path) == 6
    read = [row for _, row in read_jsonl(path)]
    assert read[5] == values and read[0] == ROWS[0] and read[1] == {"key": "c_0", "official": {"AP50": None}}
    assert [file.name for file in tmp_path.iterdir()] == ["clips.jsonl"]


def test_a_failing_row_leaves_the_old_file(tmp_path):
    path = tmp_path / "clips.jsonl"
    write_per_clip(ROWS, path)
    with pytest.raises(TypeError):
        write_per_clip([*ROWS, {"key": object()}], path)
    assert len([*read_jsonl(path)]) == 5 and len(list(tmp_path.iterdir())) == 1
