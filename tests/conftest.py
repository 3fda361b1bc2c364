"""What all tests share: a Hugging Face environment of their own, and where the data lies."""

import os
import shutil
import tempfile
from pathlib import Path

# Read when the libraries are imported, so these come before any other import. Nothing may depend on, or touch, the
# user's cache and token; nothing is downloaded.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="grove-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_ENDPOINT", "TRANSFORMERS_CACHE"):
    os.environ.pop(name, None)

import pytest
import torch

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of hardware or programs that are not here are skipped, and say so."""
    absent = {}
    if not torch.cuda.is_available():
        absent["gpu"] = "no CUDA device"
    if shutil.which("java") is None:
        absent["java"] = "no java command"
    for item in items:
        for marker, reason in absent.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Numbers recorded from the original implementation."""
    return ROOT / "tests" / "golden" / "grove"


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    """The untrained tiny model that the repository carries, in the layout of a published one."""
    return ROOT / "checkpoints" / "grove-demo"


@pytest.fixture(scope="session")
def example_clip() -> Path:
    """A short synthetic clip; `clip.json` beside it is its true grounded caption."""
    return ROOT / "examples" / "clip.mp4"


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """Real clips, which are kept beside the repository and not in it."""
    folder = ROOT.parent / "shared" / "data" / "videos"
    videos = sorted(folder.glob("*.mp4"))
    if not videos:
        pytest.skip("no real clips in ../shared/data/videos")
    return videos
