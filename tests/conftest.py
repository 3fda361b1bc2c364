"""What all tests share: a Hugging Face Hub and environment of their own, and where the data lies."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.local_hub.process import LocalHub
from tests.warm_python import WarmPython

# Read when the libraries are imported, so these come before any other import. Nothing may depend on, or touch, the user's
# cache and token.
HUB = LocalHub()
HF_HOME = Path(tempfile.mkdtemp(prefix="grove-tests-"))
for name in list(os.environ):
    if name.startswith(("HF_", "HUGGING")) or name in ("TRANSFORMERS_CACHE", "TRANSFORMERS_OFFLINE"):
        del os.environ[name]
os.environ |= {
    "HF_ENDPOINT": HUB.endpoint,
    "HF_TOKEN": HUB.token,
    "HF_HOME": str(HF_HOME),
    "HF_MODULES_CACHE": str(HF_HOME / "modules"),
    "HF_DATASETS_CACHE": str(HF_HOME / "datasets"),
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

import hypothesis
import pytest
import torch
from huggingface_hub import create_repo

# The same examples in every run, and no test that fails because the machine was busy.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

LOG_BEGIN = pytest.StashKey[int]()
ROOT = Path(__file__).parents[1]
SPACY_COMMAND = "python -m tests.pipeline_annotate.spacy_pipeline outputs/spacy"  # as pages have it


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


def pytest_configure(config: pytest.Config) -> None:
    """Unless tests with the marker `network` are asked for, nothing but this machine is within reach, and tries fail at once."""
    if "network" in config.getoption("markexpr").replace("not network", ""):
        return
    # For this process and those it starts: as a proxy, the Hub refuses.
    os.environ.update(dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), HUB.endpoint))
    os.environ.update(dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"))

    # For clients that do not look for a proxy.
    look_up = socket.getaddrinfo

    def look_up_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in (None, "", "localhost", "127.0.0.1", "0.0.0.0", "::1", socket.gethostname()):
            return look_up(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_FAIL, f"tests reach nothing but this machine, and not {name}")

    socket.getaddrinfo = look_up_here


def pytest_sessionstart() -> None:
    """The Hub starts beside the tests, whether one asks for it or not: without it, clients would wait and try again."""
    HUB.start()


def pytest_unconfigure() -> None:
    HUB.stop()
    shutil.rmtree(HUB.folder, ignore_errors=True)
    shutil.rmtree(HF_HOME, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "local_hub" in getattr(item, "fixturenames", ()):
        item.stash[LOG_BEGIN] = len(HUB.log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test of the Hub that fails shows what the Hub logged meanwhile."""
    report = yield
    started = item.stash.get(LOG_BEGIN, None)
    if report.failed and started is not None:
        report.sections.append(("log of the local Hub", HUB.log[started:]))
    return report


@pytest.fixture(scope="session")
def local_hub() -> LocalHub:
    """
    The Hub that every Hugging Face client in the tests talks to, also those in processes started with `local_hub.env`. It has
    `endpoint`, `token`, `storage` (the folder of everything pushed) and `log` (a line for every request).
    """
    if not HUB.is_running:
        pytest.fail(f"the local Hub has ended:\n{HUB.log}")
    return HUB


@pytest.fixture
def hub_repo(local_hub) -> Callable[..., str]:
    """`hub_repo("dataset")`: the name of a new, empty repository; `create=False` for a name that is free."""

    def make(repo_type: str = "model", create: bool = True, **settings: Any) -> str:
        repo_id = f"org/{repo_type}-{uuid.uuid4().hex[:8]}"
        if create:
            settings = {"space_sdk": "static", **settings} if repo_type == "space" else settings
            create_repo(repo_id, repo_type=repo_type, **settings)
        return repo_id

    return make


@pytest.fixture(scope="session")
def spacy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A spaCy pipeline with the labels of en_core_web_sm that knows simple captions: a minute's work, shared by all that need one,
    and made by the command that pages have for it.
    """
    folder = tmp_path_factory.mktemp("spacy") / "captions"
    subprocess.run([sys.executable, "-m", *SPACY_COMMAND.split()[2:-1], str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A `python` that has already imported what takes long (`tests/warm_python/`), for tests that run many short commands."""
    warm = WarmPython(tmp_path_factory.mktemp("warm"))
    yield warm.python
    warm.stop()


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
