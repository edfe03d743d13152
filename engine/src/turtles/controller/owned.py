# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates and deletes what belongs to another object, such as the Pod of a DataVolume."""

from __future__ import annotations

from turtles.api.objects import Object, controller_of
from turtles.kube.client import AlreadyExists, Client, NotFound
from turtles.kube.informer import Informer
from turtles.kube.resources import Resource


def create(client: Client, resource: Resource, wanted: Object, cache: Informer) -> Object | None:
    """Create an object; None if there is one of that name, which isn't in the cache or belongs to somebody else."""
    try:
        made = client.create(resource, wanted)
    except AlreadyExists:
        return None
    cache.observe(made)
    return made


def delete(client: Client, resource: Resource, obj: Object, cache: Informer) -> None:
    """Delete this very object; it may be gone already."""
    metadata = obj["metadata"]
    try:
        answer = client.delete(resource, metadata["namespace"], metadata["name"], uid=metadata["uid"])
    except NotFound:
        return
    if answer.get("kind") == resource.kind:
        cache.observe(answer)


def own(owner: Object, obj: Object | None) -> Object | None:
    """Return an object if the owner controls it."""
    if obj is None or (controller_of(obj) or {}).get("uid") != owner["metadata"]["uid"]:
        return None
    return obj
