"""What is about to be published: its files, and the checks that hold for files of every kind.

Nothing may go out that only this machine or its user should know: absolute paths, access tokens, private keys; nor anything that
is unpickled when it is read.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

CARD = "README.md"
# What the Hub's client raises; the second is what it does without a connection, of httpx or httpx2.
HUB_ERRORS: tuple[type[Exception], ...] = (
    HfHubHTTPError,
    HfHubHTTPError.__mro__[1],
    HFValidationError,
    LocalTokenNotFoundError,
    ConnectionError,
    TimeoutError,
)
REPO_TYPES = {"model": "model", "dataset": "dataset", "metric": "space", "space": "space"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEXT = {
    ".json",
    ".jsonl",
    ".md",
    ".py",
    ".txt",
    ".yaml",
    ".yml",
    ".jinja",
    ".html",
    ".toml",
    ".cfg",
    ".csv",
    ".css",
    ".js",
    ".sh",
    "",
}
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.npy", "*.npz", "*.joblib", "*.h5", "*.msgpack")

# What precedes a path is neither part of a longer one nor of an address (https://host/data/...).
_PATHS = re.compile(
    rb"(?:(?<![\w./:~\\-])|(?<=file://))/(?:home|Users|root|mnt|media|scratch|tmp|var|work|workspace|srv|opt|private|gpfs|lustre|nfs)"
    rb"/[\w.@+-]+|(?<!\w)[A-Za-z]:\\{1,2}Users\\{1,2}[\w.-]+"
)
_SECRETS = re.compile(
    rb"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bAKIA[0-9A-Z]{16}\b|\bsk-[A-Za-z0-9_-]{32,}"
    rb"|\bxox[abp]-[A-Za-z0-9-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


@dataclass
class Publication:
    """
    What goes into a repository.

    Attributes:
        kind (`str`): "model", "dataset", "metric" or "space".
        repo_id (`str`): `org/name`.
        files (`dict[str, Path | bytes]`): path in the repository, and the file or its content.
        left_out (`dict[str, str]`): files of the source that do not go, and why.
        checks (`list[str]`): what was looked at, for people.
        replaces (`tuple[str, ...]`): patterns of files that are removed from the repository unless they are among `files`.
        base_card (`str` or `None`): the SHA-256 of another card of ours that may be there already.
    """

    kind: str
    repo_id: str
    files: dict[str, Path | bytes]
    left_out: dict[str, str] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    replaces: tuple[str, ...] = ()
    base_card: str | None = None

    @property
    def repo_type(self) -> str:
        """The Hub's word: a metric is a Space."""
        return REPO_TYPES[self.kind]

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, in order of their names."""
        sizes = {n: c.stat().st_size if isinstance(c, Path) else len(c) for n, c in self.files.items()}
        return dict(sorted(sizes.items()))


def check_repo_id(repo_id: str) -> str:
    """
    Raises:
        `ValueError`: if it is not `org/name`.
    """
    if not _REPOSITORY.fullmatch(repo_id):
        raise ValueError(f"--repo: got {repo_id!r}; expected org/name, of letters, digits, _, - and dots")
    return repo_id


def check_files(publication: Publication) -> None:
    """
    Looks through all files that are read as text.

    Raises:
        `ValueError`: naming file and line of an absolute path, an access token or a key, or a pickled file.
    """
    for name, content in sorted(publication.files.items()):
        if is_pickled(name):
            raise ValueError(
                f"{name}: may be a pickle, which runs code when it is read; publish safetensors, JSON or tars"
            )
        if Path(name).suffix in _TEXT:
            check_text(content.read_bytes() if isinstance(content, Path) else content, name)
    publication.checks.append("no pickles, machine paths or access tokens in the files")


def check_text(content: bytes, name: str) -> None:
    """
    Raises:
        `ValueError`: naming the line of an absolute path of a machine, an access token or a private key.
    """
    for pattern, what in ((_SECRETS, "an access token or key"), (_PATHS, "a path of a machine")):
        found = pattern.search(content)
        if found is not None:
            line = content.count(b"\n", 0, found.start()) + 1
            shown = repr(found[0].decode(errors="replace")) if pattern is _PATHS else "not repeated here"
            raise ValueError(f"{name}, line {line}: {what} ({shown}); take it out before this is published")


def is_pickled(name: str) -> bool:
    """Whether a file of this name is one that programs unpickle, or may."""
    return any(fnmatch.fnmatchcase(Path(name).name.lower(), pattern) for pattern in _PICKLED)


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder with their names in a repository, without those of tools: hidden ones and caches."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield "/".join(parts), path


__all__ = ["CARD", "HUB_ERRORS", "Publication", "check_files", "check_repo_id", "check_text", "files_of", "is_pickled"]
