"""What a stage leaves: whatever is killed, and whenever, the rest is done again and nothing twice."""

import contextlib
import json

import pytest

from pipeline_annotate.stage_files import Dropped, StageWriter, dropped_path, summary

from .captioned_clips import clip

SETTINGS = {"captioner": "none"}


def write(path, *results):
    with StageWriter(path, SETTINGS) as writer:
        writer.add(results)
    return writer


def interrupt(path, *results):
    """A stage that an error ends."""
    with contextlib.suppress(RuntimeError), StageWriter(path, SETTINGS) as writer:
        writer.add(results)
        raise RuntimeError


def test_a_finished_file_is_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "frames.jsonl"
    writer = write(path, clip("<p>a man</p>", name="a"), Dropped("b_0", "missing_video", "b.mp4: no such file"))
    assert dict(writer.counts) == {"written": 1, "missing_video": 1}
    assert json.loads(path.read_text(encoding="utf-8"))["video_id"] == "a"
    assert json.loads(dropped_path(path).read_text(encoding="utf-8"))["reason"] == "missing_video"
    assert {one.name for one in tmp_path.iterdir()} == {"frames.jsonl", "frames.dropped.jsonl"}
    assert summary(writer.counts) == "1 clips; 1 missing_video"


def test_an_error_leaves_what_was_written_and_half_a_line_is_cut_off(tmp_path):
    path = tmp_path / "frames.jsonl"
    interrupt(path, clip("<p>a man</p>", name="a"), Dropped("b_0", "missing_video", ""))
    assert not path.exists()
    with (tmp_path / "frames.part.jsonl").open("ab") as file:
        file.write(b'{"video_id": "c", "cl')
    with StageWriter(path, SETTINGS) as writer:
        assert writer.done == {"a_0", "b_0"}
        writer.add([clip("<p>a cup</p>", name="c")])
    assert [json.loads(line)["video_id"] for line in path.read_text(encoding="utf-8").splitlines()] == ["a", "c"]


def test_killed_between_the_two_names_nothing_is_forgotten(tmp_path):
    path = tmp_path / "frames.jsonl"
    write(path, clip("<p>a man</p>", name="a"), Dropped("b_0", "missing_video", ""))
    path.rename(tmp_path / "frames.part.jsonl")  # what there is after the first of both renames
    (tmp_path / "frames.part.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    with StageWriter(path, SETTINGS) as writer:
        assert writer.done == {"a_0", "b_0"}
    assert dict(writer.counts) == {"written": 1, "missing_video": 1} and dropped_path(path).stat().st_size


def test_two_cannot_write_the_same_file(tmp_path):
    path = tmp_path / "frames.jsonl"
    with (
        StageWriter(path, SETTINGS),
        pytest.raises(ValueError, match="another process is writing it"),
        StageWriter(path, SETTINGS),
    ):
        pass
    assert path.exists()


def test_parts_of_other_settings_and_other_files_are_refused(tmp_path):
    path = tmp_path / "frames.jsonl"
    interrupt(path, clip("<p>a man</p>"))
    with (
        pytest.raises(ValueError, match="was made with other captioner; remove it"),
        StageWriter(path, {"captioner": "x"}),
    ):
        pass
    with pytest.raises(ValueError, match="expected a file that ends with .jsonl"):
        StageWriter(tmp_path / "frames.json", SETTINGS)
