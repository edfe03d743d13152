# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstance needs while it is Scheduled and Running: the node agent owns it."""

from datetime import datetime

from turtles.api.conditions import conditions_in, get_condition, is_true, remove_condition, set_condition
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import (
    RUNNING,
    SCHEDULED,
    phase_of,
)
from turtles.api.times import rest_of, rfc3339
from turtles.controller import remedies
from turtles.controller.pod import end, networks
from turtles.controller.vmi import status as conditions_of
from turtles.controller.vmi.decided import LAST_WORD, Plan, entered, fail

#: Seconds the node agent has to start the guest, or to report why not, before the VMI reports the agent as late.
_AGENT_PATIENCE = 30
_AGENT_LATE = "NodeAgentNotResponding"


def watch_over(draft: Plan, pod: Object | None, now: datetime) -> None:
    """Add what is known of the Pod; only a Pod that ended without its word counts."""
    vmi = draft.vmi
    if pod is None:
        fail(draft, "the virt-launcher Pod is gone", rfc3339(now), remedies.POD_GONE)
        draft.lost_pod = True
        return
    if end.has_ended(pod):
        ended = end.ended_at(pod) or now
        if (left := rest_of(LAST_WORD, ended, now)) > 0:
            draft.wait = left
        else:
            fail(draft, end.why(pod)[1], rfc3339(now))
        return
    if is_deleted(pod) and not is_deleted(vmi) and not conditions_of.is_pod_known_to_leave(vmi):
        draft.events.append(
            (
                "Warning",
                "LauncherPodDeleted",
                (
                    f"the virt-launcher Pod {pod['metadata']['name']} is being deleted ({end.disruption(pod)}): the "
                    "guest is asked to shut down; VirtualMachines with runStrategy Always start a new instance; "
                    "others have to be started again"
                ),
            )
        )
    if phase_of(vmi) == SCHEDULED and not is_deleted(vmi) and not is_deleted(pod):
        _wait_for_agent(draft, now)
    if phase_of(vmi) == RUNNING and not is_deleted(vmi) and not is_deleted(pod):
        draft.networks = networks.changed(vmi, pod)
        if vmi["status"].get("interfaces"):
            vmi["status"]["interfaces"] = networks.reported(vmi, pod)
    conditions = conditions_in(vmi["status"])
    if (node := vmi["status"].get("evacuationNodeName")) and node == vmi["status"].get("nodeName"):
        message = f"the virt-launcher Pod has to leave node {node}"
        set_condition(conditions, "EvictionRequested", "True", "EvictionRequested", message, rfc3339(now))
    else:
        remove_condition(conditions, "EvictionRequested")
    if is_deleted(vmi):
        draft.gate = conditions_of.GATE_TERMINATING
    elif phase_of(vmi) == RUNNING or vmi["spec"].get("startStrategy") != "Paused":
        draft.gate = conditions_of.GATE_PAUSED if is_true(conditions, "Paused") else conditions_of.GATE_OPEN


def _wait_for_agent(draft: Plan, now: datetime) -> None:
    """Report an agent that has done nothing for a while. The launcher waits on; the agent removes the condition."""
    vmi, status = draft.vmi, draft.vmi["status"]
    conditions = conditions_in(status)
    since = entered(vmi, SCHEDULED)
    if since is None or get_condition(conditions, "Synchronized") is not None:
        return
    if (left := _AGENT_PATIENCE - (now - since).total_seconds()) > 0:
        draft.wait = left
        return
    message = (
        f"virt-handler on node {status.get('nodeName')} has not started the guest within {_AGENT_PATIENCE} s; "
        "its launcher keeps waiting"
    )
    set_condition(conditions, "Synchronized", "False", _AGENT_LATE, message, rfc3339(now))
    draft.events.append(("Warning", _AGENT_LATE, remedies.advised(message, remedies.AGENT_LATE)))
