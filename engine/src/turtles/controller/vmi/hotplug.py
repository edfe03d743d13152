# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that come to a VirtualMachineInstance's Pod while that runs, and leave it. Pure.

This controller makes a Pod for each claim and tells the node agent of it in status.volumeStatus; the agent shows the
claim to the launcher, plugs the disk in, and says so. When a volume is no longer wanted, the agent takes it away first,
then the Pod is deleted. Phases, reasons and messages: KubeVirt API, VolumeStatus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turtles.api import cdi
from turtles.api.conditions import get_condition
from turtles.api.kinds.vmi import hotplug
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import is_final, phase_of
from turtles.controller import remedies
from turtles.controller.claims import claim_status
from turtles.controller.pod import end
from turtles.controller.pod.attachment import attachment_name
from turtles.controller.vmi import status as conditions_of
from turtles.domain import paths

_NOT_READY, _NOT_FOUND, _CREATED = "PVCNotReady", "FailedPvcNotFound", "SuccessfulCreate"
#: Phases in which nothing has been done about a volume but to make its Pod.
_EARLY = ("", hotplug.PENDING, hotplug.BOUND, hotplug.ATTACHED)


@dataclass
class Changes:
    """What follows for a VMI's volumes.

    :param entries: status.volumeStatus. :param create: volumes whose claims need a Pod.
    :param delete: Pods that aren't needed any more. :param events: (type, reason, message) to tell about the VMI.
    """

    entries: list[Object] = field(default_factory=list)
    create: list[Mapping[str, Any]] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    events: list[tuple[str, str, str]] = field(default_factory=list)


def follow(
    vmi: Object,
    launcher: Object,
    attachments: Sequence[Object],
    pvcs: Mapping[str, Object | None],
    data_volumes: Mapping[str, Object] | None = None,
) -> Changes | None:
    """Decide about the volumes of a VMI whose launcher has a node; None if none of them may come or go.

    :param attachments: the Pods that the launcher controls.
    :param pvcs: the claims its volumes name; None for one that does not exist.
    :param data_volumes: those that fill its claims, by name.
    """
    wanted = hotplug.hotpluggable_volumes(vmi["spec"])
    entries: Sequence[Object] = (vmi.get("status") or {}).get("volumeStatus") or ()
    if not wanted and not attachments and not any("hotplugVolume" in entry for entry in entries):
        return None
    changes, pods = Changes(), {pod["metadata"]["name"]: pod for pod in attachments}
    known = {entry["name"]: entry for entry in entries}
    claims = {entry["name"]: entry for entry in claim_status(vmi["spec"], pvcs)}
    held: set[str | None] = set()
    for name, volume in wanted.items():
        entry = {**claims.get(name, {"name": name, "target": ""}), **known.pop(name, {})}
        pod = pods.get(attachment_name(launcher, volume))
        if pod is not None:
            held.add(pod["metadata"]["name"])
        claim = paths.claim_of(volume) or ""
        filling = (data_volumes or {}).get(claim)
        changes.entries.append(_attach(entry, volume, launcher, pod, pvcs.get(claim), filling, changes))
    for entry in known.values():
        if "hotplugVolume" not in entry:
            changes.entries.append(entry)
            continue
        pod = pods.get(entry["hotplugVolume"].get("attachPodName") or "")
        if not _is_free(entry):
            changes.entries.append(entry)
            held.add(entry["hotplugVolume"].get("attachPodName"))
        elif pod is not None:
            changes.entries.append(entry)  # until it is gone the claim is in use
    changes.delete = [pod for name, pod in pods.items() if (name not in held or is_final(pod)) and not is_deleted(pod)]
    changes.entries.sort(key=lambda each: str(each["name"]))
    return changes


