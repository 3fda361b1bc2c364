"""Who asks, and for what: tokens, and the repository that an address names."""

from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from .errors import HubError
from .storage import Repository, Storage

Value = TypeVar("Value")


@dataclass(frozen=True)
class User:
    name: str
    may_write: bool


# Whoever has a token may see private repositories, and a writer may write to every namespace.
USERS = {"hf_test": User("tester", may_write=True), "hf_read": User("reader", may_write=False)}
ORGANIZATION = "org"


def storage_of(request: Request) -> Storage:
    return request.app.state.storage


def user_of(request: Request, must_write: bool = False) -> User | None:
    """The user whose token came along, or `None` without one (which only reading allows)."""
    header = request.headers.get("authorization")
    if header is None:
        if must_write:
            raise HubError(401, "Invalid username or password.")
        return None
    user = USERS.get(header.removeprefix("Bearer "))
    if user is None:
        # The client tells a wrong token from a missing repository by these very words.
        raise HubError(401, "Invalid credentials in Authorization header")
    if must_write and not user.may_write:
        raise HubError(403, f"the token of {user.name} may only read; use another one")
    return user


def writer_of(request: Request) -> User:
    """The user, who has to have a token that may write."""
    user = user_of(request, must_write=True)
    assert user is not None
    return user


def repository_of(request: Request, must_write: bool = False) -> Repository:
    """The repository of an address `/{kind}s/{namespace}/{name}/...`."""
    user = user_of(request)
    kind = request.path_params.get("kinds", "models").removesuffix("s")
    names = [request.path_params[part] for part in ("namespace", "name") if part in request.path_params]
    repository = find(request, kind, "/".join(names), user)
    if must_write:
        writer_of(request)
    return repository


def find(request: Request, kind: str, repository_id: str, user: User | None) -> Repository:
    """The repository, if it is there and `user` may see it. The answer is the same for both reasons, as on the Hub."""
    repository = storage_of(request).repository(kind, repository_id)
    if repository is None or (user is None and repository.settings["private"]):
        raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
    return repository


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body."""
    try:
        value = await request.json()
    except ValueError as error:
        raise HubError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise HubError(400, f"got JSON of type {type(value).__name__} in the body, expected an object")
    return value


def field(fields: Any, name: str, kind: type[Value]) -> Value:
    """A field of a JSON object, which has to be there and of this type."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, kind):
        raise HubError(400, f"got {value!r} as {name!r}, expected a {kind.__name__}")
    return value
