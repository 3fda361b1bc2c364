"""`docs/evaluation.md` runs as printed."""

import pytest

from tests.conftest import ROOT
from tests.documentation import command_blocks, run_block


@pytest.mark.slow
def test_the_page_on_evaluation_runs_as_printed(tmp_path, warm_python):
    """In order, in a folder that has the demo model."""
    blocks = command_blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    for block in blocks:
        run_block(*block, tmp_path, warm_python)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "outputs"}  # as the page says
    results = tmp_path / "outputs" / "results"
    assert len(list((results / "noisy" / "worst").glob("*.png"))) == 4
    assert (results / "noisy" / "worst" / "index.html").stat().st_size > 1000
    for name in ("threshold/threshold", "table2/baselines"):
        assert all((results / f"{name}{suffix}").stat().st_size > 500 for suffix in (".md", ".json", ".png"))
