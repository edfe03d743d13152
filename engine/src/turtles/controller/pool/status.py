# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool's status says (KubeVirt API, VirtualMachinePoolStatus). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from turtles.api.objects import Object
from turtles.controller.scaled import is_ready, scaled_status

SUCCESSFUL_PAUSED, SUCCESSFUL_RESUME = "SuccessfulPaused", "SuccessfulResume"


def status(pool: Object, machines: Sequence[Object], failure: tuple[str, str] | None, now: str) -> Object:
    """Return a pool's status.

    :param failure: reason and message of what kept it from being as wanted.
    :param now: as the API writes it.
    """
    paused = (SUCCESSFUL_PAUSED, "Pool controller is paused") if pool["spec"].get("paused") else None
    ready = sum(is_ready(machine) for machine in machines)
    return scaled_status(pool, len(machines), ready, now, failure=failure, paused=paused)
