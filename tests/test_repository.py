"""What the repository promises at its front door: the examples of the README run, and what it carries is what its commands make."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from transformers import pipeline

from benchmarks.report import (
    evaluation_table,
    first_caption_line,
    grove_tiny_seeds_table,
    grove_tiny_table,
    streaming_table,
    table,
    training_table,
)
from eval.provenance import describe_model
from examples.make_clip import background, draw_frame
from modeling_grove import GroundedCaption, read_video
from tests.conftest import ROOT
from tests.demo_checkpoint import demo_config

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_of_the_readme_and_of_captioning_runs_as_printed(tmp_path):
    """In order, in one process, from a folder that has what a clone has; without those that need a published model."""
    text = README + (ROOT / "docs" / "captioning.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "org/" not in block]
    assert len(blocks) >= 6
    for name in ("examples", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    run = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["clip.json", "clip.mp4", "clip.png"]
    assert "['man', 'wall']" in run.stdout


def test_readme_shows_the_four_calls():
    for call in (
        "import modeling_grove  # registers GROVE",
        'AutoModel.from_pretrained("org/grove")',
        'pipeline("grounded-video-captioning")',
        'load_dataset("org/howtoground1m", streaming=True)',
        "accelerate launch train/pt.py",
    ):
        assert call in README


def test_readme_speed_comes_from_the_results_files():
    assert table() in README and first_caption_line() in README
    assert streaming_table() in (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert evaluation_table() in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert training_table() in training
    assert grove_tiny_table() in README and grove_tiny_table() in training
    assert grove_tiny_seeds_table() in training


def test_the_trained_model_is_small_and_says_what_its_results_say():
    folder = ROOT / "checkpoints" / "grove-tiny"
    for path in (folder, folder.with_name("grove-tiny-stills")):
        assert sum(weights.stat().st_size for weights in path.glob("*.safetensors")) < 10e6
    measured = json.loads((ROOT / "docs" / "studies" / "grove-tiny.json").read_text(encoding="utf-8"))
    assert measured["model"]["fingerprint"] == describe_model(str(folder))["fingerprint"]
    swept = json.loads((ROOT / "docs" / "studies" / "threshold.json").read_text(encoding="utf-8"))
    assert swept["run"]["model"]["fingerprint"] == measured["model"]["fingerprint"]
    (row,) = (row for row in swept["rows"] if row["threshold"] == 0.5)
    for protocol in ("official", "corrected"):
        assert row[protocol]["AP50"] == pytest.approx(measured["headline"][protocol]["AP50"])


def test_studies_start_from_the_model_of_stills_that_is_here():
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "docs" / "studies").glob("*.json")]
    starts = {content["start"]["fingerprint"] for content in contents if "start" in content}
    assert starts == {describe_model(str(ROOT / "checkpoints" / "grove-tiny-stills"))["fingerprint"]}


@pytest.mark.slow
def test_the_trained_model_captions_the_demo_clip():
    """Its words are those of the world, its boxes lie on what they name, and they are absent when that is."""
    clip = ROOT / "examples" / "shapes.mp4"
    truth = GroundedCaption.load(clip.with_suffix(".json"))
    found = pipeline("grounded-video-captioning", model=str(ROOT / "checkpoints" / "grove-tiny"))(clip)
    assert [track.phrase for track in found.tracks] == ["a man", "a brick wall"]
    for ours, theirs in zip(found.tracks, truth.tracks, strict=True):
        np.testing.assert_array_equal(ours.presence, theirs.presence)
        seen = theirs.presence
        assert np.abs(ours.boxes[seen] - theirs.boxes[seen]).mean() < 12  # pixels of 256


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_example_is_what_its_command_makes(example_clip):
    """The committed boxes lie on the committed pixels; lossy coding aside, these are the pictures that the command draws."""
    truth = GroundedCaption.load(example_clip.with_suffix(".json"))
    clip = read_video(example_clip)
    np.testing.assert_array_equal(clip.frame_indices, truth.frame_indices)
    behind = background()
    for position in (0, 10, 22):
        picture, boxes = draw_frame(behind, truth.timestamps[position])
        assert np.abs(clip.frames[position].astype(int) - picture).mean() < 6
        for track, box in zip(truth.tracks, boxes, strict=True):
            assert track.presence[position] == (box is not None)
            if box is not None:
                np.testing.assert_array_equal(track.boxes[position], box)
    assert [track.presence.all() for track in truth.tracks] == [False, True, False]


def test_demo_checkpoint_is_small_and_current(demo_checkpoint):
    assert (demo_checkpoint / "model.safetensors").stat().st_size < 2 * 2**20
    saved = type(demo_config()).from_pretrained(demo_checkpoint)
    ours = demo_config()
    for name in ("text_config", "vision_config", "grounding_config"):
        assert getattr(saved, name).hidden_size == getattr(ours, name).hidden_size
    assert (saved.video_token_id, saved.det_token_id) == (ours.video_token_id, ours.det_token_id)
