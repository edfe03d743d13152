# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete every object that a client selects."""

import asyncio

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.list import prepare
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.views.watch import Selection
from turtles.standalone.apiserver.wire.errors import StatusError
from turtles.standalone.apiserver.wire.options import DeleteOptions


async def delete_collection(
    resources: Resources, context: Context, selection: Selection, options: DeleteOptions
) -> list[Entry]:
    """Delete every selected object, except what is gone by the time it is reached.

    :returns: the objects as they were.
    :raises StatusError: as for :func:`delete`, the first one; others are deleted nevertheless. 500 if one can't be
        converted, before anything is deleted.
    """
    await prepare(resources, context.kind, selection)
    selected = [one for one in resources.store.entries(context.kind.resource, selection.namespace) if selection(one)]
    # They are shown as they were: nothing is deleted where that isn't possible.
    await resources.strategy(context.kind).convert_entries(selected, context.kind, again=True)
    results = await asyncio.gather(
        *(_delete(resources, context, entry, options) for entry in selected), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Entry)]


async def _delete(resources: Resources, context: Context, entry: Entry, options: DeleteOptions) -> Entry | None:
    """Delete one object; return None for one that is gone already."""
    single = Context(
        context.kind,
        context.user,
        entry.key.namespace,
        entry.key.name,
        dry_run=context.dry_run,
        warnings=context.warnings,
    )
    try:
        await delete(resources, single, options)
    except StatusError as error:
        if error.code == 404:
            return None
        raise
    return entry
