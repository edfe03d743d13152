# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes that the server makes by itself."""

from collections.abc import Awaitable, Callable

from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.store import Key
from turtles.standalone.apiserver.wire.errors import Object, StatusError


def kind_of(resources: Resources, resource: str) -> Kind:
    """Return the built-in kind stored under ``resource``."""
    kind = resources.registry.stored(resource)
    if kind is None:
        raise LookupError(resource)
    return kind


def context_of(resources: Resources, key: Key, subresource: str = "", dry_run: bool = False) -> Context:
    """Return the context of a request of the server's own on an object of a built-in kind."""
    kind = kind_of(resources, key.resource)
    return Context(kind, INTERNAL, key.namespace, key.name, subresource, dry_run=dry_run)


async def modify_if_exists(
    resources: Resources, key: Key, change: Callable[[Object], Awaitable[Object]], subresource: str = ""
) -> None:
    """Change an object of a built-in kind, unless it is gone."""
    try:
        await modify(resources, context_of(resources, key, subresource), change)
    except StatusError as error:
        if error.code != 404:
            raise
