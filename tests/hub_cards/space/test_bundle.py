"""The folder of the Space has all that it imports and asks for what this repository asks for; `test_app_in_a_browser` runs it."""

import ast
import tomllib
from pathlib import PurePosixPath

import pytest

from hub_cards.space.bundle import space_files
from tests.conftest import ROOT

OURS = ("modeling_grove", "dataset_builders", "hub_cards", "eval", "pipeline_annotate", "train", "tests")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return space_files("org/some-model")


def imported(text: bytes) -> set[str]:
    """Modules of this repository that a module imports under their full names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module))
    return {name for name in found if name.split(".")[0] in OURS}


def test_the_model_is_filled_in(files):
    assert b'\nDEFAULT_MODEL = "org/some-model"\n' in files["app.py"]
    assert (
        files["app.py"].replace(b"org/some-model", b"checkpoints/grove-tiny")
        == (ROOT / "hub_cards" / "space" / "app.py").read_bytes()
    )


@pytest.mark.parametrize("model", ["grove", "checkpoints/grove/x", 'org/"; import os #', ""])
def test_a_model_that_is_no_hub_id_is_refused(model):
    with pytest.raises(ValueError, match="expected a Hub id like org/grove"):
        space_files(model)


def test_every_module_that_is_imported_is_there(files):
    for name in ("app.py", *(name for name in files if name.startswith("hub_cards/"))):
        for module in imported(files[name]) if name.endswith(".py") else ():
            path = module.replace(".", "/")
            assert f"{path}.py" in files or f"{path}/__init__.py" in files, f"{name} imports {module}"
    assert not any("__pycache__" in PurePosixPath(name).parts for name in files)
    assert {"README.md", "hub_cards/space/bundle.py"}.isdisjoint(files)


def test_the_requirements_are_those_of_the_project():
    """Line by line, and Gradio in the version that the tests run with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "hub_cards" / "space" / "requirements.txt").read_text(encoding="utf-8")
    gradio, *others = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert others == project["dependencies"]
    assert gradio in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
