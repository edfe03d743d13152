# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pure functions with which reconcile functions say what is to change."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

PENDING, SCHEDULING, SCHEDULED, RUNNING = "Pending", "Scheduling", "Scheduled", "Running"
SUCCEEDED, FAILED = "Succeeded", "Failed"
FINAL_PHASES = (SUCCEEDED, FAILED)
#: Phases in which the node agent owns a VMI.
HANDED_OVER = (SCHEDULED, RUNNING)


def rfc3339(moment: datetime) -> str:
    """Format a time as Kubernetes writes it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Read a timestamp of the API; None for none, or for what is no timestamp."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def phase_of(vmi: Mapping[str, Any]) -> str:
    """Return a VMI's phase; empty when nobody has set one."""
    return str((vmi.get("status") or {}).get("phase") or "")


def is_final(vmi: Mapping[str, Any]) -> bool:
    """Whether the VMI has run and will not run again."""
    return phase_of(vmi) in FINAL_PHASES


def is_deleted(obj: Mapping[str, Any]) -> bool:
    """Whether the object's deletion has been asked for."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def was_running(vmi: Mapping[str, Any]) -> bool:
    """Whether the VMI runs or ever ran."""
    status = vmi.get("status") or {}
    return status.get("phase") == RUNNING or any(
        entry.get("phase") == RUNNING for entry in status.get("phaseTransitionTimestamps") or ()
    )


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the owner reference of the object's controlling owner, or None."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def set_phase(status: Object, phase: str, now: str) -> None:
    """Set the phase in a VMI's status, with its time of transition."""
    if status.get("phase") == phase:
        return
    status["phase"] = phase
    status["phaseTransitionTimestamps"] = [
        *(status.get("phaseTransitionTimestamps") or ()),
        {"phase": phase, "phaseTransitionTimestamp": now},
    ]


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """Return the JSON merge patch (RFC 7386) that makes ``old`` into ``new``; empty when nothing changed."""
    patch: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if key not in old or before != value:
            patch[key] = merge_diff(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return patch


def json_diff(old: Object, new: Object, paths: Sequence[Sequence[str]]) -> list[Object]:
    """Return the JSON patch (RFC 6902) for the members of the objects at ``paths``, each guarded by a test.

    Whoever writes other members meanwhile is not disturbed; who writes the same ones makes the patch fail.
    A path whose last element is ``*`` stands for every member of that object.
    """
    patch: list[Object] = []
    for path in paths:
        *parents, last = path
        before, after = _descend(old, parents), _descend(new, parents)
        if before is None and after is not None:
            patch.append({"op": "add", "path": _pointer(parents), "value": after})
            continue
        keys = sorted((before or {}).keys() | (after or {}).keys()) if last == "*" else [last]
        for key in keys:
            patch += _member(before or {}, after or {}, parents, key)
    return patch


def _member(before: Mapping[str, Any], after: Mapping[str, Any], parents: Sequence[str], key: str) -> list[Object]:
    pointer = _pointer([*parents, key])
    if key in before and key in after:
        if before[key] == after[key]:
            return []
        return [{"op": "test", "path": pointer, "value": before[key]},
                {"op": "replace", "path": pointer, "value": after[key]}]
    if key in after:
        return [{"op": "add", "path": pointer, "value": after[key]}]
    if key in before:
        return [{"op": "test", "path": pointer, "value": before[key]}, {"op": "remove", "path": pointer}]
    return []


def _descend(obj: Object, path: Sequence[str]) -> Object | None:
    current: Any = obj
    for key in path:
        current = current.get(key) if isinstance(current, dict) else None
    return current if isinstance(current, dict) else None


def _pointer(path: Sequence[str]) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
