"""The measurement of the way from `git clone` to a caption, on a repository whose make takes no time."""

import json
import subprocess

import pytest

from benchmarks.first_caption import STEPS, main

MAKEFILE = """
.venv/installed:
\tmkdir -p .venv && touch $@
demo: .venv/installed
\tmkdir -p outputs/demo && echo {} > outputs/demo/shapes.json
"""


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "Makefile"], [*author, "commit", "-qm", "Make a demo"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_every_step_is_timed_and_written(repository, tmp_path, capsys):
    output = tmp_path / "results" / "first.json"
    assert main(["--repository", str(repository), "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert list(result["seconds"]) == list(STEPS) and min(result["seconds"].values()) > 0
    assert result["first_caption_seconds"] < sum(result["seconds"].values())
    assert result["hardware"]["cores"] and result["versions"]["torch"] and result["commit"]
    assert "from git clone to the first caption" in capsys.readouterr().out


def test_a_step_that_fails_is_one_line(repository, tmp_path, capsys):
    assert main(["--repository", str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.startswith("error: clone: `git clone ")
    (repository / "Makefile").write_text(MAKEFILE.replace("shapes.json", "other.json"))
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "Break"], cwd=repository, check=True
    )
    assert main(["--repository", str(repository)]) == 2
    assert "no outputs/demo/shapes.json in the clone" in capsys.readouterr().err
