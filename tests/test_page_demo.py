"""`docs/demo.md` runs as printed, and what it says of limits is so."""

import pytest

from hub_cards.space.captioning import Limits
from modeling_grove import GroundedCaption
from tests.conftest import ROOT
from tests.documentation import command_blocks, run_block

PAGE = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_on_the_demo_runs_as_printed(tmp_path, warm_python):
    """In order, in a folder that has what a clone has."""
    for name in ("examples", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    blocks = command_blocks(PAGE)
    assert len(blocks) == 3
    for block in blocks:
        run_block(*block, tmp_path, warm_python)
    outputs = tmp_path / "outputs"
    assert (
        GroundedCaption.load(outputs / "report" / "shapes.json").caption
        in (outputs / "report" / "shapes.html").read_text()
    )
    assert (outputs / "truth.html").is_file()
    assert b'DEFAULT_MODEL = "org/grove"' in (outputs / "space" / "app.py").read_bytes()


def test_the_page_says_the_limits():
    limits = Limits()
    for line in (
        f"| clip | {limits.seconds:g} s;",
        f"| file | {limits.megabytes:g} MB |",
        f"| picture | {limits.side} pixels",
    ):
        assert line in PAGE
