"""`docs/publishing.md` runs as printed."""

import json

import pytest
from huggingface_hub import HfApi, ModelCard

from tests.conftest import ROOT
from tests.documentation import command_blocks, run_block


@pytest.mark.slow
def test_the_page_on_publishing_runs_as_printed(tmp_path, local_hub, warm_python):
    """In order, against the local Hub, in a folder that has what it needs of a clone."""
    blocks = command_blocks((ROOT / "docs" / "publishing.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 5
    for name in ("checkpoints", "docs", "hub_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in blocks:
        run_block(*block, tmp_path, warm_python)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "docs", "hub_cards", "outputs"}
    results = ModelCard.load("org/grove-tiny").data.eval_results
    measured = json.loads((ROOT / "docs" / "studies" / "grove-tiny.json").read_text(encoding="utf-8"))["headline"]
    assert {round(result.metric_value, 4) for result in results} >= {
        round(value, 4) for row in measured.values() for value in row.values()
    }
    assert len({result.dataset_name for result in results}) == 2
    assert HfApi().model_info("org/grove-tiny", revision="v1.0").sha
    kinds = {"org/shapes": "dataset", "org/iground_score": "space", "org/demo": "space"}
    assert all(HfApi().repo_exists(name, repo_type=kind) for name, kind in kinds.items())
    for name in ("model", "dataset"):
        assert (tmp_path / "outputs" / "cards" / f"{name}.md").stat().st_size > 3000
