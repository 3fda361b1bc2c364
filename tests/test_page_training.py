"""`docs/training.md` runs as printed."""

import pytest

from tests.conftest import ROOT
from tests.documentation import command_blocks, run_block


@pytest.mark.slow
def test_the_page_on_training_runs_as_printed(tmp_path, warm_python):
    """In order, in a folder that has the scripts."""
    blocks = command_blocks((ROOT / "docs" / "training.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    (tmp_path / "train").symlink_to(ROOT / "train")
    for block in blocks:
        run_block(*block, tmp_path, warm_python)
    assert {path.name for path in tmp_path.iterdir()} == {"train", "outputs"}
    tiny = tmp_path / "outputs" / "tiny"
    assert (tiny / "results" / "results.json").is_file() and (tiny / "grove-tiny" / "model.safetensors").is_file()
    assert len(list((tiny / "ft" / "samples").glob("*/*.png"))) == 2
