"""
Repositories in a folder, in a form that can be read and that survives a restart.

    STORAGE/blobs/<first two>/<sha256>                    every file, once, by content
    STORAGE/<kind>s/<namespace>/<name>/repository.json    visibility, branches and tags (name -> commit)
    STORAGE/<kind>s/<namespace>/<name>/commits/<id>.json  parent, message, author, date, and all files with size and hashes

Commits and blobs never change. What does is `repository.json`, which is replaced in one step, under one lock: a commit is there in
full or not at all, for readers in any thread and after a crash. One server at a time may use a folder.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import HubError

Kind = Literal["model", "dataset", "space"]
KINDS: tuple[str, ...] = get_args(Kind)

# The names that the Hub allows; with it, nothing in an address can lead out of the storage folder.
NAME = re.compile(r"(?!.*(--|\.\.))(?!.*\.(git|ipynb)$)\w(?:[\w.-]{0,94}\w)?", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")

# What a new repository on the Hub starts with, shortened: these files go to large-file storage whatever their size.
LARGE_FILES = (
    "*.7z *.arrow *.avi *.bin *.bz2 *.ckpt *.flac *.ftz *.gif *.gz *.h5 *.joblib *.jpeg *.jpg *.mkv *.mlmodel *.model *.mov *.mp3 "
    "*.mp4 *.msgpack *.npy *.npz *.ogg *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.png *.pt *.pth *.rar *.safetensors *.tar "
    "*.tflite *.tgz *.wasm *.wav *.webm *.webp *.xz *.zip *.zst"
)
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_FILES.split())


def now() -> str:
    """The time in the form that the Hub writes."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def git_blob_id(content: bytes) -> str:
    """The name that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit. `git_id` is that of the content, or of the pointer file when it is in large-file storage."""

    size: int
    sha256: str
    git_id: str
    is_large: bool

    @classmethod
    def large(cls, sha256: str, size: int) -> "StoredFile":
        return cls(size, sha256, git_blob_id(_pointer(sha256, size)), is_large=True)

    @property
    def pointer_size(self) -> int:
        return len(_pointer(self.sha256, self.size))

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.git_id


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Commit:
    """A commit and all its files, by path."""

    id: str
    parent: str | None
    title: str
    description: str
    author: str
    date: str
    files: Mapping[str, StoredFile]

    def inside(self, folder: str) -> dict[str, StoredFile]:
        """The files below `folder`, under their full paths; all of them below `""`."""
        return {path: file for path, file in self.files.items() if not folder or path.startswith(f"{folder}/")}


@lru_cache(maxsize=256)
def _read_commit(path: Path) -> Commit:
    fields = json.loads(path.read_text())
    files = {name: StoredFile(**file) for name, file in fields.pop("files").items()}
    return Commit(id=path.stem, files=files, **fields)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as JSON in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{threading.get_ident()}")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


