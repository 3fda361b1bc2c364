"""`docs/extending.md` runs as printed."""

import json

import pytest

from tests.conftest import ROOT, SPACY_COMMAND
from tests.documentation import command_blocks, run_block


@pytest.mark.slow
def test_the_page_on_extending_runs_as_printed(spacy_folder, tmp_path, warm_python):
    """But for the spaCy pipeline, which the fixture has made with the same command."""
    blocks = command_blocks((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"))
    assert [language for language, _ in blocks] == ["bash", "python", "bash"] and SPACY_COMMAND in blocks[0][1]
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "spacy").symlink_to(spacy_folder)
    for language, text in blocks:
        run_block(language, text.replace(SPACY_COMMAND, ""), tmp_path, warm_python)
    results = json.loads((tmp_path / "outputs" / "results" / "mine" / "results.json").read_text(encoding="utf-8"))
    assert results["data"]["name"] == "my benchmark"
