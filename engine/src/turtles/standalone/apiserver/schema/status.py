# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditions in the status of objects."""

from turtles.api.times import now
from turtles.standalone.apiserver.wire.errors import Object


def is_true(obj: Object, condition: str) -> bool:
    """Say whether an object's condition is True."""
    return any(
        one.get("type") == condition and one.get("status") == "True"
        for one in (obj.get("status") or {}).get("conditions") or ()
    )


def set_condition(obj: Object, kind: str, status: str, reason: str, message: str) -> None:
    """Set a condition in place; its lastTransitionTime changes with its status.

    :param kind: the condition's type.
    :param status: True, False or Unknown.
    """
    whole = obj.setdefault("status", {})
    conditions = whole["conditions"] = whole.get("conditions") or []
    wanted = {"type": kind, "status": status, "reason": reason, "message": message}
    for one in conditions:
        if one.get("type") == kind:
            if one.get("status") != status or not one.get("lastTransitionTime"):
                one["lastTransitionTime"] = now()
            one.update(wanted)
            return
    conditions.append({"lastTransitionTime": now(), **dict(sorted(wanted.items()))})
