# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds and writes that the server needs by itself."""

from collections.abc import Awaitable, Callable
from typing import Any

from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import crd
from turtles.standalone.apiserver.resource.delete import delete, is_finished
from turtles.standalone.apiserver.resource.resources import ATTEMPTS, Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.resource.write import is_same, remove
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.storage.store import Stale
from turtles.standalone.apiserver.wire.errors import Object, StatusError, conflict
from turtles.standalone.apiserver.wire.options import DeleteOptions


def kind_of(resources: Resources, resource: str) -> Kind:
    """Return a built-in kind.

    :param resource: under which it is stored, as ``group/plural``; core kinds have an empty group.
    :raises LookupError: there is no such kind.
    """
    kind = resources.registry.stored(resource)
    if kind is None:
        raise LookupError(resource)
    return kind


def stored_kind(resources: Resources, resource: str) -> Kind | None:
    """Return the kind whose objects are stored under ``resource``, whether or not it is served."""
    kind = resources.registry.stored(resource)
    if kind is None:
        group, _, plural = resource.partition("/")
        definition = resources.store.get(Key(crd.RESOURCE, "", f"{plural}.{group}"))
        kind = crd.unserved_kind(definition.object()) if definition is not None else None
    return kind


def context_of(resources: Resources, key: Key, subresource: str = "", dry_run: bool = False) -> Context:
    """Return the context of a request of the server's own on an object of a built-in kind."""
    kind = kind_of(resources, key.resource)
    return Context(kind, INTERNAL, key.namespace, key.name, subresource, dry_run=dry_run)


async def modify_if_exists(
    resources: Resources, key: Key, change: Callable[[Object], Awaitable[Object]], subresource: str = ""
) -> None:
    """Change an object of a built-in kind, unless it is gone.

    :param change: as for :func:`modify`.
    :raises StatusError: as for :func:`modify`, except 404.
    """
    try:
        await modify(resources, context_of(resources, key, subresource), change)
    except StatusError as error:
        if error.code != 404:
            raise


async def delete_entry(resources: Resources, entry: Entry, kind: Kind, propagation: str = "Background") -> None:
    """Delete a stored object, unless that has begun.

    :raises StatusError: it is gone, another one has its name, or a webhook refuses.
    """
    if entry.metadata.deletion_timestamp is None:
        context = Context(kind, INTERNAL, entry.key.namespace, entry.key.name)
        await delete(resources, context, DeleteOptions(propagation=propagation, uid=entry.metadata.uid))


async def filter_metadata(
    resources: Resources, key: Key, kind: Kind, field: str, is_kept: Callable[[Any], bool]
) -> None:
    """Drop members of a list in an object's metadata, and delete the object if that is all it has waited for.

    In the version that it is stored in, and without validation: neither a conversion webhook that is gone nor a
    schema that it doesn't fit any more may keep it from going.

    :param field: such as ``finalizers``.
    :raises StatusError: others change the object all the time.
    """
    strategy, context = resources.strategy(kind), Context(kind, INTERNAL, key.namespace, key.name)
    for _ in range(ATTEMPTS):
        entry = await resources.store.settled(key)
        if entry is None:
            return
        obj = entry.object()
        kept = [one for one in obj["metadata"].get(field) or () if is_kept(one)]
        if kept:
            obj["metadata"][field] = kept
        else:
            obj["metadata"].pop(field, None)
        try:
            if is_finished(strategy, obj):
                await remove(resources, context, entry, obj)
            elif not is_same(obj, entry.object()):
                await resources.store.put(key, obj, entry.version)
            return
        except Stale:
            continue
    raise conflict(kind.group, kind.plural, key.name)


async def drop_finalizer(resources: Resources, entry: Entry, kind: Kind, name: str) -> None:
    """Take a finalizer from an object: see :func:`filter_metadata`."""
    await filter_metadata(resources, entry.key, kind, "finalizers", lambda one: one != name)
