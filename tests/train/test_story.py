"""The whole story, in its short form."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from train.__main__ import main


@pytest.mark.slow
def test_from_raw_videos_to_a_stranger(spacy_folder, tmp_path, capsys, monkeypatch, warm_python):
    monkeypatch.setattr(sys, "executable", str(warm_python))
    line = ["story", "--output", str(tmp_path / "story"), "--short", "--spacy", str(spacy_folder), "--json"]
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [text.partition(":")[0] for text in told["stranger"]] == [
        "modeling_grove", "AutoModel", "load_dataset", "pipeline", "evaluate",
    ]  # fmt: skip
    assert told["stranger"][0].endswith("site-packages"), "the stranger must not have this checkout"
    assert told["results"]["AP50"] > 20, "two steps of training should leave the model what it was"
    assert len(told["seconds"]) >= 12 and json.loads((tmp_path / "story" / "story.json").read_text())["versions"]


def test_a_step_that_fails_ends_it_with_what_it_said(tmp_path, capsys):
    (tmp_path / "world").write_text("in the way")
    assert main(["story", "--output", str(tmp_path), "--short"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: videos: ended with status 2; all that it said is in ") and str(tmp_path) in error


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    line = [sys.executable, "-m", "train", "story", "--output", str(tmp_path), "--model", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no config.json; expected the folder of a GROVE model" in done.stderr
