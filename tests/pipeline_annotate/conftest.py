"""What the tests of annotation share: a spaCy pipeline, loaded, and a small world of GroundedShapes."""

from pathlib import Path

import pytest

from dataset_builders.__main__ import main as dataset_command
from pipeline_annotate.__main__ import main
from pipeline_annotate.facts import load_spacy


@pytest.fixture(scope="session")
def pipeline(spacy_folder):
    return load_spacy(str(spacy_folder))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """Twelve clips of GroundedShapes with their records and frame captions."""
    folder = tmp_path_factory.mktemp("annotated") / "shapes"
    assert (
        dataset_command(["shapes", "--output", str(folder), "--split", "train=12", "--size", "64x64", "--seed", "3"])
        == 0
    )
    return folder


@pytest.fixture(scope="session")
def frames(shapes, tmp_path_factory):
    """Stage 1 of three clips."""
    folder = tmp_path_factory.mktemp("captioned")
    listed = folder / "clips.jsonl"
    listed.write_text("".join((shapes / "train.jsonl").read_text().splitlines(keepends=True)[:3]))
    captioner = f"shapes:{shapes / 'train.frames.jsonl'}"
    assert main(["stage1", str(shapes / "videos"), "--clips", str(listed), "--captioner", captioner, "--output",
                 str(folder / "frames.jsonl")]) == 0  # fmt: skip
    return folder / "frames.jsonl"
