"""`docs/datasets.md` runs as printed."""

import pytest

from tests.conftest import ROOT
from tests.documentation import command_blocks, run_block


@pytest.mark.slow
def test_the_page_on_data_sets_runs_as_printed(tmp_path, warm_python):
    """In order, in an empty folder."""
    blocks = command_blocks((ROOT / "docs" / "datasets.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    for block in blocks:
        run_block(*block, tmp_path, warm_python)
    assert len(list((tmp_path / "preview").glob("*.png"))) == 2
    assert (tmp_path / "exports" / "coco.json").stat().st_size > 1000
