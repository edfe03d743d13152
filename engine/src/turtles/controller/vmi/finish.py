# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstance needs once it has Succeeded or Failed."""

from collections.abc import Sequence
from datetime import datetime

from turtles.api import labels
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import (
    FAILED,
    phase_of,
)
from turtles.api.times import parse_time, rest_of, rfc3339
from turtles.controller.pod import end
from turtles.controller.vmi import status as conditions_of
from turtles.controller.vmi.decided import LAST_WORD, Plan


def finish(draft: Plan, pods: Sequence[Object], now: datetime, *, noted: bool, attached: bool) -> None:
    """The Pods go, those that hold claims for it too; then, if it is being deleted, the VMI.

    The VM's finalizer goes in the same write if the VM has taken note of how it ended; else the VM's controller takes
    it away afterwards.
    """
    vmi = draft.vmi
    draft.delete_pods = [pod for pod in pods if not is_deleted(pod)]
    if any(not end.has_ended(pod) for pod in draft.delete_pods) and (left := _seconds_until_told(vmi, now)) > 0:
        draft.delete_pods, draft.wait = [], left
        draft.gate = conditions_of.GATE_ENDED
        return
    for pod in draft.delete_pods:
        # The node agent saw the guest end, not why the Pod did.
        reason, message = end.why(pod)
        if end.has_ended(pod) and reason != "Failed":
            draft.events.append(("Warning", reason, message))
            if phase_of(vmi) == FAILED:
                conditions = conditions_in(vmi["status"])
                set_condition(conditions, "Synchronized", "False", reason, message, rfc3339(now))
    if not pods and vmi["status"].get("activePods"):
        del vmi["status"]["activePods"]
    if not is_deleted(vmi) or pods or attached:
        return
    ours = [labels.VMI_FINALIZER, labels.VMI_FINALIZER_OLD]
    if noted:
        ours += [labels.VM_FINALIZER, labels.VM_FINALIZER_OLD]
    finalizers = vmi["metadata"].get("finalizers") or []
    kept = [name for name in finalizers if name not in ours]
    if kept != finalizers:
        vmi["metadata"]["finalizers"] = kept


def _seconds_until_told(vmi: Object, now: datetime) -> float:
    """Return how many seconds the kubelet has left to say why the Pod of a VMI ended that failed by itself."""
    if phase_of(vmi) != FAILED:
        return 0.0
    deleted = parse_time(vmi["metadata"].get("deletionTimestamp"))
    for entry in reversed(vmi["status"].get("phaseTransitionTimestamps") or ()):
        failed = parse_time(entry.get("phaseTransitionTimestamp"))
        if entry.get("phase") == FAILED and failed is not None:
            return 0.0 if deleted is not None and deleted < failed else rest_of(LAST_WORD, failed, now)
    return 0.0
