# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresource eviction: a Pod is deleted, unless its disruption budget objects."""

from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.get import get
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema import metadata
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.wire.errors import bad_request
from turtles.standalone.apiserver.wire.options import DeleteOptions

_EVICTION = Kind("policy", "v1", "Eviction", "evictions")


async def evict(resources: Resources, context: Context, body: Any) -> None:
    """Evict a Pod: delete it, unless a webhook or a PodDisruptionBudget objects.

    Source: the Kubernetes documentation "API-initiated Eviction".

    :param body: a policy/v1 Eviction, with the options of the deletion.
    :raises StatusError: 404 if there is no such Pod, 429 if a budget allows no disruption, 400 for what is no Eviction.
    """
    entry = get(resources, context)
    if not isinstance(body, dict):
        raise bad_request("an Eviction must be an object")
    if body.get("kind") not in (None, "", "Eviction"):
        metadata.check_envelope(body, _EVICTION)
    review = {**body, "metadata": body.get("metadata") or {"name": context.name, "namespace": context.namespace}}
    await resources.admission.mutate(context, "CREATE", review, None)
    await resources.admission.validate(context, "CREATE", review, None)
    await resources.admit_eviction(context, entry)
    single = Context(context.kind, context.user, context.namespace, context.name, dry_run=context.dry_run)
    await delete(resources, single, DeleteOptions.parse(body.get("deleteOptions") or {}))