def _attach(
    entry: Object,
    volume: Mapping[str, Any],
    launcher: Object,
    pod: Object | None,
    pvc: Object | None,
    data_volume: Object | None,
    changes: Changes,
) -> Object:
    """Return the entry of a volume that is wanted."""
    name, claim = volume["name"], paths.claim_of(volume)
    before = entry.get("hotplugVolume") or {}
    attached: dict[str, str] = {}
    if pod is not None and not is_deleted(pod):
        attached["attachPodName"] = pod["metadata"]["name"]
        # Once told, the node agent may be at work, whatever becomes of that Pod.
        if conditions_of.is_up(pod) or before.get("attachPodUID") == pod["metadata"]["uid"]:
            attached["attachPodUID"] = pod["metadata"]["uid"]
    elif entry.get("phase") in hotplug.IN_POD:
        attached = dict(before)  # what the launcher sees doesn't go with that Pod
    entry = {**entry, "hotplugVolume": attached}
    if "memoryDump" in volume:
        entry.setdefault("memoryDumpVolume", {"claimName": str(claim)})
    obstacle = _obstacle(volume, pvc) or _emptiness(data_volume)
    if pod is None and pvc is not None and not obstacle and not is_deleted(launcher):
        changes.create.append(volume)
    if entry.get("phase") in hotplug.IN_POD:
        return entry
    phase = (pvc or {}).get("status", {}).get("phase")
    if obstacle or pvc is None or phase != "Bound":
        found = obstacle or (_NOT_READY, f"PVC is in phase {'Lost' if phase == 'Lost' else 'ClaimPending'}")
        if found[0] == _NOT_FOUND and entry.get("reason") != _NOT_FOUND:
            changes.events.append(("Warning", _NOT_FOUND, remedies.advised(found[1], remedies.CLAIM)))
        return {**entry, "phase": hotplug.PENDING, "reason": found[0], "message": found[1]}
    if pod is None:
        return {**entry, "phase": hotplug.BOUND, "reason": _NOT_READY, "message": "PVC is in phase Bound"}
    made = f"Created hotplug attachment pod {pod['metadata']['name']}, for volume {name}"
    reason, message = _trouble(pod) or (_CREATED, made)
    if entry.get("phase") != hotplug.ATTACHED:
        changes.events.append(("Normal", _CREATED, made))
    if (reason, message) != (entry.get("reason"), entry.get("message")) and reason != _CREATED:
        changes.events.append(("Warning", reason, f"volume {name}: {message}"))
    if entry.get("phase") == hotplug.ATTACHED and reason == _CREATED and "attachPodUID" in attached:
        # It is the node agent that says why it doesn't come any further.
        reason, message = entry.get("reason") or reason, entry.get("message") or message
    return {**entry, "phase": hotplug.ATTACHED, "reason": reason, "message": message}


def _obstacle(volume: Mapping[str, Any], pvc: Object | None) -> tuple[str, str] | None:
    """Return reason and message of what keeps a claim from being attached."""
    claim = paths.claim_of(volume)
    if pvc is None:
        return _NOT_FOUND, f"PVC {claim} not found"
    if pvc["spec"].get("volumeMode") == "Block":
        message = (
            f"PVC {claim} is a block device (volumeMode: Block), which this engine doesn't attach to a running guest; "
            "remove hotpluggable from the volume and restart the machine, or use a claim with volumeMode: "
            "Filesystem"
        )
        return "VolumeModeNotSupported", message
    return None


def _emptiness(data_volume: Object | None) -> tuple[str, str] | None:
    """Return reason and message of a claim that a DataVolume hasn't filled yet."""
    if data_volume is None or cdi.is_populated(data_volume):
        return None
    name, failure = data_volume["metadata"]["name"], cdi.failure_of(data_volume)
    return _NOT_READY, f"DataVolume {name} has no content: {failure or phase_of(data_volume) or cdi.PENDING}"


def _trouble(pod: Object) -> tuple[str, str] | None:
    """Return reason and message of what keeps a Pod from running."""
    conditions = (pod.get("status") or {}).get("conditions")
    scheduled = get_condition(conditions, "PodScheduled") or {}
    if scheduled.get("status") == "False":
        return str(scheduled.get("reason") or "Unschedulable"), str(scheduled.get("message") or "")
    for container in end.container_statuses(pod):
        state = container.get("lastState") or {}
        ended = (container.get("state") or {}).get("terminated") or state.get("terminated") or {}
        if not container.get("ready") and ended.get("exitCode"):
            return "FailedAttachVolume", str(ended.get("message") or ended.get("reason") or "").strip()
    return conditions_of.container_trouble(pod)


def _is_free(entry: Object) -> bool:
    """Say whether the launcher doesn't see the claim of a volume that isn't wanted any more.

    The agent looks at Pods that are ready, whose uid it is told; it says so when it is done with one.
    """
    if entry.get("phase") == hotplug.UNMOUNTED:
        return True
    return entry.get("phase", "") in _EARLY and not entry["hotplugVolume"].get("attachPodUID")
