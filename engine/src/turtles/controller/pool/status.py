# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool's status says (KubeVirt API, VirtualMachinePoolStatus). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from turtles.api.conditions import remove_condition, set_condition
from turtles.api.objects import Object
from turtles.api.selectors import as_text
from turtles.controller.pool.machine import is_ready

FAILURE, PAUSED = "ReplicaFailure", "ReplicaPaused"
SUCCESSFUL_PAUSED, SUCCESSFUL_RESUME = "SuccessfulPaused", "SuccessfulResume"


def status(pool: Object, machines: Sequence[Object], failure: tuple[str, str] | None, now: str) -> Object:
    """Return a pool's status.

    :param failure: reason and message of what kept it from being as wanted.
    :param now: as the API writes it.
    """
    before = pool.get("status") or {}
    conditions = list(before.get("conditions") or ())
    paused = (SUCCESSFUL_PAUSED, "Pool controller is paused") if pool["spec"].get("paused") else None
    for type_, why in ((FAILURE, failure), (PAUSED, paused)):
        if why:
            set_condition(conditions, type_, "True", *why, now)
        else:
            remove_condition(conditions, type_)
    after = {
        **{key: value for key, value in before.items() if key != "conditions"},
        "replicas": len(machines),
        "readyReplicas": sum(is_ready(machine) for machine in machines),
        "labelSelector": as_text(pool["spec"]["selector"]),
    }
    return {**after, "conditions": conditions} if conditions else after
