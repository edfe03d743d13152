# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to requests that fail: metav1.Status objects (Kubernetes API conventions, "Response Status Kind")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """A request that fails with a HTTP status and a message; becomes a Status."""

    def __init__(self, code: int, message: str, *, name: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.name = name
        self.kind = kind

    def as_status(self) -> dict[str, Any]:
        """Give the Status object."""
        return failure(self.code, self.message, self.name, self.kind)


def failure(code: int, message: str, name: str = "", kind: str = "") -> dict[str, Any]:
    """Give a Status for a HTTP status; `name` and `kind` are those of the object it is about."""
    found: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, "Unknown"),
        "code": code,
    }
    if name or kind:
        found["details"] = {"name": name, "group": "kubevirt.io", "kind": kind}
    return found


def conflict(kind: str, name: str, message: str) -> Failure:
    """Give the 409 of an operation that the object's state doesn't allow."""
    text = f'Operation cannot be fulfilled on {kind}.kubevirt.io "{name}": {message}'
    return Failure(409, text, name=name, kind=kind)


def not_found(kind: str, name: str) -> Failure:
    """Give the 404 of an object that isn't there."""
    return Failure(404, f'{kind}.kubevirt.io "{name}" not found', name=name, kind=kind)


def invalid(causes: Sequence[Cause]) -> dict[str, Any]:
    """Give the status of an admission response that refuses an object: its message has the first ten causes."""
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
