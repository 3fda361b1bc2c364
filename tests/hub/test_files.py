"""Files in and out, through `huggingface_hub`: uploads, commits of several clients at once, downloads, listings, `hf://` paths."""

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_url,
)
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RemoteEntryNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import get_session

WORDS = b"some text\n"
NUMBERS = bytes(range(256)) * 40


@pytest.fixture
def api(local_hub) -> HfApi:
    return HfApi()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with files of both kinds, one of them empty, and one in two places."""
    files = {
        "README.md": b"---\nlicense: mit\n---\n# Clips\n",
        "data/train-00000.tar": NUMBERS,
        "data/copy.tar": NUMBERS,
        "data/deep/er/notes.txt": WORDS,
        "data/odd name [1] #é.txt": WORDS,
        "empty.txt": b"",
    }
    for name, content in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


class Requests:
    """The requests that the Hub got since this was made."""

    def __init__(self, hub) -> None:
        self._hub, self._start = hub, len(hub.log)

    def count(self, pattern: str) -> int:
        return len(re.findall(f'"{pattern}', self._hub.log[self._start :]))


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def test_folder_up_and_down(api, hub_repo, folder, tmp_path):
    repo_id = hub_repo("dataset")
    sent = api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="All of it")
    assert sent.oid == api.dataset_info(repo_id).sha and sent.repo_url.repo_id == repo_id
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(api.list_repo_files(repo_id, repo_type="dataset")) == names | {".gitattributes"}

    entries = {entry.rfilename: entry for entry in api.dataset_info(repo_id, files_metadata=True).siblings}
    assert entries["data/copy.tar"].lfs.sha256 == hashlib.sha256(NUMBERS).hexdigest()
    assert entries["data/copy.tar"].size == len(NUMBERS) and entries["README.md"].lfs is None
    assert entries["data/deep/er/notes.txt"].blob_id == git_hash(folder / "data/deep/er/notes.txt")

    snapshot = Path(api.snapshot_download(repo_id, repo_type="dataset", ignore_patterns=[".gitattributes"]))
    copy = Path(
        api.snapshot_download(repo_id, repo_type="dataset", allow_patterns=["data/*"], local_dir=tmp_path / "copy")
    )
    assert {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()} == names
    for name in names:
        assert (snapshot / name).read_bytes() == (folder / name).read_bytes()
    assert not (copy / "README.md").exists() and (copy / "data/odd name [1] #é.txt").read_bytes() == WORDS


def git_hash(path: Path) -> str:
    return subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()


def test_nothing_is_sent_twice(api, hub_repo, local_hub, folder):
    repo_id = hub_repo("dataset")
    fresh = os.urandom(1000)
    (folder / "data/train-00000.tar").write_bytes(fresh)
    (folder / "data/copy.tar").write_bytes(fresh)
    operations = [add("data/train-00000.tar", fresh)]
    requests = Requests(local_hub)
    # An upload that was cut off after its first large file.
    api.preupload_lfs_files(repo_id, operations, repo_type="dataset")
    assert requests.count("PUT /blobs/") == 1
    sent = api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset")
    assert requests.count("PUT /blobs/") == 1
    # The same again, and the same content in another repository.
    assert api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset").oid == sent.oid
    api.upload_folder(repo_id=hub_repo("dataset"), folder_path=folder, repo_type="dataset")
    assert requests.count("PUT /blobs/") == 1
    assert len(api.list_repo_commits(repo_id, repo_type="dataset")) == 2


def test_commit_of_all_operations(api, hub_repo):
    repo_id = hub_repo()
    files = {"a.txt": b"a", "b.txt": b"b", "old/x.txt": b"x", "old/y.bin": b"y", "older.txt": b"o"}
    api.create_commit(repo_id, [add(*item) for item in files.items()], commit_message="first")
    second = api.create_commit(
        repo_id,
        [
            CommitOperationDelete("old/"),
            CommitOperationDelete("a.txt"),
            CommitOperationCopy("b.txt", "copies/b.txt"),
            CommitOperationCopy("old/y.bin", "copies/y.bin"),
            add("b.txt", b"new"),
            add("old/z.txt", b"z"),
        ],
        commit_message="second",
        commit_description="a line\nand another",
    )
    assert set(api.list_repo_files(repo_id)) == {
        ".gitattributes",
        *("b.txt", "copies/b.txt", "copies/y.bin", "old/z.txt", "older.txt"),
    }
    assert read(api, repo_id, "copies/b.txt") == b"b" and read(api, repo_id, "b.txt") == b"new"
    newest, before, _ = api.list_repo_commits(repo_id)
    assert (newest.commit_id, newest.title, newest.message) == (second.oid, "second", "a line\nand another")
    assert newest.authors == ["tester"] and before.title == "first"
    assert read(api, repo_id, "a.txt", revision=before.commit_id) == b"a"

    for operation in (
        CommitOperationDelete("none.txt"),
        CommitOperationDelete("none/"),
        CommitOperationDelete("copies"),
    ):
        with pytest.raises(RemoteEntryNotFoundError, match="with this name doesn't exist"):
            api.create_commit(repo_id, [operation], commit_message="wrong")
    for path in ("b.txt/inside", "copies"):
        with pytest.raises(BadRequestError, match="a file and a folder at once"):
            api.upload_file(path_or_fileobj=b"", path_in_repo=path, repo_id=repo_id)
    api.delete_folder("copies", repo_id)
    api.delete_file("older.txt", repo_id)
    assert set(api.list_repo_files(repo_id)) == {".gitattributes", "b.txt", "old/z.txt"}


def read(api: HfApi, repo_id: str, name: str, **where) -> bytes:
    return Path(api.hf_hub_download(repo_id, name, **where)).read_bytes()


def test_folder_that_replaces(api, hub_repo, folder):
    repo_id = hub_repo("dataset")
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", path_in_repo="v1")
    (folder / "data/copy.tar").unlink()
    api.upload_folder(
        repo_id=repo_id, folder_path=folder, repo_type="dataset", path_in_repo="v1", delete_patterns="*.tar"
    )
    left = api.list_repo_files(repo_id, repo_type="dataset")
    assert "v1/data/copy.tar" not in left and "v1/data/train-00000.tar" in left and "v1/README.md" in left


def test_parent_that_is_no_longer_the_newest(api, hub_repo):
    repo_id = hub_repo()
    parent = api.model_info(repo_id).sha
    api.create_commit(repo_id, [add("a", b"1")], commit_message="mine", parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        api.create_commit(repo_id, [add("a", b"2")], commit_message="yours", parent_commit=parent)
    assert error.value.response.status_code == 412
    assert read(api, repo_id, "a") == b"1"


PUSH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
repo_id, name = sys.argv[1:]
for index in range(12):
    api.upload_file(path_or_fileobj=f"{name}{index}".encode() * 9, path_in_repo=f"{name}/{index}.bin", repo_id=repo_id)
"""


