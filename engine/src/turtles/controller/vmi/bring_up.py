# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstance needs while it is Pending and Scheduling: this controller owns it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from turtles.api import cdi, labels
from turtles.api.conditions import conditions_in, get_condition, remove_condition, set_condition
from turtles.api.guests import QEMU_UID
from turtles.api.kinds.vmi.hotplug import is_hotpluggable
from turtles.api.objects import Object, is_deleted, labels_of
from turtles.api.phases import (
    FAILED,
    PENDING,
    SCHEDULED,
    SCHEDULING,
    phase_of,
    set_phase,
)
from turtles.api.times import parse_time, rest_of, rfc3339
from turtles.controller import remedies
from turtles.controller.claims import claim_names, claim_status, data_volume_names
from turtles.controller.pod import end, networks
from turtles.controller.state_claims import claim_name, is_wanted
from turtles.controller.vmi import status as conditions_of
from turtles.controller.vmi.decided import Plan, entered, fail

#: Why there is no Pod: its node rejected the last one, and another one is made.
_REJECTED = "PodRejected"
#: Why there is no Pod: there can't be one for this machine as things are.
_FAILED_CREATE = "FailedCreate"
#: Condition: whether DataVolumes have filled the claims.
_FILLED = "DataVolumesReady"
#: Seconds after which it is looked again whether that has changed; the configuration may have.
_OBSTACLE_LOOK = 60.0
#: Shortest and longest pause between two Pods for one start, seconds.
_REPLACE_FIRST, _REPLACE_LONGEST = 1.0, 30.0


def bring_up(
    draft: Plan,
    pod: Object | None,
    pvcs: Mapping[str, Object | None],
    moment: datetime,
    obstacles: Sequence[str],
    data_volumes: Mapping[str, Object],
) -> None:
    """Pending and Scheduling: this controller owns the VMI."""
    vmi, status, now = draft.vmi, draft.vmi["status"], rfc3339(moment)
    conditions = conditions_in(status)
    if is_deleted(vmi):
        set_phase(status, FAILED, now)
        return
    if pod is None:
        _ask_for_pod(draft, pvcs, now, obstacles, data_volumes)
        return
    set_phase(status, SCHEDULING, now)
    pod_status = pod.get("status") or {}
    if end.is_rejected(pod):
        _replace(draft, pod, moment)
        return
    if end.has_ended(pod):
        fail(draft, end.why(pod)[1], now)
        return
    if is_deleted(pod):
        fail(draft, "the virt-launcher Pod was deleted", now, remedies.POD_GONE)
        return
    scheduled = get_condition(pod_status.get("conditions"), "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        set_condition(
            conditions, "PodScheduled", "False", scheduled.get("reason", ""), scheduled.get("message", ""), now
        )
    else:
        remove_condition(conditions, "PodScheduled")
    if trouble := conditions_of.container_trouble(pod):
        if set_condition(conditions, "Synchronized", "False", *trouble, now):
            reason, words = trouble
            remedy = remedies.of_waiting(reason, pod["metadata"]["name"])
            draft.events.append(("Warning", reason, remedies.advised(words, remedy)))
    else:
        conditions_of.clear_unsynchronized(conditions)
    node = (pod.get("spec") or {}).get("nodeName")
    if node and conditions_of.is_up(pod):
        _hand_over(draft, pod, node, now)


def _ask_for_pod(
    draft: Plan,
    pvcs: Mapping[str, Object | None],
    now: str,
    obstacles: Sequence[str],
    data_volumes: Mapping[str, Object],
) -> None:
    """Have a Pod made for a VMI that has none, unless something is missing."""
    vmi, status = draft.vmi, draft.vmi["status"]
    conditions = status["conditions"]
    rejected = (get_condition(conditions, "Synchronized") or {}).get("reason") == _REJECTED
    if phase_of(vmi) == SCHEDULING and not rejected:
        fail(draft, "the virt-launcher Pod is gone", now, remedies.POD_GONE)
        draft.lost_pod = True
        return
    needed = claim_names(_without_hotplug(vmi["spec"]))
    # What it keeps beside its disks may be on its way, too, from a backup
    filled = [*needed, *([claim_name(vmi)] if is_wanted(vmi["spec"]) else [])]
    if not _are_filled(draft, {name: data_volumes[name] for name in filled if name in data_volumes}, now):
        return
    if missing := sorted(name for name in needed if pvcs.get(name) is None):
        message = f"PVC {vmi['metadata']['namespace']}/{missing[0]} does not exist, waiting for it to appear"
        if set_condition(conditions, "Synchronized", "False", "FailedPvcNotFound", message, now):
            imported = missing[0] in data_volume_names(vmi["spec"])
            remedy = remedies.DATA_VOLUME if imported else remedies.CLAIM
            draft.events.append(("Warning", "FailedPvcNotFound", remedies.advised(message, remedy)))
        set_phase(status, PENDING, now)
        return
    if obstacles:
        message = "; ".join(obstacles)
        if set_condition(conditions, "Synchronized", "False", _FAILED_CREATE, message, now):
            draft.events.append(("Warning", _FAILED_CREATE, message))
        set_phase(status, PENDING, now)
        draft.wait = _OBSTACLE_LOOK
        return
    draft.create_pod = True
    set_phase(status, SCHEDULING, now)
    if volumes := claim_status(_without_hotplug(vmi["spec"]), pvcs):
        status["volumeStatus"] = volumes
    conditions_of.clear_unsynchronized(conditions)


