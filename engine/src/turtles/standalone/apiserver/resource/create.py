# SPDX-License-Identifier: GPL-3.0-or-later
"""Create."""

import copy
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.apply import managed
from turtles.standalone.apiserver.resource.body import check_place, decoded
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.write import complete, set_owners, settle_numbers, validate, write
from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.storage.store import Stale
from turtles.standalone.apiserver.wire.errors import (
    Object,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
)

#: Names that are generated before a taken one is an error.
_NAMES = 8


async def create(resources: Resources, context: Context, body: Any) -> Entry:
    """Create an object.

    A generated name that is taken is replaced by another one some times.

    :returns: the object as it is stored or, on a dry run, as it would be.
    :raises StatusError: 400 for what is no object of the kind, 404 if its namespace isn't there, 403 if that ends, a
        quota is exceeded or something refuses it, 409 if its name is taken, 422 if it is wrong.
    """
    obj = decoded(resources, context, body, report=True)
    _check_body(context, obj["metadata"])
    resources.strategy(context.kind).check_create(resources, context)
    if context.kind.namespaced:
        _check_namespace(resources, context, obj["metadata"].get("name", ""))
    if not obj["metadata"].get("name") and obj["metadata"].get("generateName"):
        for _ in range(_NAMES - 1):
            try:
                return await _create(resources, context, copy.deepcopy(obj))
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise
    return await _create(resources, context, obj)


async def create_by_update(resources: Resources, context: Context, body: Any) -> Entry:
    """Create the object that an update has not found; it may name the version that it was based on.

    :raises StatusError: 409 for one that names the uid of an object that isn't there any more.
    """
    kind, obj = context.kind, decoded(resources, context, body, report=True)
    meta = obj["metadata"]
    check_place(context, meta)
    if meta.get("uid"):
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
        raise conflict(kind.group, kind.plural, context.name, why)
    meta.pop("resourceVersion", None)
    return await create(resources, context, obj)


def _check_body(context: Context, meta: Object) -> None:
    if context.kind.namespaced and meta.get("namespace", context.namespace) != context.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if context.name and meta.setdefault("name", context.name) != context.name:
        text = f"the name of the object ({meta['name']}) does not match the name on the URL ({context.name})"
        raise bad_request(text)


async def _create(resources: Resources, context: Context, obj: Object) -> Entry:
    kind, strategy = context.kind, resources.strategy(context.kind)
    obj = await _admitted(resources, context, obj)
    name = obj["metadata"].get("name", "")
    key = Key(kind.resource, context.namespace if kind.namespaced else "", name)
    # Kubernetes names a taken name only after validation, so that both answers don't depend on each other's order.
    await validate(resources, context, obj, None)
    await resources.admission.validate(context, "CREATE", obj, None)
    settle_numbers(resources, context, obj)
    strategy.settle_create(resources, obj)
    existing = await resources.store.settled(key)
    if existing is not None:
        error = already_exists(kind.group, kind.plural, name)
        if existing.metadata.deletion_timestamp:
            error.message = f"object is being deleted: {error.message}"
        raise error
    if kind.namespaced:
        # Its deletion may be on its way to disk: nothing may be made behind the back of who empties it.
        await resources.store.settled(Key("/namespaces", "", context.namespace))
        _check_namespace(resources, context, name)
    strategy.check_limits(resources, context, obj)
    try:
        async with resources.quotas.guard(kind, context.namespace, obj):
            return await write(resources, context, key, obj, 0)
    except Stale:
        raise already_exists(kind.group, kind.plural, name) from None


async def _admitted(resources: Resources, context: Context, obj: Object) -> Object:
    """Return a new object with what the server, admission plugins and webhooks set."""
    kind, strategy = context.kind, resources.strategy(context.kind)
    metadata.for_create(obj, context.namespace if kind.namespaced else "")
    strategy.prepare_create(obj, kind)
    if kind.generation:
        obj["metadata"]["generation"] = 1
    owners = managed.carried_over(obj, None, "")
    complete(resources, context, obj, report=True)
    set_owners(context, obj, None, owners)
    if strategy.finalizer:
        finalizers = obj["metadata"].get("finalizers") or []
        if strategy.finalizer not in finalizers:
            obj["metadata"]["finalizers"] = [*finalizers, strategy.finalizer]
    await strategy.admit_create(resources, context, obj)
    context.name = context.name or obj["metadata"].get("name", "")
    causes = metadata.validate(obj, kind)
    if causes:
        raise invalid(kind.group, kind.kind, obj["metadata"].get("name", ""), causes)
    uid = obj["metadata"]["uid"]
    mutated = await resources.admission.mutate(context, "CREATE", obj, None)
    if mutated is not None and mutated is not obj:
        obj = decoded(resources, context, mutated)
        obj["metadata"]["uid"] = uid
        complete(resources, context, obj)
    strategy.finish_create(obj)
    return obj


def _check_namespace(resources: Resources, context: Context, name: str) -> None:
    """Check that a namespace takes new objects.

    :raises StatusError: 404 if it isn't there, 403 if it is ending.
    """
    entry = resources.store.get(Key("/namespaces", "", context.namespace))
    if entry is None:
        raise not_found("", "namespaces", context.namespace)
    if entry.metadata.deletion_timestamp:
        why = f"unable to create new content in namespace {context.namespace} because it is being terminated"
        error = forbidden(context.kind.group, context.kind.plural, name, why)
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {context.namespace} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = {**(error.details or {}), "causes": [cause]}
        raise error