def test_two_processes_push_at_once(api, hub_repo, local_hub):
    repo_id = hub_repo()
    pushing = [
        subprocess.Popen(
            [sys.executable, "-c", PUSH, repo_id, name], env=local_hub.env, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    for process in pushing:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    files = set(api.list_repo_files(repo_id)) - {".gitattributes"}
    assert files == {f"{name}/{index}.bin" for name in ("one", "two") for index in range(12)}
    history = api.list_repo_commits(repo_id)
    assert len(history) == 25 and len({commit.commit_id for commit in history}) == 25
    assert read(api, repo_id, "two/11.bin") == b"two11" * 9


def test_revisions_are_pinned(api, hub_repo):
    repo_id = hub_repo()
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="folder/a.txt", repo_id=repo_id).oid
    api.create_tag(repo_id, tag="v1.0")
    api.create_branch(repo_id, branch="next/try")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="folder/a.txt", repo_id=repo_id)
    api.upload_file(path_or_fileobj=b"3", path_in_repo="folder/a.txt", repo_id=repo_id, revision="next/try")
    expected = {"v1.0": b"1", first: b"1", "main": b"2", "next/try": b"3"}
    for revision, content in expected.items():
        assert read(api, repo_id, "folder/a.txt", revision=revision) == content
        snapshot = Path(api.snapshot_download(repo_id, revision=revision))
        assert (snapshot / "folder/a.txt").read_bytes() == content
        sizes = [entry.size for entry in api.list_repo_tree(repo_id, "folder", revision=revision)]
        assert sizes == [1] and api.get_paths_info(repo_id, "folder/a.txt", revision=revision)[0].size == 1