def _are_filled(draft: Plan, data_volumes: Mapping[str, Object], now: str) -> bool:
    """Say whether the claims that DataVolumes fill have their content; if not, the VMI waits."""
    conditions = draft.vmi["status"]["conditions"]
    if not data_volumes:
        remove_condition(conditions, _FILLED)
        return True
    waiting = [name for name, data_volume in sorted(data_volumes.items()) if not cdi.is_populated(data_volume)]
    if not waiting:
        words = "All of the VMI's DVs are bound and ready"
        set_condition(conditions, _FILLED, "True", "AllDVsReady", words, now)
        return True
    set_condition(conditions, _FILLED, "False", "NotAllDVsReady", "Not all of the VMI's DVs are ready", now)
    name = waiting[0]
    if failure := cdi.failure_of(data_volumes[name]):
        message = f"DataVolume {name} has no content: {failure}"
        if set_condition(conditions, "Synchronized", "False", "FailedDataVolumeImport", message, now):
            draft.events.append(("Warning", "FailedDataVolumeImport", message))
    else:
        conditions_of.clear_unsynchronized(conditions)
    set_phase(draft.vmi["status"], PENDING, now)
    return False


def _without_hotplug(spec: Mapping[str, Any]) -> Object:
    """Return a spec without the volumes that don't have to be there before the machine starts."""
    return {**spec, "volumes": [each for each in spec.get("volumes") or () if not is_hotpluggable(each)]}


def _replace(draft: Plan, pod: Object, now: datetime) -> None:
    """The node rejected the Pod, which is no fault of the VMI's: delete it, and make another one when it is gone.

    Pauses become longer with the time that the start has taken.
    """
    conditions = draft.vmi["status"]["conditions"]
    status = pod["status"]
    message = f"the node rejected the virt-launcher Pod ({status['reason']}): {status.get('message') or 'no message'}"
    if set_condition(conditions, "Synchronized", "False", _REJECTED, message, rfc3339(now)):
        draft.events.append(("Warning", _REJECTED, remedies.advised(message, remedies.POD_REJECTED)))
    made = parse_time(pod["metadata"].get("creationTimestamp")) or now
    began = entered(draft.vmi, SCHEDULING) or made
    pause = min(_REPLACE_LONGEST, max(_REPLACE_FIRST, (made - began).total_seconds() / 2))
    if (left := rest_of(pause, made, now)) > 0:
        draft.wait = left
    elif not is_deleted(pod):
        draft.delete_pods = [pod]


def _hand_over(draft: Plan, pod: Object, node: str, now: str) -> None:
    """The Pod is up: from here the node agent owns the VMI."""
    vmi, status = draft.vmi, draft.vmi["status"]
    set_phase(status, SCHEDULED, now)
    status["nodeName"] = node
    status["activePods"] = {pod["metadata"]["uid"]: node}
    status["runtimeUser"] = QEMU_UID
    status["launcherContainerImageVersion"] = pod["spec"]["containers"][0]["image"]
    if interfaces := networks.reported(vmi, pod):
        status["interfaces"] = interfaces
    if qos := (pod.get("status") or {}).get("qosClass"):
        status["qosClass"] = qos
    vmi["metadata"]["labels"] = {**labels_of(vmi), labels.NODE_NAME: node}
    # Set before the guest runs, so that being ready costs no further round trip then.
    if vmi["spec"].get("startStrategy") != "Paused":
        draft.gate = conditions_of.GATE_OPEN
