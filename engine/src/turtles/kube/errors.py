# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between the engine and the API server, one exception class per cause."""

from typing import Any


class ApiError(Exception):
    """The API server refused or could not answer a request.

    :param status: HTTP status, 0 when there was no answer at all.
    :param reason: ``reason`` of the Status object, such as ``AlreadyExists``; empty when the answer had none.
    :param message: the server's own words.
    :param details: ``details`` of the Status object (name, kind, causes, retryAfterSeconds).
    """

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"{message} (HTTP {status} {reason})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: dict[str, Any] = details or {}


class BadRequest(ApiError):
    """400: the request cannot be understood."""


class Unauthorized(ApiError):
    """401: the credentials are missing, wrong or outdated."""


class Forbidden(ApiError):
    """403: not allowed, by RBAC, quota or an admission plugin."""


class NotFound(ApiError):
    """404: no such object, or no such resource type."""


class Conflict(ApiError):
    """409: a precondition (resourceVersion, uid) does not hold."""


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: the name is taken."""


class Gone(ApiError):
    """410 (or 504 for one of the future): the resourceVersion asked for is not kept; list again."""


class Invalid(ApiError):
    """422: the object is refused by validation or by a patch's ``test`` operation."""


class Unavailable(ApiError):
    """The server cannot be reached, is overloaded (429), or says so (502, 503, 504); try again later."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def _is_version_ahead(details: Any) -> bool:
    """Say whether a server's versions don't reach that far, because it was restored or set up again."""
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(isinstance(one, dict) and one.get("reason") == "ResourceVersionTooLarge" for one in causes or ())


def from_status(status: int, body: Any, fallback: str) -> ApiError:
    """Create the exception for an answer of the API server.

    :param status: HTTP status, or ``code`` of a Status object that arrived in a watch.
    :param body: the decoded Status object, or anything else the server sent.
    :param fallback: message for a body that is not a Status object.
    """
    reason, message, details = "", fallback, None
    if isinstance(body, dict) and body.get("kind") == "Status":
        reason = body.get("reason") or ""
        message = body.get("message") or fallback
        details = body.get("details")
    cls = _BY_STATUS.get(status, ApiError)
    if reason == "AlreadyExists":
        cls = AlreadyExists
    elif reason in ("Expired", "Gone") or _is_version_ahead(details):
        cls = Gone
    return cls(status, reason, message, details)
