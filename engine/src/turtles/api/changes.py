# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches: what has to change to get from one object to another. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from turtles.api.objects import Object


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

    Concurrent writes to other members are not disturbed; one to the same members makes the patch fail.
    A path whose last element is ``*`` means every member of that object.
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
        return [
            {"op": "test", "path": pointer, "value": before[key]},
            {"op": "replace", "path": pointer, "value": after[key]},
        ]
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
