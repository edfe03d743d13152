# SPDX-License-Identifier: GPL-3.0-or-later
"""What defaults and rules of several kinds share."""

from typing import Any

from turtles.standalone.apiserver.wire.errors import Cause, Object, not_supported

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than zero"


def set_missing(obj: Object, values: Object) -> None:
    """Set the fields that an object doesn't have."""
    for name, value in values.items():
        obj.setdefault(name, value)


def enum(value: Any, allowed: list[str], path: str) -> list[Cause]:
    """Return what is wrong with a field that may have some values only."""
    return [] if value in allowed else [not_supported(path, value, allowed)]
