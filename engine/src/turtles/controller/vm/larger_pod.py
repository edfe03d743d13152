# SPDX-License-Identifier: GPL-3.0-or-later
"""Running machines that are to grow beyond what their Pods may have: they are migrated to larger ones. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from turtles.api import quantity
from turtles.api.conditions import (
    AUTO_MIGRATION_PENDING,
    MIGRATION_REQUIRED,
    Condition,
    has_condition,
    set_condition,
)
from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object, get
from turtles.controller.pod import memory
from turtles.controller.pod.roles import by_role


def shortage(vmi: Object, pods: Sequence[Object], change: Mapping[str, Any]) -> str:
    """Return why an instance's Pod is too small for a change of its spec; nothing if it isn't.

    Growing there, the guest would end by the Pod's memory limit, which a namespace's quota may give it.

    :param pods: all that the instance controls. :param change: merge patch of the spec.
    """
    guest, pod = get(dict(change), "domain", "memory", "guest"), by_role(vmi, pods).launcher
    return memory.shortage(vmi, pod, quantity.to_int(guest)) if guest is not None and pod is not None else ""


def can_be_had(vmi: Object, configuration: ClusterConfiguration) -> bool:
    """Say whether an instance can get a larger Pod without a restart."""
    migratable = has_condition(vmi, "LiveMigratable")
    return migratable and configuration.workload_updates.migrate


def needed(vmi: Object, why: str, now: str) -> list[Condition]:
    """Return an instance's conditions once it needs a larger Pod.

    :param now: RFC 3339.
    """
    found = [dict(condition) for condition in get(vmi, "status", "conditions") or ()]
    message = f"Migrating the machine to a larger Pod: {why}."
    set_condition(found, MIGRATION_REQUIRED, "True", AUTO_MIGRATION_PENDING, message, now)
    return found
