# SPDX-License-Identifier: GPL-3.0-or-later
"""What every write goes through: defaults, owners of fields, validation, the store."""

import msgspec

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.resource.body import report_unknown
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.wire.encoding import encode, plain_numbers
from turtles.standalone.apiserver.wire.errors import Object, invalid

_sorted_encode = msgspec.json.Encoder(order="deterministic").encode


def is_same(one: Object, other: Object) -> bool:
    """Whether two objects are the same in JSON. Python holds 1 == 1.0 == True for the same."""
    return one == other and _sorted_encode(one) == _sorted_encode(other)


def complete(resources: Resources, context: Context, obj: Object, report: bool = False) -> None:
    """Prune and default an object in place.

    :param report: whether the client learns of fields that its schema doesn't have.
    """
    strategy = resources.strategy(context.kind)
    dropped = strategy.complete(obj, context.kind)
    if report and strategy.has_schema:
        context.unknown = [*context.unknown, *(dropped or ())]
        report_unknown(context)


def settle_numbers(resources: Resources, context: Context, obj: Object) -> None:
    """Write the numbers of a custom resource as they are stored, once validation has seen them as they were sent.

    A schema and the paths of a scale tell 2.0 from 2; JSON as Go writes it doesn't.
    """
    if resources.strategy(context.kind).has_schema:
        plain_numbers(obj)


def set_owners(context: Context, new: Object, old: Object | None, entries: list[Object]) -> None:
    """Write down who owns what of a changed object, before admission adds what the client didn't ask for.

    :param old: the object before, None for one that is created.
    :param entries: its managedFields before, without what the change takes away.
    """
    if context.managed is not None:
        entries = context.managed
    elif context.manager:
        entries = managed.update(entries, old, new, context.kind, context.manager, context.subresource)
    if entries:
        new["metadata"]["managedFields"] = entries
    else:
        new["metadata"].pop("managedFields", None)


async def validate(resources: Resources, context: Context, obj: Object, old: Object | None) -> None:
    """Check an object before it is stored.

    :param old: the object before, None for one that is created.
    :raises StatusError: 422 with everything that is wrong, 403 for one that gives away what its author doesn't have.
    """
    kind, strategy = context.kind, resources.strategy(context.kind)
    causes = metadata.validate(obj, kind)
    if old is not None:
        causes += metadata.validate_update(obj, old)
    causes += await strategy.validate(context, obj, old)
    if causes:
        group = kind.group if kind.stored_group is None else kind.stored_group
        raise invalid(group, kind.kind, obj["metadata"].get("name", ""), causes)
    strategy.authorize(resources, context, obj, old)


async def write(resources: Resources, context: Context, key: Key, obj: Object, expected: int) -> Entry:
    """Store an object; on a dry run, return it as it would be stored.

    :param expected: the version that it replaces, 0 for none.
    :raises Stale: when that isn't there any more.
    """
    strategy = resources.strategy(context.kind)
    with strategy.allocated(resources, key, obj):
        stored = await strategy.to_storage(obj, context.kind)
        if not context.dry_run:
            return await resources.store.put(key, stored, expected)
    if expected:
        stored["metadata"]["resourceVersion"] = str(expected)
    return Entry(key, expected, msgspec.json.encode({"apiVersion": stored["apiVersion"], **stored}))


async def remove(resources: Resources, context: Context, entry: Entry, last: Object) -> Entry:
    """Delete an object for good; return its last state.

    Watchers are shown the state before: what marks a deletion is never stored for what goes at once.

    :param last: the last state, as it would be stored.
    :raises Stale: when it has changed.
    """
    deleted = await resources.store.delete(context.key, entry.object(), entry.version)
    last["metadata"]["resourceVersion"] = str(deleted.version)
    return Entry(context.key, deleted.version, encode(last))
