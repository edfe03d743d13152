# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to requests that fail: metav1.Status objects (Kubernetes API conventions, "Response Status Kind")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turtles.api.kind import Kind
from turtles.api.language import Cause

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    422: "Invalid",
    500: "InternalError",
    503: "ServiceUnavailable",
}
_MAX_CAUSES_IN_MESSAGE = 10

#: Message of a request for a path that isn't served.
NO_SUCH_PATH = "the server could not find the requested resource"


class Failure(Exception):
    """A request that fails with an HTTP status and a message; becomes a Status. `kind` and `name`: what it is about."""

    def __init__(
        self, code: int, message: str, kind: Kind | None = None, name: str = "", *, causes: Sequence[Cause] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.kind = kind
        self.name = name
        self.causes = causes

    def as_status(self) -> dict[str, Any]:
        """Return the Status object."""
        status = failure(self.code, self.message, self.kind, self.name)
        if self.causes:
            causes = [{key: value for key, value in cause.as_dict().items() if value} for cause in self.causes]
            status["details"] = {**status.get("details", {}), "causes": causes}
        return status


def failure(code: int, message: str, kind: Kind | None = None, name: str = "") -> dict[str, Any]:
    """Return a Status for an HTTP status; `kind` and `name` are those of the object it is about."""
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "Unknown"),
        "code": code,
    }
    if kind:
        status["details"] = {"name": name, "group": kind.group, "kind": kind.singular}
    return status


def conflict(kind: Kind, name: str, message: str) -> Failure:
    """Return the 409 of an operation that the object's state doesn't allow."""
    text = f'Operation cannot be fulfilled on {kind.singular}.{kind.group} "{name}": {message}'
    return Failure(409, text, kind, name)


def not_found(kind: Kind, name: str) -> Failure:
    """Return the 404 of an object that doesn't exist."""
    return Failure(404, f'{kind.singular}.{kind.group} "{name}" not found', kind, name)


def invalid(causes: Sequence[Cause]) -> dict[str, Any]:
    """Return the status of an admission response that refuses an object: its message has the first ten causes."""
    messages = [cause.message for cause in causes]
    message = ", ".join(messages[:_MAX_CAUSES_IN_MESSAGE])
    if len(messages) > _MAX_CAUSES_IN_MESSAGE:
        message += f", and {len(messages) - _MAX_CAUSES_IN_MESSAGE} more validation errors"
    return {
        "status": "Failure",
        "message": message,
        "reason": "Invalid",
        "code": 422,
        "details": {"causes": [cause.as_dict() for cause in causes]},
    }
