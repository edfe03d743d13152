# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates and deletes what belongs to another object, such as the Pod of a DataVolume."""

from __future__ import annotations

from turtles.api.objects import Object, controller_of
from turtles.kube.client import AlreadyExists
from turtles.kube.informer import Informer
from turtles.kube.writer import Writer


def create(writer: Writer, cache: Informer, wanted: Object) -> Object | None:
    """Create an object; None if there is one of that name, which isn't in the cache or belongs to somebody else."""
    try:
        return writer.create(cache, wanted)
    except AlreadyExists:
        return None


def own(owner: Object, obj: Object | None) -> Object | None:
    """Return an object if the owner controls it."""
    if obj is None or (controller_of(obj) or {}).get("uid") != owner["metadata"]["uid"]:
        return None
    return obj
