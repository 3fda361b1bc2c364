"""Repositories as a whole, through `huggingface_hub`: making and deleting, who may see and write, branches, tags and cards."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, DatasetCardData, HfApi, ModelCard, ModelCardData, RepoUrl
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, hf_raise_for_status

from tests.local_hub.process import LocalHub

ROOT = Path(__file__).parents[2]
KINDS = ("model", "dataset", "space")


@pytest.fixture
def api(local_hub) -> HfApi:
    return HfApi()


@pytest.fixture
def nobody(local_hub) -> HfApi:
    """A client without a token."""
    return HfApi(token=False)


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


@pytest.mark.parametrize("kind", KINDS)
def test_create_and_delete(api, hub_repo, local_hub, kind):
    repo_id = hub_repo(kind, create=False)
    settings = {"space_sdk": "gradio"} if kind == "space" else {}
    assert not api.repo_exists(repo_id, repo_type=kind)
    url = api.create_repo(repo_id, repo_type=kind, **settings)
    assert (url.repo_id, url.repo_type) == (repo_id, kind) and url.startswith(local_hub.endpoint)
    info = api.repo_info(repo_id, repo_type=kind)
    assert (info.id, info.author, info.private, len(info.sha)) == (repo_id, "org", False, 40)
    assert api.list_repo_files(repo_id, repo_type=kind) == [".gitattributes"]
    assert info.created_at <= info.last_modified
    if kind == "space":
        assert info.sdk == "gradio"
    for other in set(KINDS) - {kind}:
        assert not api.repo_exists(repo_id, repo_type=other)

    with pytest.raises(HfHubHTTPError, match="You already created") as error:
        api.create_repo(repo_id, repo_type=kind, **settings)
    assert status_of(error) == 409
    assert api.create_repo(repo_id, repo_type=kind, exist_ok=True, **settings) == url

    api.delete_repo(repo_id, repo_type=kind)
    assert not api.repo_exists(repo_id, repo_type=kind)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo_id, repo_type=kind)
    api.delete_repo(repo_id, repo_type=kind, missing_ok=True)
    assert isinstance(api.create_repo(repo_id, repo_type=kind, **settings), RepoUrl)


def test_own_namespace_and_names(api, hub_repo):
    name = hub_repo(create=False).partition("/")[2]
    assert api.create_repo(name).repo_id == f"tester/{name}"
    assert not api.repo_exists("gpt2") and not api.repo_exists("nobody/nothing")
    # The client does not check these; they must not lead out of the storage folder.
    for bad in ("..", "a..b", ".git", "a b", "a.git", ""):
        with pytest.raises(HfHubHTTPError) as error:
            post(api, "/api/repos/create", {"name": bad, "organization": "org"})
        assert status_of(error) == 400
        with pytest.raises(HfHubHTTPError) as error:
            post(api, "/api/repos/create", {"name": name, "organization": bad or ".."})
        assert status_of(error) == 400


def post(api: HfApi, path: str, fields: object) -> None:
    hf_raise_for_status(get_session().post(api.endpoint + path, json=fields, headers=api._build_hf_headers()))


def test_whoami(api, nobody):
    user = api.whoami()
    assert (user["name"], user["orgs"][0]["name"], user["auth"]["accessToken"]["role"]) == ("tester", "org", "write")
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as error:
        api.whoami(token="hf_wrong")
    assert status_of(error) == 401
    with pytest.raises((LocalTokenNotFoundError, ValueError)):
        nobody.whoami()


def test_private(api, nobody, hub_repo):
    repo_id = hub_repo("dataset", private=True)
    api.upload_file(path_or_fileobj=b"secret", path_in_repo="a.txt", repo_id=repo_id, repo_type="dataset")
    assert api.dataset_info(repo_id).private
    assert HfApi(token="hf_read").file_exists(repo_id, "a.txt", repo_type="dataset")
    for call in (nobody.dataset_info, nobody.list_repo_refs, nobody.list_repo_files):
        with pytest.raises(RepositoryNotFoundError) as error:
            call(repo_id, **({} if call == nobody.dataset_info else {"repo_type": "dataset"}))
        assert status_of(error) == 401
    with pytest.raises(RepositoryNotFoundError):
        nobody.hf_hub_download(repo_id, "a.txt", repo_type="dataset")

    api.update_repo_settings(repo_id, repo_type="dataset", private=False)
    assert Path(nobody.hf_hub_download(repo_id, "a.txt", repo_type="dataset")).read_text() == "secret"
    api.update_repo_settings(repo_id, repo_type="dataset", private=True)
    assert not nobody.repo_exists(repo_id, repo_type="dataset")


def test_who_may_write(nobody, hub_repo):
    repo_id = hub_repo()
    clients = {401: (nobody, HfApi(token="hf_wrong")), 403: (HfApi(token="hf_read"),)}
    calls = (
        lambda client: client.create_repo(hub_repo(create=False)),
        lambda client: client.upload_file(path_or_fileobj=b"", path_in_repo="a.txt", repo_id=repo_id),
        lambda client: client.create_tag(repo_id, tag="v1"),
        lambda client: client.create_branch(repo_id, branch="next"),
        lambda client: client.update_repo_settings(repo_id, private=True),
        lambda client: client.delete_repo(repo_id),
    )
    for status, clients_of_status in clients.items():
        for client in clients_of_status:
            for call in calls:
                with pytest.raises(HfHubHTTPError) as error:
                    call(client)
                assert status_of(error) == status, str(error.value)
    info = HfApi().model_info(repo_id)
    assert not info.private and len(HfApi().list_repo_commits(repo_id)) == 1


def test_wrong_token_is_not_a_missing_repository(hub_repo):
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as error:
        HfApi(token="hf_wrong").model_info(hub_repo())
    assert not isinstance(error.value, RepositoryNotFoundError)


def test_branches_and_tags(api, hub_repo):
    repo_id = hub_repo()
    first = api.model_info(repo_id).sha
    api.create_branch(repo_id, branch="feature/boxes")
    second = api.upload_file(path_or_fileobj=b"2", path_in_repo="a", repo_id=repo_id, revision="feature/boxes").oid
    api.create_tag(repo_id, tag="v1.0", tag_message="the first")
    api.create_tag(repo_id, tag="v2.0", revision="feature/boxes")
    api.create_branch(repo_id, branch="again", revision=second[:10])
    refs = api.list_repo_refs(repo_id)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {
        "main": first,
        "feature/boxes": second,
        "again": second,
    }
    assert {tag.ref: tag.target_commit for tag in refs.tags} == {"refs/tags/v1.0": first, "refs/tags/v2.0": second}
    for revision in ("feature/boxes", "v2.0", second, second[:7], "refs/heads/again", "refs/tags/v2.0"):
        assert api.model_info(repo_id, revision=revision).sha == second

    for call in (api.create_tag, api.create_branch):
        name = {"tag": "v1.0"} if call == api.create_tag else {"branch": "again"}
        with pytest.raises(HfHubHTTPError) as error:
            call(repo_id, **name)
        assert status_of(error) == 409
        call(repo_id, **name, exist_ok=True)
    for name in ("", "a b", "../x", "a~1"):
        with pytest.raises(HfHubHTTPError):
            api.create_tag(repo_id, tag=name)

    api.delete_tag(repo_id, tag="v1.0")
    api.delete_branch(repo_id, branch="feature/boxes")
    refs = api.list_repo_refs(repo_id)
    assert [branch.name for branch in refs.branches] == ["again", "main"] and [tag.name for tag in refs.tags] == [
        "v2.0"
    ]
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(repo_id, tag="v1.0")
    with pytest.raises(HfHubHTTPError, match="cannot be deleted"):
        api.delete_branch(repo_id, branch="main")


def test_each_error_is_its_own_exception(api, hub_repo):
    repo_id = hub_repo("dataset")
    for call in (
        lambda **where: api.hf_hub_download(filename="none.txt", **where),
        lambda **where: list(api.list_repo_tree(path_in_repo="none", **where)),
    ):
        with pytest.raises(RepositoryNotFoundError):
            call(repo_id="org/none", repo_type="dataset")
        with pytest.raises(RevisionNotFoundError):
            call(repo_id=repo_id, repo_type="dataset", revision="none")
        with pytest.raises(RemoteEntryNotFoundError):
            call(repo_id=repo_id, repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id=repo_id, repo_type="dataset", revision="none")
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(repo_id, repo_type="dataset", tag="v1", revision="0" * 40)
    assert not api.revision_exists(repo_id, "none", repo_type="dataset")
    assert not api.file_exists(repo_id, "none", repo_type="dataset")


def test_cards(api, hub_repo):
    repo_id = hub_repo()
    data = ModelCardData(
        license="apache-2.0", tags=["video"], pipeline_tag="video-text-to-text", library_name="transformers"
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n# GROVE\n").push_to_hub(repo_id)
    assert ModelCard.load(repo_id).data.license == "apache-2.0"
    info = api.model_info(repo_id)
    assert (info.pipeline_tag, info.library_name, info.tags) == ("video-text-to-text", "transformers", ["video"])
    assert info.card_data.license == "apache-2.0"
    assert api.model_info(repo_id, expand=["tags"]).sha is None

    repo_id = hub_repo("dataset")
    data = DatasetCardData(
        license="cc-by-4.0", pretty_name="Shapes", configs=[{"config_name": "a", "data_files": "*.tar"}]
    )
    DatasetCard(f"---\n{data.to_yaml()}\n---\n# Shapes\n").push_to_hub(repo_id)
    assert DatasetCard.load(repo_id).data.pretty_name == "Shapes"
    assert api.dataset_info(repo_id).card_data["configs"][0]["config_name"] == "a"

    for broken in ("---\nlicense: [\n---\n", "---\n- a list\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata in README.md"):
            api.upload_file(
                path_or_fileobj=broken.encode(), path_in_repo="README.md", repo_id=repo_id, repo_type="dataset"
            )


def test_one_of_many_creates_it(api, hub_repo):
    """Several processes that start at once all call `create_repo(exist_ok=True)`."""
    repo_id = hub_repo(create=False)
    with ThreadPoolExecutor(8) as pool:
        urls = list(pool.map(lambda _: api.create_repo(repo_id, exist_ok=True), range(16)))
    assert set(urls) == {urls[0]} and len(api.list_repo_commits(repo_id)) == 1


def test_everything_survives_a_restart(tmp_path):
    hub = LocalHub(tmp_path)
    hub.start()
    try:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("org/kept", repo_type="dataset", private=True)
        api.upload_file(path_or_fileobj=b"x" * 99, path_in_repo="a/b.tar", repo_id="org/kept", repo_type="dataset")
        api.create_tag("org/kept", tag="v1", repo_type="dataset")
        sha = api.dataset_info("org/kept").sha
    finally:
        hub.stop()
    assert not hub.is_running and "Traceback" not in hub.log

    kept = tmp_path / "storage/datasets/org/kept"
    settings = json.loads((kept / "repository.json").read_text())
    assert settings["private"] and settings["tags"] == {"v1": sha}
    file = json.loads((kept / f"commits/{sha}.json").read_text())["files"]["a/b.tar"]
    assert (tmp_path / "storage/blobs" / file["sha256"][:2] / file["sha256"]).read_bytes() == b"x" * 99

    hub = LocalHub(tmp_path)
    hub.start()
    try:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        info = api.dataset_info("org/kept", revision="v1", files_metadata=True)
        assert info.sha == sha and info.private
        path = api.hf_hub_download("org/kept", "a/b.tar", repo_type="dataset", cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == b"x" * 99
    finally:
        hub.stop()


def test_by_hand(tmp_path):
    """As a person starts it: on a port, without any of the options for programs."""
    command = [sys.executable, "-m", "tests.local_hub"]
    help_text = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "export HF_ENDPOINT=" in help_text and "hf_test" in help_text
    command += ["--port", "0", "--storage", str(tmp_path)]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        endpoint = server.stdout.readline().split()[5].rstrip(";")
        assert HfApi(endpoint=endpoint, token="hf_test").whoami()["name"] == "tester"
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=10) == 0
        server.stdout.close()


def test_ends_with_whoever_started_it(tmp_path):
    """Also when that process was killed."""
    script = """
import os, signal
from pathlib import Path
from urllib.request import urlopen
from tests.local_hub.process import LocalHub
hub = LocalHub(Path(os.environ["FOLDER"]))
hub.start()
try:
    urlopen(hub.endpoint)
except OSError as error:
    assert error.status == 404
print(hub.endpoint, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "FOLDER": str(tmp_path)}
    started = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    port = int(started.stdout.rpartition(":")[2])
    give_up = time.monotonic() + 10
    while answers(port) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not answers(port)


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
