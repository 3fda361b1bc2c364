"""Endpoints for accounts and for what happens to a repository as a whole: making, deleting, visibility, branches and tags."""

import re
from typing import Any, Literal

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .access import ORGANIZATION, field, find, json_of, repository_of, storage_of, user_of, writer_of
from .errors import HubError
from .storage import Repository

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


def whoami(request: Request) -> Response:
    user = user_of(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    role = "write" if user.may_write else "read"
    return JSONResponse(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "orgs": [
                {"type": "org", "id": ORGANIZATION, "name": ORGANIZATION, "fullname": ORGANIZATION, "roleInOrg": role}
            ],
            "auth": {"type": "access_token", "accessToken": {"displayName": user.name, "role": role}},
        }
    )


def web_address(request: Request, repository: Repository) -> str:
    prefix = "" if repository.kind == "model" else f"{repository.kind}s/"
    return f"{request.base_url}{prefix}{repository.id}"


def _named(fields: dict[str, Any], user_name: str) -> tuple[str, str]:
    """Kind and full name of the repository that the body of a request names."""
    return fields.get("type") or "model", f"{fields.get('organization') or user_name}/{fields.get('name')}"


async def create(request: Request) -> Response:
    user, fields = writer_of(request), await json_of(request)
    kind, repository_id = _named(fields, user.name)
    settings = {"private": fields.get("visibility") == "private"}
    if kind == "space":
        settings["sdk"] = fields.get("sdk")
    try:
        repository = await run_in_threadpool(storage_of(request).create, kind, repository_id, settings, user.name)
    except HubError as error:
        if error.status != 409:
            raise
        # `exist_ok=True` reads the address from the refusal.
        repository = find(request, kind, repository_id, user)
        return JSONResponse(
            {"error": error.message, "url": web_address(request, repository)}, status_code=409, headers=error.headers
        )
    return JSONResponse({"url": web_address(request, repository), "name": repository_id, "id": repository_id})


async def delete(request: Request) -> Response:
    user, fields = writer_of(request), await json_of(request)
    repository = find(request, *_named(fields, user.name), user)
    await run_in_threadpool(storage_of(request).delete, repository)
    return Response()


async def change_settings(request: Request) -> Response:
    repository, fields = repository_of(request, must_write=True), await json_of(request)
    private = field(fields, "visibility", str) == "private"
    with repository.storage.lock:
        repository.save({**repository.settings, "private": private})
    return JSONResponse({"private": private})


def refs(request: Request) -> Response:
    settings = repository_of(request).settings

    def listed(where: Literal["branches", "tags"], folder: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": commit}
            for name, commit in sorted(settings[where].items())
        ]

    return JSONResponse(
        {"branches": listed("branches", "heads"), "tags": listed("tags", "tags"), "converts": [], "pullRequests": []}
    )


async def create_branch(request: Request) -> Response:
    repository, fields = repository_of(request, must_write=True), await json_of(request)
    repository.set_ref("branches", request.path_params["branch"], fields.get("startingPoint") or "main")
    return Response(status_code=201)


async def create_tag(request: Request) -> Response:
    repository, fields = repository_of(request, must_write=True), await json_of(request)
    repository.set_ref("tags", field(fields, "tag", str), request.path_params["revision"])
    return Response(status_code=201)


def delete_branch(request: Request) -> Response:
    repository_of(request, must_write=True).delete_ref("branches", request.path_params["branch"])
    return Response()


def delete_tag(request: Request) -> Response:
    repository_of(request, must_write=True).delete_ref("tags", request.path_params["revision"])
    return Response()


def front_matter(text: str) -> dict[str, Any]:
    """The metadata of a card: the YAML mapping between its first two lines of dashes; empty when there is none."""
    found = FRONT_MATTER.match(text)
    metadata = yaml.safe_load(found[1]) if found else None
    if not isinstance(metadata, dict | None):
        raise ValueError(f"the metadata is a {type(metadata).__name__}, expected a mapping")
    return metadata or {}


async def validate_card(request: Request) -> Response:
    content = field(await json_of(request), "content", str)
    try:
        metadata = front_matter(content)
    except (yaml.YAMLError, ValueError) as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, status_code=400)
    warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})
