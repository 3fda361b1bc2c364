"""`docs/annotation.md` runs as printed."""

import json

import pytest

from tests.conftest import ROOT, SPACY_COMMAND
from tests.documentation import command_blocks, run_block


@pytest.mark.slow
def test_the_page_on_annotation_runs_as_printed(spacy_folder, tmp_path, warm_python):
    """But for the spaCy pipeline, which the fixture has made with the same command."""
    blocks = command_blocks((ROOT / "docs" / "annotation.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    assert any(text == f"{SPACY_COMMAND}\n" for _, text in blocks)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "spacy").symlink_to(spacy_folder)
    for language, text in blocks:
        if SPACY_COMMAND not in text:
            run_block(language, text, tmp_path, warm_python)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    stages, whole = tmp_path / "outputs" / "records.jsonl", tmp_path / "outputs" / "annotated"
    assert stages.read_bytes() == (whole / "records.jsonl").read_bytes()
    assert json.loads((whole / "stats.json").read_text(encoding="utf-8"))["clips"]["annotated"] >= 11
    assert list((tmp_path / "outputs" / "preview").glob("*.png"))
