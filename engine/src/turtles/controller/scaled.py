# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of an object that keeps a number of others: a replica set of instances, a pool of machines. Pure."""

from __future__ import annotations

from turtles.api.conditions import has_condition, remove_condition, set_condition
from turtles.api.objects import Object
from turtles.api.selectors import as_text

FAILURE, PAUSED = "ReplicaFailure", "ReplicaPaused"


def replicas_of(owner: Object) -> int:
    """Return how many others an object is to have."""
    replicas = owner["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def is_ready(member: Object) -> bool:
    """Tell whether an instance or a machine is ready."""
    return has_condition(member, "Ready")


def scaled_status(
    owner: Object,
    replicas: int,
    ready: int,
    now: str,
    *,
    failure: tuple[str, str] | None,
    paused: tuple[str, str] | None,
) -> Object:
    """Return the status of the object.

    :param replicas: how many others there are. :param ready: how many of them are ready.
    :param now: as the API writes it.
    :param failure: reason and message of what kept it from being as wanted.
    :param paused: reason and message of the condition of an object that is paused.
    """
    before = owner.get("status") or {}
    conditions = list(before.get("conditions") or ())
    for type_, why in ((FAILURE, failure), (PAUSED, paused)):
        if why:
            set_condition(conditions, type_, "True", *why, now)
        else:
            remove_condition(conditions, type_)
    after = {
        **{key: value for key, value in before.items() if key != "conditions"},
        "replicas": replicas,
        "readyReplicas": ready,
        "labelSelector": as_text(owner["spec"]["selector"]),
    }
    return {**after, "conditions": conditions} if conditions else after
