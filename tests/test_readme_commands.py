"""The commands of the README and of the page on captioning run."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.documentation import run_block

PAGES = [ROOT / "README.md", ROOT / "docs" / "captioning.md"]


def readme_commands() -> list[str]:
    """The lines of the pages that call this repository, each once; a line that ends in a backslash goes on in the next."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [*dict.fromkeys(line for line in lines if line.startswith("python -m"))]


@pytest.mark.slow
def test_readme_commands_run(tmp_path, warm_python):
    """On the demo's video and a few clips; the conversion, which needs the published weights, has its options checked alone."""
    for name in ("examples", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = readme_commands()
    assert len(commands) >= 7
    for command in commands:
        if "ekazakos/" in command:
            module = command.split()[2]
            shown = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT)
            assert all(option in shown.stdout for option in re.findall(r"--[a-z-]+", command)), command
            continue
        command = re.sub(r"\b(LONG_)?VIDEO\b", "examples/shapes.mp4", command)
        run_block("bash", re.sub(r"=(1000|100)\b", "=4", command), tmp_path, warm_python)
        shapes = tmp_path / "shapes" / "test.jsonl"
        for name in ("val", "predictions"):
            if shapes.exists() and not (tmp_path / f"{name}.jsonl").exists():
                (tmp_path / f"{name}.jsonl").symlink_to(shapes)
    assert (tmp_path / "outputs" / "results" / "demo" / "results.json").is_file()
