# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for a VirtualMachineInstance, and what its phases have in common when they make one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from turtles.api.conditions import conditions_in, set_condition
from turtles.api.objects import Object
from turtles.api.phases import (
    FAILED,
    set_phase,
)
from turtles.api.times import parse_time
from turtles.controller import remedies

#: Seconds the node agent has to say how a guest ended after its Pod did, and the kubelet the other way round.
LAST_WORD = 5


@dataclass
class Plan:
    """What is to happen for a VMI.

    :param vmi: the VMI as it is to be stored (metadata.labels, metadata.finalizers and status may differ).
    :param create_pod: make the launcher Pod; the VMI is stored afterwards.
    :param delete_pods: Pods to delete.
    :param attach: volumes whose claims need a Pod.
    :param detach: Pods that hold claims, to delete.
    :param gate: status, reason and message of the Pod's readiness gate, or None to leave it.
    :param networks: the Pod's annotation with the networks that it is attached to, or None to leave it.
    :param network_info: its annotation with the devices of these networks, likewise.
    :param lost_pod: the VMI is to fail because its Pod is not in the cache; make sure that it does not exist.
    :param events: (type, reason, message) to tell about the VMI.
    :param failure: why the VMI fails now, for events on it and on its VM.
    :param wait: seconds until the next look, or None.
    """

    vmi: Object
    create_pod: bool = False
    delete_pods: list[Object] = field(default_factory=list)
    attach: Sequence[Mapping[str, Any]] = ()
    detach: Sequence[Object] = ()
    gate: tuple[str, str, str] | None = None
    networks: str | None = None
    network_info: str | None = None
    lost_pod: bool = False
    events: list[tuple[str, str, str]] = field(default_factory=list)
    failure: str = ""
    wait: float | None = None


def fail(draft: Plan, message: str, now: str, remedy: str = "") -> None:
    """Let the VMI fail, because of its launcher."""
    status = draft.vmi["status"]
    set_phase(status, FAILED, now)
    set_condition(conditions_in(status), "Synchronized", "False", "LauncherFailed", message, now)
    draft.failure = remedies.advised(message, remedy) if remedy else message


def entered(vmi: Object, phase: str) -> datetime | None:
    """Return when the VMI last came into a phase."""
    for entry in reversed(vmi["status"].get("phaseTransitionTimestamps") or ()):
        if entry.get("phase") == phase:
            return parse_time(entry.get("phaseTransitionTimestamp"))
    return None
