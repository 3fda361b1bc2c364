"""Captioners of videos in place of stage 2."""

from pathlib import Path

import numpy as np
import pytest

from dataset_builders.reading import read_entries, read_records
from modeling_grove.grounded_caption import GroundedCaption
from pipeline_annotate.__main__ import main
from pipeline_annotate.clip_captioners import GitClipCaptioner, GroveClipCaptioner, noun_phrases
from pipeline_annotate.stage2 import read_clips
from pipeline_annotate.stage_files import Dropped
from pipeline_annotate.video_captions import ClipFacts

from . import tiny_models
from .captioned_clips import clip

GROVE = Path(__file__).resolve().parents[2] / "checkpoints" / "grove-tiny"
WORDS = ["a", "man", "woman", "red", "blue", "cup", "book", "holds", "and", "the", "on", "grass"]


@pytest.fixture(scope="module")
def git(tmp_path_factory):
    return tiny_models.git(tmp_path_factory.mktemp("models") / "git", WORDS)


def test_phrases_of_a_plain_caption(pipeline):
    caption = noun_phrases("a man holds a red cup on the grass", pipeline)
    assert caption.phrases == ["a man", "a red cup", "the grass"]


def test_git_reads_frames_of_the_whole_clip(frames, shapes, git, pipeline):
    captioner = GitClipCaptioner(str(git), shapes / "videos", pipeline, max_new_tokens=6)
    clips = [ClipFacts(one, ()) for one in read_clips(frames)]
    together = captioner.write(clips)
    assert [captioner.write([one])[0] for one in clips] == together
    assert all(set(caption.caption.split()) <= {*WORDS, "[UNK]"} and caption.caption for caption in together)
    described = captioner.describe()
    assert described["frames"] == 6 and described["model"] == "git" and len(described["fingerprint"]) == 32


def test_a_clip_that_is_gone_does_not_stop_the_others(frames, shapes, git, pipeline):
    captioner = GitClipCaptioner(str(git), shapes / "videos", pipeline, max_new_tokens=4)
    there = ClipFacts(next(read_clips(frames)), ())
    gone = ClipFacts(clip("<p>a cup</p>", name="gone"), ())
    first, second = captioner.write([gone, there])
    assert isinstance(first, Dropped) and first.reason == "missing_video" and not isinstance(second, Dropped)
    assert captioner.write([gone]) == [first]


def test_frames_that_do_not_decode_do_not_mix_clips(shapes, git, pipeline, monkeypatch):
    captioner = GitClipCaptioner(str(git), shapes / "videos", pipeline, max_new_tokens=6)
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (count, 32, 48, 3), np.uint8) for count in (6, 3))
    together = captioner._captions([one, other, one])
    assert together == [captioner._captions([one])[0], captioner._captions([other])[0], together[0]]


def test_git_of_pictures_is_refused(tmp_path, pipeline):
    folder = tiny_models.git(tmp_path / "git", WORDS, frames=None)
    with pytest.raises(ValueError, match="expected GIT of videos, such as microsoft/git-base-vatex"):
        GitClipCaptioner(str(folder), tmp_path, pipeline)


def test_grove_captions_the_clips_of_stage_1(frames, shapes, spacy_folder, tmp_path):
    captions, records = tmp_path / "captions.jsonl", tmp_path / "records.jsonl"
    line = ["stage2", str(frames), "--video-captioner", f"grove:{GROVE}", "--videos", str(shapes / "videos")]
    options = ["--spacy", str(spacy_folder), "--allow-unknown-things", "--output", str(captions)]
    assert main([*line, *options]) == 0
    lines = [entry.value for entry in read_entries(str(captions))]
    assert len(lines) == 3 and lines[0]["provenance"]["stage2"]["back_end"] == "grove"
    whole = GroveClipCaptioner(str(GROVE), shapes / "videos")._captioner(
        str(shapes / "videos" / lines[0]["video_fname"])
    )
    assert isinstance(whole, GroundedCaption) and lines[0]["caption"] == whole.caption
    assert lines[0]["phrases"] == [track.phrase for track in whole.tracks]
    assert main(["stage3", str(frames), str(captions), "--output", str(records)]) == 0
    assert len(list(read_records(str(records)))) >= 1


def test_what_a_captioner_of_videos_needs(frames, tmp_path, spacy_folder, capsys):
    line = ["stage2", str(frames), "--spacy", str(spacy_folder), "--output", str(tmp_path / "captions.jsonl")]
    for options, said in (
        (["--video-captioner", f"grove:{GROVE}"], "give the folder of the videos with --videos"),
        (["--video-captioner", "grove"], "expected grove:MODEL or git:MODEL"),
        (["--video-captioner", f"grove:{tmp_path}", "--videos", str(tmp_path)], "cannot be loaded"),
        (["--video-captioner", f"git:{tmp_path}", "--videos", str(tmp_path)], "cannot be loaded"),
        (["--video-captioner", f"grove:{GROVE}", "--whole-captions"], "--whole-captions"),
    ):
        assert main([*line, *options]) == 2
        assert said in capsys.readouterr().err
