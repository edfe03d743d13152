# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditions in a status: a list with at most one entry a type.

Rules: Kubernetes API conventions, "Typical status properties". KubeVirt's conditions carry `lastProbeTime` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Condition = dict[str, Any]

#: Reason of ``Synchronized`` that the node agent sets while it fails, and removes; all others are virt-controller's.
AGENT_FAILED = "Synchronizing with the Domain failed."
#: Reason and message of a VMI's condition Ready while its guest doesn't run.
GUEST_NOT_RUNNING = ("GuestNotRunning", "Guest VM is not reported as running")
#: Reason and message of the condition Ready while the guest shuts down, of a VMI and of its VM.
TERMINATING = ("PodTerminating", "virt-launcher pod is terminating")
#: Condition of a VMI whose Pod is too small for what its guest is to have, and its reason (KubeVirt's).
MIGRATION_REQUIRED, AUTO_MIGRATION_PENDING = "MigrationRequired", "AutoMigrationPending"
#: Reason of a condition about a change of a running guest that couldn't be made.
CHANGE_FAILED = "ChangeFailed"
#: Reason of a VMI's conditions Synchronized and Ready while its launcher doesn't answer for the guest.
UNRESPONSIVE = "LauncherUnresponsive"


def get_condition(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> Mapping[str, Any] | None:
    """Give the condition of this type, or None. Takes the list as an object has it, None included."""
    for condition in conditions or ():
        if condition.get("type") == type_:
            return condition
    return None


def is_true(conditions: Iterable[Mapping[str, Any]] | None, type_: str) -> bool:
    """Whether the condition of this type is there with status True."""
    condition = get_condition(conditions, type_)
    return condition is not None and condition.get("status") == "True"


def condition_of(obj: Mapping[str, Any] | None, type_: str) -> Mapping[str, Any] | None:
    """Return the condition of this type in an object's status; None if it isn't there, or there is no object."""
    return get_condition(((obj or {}).get("status") or {}).get("conditions"), type_)


def has_condition(obj: Mapping[str, Any] | None, type_: str) -> bool:
    """Tell whether an object's status has the condition of this type with status True."""
    return is_true(((obj or {}).get("status") or {}).get("conditions"), type_)


def conditions_in(status: dict[str, Any]) -> list[Condition]:
    """Return the conditions in a status, for changes in place. A status without any gets an empty list."""
    conditions: list[Condition] = status.setdefault("conditions", [])
    return conditions


def set_condition(
    conditions: list[Condition],
    type_: str,
    status: str,
    reason: str = "",
    message: str = "",
    now: str = "",
    *,
    probe_time: bool = True,
) -> bool:
    """Set a condition in place; give whether the list changed.

    `status` is "True", "False" or "Unknown"; `now` a RFC 3339 timestamp, which becomes lastTransitionTime
    only if the status differs from the one before. `probe_time` adds the `lastProbeTime: null` of KubeVirt's
    conditions. Empty reason and message are left out, as KubeVirt leaves them out.
    """
    wanted: Condition = {"type": type_, "status": status}
    if reason:
        wanted["reason"] = reason
    if message:
        wanted["message"] = message
    for index, old in enumerate(conditions):
        if old.get("type") != type_:
            continue
        same_status = old.get("status") == status
        if same_status and old.get("reason", "") == reason and old.get("message", "") == message:
            return False
        conditions[index] = _stamped(wanted, old.get("lastTransitionTime", now) if same_status else now, probe_time)
        return True
    conditions.append(_stamped(wanted, now, probe_time))
    return True


def remove_condition(conditions: list[Condition], type_: str) -> bool:
    """Remove the condition of this type in place; give whether it was there."""
    for index, condition in enumerate(conditions):
        if condition.get("type") == type_:
            del conditions[index]
            return True
    return False


def _stamped(condition: Condition, transition: str, probe_time: bool) -> Condition:
    if probe_time:
        condition["lastProbeTime"] = None
    if transition:
        condition["lastTransitionTime"] = transition
    return condition
