# SPDX-License-Identifier: GPL-3.0-or-later
"""Update, and what patches and subresources have in common with it."""

import copy
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.custom import scales
from turtles.standalone.apiserver.custom.strategy import without
from turtles.standalone.apiserver.resource.body import check_place, decoded, decoded_patch
from turtles.standalone.apiserver.resource.delete import is_finished
from turtles.standalone.apiserver.resource.get import get_settled
from turtles.standalone.apiserver.resource.resources import ATTEMPTS, Resources
from turtles.standalone.apiserver.resource.write import (
    complete,
    is_same,
    remove,
    set_owners,
    settle_numbers,
    validate,
    write,
)
from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.storage.store import Stale
from turtles.standalone.apiserver.wire.errors import Object, conflict, invalid, invalid_value


async def update(resources: Resources, context: Context, body: Any) -> Entry:
    """Replace an object by the one in a body.

    :raises StatusError: 400 for what isn't the object that the path names, and as for :func:`modify`.
    """
    obj = decoded(resources, context, body, report=True)
    check_place(context, obj["metadata"])
    version = metadata.version_of(obj)

    async def replaced(old: Object) -> Object:
        return copy.deepcopy(obj)

    # What the body has too much is reported already, but for what a custom resource's schema doesn't know.
    return await modify(resources, context, replaced, based=bool(version), replaces=True)


async def modify(
    resources: Resources,
    context: Context,
    change: Callable[[Object], Awaitable[Object]],
    based: bool = False,
    replaces: bool = False,
    from_patch: bool = False,
) -> Entry:
    """Change an object: the way of every update, patch and subresource.

    :param change: gets the current object, its own copy; gives the new one.
    :param based: whether the client named the version it changes, so that a conflict is its own to solve.
    :param replaces: whether the client sent the object as a whole: then its uid is a precondition.
    :param from_patch: whether it is a patch's result that ``change`` gives, and so its fault what is wrong in it.
    :returns: the object as it is stored; what nothing changed keeps its version.
    :raises StatusError: 404 if it isn't there, 409 if its version or uid is another one or others change it all the
        time, 422 if it would be wrong, 403 if a quota or a webhook refuses.
    """
    kind, strategy = context.kind, resources.strategy(context.kind)
    for _ in range(ATTEMPTS):
        entry = await get_settled(resources, context)
        old = await strategy.load(entry, kind)
        new = await change(strategy.loaded(entry, kind))
        if from_patch:
            new = decoded_patch(resources, context, new, old)
        else:
            new = decoded(resources, context, new, old, report=True)
        _check_preconditions(context, new, old, replaces, strategy.needs_version)
        new = await _admitted(resources, context, new, old)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if is_same(new, old):
            return entry
        try:
            return await _store(resources, context, entry, new, old)
        except Stale:
            if based:
                raise conflict(kind.group, kind.plural, context.name) from None
    raise conflict(kind.group, kind.plural, context.name)


def _check_preconditions(context: Context, new: Object, old: Object, replaces: bool, needs_version: bool) -> None:
    kind, meta = context.kind, old["metadata"]
    version, uid = metadata.version_of(new), new["metadata"].get("uid")
    if needs_version and not version:
        cause = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
        raise invalid(kind.group, kind.plural, context.name, [cause])
    if version and version != meta["resourceVersion"]:
        raise conflict(kind.group, kind.plural, context.name)
    if replaces and uid and uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
        raise conflict(kind.group, kind.plural, context.name, why)


async def _admitted(resources: Resources, context: Context, new: Object, old: Object) -> Object:
    """Return a changed object with what the server, admission plugins and webhooks set.

    :raises StatusError: for one that is wrong, or that a webhook refuses.
    """
    strategy = resources.strategy(context.kind)
    reset = context.reset and not context.subresource
    owners = [] if reset else managed.carried_over(new, old, context.subresource)
    new = _prepared(resources, context, new, old, report=True)
    set_owners(context, new, old, owners)
    if not context.subresource:
        strategy.admit_update(new)
    mutated = await _mutated(resources, context, new, old)
    if mutated is not new:
        context.managed = new["metadata"].get("managedFields") or []
        new = _prepared(resources, context, decoded(resources, context, mutated, old), old)
        set_owners(context, new, old, [])
    await validate(resources, context, new, old)
    await resources.admission.validate(context, "UPDATE", *_reviewed(context, new, old))
    settle_numbers(resources, context, new)
    if not context.subresource:
        strategy.settle_update(resources, new)
    return new


def _prepared(resources: Resources, context: Context, new: Object, old: Object, report: bool = False) -> Object:
    """Return a changed object with what the change can't touch as it was, and with its defaults."""
    kind, strategy = context.kind, resources.strategy(context.kind)
    metadata.for_update(new, old)
    if context.subresource == "status":
        status = {"status": new["status"]} if "status" in new else {}
        # Owners' entries are large and never changed in place; labels and annotations are.
        meta = {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in strategy.status_metadata(new, old).items()
        }
        new = {**without(old, "status", "metadata"), "metadata": meta, **status}
    elif kind.status and context.subresource == "":
        new = without(new, "status")
        if "status" in old:
            new["status"] = copy.deepcopy(old["status"])
    strategy.prepare_update(new, old, context.subresource)
    complete(resources, context, new, report)
    if kind.generation:
        ignored = ("metadata", "status", "apiVersion") if kind.status else ("metadata", "apiVersion")
        generation = int(old["metadata"].get("generation", 1))
        if not is_same(without(new, *ignored), without(old, *ignored)):
            generation += 1
        new["metadata"]["generation"] = generation
    return new


async def _mutated(resources: Resources, context: Context, new: Object, old: Object) -> Object:
    """Return a changed object as webhooks want it: the same one where they leave it alone."""
    shown, before = _reviewed(context, new, old)
    wanted = await resources.admission.mutate(context, "UPDATE", shown, before)
    if wanted is None or wanted is shown:
        return new
    if shown is new:
        return wanted
    scaled = copy.deepcopy(new)
    scale = decoded(resources, replace(context, kind=scales.kind_of(context.kind)), wanted)
    scales.put(scaled, scale, scales.paths_of(context.kind))
    return scaled


def _reviewed(context: Context, new: Object, old: Object) -> tuple[Object, Object]:
    """Return what webhooks see of a changed object, and of it before."""
    if context.subresource != "scale":
        return new, old
    paths = scales.paths_of(context.kind)
    return scales.of(new, paths), scales.of(old, paths, required=False)


async def _store(resources: Resources, context: Context, entry: Entry, new: Object, old: Object) -> Entry:
    """Store a changed object, or delete the one that has waited for this change only.

    :raises Stale: when something else has changed it.
    """
    strategy = resources.strategy(context.kind)
    if context.dry_run:
        return await write(resources, context, context.key, new, entry.version)
    if is_finished(strategy, new):
        return await remove(resources, context, entry, await strategy.to_storage(new, context.kind))
    if not strategy.may_grow or context.subresource:
        return await write(resources, context, context.key, new, entry.version)
    strategy.check_limits(resources, context, new)
    async with resources.quotas.guard(context.kind, context.namespace, new, old):
        return await write(resources, context, context.key, new, entry.version)
