# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstance's conditions say of its Pod (KubeVirt API, VirtualMachineInstanceCondition). Pure."""

from turtles.api import labels
from turtles.api.conditions import (
    AGENT_FAILED,
    GUEST_NOT_RUNNING,
    TERMINATING,
    UNRESPONSIVE,
    condition_of,
    get_condition,
    has_condition,
    is_true,
    remove_condition,
)
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import RUNNING, is_final, phase_of
from turtles.controller.pod import end

_COMPUTE = "compute"
#: Reasons of a waiting container that are nothing to worry about; any other is reported to the user.
_NORMAL_WAITING = ("", "ContainerCreating", "PodInitializing")
#: Status, reason and message of the Pod's readiness gate: Services send a guest nothing while it isn't open.
GATE_OPEN = ("True", "NotPaused", "the virtual machine is not paused")
GATE_PAUSED = ("False", "Paused", "the virtual machine is paused")
GATE_TERMINATING = ("False", "Terminating", "the virtual machine is shutting down")
GATE_ENDED = ("False", "Ended", "the virtual machine has stopped")
#: What a kubelet says of a Pod whose containers are ready and whose readiness gates are not.
_GATES_CLOSED = "ReadinessGatesNotReady"


def ready(vmi: Object, pod: Object | None, *, going: bool = False) -> tuple[str, str, str]:
    """Return status, reason and message of the VMI's Ready condition; ``going``: the Pod is about to be deleted."""
    if pod is None:
        return "False", "PodNotExists", "virt-launcher pod has not yet been scheduled"
    # A guest that is shutting down isn't ready, though its Pod stays until that is over.
    if going or is_deleted(vmi) or is_deleted(pod) or is_final(pod):
        return "False", *TERMINATING
    if phase_of(vmi) != RUNNING:
        return "False", *GUEST_NOT_RUNNING
    synchronized = condition_of(vmi, "Synchronized") or {}
    if synchronized.get("reason") == UNRESPONSIVE:
        return "False", UNRESPONSIVE, str(synchronized.get("message", ""))
    ready = condition_of(pod, "Ready")
    if ready is None:
        return "False", "PodConditionMissing", "virt-launcher pod is missing the Ready condition"
    return str(ready["status"]), str(ready.get("reason", "")), str(ready.get("message", ""))


def is_gate_unread(vmi: Object, pod: Object, *, opening: bool = False) -> bool:
    """Whether the Pod isn't ready only because its kubelet has yet to read the gate that is open already.

    Its word follows within a second or so, and calls for the next look: what is said of the VMI until then may stay.

    :param opening: the gate is being opened, as it is when a guest has just come to the Pod from another node.
    """
    if phase_of(vmi) != RUNNING or is_deleted(vmi) or is_deleted(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions")
    ready = get_condition(conditions, "Ready") or {}
    if ready.get("reason") != _GATES_CLOSED:
        return False
    return opening or is_true(conditions, labels.UNPAUSED_READINESS_GATE)


def is_pod_known_to_leave(vmi: Object) -> bool:
    """Whether it is known already that the Pod is on its way out."""
    return (condition_of(vmi, "Ready") or {}).get("reason") == TERMINATING[0]


def clear_unsynchronized(conditions: list[Object]) -> None:
    """What kept the VMI from starting is over."""
    condition = get_condition(conditions, "Synchronized")
    if condition and condition.get("status") == "False" and condition.get("reason") != AGENT_FAILED:
        remove_condition(conditions, "Synchronized")


def is_up(pod: Object) -> bool:
    """Whether the guest can be started: the Pod's containers are ready.

    A launcher with a readiness probe only has to run: whether it is ready is what the guest says, once there is one.
    """
    if has_condition(pod, "ContainersReady"):
        return True
    probed = {each.get("name") for each in pod["spec"].get("containers") or () if each.get("readinessProbe")}
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return (
        _COMPUTE in probed
        and bool(statuses)
        and all(
            "running" in (each.get("state") or {}) if each.get("name") == _COMPUTE else each.get("ready")
            for each in statuses
        )
    )


def container_trouble(pod: Object) -> tuple[str, str] | None:
    """Return reason and message of a container that cannot start, image volumes included."""
    for container in end.container_statuses(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in _NORMAL_WAITING:
            return str(waiting["reason"]), str(waiting.get("message") or waiting["reason"])
    return None
