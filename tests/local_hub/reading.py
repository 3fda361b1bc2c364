"""Endpoints that read: what a repository has at a revision, its history, and the files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from .access import json_of, repository_of
from .errors import HubError
from .repositories import front_matter
from .storage import Commit, Repository, StoredFile

# The Hub's own sizes of a page.
PAGE, EXPANDED_PAGE = 1000, 50


def info(request: Request) -> Response:
    """What `model_info`, `dataset_info` and `space_info` return."""
    repository = repository_of(request)
    commit = repository.resolve(request.path_params.get("revision", "main"))
    settings, card = repository.settings, _card(repository, commit)
    fields: dict[str, Any] = {
        "author": repository.id.partition("/")[0],
        "sha": commit.id,
        "lastModified": commit.date,
        "createdAt": settings["created"],
        "private": settings["private"],
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags") or [],
        "cardData": card,
        "siblings": [_sibling(path, file, "blobs" in request.query_params) for path, file in commit.files.items()],
    }
    if repository.kind == "model":
        fields |= {"pipeline_tag": card.get("pipeline_tag"), "library_name": card.get("library_name")}
    if repository.kind == "space":
        fields["sdk"] = settings["sdk"]
    if wanted := request.query_params.getlist("expand"):
        fields = {name: value for name, value in fields.items() if name in wanted}
    return JSONResponse({"_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24], "id": repository.id, **fields})


def _card(repository: Repository, commit: Commit) -> dict[str, Any]:
    """The metadata of the README, as JSON; empty when the Hub could not read it either."""
    readme = commit.files.get("README.md")
    if readme is None:
        return {}
    try:
        metadata = front_matter(repository.storage.blob(readme.sha256).read_text(errors="replace"))
    except (yaml.YAMLError, ValueError):
        return {}
    return json.loads(json.dumps(metadata, default=str))


def _sibling(path: str, file: StoredFile, with_metadata: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"rfilename": path}
    if with_metadata:
        fields |= {"size": file.size, "blobId": file.git_id}
        if file.is_large:
            fields["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return fields


def tree(request: Request) -> Response:
    """A folder's entries, or with `recursive` all below it, in pages."""
    repository = repository_of(request)
    commit = repository.resolve(request.path_params["revision"])
    folder = request.path_params.get("path", "").strip("/")
    files = commit.inside(folder)
    if folder and not files:
        raise HubError(404, f"{folder} does not exist on {request.path_params['revision']!r}", "EntryNotFound")
    start = len(folder) + 1 if folder else 0
    entries = set()
    for path in files:
        parts = path[start:].split("/")
        depth = len(parts) if _is_set(request, "recursive") else 1
        entries |= {path[:start] + "/".join(parts[:length]) for length in range(1, depth + 1)}
    return _paths(request, repository, commit, sorted(entries))


async def paths_info(request: Request) -> Response:
    """The entries for the paths in the body, which is a form or JSON; paths that do not exist are left out."""
    repository = repository_of(request)
    if request.headers.get("content-type", "").startswith("application/json"):
        fields = await json_of(request)
        paths, expand = fields.get("paths", []), bool(fields.get("expand"))
    else:
        form = parse_qs((await request.body()).decode())
        paths, expand = form.get("paths", []), form.get("expand", ["False"])[0].lower() == "true"

    def answer() -> Response:
        commit = repository.resolve(request.path_params["revision"])
        names = (path.strip("/") for path in paths)
        found = [name for name in names if name in commit.files or (name and commit.inside(name))]
        return JSONResponse([_entry(repository, commit, name, expand) for name in found])

    return await run_in_threadpool(answer)


def _paths(request: Request, repository: Repository, commit: Commit, paths: Sequence[str]) -> Response:
    expand = _is_set(request, "expand")
    page, headers = _page(request, paths, EXPANDED_PAGE if expand else PAGE)
    return JSONResponse([_entry(repository, commit, path, expand) for path in page], headers=headers)


def _entry(repository: Repository, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    file = commit.files.get(path)
    if file is None:
        fields: dict[str, Any] = {"type": "directory", "oid": _tree_id(commit, path), "size": 0, "path": path}
    else:
        fields = {"type": "file", "oid": file.git_id, "size": file.size, "path": path}
        if file.is_large:
            fields["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    if expand:
        last = _last_change(repository, commit, path)
        fields["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
    return fields


def _tree_id(commit: Commit, folder: str) -> str:
    return hashlib.sha1(repr(sorted(commit.inside(folder).items())).encode()).hexdigest()


def _last_change(repository: Repository, commit: Commit, path: str) -> Commit:
    """The last commit up to `commit` that changed a file or a folder."""

    def content(at: Commit) -> object:
        return at.files.get(path) or at.inside(path)

    last = commit
    for earlier in repository.history(commit):
        if content(earlier) != content(commit):
            break
        last = earlier
    return last


def commits(request: Request) -> Response:
    repository = repository_of(request)
    history = list(repository.history(repository.resolve(request.path_params["revision"])))
    page, headers = _page(request, history, EXPANDED_PAGE)
    return JSONResponse(
        [
            {
                "id": commit.id,
                "title": commit.title,
                "message": commit.description,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in page
        ],
        headers=headers,
    )


def _is_set(request: Request, flag: str) -> bool:
    return request.query_params.get(flag, "").lower() in ("true", "1")


def _page(request: Request, items: Sequence[Any], default: int) -> tuple[Sequence[Any], Mapping[str, str]]:
    """The page that the request asks for, and the header that leads to the next one."""
    try:
        start, size = (
            int(request.query_params.get(name, value)) for name, value in (("cursor", 0), ("limit", default))
        )
    except ValueError as error:
        raise HubError(400, f"`cursor` and `limit` have to be whole numbers: {error}") from error
    end = start + min(max(size, 1), default)
    if end >= len(items):
        return items[start:], {}
    return items[start:end], {"Link": f'<{request.url.include_query_params(cursor=end)}>; rel="next"'}


def resolve(request: Request) -> Response:
    """A file, whole or a range of it; for `HEAD`, only what is known about it."""
    repository = repository_of(request)
    commit = repository.resolve(request.path_params["revision"])
    path = request.path_params["path"]
    headers = {"X-Repo-Commit": commit.id}
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, f"Entry not found: {path}", "EntryNotFound", headers)
    headers["ETag"] = f'"{file.etag}"'
    if file.is_large:
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    return FileResponse(
        repository.storage.blob(file.sha256),
        headers=headers,
        filename=path.rpartition("/")[2],
        content_disposition_type="inline",
    )