def test_what_is_told_of_a_file(api, hub_repo, folder):
    repo_id = hub_repo("dataset")
    commit = api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset").oid
    large = api.get_hf_file_metadata(url=hf_hub_url(repo_id, "data/copy.tar", repo_type="dataset"))
    assert (large.commit_hash, large.size, large.etag) == (commit, len(NUMBERS), hashlib.sha256(NUMBERS).hexdigest())
    url = hf_hub_url(repo_id, "data/deep/er/notes.txt", repo_type="dataset")
    small = api.get_hf_file_metadata(url=url)
    assert (small.size, small.etag) == (len(WORDS), git_hash(folder / "data/deep/er/notes.txt"))
    with pytest.raises(RemoteEntryNotFoundError) as error:
        api.get_hf_file_metadata(url=url + "x")
    # By it, the client remembers for which commit the file is absent.
    assert error.value.response.headers["X-Repo-Commit"] == commit

    url = hf_hub_url(repo_id, "data/copy.tar", repo_type="dataset")
    part = get_session().get(url, headers={"Range": "bytes=250-259"})
    assert (part.status_code, part.content) == (206, NUMBERS[250:260])
    assert part.headers["Content-Range"] == f"bytes 250-259/{len(NUMBERS)}"
    assert get_session().get(url, headers={"Range": "bytes=-6"}).content == NUMBERS[-6:]
    assert get_session().get(url, headers={"Range": "bytes=99999-"}).status_code == 416


def test_download_goes_on_where_it_stopped(api, hub_repo, local_hub):
    repo_id = hub_repo("dataset")
    content = os.urandom(50_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.tar", repo_id=repo_id, repo_type="dataset")
    file = io.BytesIO()
    file.write(content[:20_000])
    requests = Requests(local_hub)
    # What the client does, inside one download, when the connection breaks.
    http_get(hf_hub_url(repo_id, "a.tar", repo_type="dataset"), file, resume_size=20_000, expected_size=50_000)
    assert file.getvalue() == content
    assert requests.count("GET .*a.tar.* 206") == 1


def test_long_listings_come_in_pages(api, hub_repo, local_hub):
    repo_id = hub_repo("dataset")
    names = [f"data/{index:04}.json" for index in range(1100)]
    api.create_commit(repo_id, [add(name, b"{}") for name in names], commit_message="all", repo_type="dataset")
    requests = Requests(local_hub)
    entries = list(api.list_repo_tree(repo_id, recursive=True, repo_type="dataset"))
    assert requests.count("GET /api/datasets/.*/tree/main") == 2
    assert [entry.path for entry in entries] == [".gitattributes", "data", *names]
    assert len(list(api.list_repo_tree(repo_id, "data", repo_type="dataset"))) == 1100
    assert requests.count("GET /api/datasets/.*/tree/main") == 4
    # Pages are smaller with `expand`, which adds the last commit of each.
    api.upload_file(path_or_fileobj=b"[]", path_in_repo="data/0070.json", repo_id=repo_id, repo_type="dataset")
    some = api.list_repo_tree(repo_id, "data", expand=True, repo_type="dataset")
    some = [next(some) for _ in range(120)]
    assert requests.count("GET /api/datasets/.*/tree/main") == 7
    changed = [entry.path for entry in some if entry.last_commit.title != "all"]
    assert changed == ["data/0070.json"]


def test_paths_info(api, hub_repo, folder):
    repo_id = hub_repo("dataset")
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="All")
    paths = ["data/copy.tar", "none", "data/deep", "data/odd name [1] #é.txt"]
    found = api.get_paths_info(repo_id, paths, repo_type="dataset", expand=True)
    assert [entry.path for entry in found] == ["data/copy.tar", "data/deep", "data/odd name [1] #é.txt"]
    assert found[0].lfs.size == len(NUMBERS) and found[0].last_commit.title == "All"
    assert found[1].tree_id and not hasattr(found[1], "size")
    assert api.get_paths_info(repo_id, "none", repo_type="dataset") == []


