"""The `hf` command, in processes of its own, as a person uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi


@pytest.fixture
def hf(local_hub, tmp_path):
    """Runs `hf` with these arguments in `tmp_path` and returns what it prints; with `status`, it has to fail with that one."""

    def run(*arguments: str, status: int = 0, **environment: str) -> str:
        program = Path(sys.executable).with_name("hf")
        done = subprocess.run(
            [program, *arguments],
            cwd=tmp_path,
            env={**local_hub.env, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_hf_command(hf, local_hub, hub_repo, tmp_path):
    told = hf("auth", "whoami")
    assert "tester" in told and "org" in told and local_hub.endpoint in told

    repo_id = hub_repo(create=False)
    assert repo_id in hf("repos", "create", repo_id, "--type", "dataset", "--private")
    assert HfApi().dataset_info(repo_id).private

    content = os.urandom(2000)
    (tmp_path / "shards/data").mkdir(parents=True)
    (tmp_path / "shards/data/0.tar").write_bytes(content)
    (tmp_path / "shards/README.md").write_text("---\nlicense: mit\n---\n")
    hf("upload", repo_id, "shards", ".", "--type", "dataset", "--commit-message", "Shards")
    assert HfApi().list_repo_commits(repo_id, repo_type="dataset")[0].title == "Shards"
    hf("repos", "tag", "create", repo_id, "v1", "--type", "dataset")

    hf("download", repo_id, "--type", "dataset", "--revision", "v1", "--local-dir", "copy")
    assert (tmp_path / "copy/data/0.tar").read_bytes() == content
    told = hf("download", repo_id, "none.txt", "--type", "dataset", status=1)
    assert "none.txt" in told


def test_hf_command_with_a_wrong_token(hf):
    assert "Invalid user token" in hf("auth", "whoami", status=1, HF_TOKEN="hf_wrong")
