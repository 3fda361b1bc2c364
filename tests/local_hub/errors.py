"""The one error of the server: an HTTP status, and the code by which the client chooses its exception."""

from collections.abc import Mapping
from typing import Literal

ErrorCode = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound"]


class HubError(Exception):
    """
    Args:
        status (`int`):
            HTTP status.
        message (`str`):
            What the client shows.
        code (`str`, *optional*):
            Becomes `X-Error-Code`. Without it the client raises a plain `HfHubHTTPError`.
        headers (`Mapping[str, str]`, *optional*):
            More headers of the answer.
    """

    def __init__(
        self, status: int, message: str, code: ErrorCode | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