class Storage:
    """All repositories and blobs of a folder, which is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        # Uploads that a crash cut short.
        for part in (folder / "blobs").glob("part-*"):
            part.unlink()

    def blob(self, sha256: str) -> Path:
        """Where the blob lies, or would lie."""
        if not SHA256.fullmatch(sha256):
            raise HubError(400, f"got {sha256!r}, expected the sha256 of a file in hexadecimal digits")
        return self.folder / "blobs" / sha256[:2] / sha256

    def new_blob(self) -> "BlobWriter":
        return BlobWriter(self)

    def repository(self, kind: str, repository_id: str) -> "Repository | None":
        """The repository, or `None` when there is none of this name."""
        names = repository_id.split("/")
        if len(names) != 2 or not all(map(NAME.fullmatch, names)):
            return None
        repository = Repository(self, kind, repository_id)
        return repository if repository.exists else None

    def create(self, kind: str, repository_id: str, settings: Mapping[str, Any], author: str) -> "Repository":
        """Makes a repository with one commit on `main`. `settings` are kept as they are (`private`, a space's `sdk`)."""
        namespace, _, name = repository_id.partition("/")
        if kind not in KINDS or not (NAME.fullmatch(namespace) and NAME.fullmatch(name)):
            raise HubError(400, f"got {kind!r} {repository_id!r}, expected one of {KINDS} and `namespace/name`")
        with self.lock:
            repository = Repository(self, kind, repository_id)
            if repository.exists:
                raise HubError(409, f"You already created this {kind} repo: {repository_id}")
            attributes = self.add_blob(GIT_ATTRIBUTES.encode())
            first = repository.write_commit(None, {".gitattributes": attributes}, "initial commit", "", author)
            repository.save({**settings, "created": first.date, "branches": {"main": first.id}, "tags": {}})
        return repository

    def delete(self, repository: "Repository") -> None:
        """Deletes a repository. Blobs stay: others may share them."""
        with self.lock:
            # Renamed first, so that nobody sees half of it; the leading dot is no name of a repository.
            gone = repository.folder.with_name(f".{repository.folder.name}")
            shutil.rmtree(gone, ignore_errors=True)
            repository.folder.rename(gone)
            shutil.rmtree(gone)

    def add_blob(self, content: bytes) -> StoredFile:
        """Stores a small file, whole."""
        with self.new_blob() as blob:
            blob.write(content)
            sha256 = blob.finish()
        return StoredFile(len(content), sha256, git_blob_id(content), is_large=False)


class BlobWriter:
    """Takes a blob piece by piece; it is in the storage, under its hash, only after `finish`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._hash = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(prefix="part-", dir=storage.folder / "blobs")
        self._file = os.fdopen(descriptor, "wb")
        self._part = Path(name)

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._file.write(piece)

    def finish(self, expected: str | None = None) -> str:
        """Puts the blob in place and returns its sha256, which has to be the `expected` one."""
        sha256 = self._hash.hexdigest()
        if expected not in (None, sha256):
            raise HubError(
                400, f"the sha256 of what arrived is {sha256}, expected {expected}: the file changed on its way"
            )
        self._file.close()
        target = self._storage.blob(sha256)
        target.parent.mkdir(exist_ok=True)
        os.replace(self._part, target)
        return sha256


class Repository:
    """One repository. Every method reads what is on disk now."""

    def __init__(self, storage: Storage, kind: str, repository_id: str) -> None:
        self.storage = storage
        self.kind = kind
        self.id = repository_id
        self.folder = storage.folder / f"{kind}s" / repository_id

    @property
    def exists(self) -> bool:
        return (self.folder / "repository.json").is_file()

    @property
    def settings(self) -> dict[str, Any]:
        """`private`, `created`, `branches` and `tags` (name -> commit id), and what else `create` was given."""
        return json.loads((self.folder / "repository.json").read_text())

    def save(self, settings: Mapping[str, Any]) -> None:
        _write(self.folder / "repository.json", settings)

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a full ref, or a commit id or the first 7 digits or more of one."""
        settings = self.settings
        found = (
            settings["branches"].get(revision.removeprefix("refs/heads/"))
            or settings["tags"].get(revision.removeprefix("refs/tags/"))
            or (self._full_id(revision) if re.fullmatch("[0-9a-f]{7,40}", revision) else None)
        )
        if found is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self._commit(found)

    def history(self, commit: Commit) -> Iterator[Commit]:
        """`commit` and those before it, newest first."""
        yield commit
        while commit.parent is not None:
            commit = self._commit(commit.parent)
            yield commit

    def commit(
        self,
        branch: str,
        changes: Iterable[tuple[str, StoredFile | None]],
        title: str,
        description: str = "",
        parent: str | None = None,
        author: str = "",
    ) -> Commit:
        """
        Puts a commit on a branch.

        Args:
            changes (`Iterable[tuple[str, StoredFile | None]]`):
                In this order: a path and its new file, or `None` to delete it; a path that ends in a slash is a folder.
            parent (`str`, *optional*):
                The commit that has to be the newest one (or its first digits). Without it, the commit goes on top of any other.

        Raises:
            [`HubError`]: 404 for a branch or for files that are not there, 412 when the branch has moved on from `parent`.
        """
        with self.storage.lock:
            settings = self.settings
            if branch not in settings["branches"]:
                raise HubError(404, f"Invalid rev id: {branch}: there is no such branch", "RevisionNotFound")
            head = self._commit(settings["branches"][branch])
            if parent and not head.id.startswith(parent):
                raise HubError(
                    412, f"A commit has happened since. Please refresh and try again: {branch} is at {head.id}"
                )
            files = dict(head.files)
            for path, file in changes:
                _apply(files, path, file)
            commit = self.write_commit(head.id, dict(sorted(files.items())), title, description, author)
            settings["branches"][branch] = commit.id
            self.save(settings)
        return commit

    def write_commit(
        self, parent: str | None, files: Mapping[str, StoredFile], title: str, description: str, author: str
    ) -> Commit:
        """Stores a commit that no branch leads to yet."""
        fields: dict[str, Any] = {"parent": parent, "title": title, "description": description, "author": author}
        fields |= {"date": now(), "files": {path: asdict(file) for path, file in files.items()}}
        commit_id = hashlib.sha1(json.dumps({"repository": self.id, **fields}).encode()).hexdigest()
        path = self.folder / "commits" / f"{commit_id}.json"
        _write(path, fields)
        return _read_commit(path)

    def set_ref(self, where: Literal["branches", "tags"], name: str, revision: str) -> None:
        """Makes a branch or a tag at `revision`."""
        with self.storage.lock:
            commit, settings = self.resolve(revision), self.settings
            if name in settings[where]:
                raise HubError(409, f"{name} is among the {where} already")
            if not name or name.startswith("/") or ".." in name or re.search(r"[\s~^:?*\\\[\x00-\x1f]", name):
                raise HubError(400, f"got {name!r}, expected a name that git takes for a branch or a tag")
            settings[where][name] = commit.id
            self.save(settings)

    def delete_ref(self, where: Literal["branches", "tags"], name: str) -> None:
        with self.storage.lock:
            settings = self.settings
            if (where, name) == ("branches", "main"):
                raise HubError(403, "the branch main cannot be deleted")
            if settings[where].pop(name, None) is None:
                raise HubError(404, f"Invalid rev id: {name} is not among the {where}", "RevisionNotFound")
            self.save(settings)

    def _commit(self, commit_id: str) -> Commit:
        return _read_commit(self.folder / "commits" / f"{commit_id}.json")

    def _full_id(self, start: str) -> str | None:
        found = [path.stem for path in (self.folder / "commits").glob(f"{start}*.json")]
        return found[0] if len(found) == 1 else None


def _apply(files: dict[str, StoredFile], path: str, file: StoredFile | None) -> None:
    """One change to the files of a commit, in place."""
    parts = path.removesuffix("/").split("/")
    if any(part in ("", ".", "..", ".git") for part in parts) or "\0" in path:
        raise HubError(400, f"got the path {path!r}, expected one inside the repository")
    if file is not None:
        folders = {"/".join(parts[:length]) for length in range(1, len(parts))}
        if folders & files.keys() or any(other.startswith(f"{path}/") for other in files):
            raise HubError(400, f"{path} cannot be a file and a folder at once")
        files[path] = file
        return
    doomed = [other for other in files if other.startswith(path)] if path.endswith("/") else [path]
    if not doomed or not files.keys() >= set(doomed):
        kind = "folder" if path.endswith("/") else "file"
        raise HubError(404, f"A {kind} with this name doesn't exist: {path}", "EntryNotFound")
    for name in doomed:
        del files[name]