def test_file_system(api, hub_repo, folder):
    repo_id = hub_repo("dataset")
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset")
    api.create_tag(repo_id, tag="v1", repo_type="dataset")
    files = HfFileSystem()
    root = f"datasets/{repo_id}"
    assert files.glob(f"hf://{root}/data/*.tar") == [f"{root}/data/copy.tar", f"{root}/data/train-00000.tar"]
    assert files.glob(f"{root}/**/notes.txt") == [f"{root}/data/deep/er/notes.txt"]
    assert (
        files.isdir(f"{root}/data/deep") and not files.exists(f"{root}/none") and not files.exists("datasets/org/none")
    )
    with files.open(f"hf://{root}/data/copy.tar", "rb", block_size=2**10) as file:
        file.seek(5000)
        assert file.read(300) == NUMBERS[5000:5300]
    with files.open(f"{root}/data/new.txt", "w") as file:
        file.write("written\n")
    assert files.cat(f"{root}/data/new.txt") == b"written\n"
    files.rm(f"{root}/data/copy.tar")
    assert not files.exists(f"{root}/data/copy.tar") and files.exists(f"{root}@v1/data/copy.tar")
    assert files.info(f"{root}@v1/data/copy.tar")["size"] == len(NUMBERS)


def test_what_clients_would_never_send(api, hub_repo, local_hub):
    """The server does not trust that it is a client that asks."""
    repo_id = hub_repo()
    headers, session = api._build_hf_headers(), get_session()
    before = set(local_hub.storage.rglob("*"))

    def commit(*lines: object) -> int:
        body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        url = f"{api.endpoint}/api/models/{repo_id}/commit/main"
        return session.post(url, content=body, headers=headers).status_code

    header = {"key": "header", "value": {"summary": "x"}}
    for path in ("../a", "/a", "a/../../b", "a//b", "", ".", ".git/config", "a\0b"):
        file = {"path": path, "content": "YQ==", "encoding": "base64"}
        assert commit(header, {"key": "file", "value": file}) == 400, path
    for line in (
        b"{",
        b"[1]",
        {"key": "rename", "value": {"path": "a"}},
        {"key": "file", "value": {"path": "a", "content": "?"}},
        {"key": "file", "value": {"content": ""}},
        {"key": "lfsFile", "value": {"path": "a", "oid": "../../x"}},
        {"key": "lfsFile", "value": {"path": "a", "oid": "0" * 64}},
    ):
        assert commit(header, line) == 400, line
    assert commit() == 400 and commit({"key": "file", "value": {"path": "a", "content": ""}}) == 400

    put = session.put(f"{api.endpoint}/blobs/{'0' * 64}", content=b"something else")
    assert put.status_code == 400 and "the file changed on its way" in put.text
    assert session.put(f"{api.endpoint}/blobs/..%2F..%2Fx", content=b"x").status_code == 400
    for address in (
        f"{repo_id}/resolve/main/..%2Frepository.json",
        "..%2F../x/resolve/main/a",
        "api/models/..%2F..%2Fx/y",
    ):
        assert session.get(f"{api.endpoint}/{address}", headers=headers).status_code == 404
    assert session.get(f"{api.endpoint}/api/none").json() == {"error": "the local Hub has no GET /api/none"}
    after = {path for path in local_hub.storage.rglob("*") if "blobs" not in path.relative_to(local_hub.storage).parts}
    assert after <= before and len(api.list_repo_commits(repo_id)) == 1
    assert not list(local_hub.storage.glob("blobs/part-*")) and "Traceback" not in local_hub.log


def test_the_internet_is_out_of_reach(local_hub, tmp_path):
    """In this process and in others, and at once: neither the real Hub nor anything else."""
    script = """
import time, urllib.request
start = time.monotonic()
for url in ("https://huggingface.co/api/models/gpt2", "http://example.com/"):
    try:
        urllib.request.urlopen(url)
    except OSError as error:
        print(error)
    else:
        raise SystemExit(f"{url} was reached")
assert time.monotonic() - start < 2
"""
    out = subprocess.run([sys.executable, "-c", script], env=local_hub.env, capture_output=True, text=True)
    assert out.returncode == 0 and out.stdout.count("403") == 2, out
    assert "refused to be a proxy: CONNECT huggingface.co:443" in local_hub.log
    with pytest.raises(OSError, match="nothing but this machine"):
        socket.create_connection(("huggingface.co", 443))
