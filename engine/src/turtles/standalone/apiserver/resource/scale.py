# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresource scale of custom resources."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.custom import scales
from turtles.standalone.apiserver.resource.body import check_place, decoded, decoded_patch, report_repeated
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.schema.kinds import Scale
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.wire.errors import Object


async def get_scale(resources: Resources, context: Context, entry: Entry) -> Object:
    """Return an object's autoscaling/v1 Scale."""
    obj = await resources.strategy(context.kind).load(entry, context.kind)
    return scales.of(obj, scales.paths_of(context.kind))


async def set_scale(
    resources: Resources, context: Context, change: Callable[[Object], Object], from_patch: bool = False
) -> Entry:
    """Set an object's replicas.

    :param change: gets the object's Scale if it is a patch, else an empty one; gives the Scale as it is to become.
    :param from_patch: whether ``change`` applies a patch.
    :returns: the object, not its Scale.
    :raises StatusError: 400 for what is no Scale of this object, and as for :func:`modify`.
    """
    paths, of_scale = scales.paths_of(context.kind), replace(context, kind=scales.kind_of(context.kind))

    async def scaled(obj: Object) -> Object:
        # A Scale that is sent as a whole may be the first to give replicas; a patch needs what it changes.
        old = scales.of(obj, paths) if from_patch else {}
        scale = change(copy.deepcopy(old))
        if from_patch:
            scale = decoded_patch(resources, of_scale, scale, old)
        else:
            scale = decoded(resources, of_scale, scale, report=True)
            check_place(of_scale, scale["metadata"])
            obj["metadata"]["uid"] = scale["metadata"].get("uid") or obj["metadata"]["uid"]
        _put(obj, scale, paths, metadata.version_of(scale))
        return obj

    return await modify(resources, context, scaled, replaces=not from_patch)


async def apply_scale(resources: Resources, context: Context, config: Any) -> Entry:
    """Apply a configuration of an object's Scale (server-side apply)."""
    paths, of_scale = scales.paths_of(context.kind), replace(context, kind=scales.kind_of(context.kind))
    managed.check(config, of_scale.kind, context.manager)
    report_repeated(context)
    meta = decoded(resources, of_scale, copy.deepcopy(config), report=True)["metadata"]
    check_place(of_scale, {"name": context.name, **meta})
    versions = {one.api_version: one.scale for one in resources.registry.versions(context.kind) if one.scale}

    async def applied(obj: Object) -> Object:
        live = scales.of(obj, paths)
        before = managed.entries_of(obj)
        live["metadata"]["managedFields"] = scales.entries(before, versions)
        new, entries = managed.apply(live, config, of_scale.kind, context.manager, context.force, "scale")
        context.managed = scales.to_parent(before, entries, versions, context.kind.api_version)
        _put(obj, new, paths, metadata.version_of({"metadata": meta}))
        return obj

    return await modify(resources, context, applied)


def _put(obj: Object, scale: Object, paths: Scale, version: str) -> None:
    """Give an object a Scale's replicas, and the version that the Scale is based on."""
    obj["metadata"]["resourceVersion"] = version or obj["metadata"]["resourceVersion"]
    scales.put(obj, scale, paths)
