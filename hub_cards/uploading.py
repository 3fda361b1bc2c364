"""Puts a publication on the Hub: large files first, one after the other, then everything in one commit, then the tag.

So a repository is never half new, and an upload that was interrupted goes on: what has arrived is known by its content and not sent
again, whether a commit points to it yet or not.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils.sha import git_hash

from dataset_builders.command_line import progress

from .publication import CARD, HUB_ERRORS, Publication
from .rendering import is_signed

logger = logging.getLogger(__name__)

EditedCard = Literal["refuse", "keep", "replace"]
_BATCH = 8  # files on their way at once


@dataclass(frozen=True)
class Settings:
    """
    How to publish.

    Attributes:
        private (`bool`): whether a repository that is made now is private.
        revision (`str` or `None`): branch to commit to; made if it does not exist. By default the main one.
        tag (`str` or `None`): for the commit.
        message (`str`): of the commit.
        edited_card (`str`): "refuse" to replace a card that somebody changed on the Hub, "keep" it, or "replace" it.
        delete (`bool`): whether files of a data set that the folder no longer has are removed from the repository.
    """

    private: bool = False
    revision: str | None = None
    tag: str | None = None
    message: str = "Publish"
    edited_card: EditedCard = "refuse"
    delete: bool = False


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """
    Turns what the Hub's client raises into one line.

    Raises:
        `ValueError`: with what was being done, and why it could not be.
    """
    try:
        yield
    except HUB_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in (400, 401, 403, 404)
        goes_on = "" if refused else "; what has arrived stays, and the same command goes on"
        raise ValueError(f"{doing}: {reason}{goes_on}") from error


def check_access() -> None:
    """
    Looks whether the Hub can be reached, and knows who this is.

    Raises:
        `ValueError`: if not.
    """
    try:
        HfApi().whoami()
    except HUB_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the Hub cannot be used: {reason}; `hf auth login`, or HF_TOKEN, says who you are") from error


def upload(publication: Publication, settings: Settings, token: str | None = None) -> dict[str, Any]:
    """
    Puts a publication on the Hub.

    Args:
        publication ([`Publication`]):
            Checked before.
        settings ([`Settings`]):
            How.
        token (`str`, *optional*):
            By default the one that `hf auth login` or `HF_TOKEN` gave.

    Returns:
        `dict`: JSON types: `repo`, `type`, `url`, `commit`, `tag`, and how many files were `sent`, `unchanged` and `removed`.

    Raises:
        `ValueError`: if the Hub cannot be reached or refuses, the tag is taken, or something there would be lost.
    """
    api = HfApi(token=token)
    if not sys.stderr.isatty():
        disable_progress_bars()
    repo: dict[str, Any] = {"repo_id": publication.repo_id, "repo_type": publication.repo_type}
    with hub_errors(f"{publication.repo_id}: cannot be published"):
        sdk = {"model": None, "dataset": None, "metric": "static", "space": "gradio"}[publication.kind]
        api.create_repo(**repo, private=settings.private or None, space_sdk=sdk, exist_ok=True)
        if settings.revision is not None:
            api.create_branch(**repo, branch=settings.revision, exist_ok=True)
        head = api.repo_info(**repo, revision=settings.revision).sha
        there = remote_files(api, publication.repo_id, publication.repo_type, head)
        files = _without_edited_card(api, publication, there, head, settings.edited_card)
        changed = _changed(files, there)
        removed = _removed(publication, files, there, settings.delete)
        taken = next((t.target_commit for t in api.list_repo_refs(**repo).tags if t.name == settings.tag), None)
        if taken is not None and (taken != head or changed or removed):
            raise ValueError(f"--tag: {settings.tag} is there already, for commit {taken[:12]}; choose another")
        operations: list[Any] = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in changed]
        _send_large(api, repo, operations, settings.revision)
        commit = head
        if changed or removed:
            commit = api.create_commit(
                **repo,
                operations=operations + [CommitOperationDelete(path_in_repo=name) for name in removed],
                commit_message=settings.message,
                revision=settings.revision,
                parent_commit=head,
            ).oid
        if settings.tag is not None and taken is None:
            api.create_tag(**repo, tag=settings.tag, revision=commit)
    prefix = "" if publication.repo_type == "model" else f"{publication.repo_type}s/"
    return {
        "repo": publication.repo_id,
        "type": publication.repo_type,
        "url": f"{api.endpoint}/{prefix}{publication.repo_id}",
        "commit": commit,
        "tag": settings.tag,
        "sent": len(changed),
        "unchanged": len(files) - len(changed),
        "removed": len(removed),
    }


def remote_files(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> dict[str, RepoFile]:
    """What a repository has, by name."""
    tree = api.list_repo_tree(repo_id, repo_type=repo_type, revision=revision, recursive=True)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def same_content(content: Path | bytes, there: RepoFile | None) -> bool:
    """Whether a file of a repository is this one, by size and checksum."""
    if there is None or (content.stat().st_size if isinstance(content, Path) else len(content)) != there.size:
        return False
    if there.lfs is None:
        return git_hash(content.read_bytes() if isinstance(content, Path) else content) == there.blob_id
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest() == there.lfs.sha256
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == there.lfs.sha256


def _changed(files: dict[str, Path | bytes], there: dict[str, RepoFile]) -> list[str]:
    names = progress(sorted(files), "comparing", unit="file")
    return [name for name in names if not same_content(files[name], there.get(name))]


def _without_edited_card(
    api: HfApi, publication: Publication, there: dict[str, RepoFile], head: str | None, policy: EditedCard
) -> dict[str, Path | bytes]:
    """The files to publish, without the card if the one on the Hub is somebody's own and is kept."""
    files = publication.files
    if CARD not in there or CARD not in files or policy == "replace" or same_content(files[CARD], there[CARD]):
        return files
    path = api.hf_hub_download(publication.repo_id, CARD, repo_type=publication.repo_type, revision=head)
    content = Path(path).read_bytes()
    ours = is_signed(content.decode(errors="replace"))
    if ours or hashlib.sha256(content).hexdigest() == publication.base_card or not _card_text(content):
        return files
    if policy == "refuse":
        raise ValueError(
            f"{publication.repo_id}: its card was changed on the Hub; take it over as README.md of the source, or replace it with "
            "--new-card"
        )
    logger.warning("%s: its card was changed on the Hub and stays", publication.repo_id)
    return {name: value for name, value in files.items() if name != CARD}


