"""The ways in from outside: a fresh process with the package imported, and one that has only `trust_remote_code=True`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoProcessor

from modeling_grove import GroveForConditionalGeneration, add_remote_code, save_with_remote_code

ROOT = Path(__file__).parents[2]

# The repository is installed in development mode, so its root is taken off the path before anything is imported.
WITHOUT_PACKAGE = f"""
import sys
sys.path = [entry for entry in sys.path if entry not in ("", {str(ROOT)!r})]
import importlib.util
assert importlib.util.find_spec("modeling_grove") is None
"""
REPORT = """
import json
result = captioner({clip!r}, end_time=1.5, caption="A <p>dog</p> runs.")
print(json.dumps({{"class": type(captioner.model).__module__, "boxes": result.to_dict()["tracks"][0]["boxes"]}}))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory, demo_checkpoint) -> Path:
    """The demo model as it would be pushed, with its code."""
    directory = tmp_path_factory.mktemp("repository") / "grove"
    model = GroveForConditionalGeneration.from_pretrained(demo_checkpoint)
    save_with_remote_code(directory, model, AutoProcessor.from_pretrained(demo_checkpoint))
    return directory


def run(script: str, modules: Path) -> dict:
    """What the script prints as JSON on its last line, run in a new interpreter."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(modules)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=modules, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_all_ways_give_the_same_boxes(repository, example_clip, tmp_path):
    report = REPORT.format(clip=str(example_clip))
    remote = run(
        f"""{WITHOUT_PACKAGE}
from transformers import pipeline
captioner = pipeline("grounded-video-captioning", model={str(repository)!r}, trust_remote_code=True)
{report}""",
        tmp_path,
    )
    registered = run(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import modeling_grove
from transformers import pipeline
captioner = pipeline("grounded-video-captioning", model={str(repository)!r})
{report}""",
        tmp_path,
    )
    assert remote["class"].startswith("transformers_modules.")
    assert registered["class"] == "modeling_grove.modeling_grove"
    assert remote["boxes"] == registered["boxes"]


def test_auto_classes_without_the_package(repository, tmp_path):
    found = run(
        f"""{WITHOUT_PACKAGE}
import json
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
classes = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoVideoProcessor)
loaded = [auto.from_pretrained({str(repository)!r}, trust_remote_code=True) for auto in classes]
print(json.dumps([type(item).__name__ for item in loaded]))
""",
        tmp_path,
    )
    assert found == [
        "GroveConfig",
        "GroveForConditionalGeneration",
        "GroveForConditionalGeneration",
        "GroveProcessor",
        "GroveVideoProcessor",
    ]


def test_auto_classes_with_the_package(demo_checkpoint, tmp_path):
    found = run(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import json
import modeling_grove
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
classes = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoVideoProcessor)
loaded = [auto.from_pretrained({str(demo_checkpoint)!r}) for auto in classes]
print(json.dumps([type(item).__module__ for item in loaded]))
""",
        tmp_path,
    )
    assert all(module.startswith("modeling_grove.") for module in found)


def test_code_is_complete_and_flat(repository):
    code = {path.name for path in repository.glob("*.py")}
    assert {"modeling_grove.py", "processing_grove.py", "pipeline_grove.py", "windows_grove.py"} <= code
    assert {
        "drawing_grove.py",
        "rendering_grove.py",
        "video_file_grove.py",
    } <= code  # imported by imported modules only
    assert "convert_grove.py" not in code and "__main__.py" not in code
    config = json.loads((repository / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText"}
    assert not list(repository.glob("*.bin")) and (repository / "model.safetensors").is_file()


def test_directory_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        add_remote_code(tmp_path)
