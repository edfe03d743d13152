# SPDX-License-Identifier: GPL-3.0-or-later
"""What all objects of the API have in common: metadata, owners, deletion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A Kubernetes object, or any other JSON object of the API.
Object = dict[str, Any]


def get(value: Any, *keys: str) -> Any:
    """Follow keys through nested objects; None where one is missing, null or not an object."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def annotations_of(obj: Mapping[str, Any] | None) -> Mapping[str, str]:
    """Return an object's annotations; none if there is no object."""
    return get(obj, "metadata", "annotations") or {}


def labels_of(obj: Mapping[str, Any] | None) -> Mapping[str, str]:
    """Return an object's labels; none if there is no object."""
    return get(obj, "metadata", "labels") or {}


def is_deleted(obj: Mapping[str, Any]) -> bool:
    """Tell whether the deletion of an object has been requested."""
    return bool(get(obj, "metadata", "deletionTimestamp"))


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the owner reference of an object's controlling owner, or None."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def is_controlled_by(obj: Mapping[str, Any] | None, owner: Mapping[str, Any]) -> bool:
    """Tell whether an object exists and another one is its controlling owner."""
    return obj is not None and (controller_of(obj) or {}).get("uid") == owner["metadata"]["uid"]


def own(owner: Mapping[str, Any], obj: Object | None) -> Object | None:
    """Return an object if the owner controls it, None otherwise."""
    return obj if is_controlled_by(obj, owner) else None


def owner_reference(owner: Mapping[str, Any]) -> Object:
    """Return the reference that makes an object the controlling owner of another."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def add_finalizer(obj: Object, finalizer: str) -> None:
    """Add a finalizer to an object, in place, if it doesn't have it."""
    metadata = obj["metadata"] = obj.get("metadata") or {}
    finalizers = metadata.get("finalizers") or []
    if finalizer not in finalizers:
        metadata["finalizers"] = [*finalizers, finalizer]


def add_annotations(obj: Object, annotations: Mapping[str, str]) -> None:
    """Set annotations of an object, in place."""
    metadata = obj["metadata"] = obj.get("metadata") or {}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
