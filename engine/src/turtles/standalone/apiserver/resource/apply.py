# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-side apply."""

import copy
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.resource.body import check_place, decoded, report_repeated
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire.errors import Object, invalid, invalid_value, not_found


async def apply(resources: Resources, context: Context, config: Any) -> tuple[Entry, bool]:
    """Apply a configuration (Kubernetes documentation "Server-Side Apply").

    :param context: names the field manager; its ``force`` takes fields away from others.
    :param config: the body, with the fields that the manager wants to own.
    :returns: the object, and whether it was created.
    :raises StatusError: 400 for what can't be applied, 409 where fields are another manager's, 404 for the subresource
        of an object that isn't there, and as for :func:`create` and :func:`modify`.
    """
    kind = context.kind
    managed.check(config, kind, context.manager)
    report_repeated(context)
    meta = decoded(resources, context, copy.deepcopy(config))["metadata"]
    check_place(context, {"name": context.name, **meta})
    version = (config.get("metadata") or {}).get("resourceVersion")
    if await resources.store.settled(context.key) is None:
        if context.subresource:
            raise not_found(kind.group, kind.plural, context.name)
        if meta.get("uid"):
            # The uid of what isn't there can't be its own.
            cause = invalid_value("metadata.uid", meta["uid"], "field is immutable")
            raise invalid(kind.group, kind.kind, context.name, [cause])
        obj, context.managed = managed.apply(None, config, kind, context.manager, context.force)
        # Of what isn't there, any version is the right one.
        obj["metadata"].pop("resourceVersion", None)
        return await create(resources, context, obj), True

    async def applied(old: Object) -> Object:
        new, context.managed = managed.apply(old, config, kind, context.manager, context.force, context.subresource)
        new["metadata"]["resourceVersion"] = version or old["metadata"]["resourceVersion"]
        return new

    return await modify(resources, context, applied), False
