"""The application: which address leads to which endpoint, and how errors are told."""

import logging
from pathlib import Path
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import reading, repositories, uploading
from .errors import HubError
from .storage import Storage

logger = logging.getLogger("uvicorn.error")


class _Part(Convertor[str]):
    """One part of an address, which may have quoted slashes: revisions and folders do."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        raise NotImplementedError("addresses are only read")


class _Rest(_Part):
    """All that is left of an address."""

    regex = ".*"


class _Kinds(_Part):
    regex = "models|datasets|spaces"


class _Prefix(_Part):
    """How the addresses of files say the kind: they begin with the namespace when it is a model."""

    regex = "datasets|spaces"


register_url_convertor("part", _Part())
register_url_convertor("rest", _Rest())
register_url_convertor("kinds", _Kinds())
register_url_convertor("prefix", _Prefix())

API = "/api/{kinds:kinds}/{namespace:part}/{name:part}"


def _routes() -> list[Route]:
    routes = [
        Route("/api/whoami-v2", repositories.whoami),
        Route("/api/validate-yaml", repositories.validate_card, methods=["POST"]),
        Route("/api/repos/create", repositories.create, methods=["POST"]),
        Route("/api/repos/delete", repositories.delete, methods=["DELETE"]),
        Route(API + "/settings", repositories.change_settings, methods=["PUT"]),
        Route(API + "/refs", repositories.refs),
        Route(API + "/branch/{branch:part}", repositories.create_branch, methods=["POST"]),
        Route(API + "/branch/{branch:part}", repositories.delete_branch, methods=["DELETE"]),
        Route(API + "/tag/{revision:part}", repositories.create_tag, methods=["POST"]),
        Route(API + "/tag/{revision:part}", repositories.delete_tag, methods=["DELETE"]),
        Route(API + "/revision/{revision:part}", reading.info),
        Route(API + "/tree/{revision:part}", reading.tree),
        Route(API + "/tree/{revision:part}/{path:rest}", reading.tree),
        Route(API + "/paths-info/{revision:part}", reading.paths_info, methods=["POST"]),
        Route(API + "/commits/{revision:part}", reading.commits),
        Route(API + "/preupload/{revision:part}", uploading.preupload, methods=["POST"]),
        Route(API + "/commit/{revision:part}", uploading.commit, methods=["POST"]),
        Route("/blobs/{sha256:part}", uploading.put_blob, methods=["PUT"]),
        Route(API, reading.info),
        # Names without a namespace, of which there are none here: the client has to hear that the repository is not there.
        Route("/api/{kinds:kinds}/{name:part}", reading.info),
        Route("/api/{kinds:kinds}/{name:part}/revision/{revision:part}", reading.info),
    ]
    for prefix in ("/{kinds:prefix}", ""):
        repository = prefix + "/{namespace:part}/{name:part}"
        routes += [
            Route(repository + ".git/info/lfs/objects/batch", uploading.large_file_batch, methods=["POST"]),
            Route(repository + "/resolve/{revision:part}/{path:rest}", reading.resolve),
            Route(prefix + "/{name:part}/resolve/{revision:part}/{path:rest}", reading.resolve),
        ]
    return routes


class _QuotedPaths:
    """
    Matches routes on the address as it was sent: the usual `path` has its quoted slashes undone.

    Programs that are told to use this server as a proxy ask for whole addresses, or for a connection to a host. They are refused,
    which is how the tests keep everything else from the internet.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["raw_path"].decode("ascii", errors="replace")
            if not path.startswith("/"):
                logger.warning("refused to be a proxy: %s %s", scope["method"], path)
                await JSONResponse({"error": f"this is no proxy; {path} is out of reach"}, 403)(scope, receive, send)
                return
            scope = {**scope, "path": path}
        await self.app(scope, receive, send)


async def _on_hub_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return JSONResponse({"error": error.message}, status_code=error.status, headers=error.headers)


async def _on_unknown_address(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"the local Hub has no {request.method} {request.url.path}"}, status_code=404)


def make_app(folder: Path) -> Starlette:
    """The application, with its repositories in `folder`."""
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(_QuotedPaths)],
        exception_handlers={HubError: _on_hub_error, 404: _on_unknown_address},
    )
    app.state.storage = Storage(folder)
    return app
