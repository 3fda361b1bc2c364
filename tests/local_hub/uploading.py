"""Endpoints of an upload, in the order in which a client calls them."""

import base64
import binascii
import json
from fnmatch import fnmatchcase
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .access import field, json_of, repository_of, storage_of, writer_of
from .errors import HubError
from .repositories import web_address
from .storage import Commit, Repository, StoredFile

# Larger files go to large-file storage whatever they are called.
MAX_REGULAR_SIZE = 10 * 2**20


async def preupload(request: Request) -> Response:
    """1. How each file has to come (`regular`: inside the commit; `lfs`: before it), and what is there under its name now."""
    repository, fields = repository_of(request, must_write=True), await json_of(request)

    def answer() -> Response:
        commit = repository.resolve(request.path_params["revision"])
        patterns = _large_file_patterns(repository, commit)
        return JSONResponse({"files": [_instruction(commit, patterns, file) for file in field(fields, "files", list)]})

    return await run_in_threadpool(answer)


def _large_file_patterns(repository: Repository, commit: Commit) -> list[str]:
    """What `.gitattributes` sends to large-file storage."""
    attributes = commit.files.get(".gitattributes")
    if attributes is None:
        return []
    lines = repository.storage.blob(attributes.sha256).read_text(errors="replace").splitlines()
    return [words[0] for words in map(str.split, lines) if "filter=lfs" in words[1:]]


def _instruction(commit: Commit, patterns: list[str], file: Any) -> dict[str, Any]:
    path, size = field(file, "path", str), field(file, "size", int)
    names = (path, path.rpartition("/")[2])
    is_large = size > MAX_REGULAR_SIZE or any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
    present = commit.files.get(path)
    return {
        "path": path,
        "uploadMode": "lfs" if is_large else "regular",
        # A `.gitignore` is not looked at.
        "shouldIgnore": False,
        # The client leaves out of the commit what has not changed.
        "oid": present.etag if present else None,
    }


async def large_file_batch(request: Request) -> Response:
    """2. Where each large file goes. One that is in the storage needs no upload and gets no address."""
    storage, fields = repository_of(request, must_write=True).storage, await json_of(request)
    if fields.get("operation") != "upload":
        raise HubError(
            400, f"got the operation {fields.get('operation')!r}, expected 'upload'; files are read with /resolve/"
        )
    objects = []
    for wanted in field(fields, "objects", list):
        sha256 = field(wanted, "oid", str)
        answer: dict[str, Any] = {"oid": sha256, "size": field(wanted, "size", int)}
        if not storage.blob(sha256).is_file():
            answer["actions"] = {"upload": {"href": f"{request.base_url}blobs/{sha256}"}}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects})


async def put_blob(request: Request) -> Response:
    """3. A large file. As on the Hub the address is the permission: the client sends no token with it."""
    sha256 = request.path_params["sha256"]
    storage = storage_of(request)
    storage.blob(sha256)
    with storage.new_blob() as blob:
        async for piece in request.stream():
            await run_in_threadpool(blob.write, piece)
        blob.finish(expected=sha256)
    return Response()


async def commit(request: Request) -> Response:
    """4. The commit: lines of JSON, the first of which has the message, each other one a change."""
    repository, user = repository_of(request, must_write=True), writer_of(request)
    if _asks_for_pull_request(request):
        raise HubError(400, "the local Hub has no pull requests; commit to a branch")
    body = await request.body()

    def answer() -> Response:
        lines = [_line(line) for line in body.splitlines()]
        if not lines or lines[0][0] != "header":
            raise HubError(400, "the first line of the commit is not its header")
        header = lines[0][1]
        made = repository.commit(
            request.path_params["revision"],
            [_change(repository, key, value) for key, value in lines[1:]],
            title=field(header, "summary", str),
            description=header.get("description", ""),
            parent=header.get("parentCommit"),
            author=user.name,
        )
        address = f"{web_address(request, repository)}/commit/{made.id}"
        return JSONResponse({"success": True, "commitOid": made.id, "commitUrl": address, "hookOutput": ""})

    return await run_in_threadpool(answer)


def _asks_for_pull_request(request: Request) -> bool:
    return request.query_params.get("create_pr", "0") not in ("0", "false", "False")


def _line(line: bytes) -> tuple[str, dict[str, Any]]:
    """What a line of the commit is, and its fields."""
    try:
        item = json.loads(line)
    except ValueError as error:
        raise HubError(400, f"a line of the commit is not JSON: {error}") from error
    return field(item, "key", str), field(item, "value", dict)


def _change(repository: Repository, key: str, fields: dict[str, Any]) -> tuple[str, StoredFile | None]:
    path, storage = field(fields, "path", str), repository.storage
    match key:
        case "file":
            try:
                content = base64.b64decode(field(fields, "content", str), validate=True)
            except binascii.Error as error:
                raise HubError(400, f"the content of {path} is not base64: {error}") from error
            return path, storage.add_blob(content)
        case "lfsFile":
            sha256 = field(fields, "oid", str)
            blob = storage.blob(sha256)
            if not blob.is_file():
                raise HubError(400, f"{path} points to the large file {sha256}, which was not uploaded")
            return path, StoredFile.large(sha256, blob.stat().st_size)
        case "deletedFile":
            return path, None
        case "deletedFolder":
            return f"{path.removesuffix('/')}/", None
        case _:
            raise HubError(400, f"got a change of kind {key!r}, expected file, lfsFile, deletedFile or deletedFolder")
