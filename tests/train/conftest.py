"""The world that tests of training share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.train.training_runs import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shards of a small world, and a starting model."""
    return make_world(tmp_path_factory.mktemp("training"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower with more, and sums come out in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder for a run that does not exist yet."""
    return tmp_path / "run"
