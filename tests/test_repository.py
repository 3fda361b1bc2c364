"""What the repository promises at its front door: the examples of the README run, and what it carries is what its commands make."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.report import evaluation_table, streaming_table, table
from examples.make_clip import background, draw_frame
from modeling_grove import GroundedCaption, read_video
from tests.conftest import ROOT
from tests.demo_checkpoint import demo_config

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_python_runs_as_printed(tmp_path):
    """In order, in one process, from a folder that has what a clone has; without those that need a published model."""
    blocks = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "org/" not in block]
    assert len(blocks) >= 4
    for name in ("examples", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    run = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["clip.json", "clip.mp4", "clip.png"]
    assert "['blue ball', 'crate']" in run.stdout


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
    assert table() in README
    assert streaming_table() in (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert evaluation_table() in (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


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


def command_blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of what a page has a reader run, but for the installation, which a test machine has."""
    blocks = re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL)
    assert blocks
    return [(language, text) for language, text in blocks if not text.startswith("pip install")]


def run_block(language: str, text: str, folder: Path) -> None:
    """As a reader would in the root of a clone, but in a folder that is not ours to litter."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = ["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 0, f"{text}\n{run.stderr}"


@pytest.mark.slow
def test_the_page_on_data_sets_runs_as_printed(tmp_path):
    """In order, in an empty folder."""
    blocks = command_blocks((ROOT / "docs" / "datasets.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    for block in blocks:
        run_block(*block, tmp_path)
    assert len(list((tmp_path / "preview").glob("*.png"))) == 2
    assert (tmp_path / "exports" / "coco.json").stat().st_size > 1000


@pytest.mark.slow
def test_the_page_on_evaluation_runs_as_printed(tmp_path):
    """In order, in a folder that has the demo model."""
    blocks = command_blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    for block in blocks:
        run_block(*block, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "outputs"}  # as the page says
    results = tmp_path / "outputs" / "results"
    assert len(list((results / "noisy" / "worst").glob("*.png"))) == 4
    assert (results / "noisy" / "worst" / "index.html").stat().st_size > 1000
    for name in ("threshold/threshold", "table2/baselines"):
        assert all((results / f"{name}{suffix}").stat().st_size > 500 for suffix in (".md", ".json", ".png"))


def readme_commands() -> list[str]:
    """The lines of the README that call this repository; a line that ends in a backslash goes on in the next."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python -m")]


@pytest.mark.slow
def test_readme_commands_run(tmp_path):
    """On the demo's video and a few clips; the conversion, which needs the published weights, has its options checked alone."""
    for name in ("examples", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = readme_commands()
    assert len(commands) >= 7
    for command in commands:
        if "ekazakos/" in command:
            module = command.split()[2]
            shown = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT)
            assert all(option in shown.stdout for option in re.findall(r"--[a-z-]+", command)), command
            continue
        command = re.sub(r"\b(LONG_)?VIDEO\b", "examples/clip.mp4", command)
        run_block("bash", re.sub(r"=(1000|100)\b", "=4", command), tmp_path)
        shapes = tmp_path / "shapes" / "test.jsonl"
        for name in ("val", "predictions"):
            if shapes.exists() and not (tmp_path / f"{name}.jsonl").exists():
                (tmp_path / f"{name}.jsonl").symlink_to(shapes)
    assert (tmp_path / "outputs" / "results" / "demo" / "results.json").is_file()
