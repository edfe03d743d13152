# SPDX-License-Identifier: GPL-3.0-or-later
"""Get: one object."""

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire.errors import Object, not_found


def get(resources: Resources, context: Context) -> Entry:
    """Return the named object.

    :raises StatusError: 404.
    """
    entry = resources.store.get(context.key)
    if entry is None:
        raise not_found(context.kind.group, context.kind.plural, context.name)
    return entry


async def get_settled(resources: Resources, context: Context) -> Entry:
    """Return the named object once no write of it is on its way.

    :raises StatusError: 404.
    """
    entry = await resources.store.settled(context.key)
    if entry is None:
        raise not_found(context.kind.group, context.kind.plural, context.name)
    return entry


async def load(resources: Resources, context: Context) -> Object:
    """Return the named object, the caller's own, in the version asked for.

    :raises StatusError: 404.
    """
    return await resources.strategy(context.kind).load(get(resources, context), context.kind)