def _card_text(content: bytes) -> str:
    """What somebody has written in a card: for a new Space the Hub makes one of metadata and a link to their meaning."""
    text = content.decode(errors="replace")
    text = text.rpartition("\n---")[2].strip() if text.startswith("---") else text.strip()
    return "" if text.startswith("Check out the configuration reference at https://") and "\n" not in text else text


def _removed(
    publication: Publication, files: dict[str, Path | bytes], there: dict[str, RepoFile], delete: bool
) -> list[str]:
    """Files of the repository that this publication replaces."""
    names = [
        name
        for name in there
        if name not in files and any(fnmatch.fnmatchcase(name, pattern) for pattern in publication.replaces)
    ]
    if names and publication.kind == "dataset" and not delete:
        raise ValueError(
            f"{publication.repo_id}: has {len(names)} shard(s) that this folder lacks, such as {names[0]}; publish a folder with "
            "all splits, or --delete removes them (earlier commits keep them)"
        )
    return names


def _send_large(
    api: HfApi, repo: dict[str, Any], operations: Sequence[CommitOperationAdd], revision: str | None
) -> None:
    """Sends what the Hub keeps beside the commits, a few files at a time; what it has of them already it says itself."""
    batches = [operations[first : first + _BATCH] for first in range(0, len(operations), _BATCH)]
    for batch in progress(batches, f"sending {len(operations)} files", unit="batch"):
        api.preupload_lfs_files(**repo, additions=batch, revision=revision, num_threads=min(_BATCH, 4))


def as_bytes(value: Any) -> bytes:
    """A JSON file's content."""
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


__all__ = ["EditedCard", "Settings", "as_bytes", "check_access", "hub_errors", "remote_files", "same_content", "upload"]
