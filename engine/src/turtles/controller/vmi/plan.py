# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstance needs, until the node agent takes over. Pure.

Phases and conditions are KubeVirt's (KubeVirt API, VirtualMachineInstanceStatus): Pending without a Pod, Scheduling
with one, Scheduled when its containers are ready. From then on the node agent owns the VMI; what is known of the Pod is
added.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from turtles.api import cdi, labels
from turtles.api.conditions import get_condition, is_true, remove_condition, set_condition
from turtles.api.guests import QEMU_UID
from turtles.api.kinds.vmi.hotplug import is_hotpluggable
from turtles.api.objects import Object, is_deleted
from turtles.api.phases import (
    FAILED,
    HANDED_OVER,
    PENDING,
    RUNNING,
    SCHEDULED,
    SCHEDULING,
    is_final,
    phase_of,
    set_phase,
)
from turtles.api.times import parse_time, rest_of, rfc3339
from turtles.controller import remedies
from turtles.controller.claims import claim_names, claim_status, data_volume_names, refreshed
from turtles.controller.finalizers import with_finalizer
from turtles.controller.pod import end, networks, sriov
from turtles.controller.pod.roles import by_role
from turtles.controller.vmi import comparison, hotplug, vsock
from turtles.controller.vmi import status as conditions_of

#: Seconds the node agent has to say how a guest ended after its Pod did, and the kubelet the other way round.
_LAST_WORD = 5
#: Seconds the node agent has to start the guest, or to report why not, before the VMI reports the agent as late.
_AGENT_PATIENCE = 30
_AGENT_LATE = "NodeAgentNotResponding"
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


@dataclass(frozen=True)
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
    delete_pods: Sequence[Object] = ()
    attach: Sequence[Mapping[str, Any]] = ()
    detach: Sequence[Object] = ()
    gate: tuple[str, str, str] | None = None
    networks: str | None = None
    network_info: str | None = None
    lost_pod: bool = False
    events: Sequence[tuple[str, str, str]] = ()
    failure: str = ""
    wait: float | None = None


@dataclass
class _Draft:
    """A plan in the making."""

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

    def done(self) -> Plan:
        return Plan(**vars(self))


def plan(
    vmi: Object,
    pods: Sequence[Object],
    pvcs: Mapping[str, Object | None],
    now: datetime,
    *,
    noted: bool = False,
    obstacles: Sequence[str] = (),
    addresses: Collection[int] = (),
    attachments: Sequence[Object] = (),
    image: str = "",
    data_volumes: Mapping[str, Object] | None = None,
) -> Plan:
    """Decide what a VMI needs.

    :param vmi: as stored; it is not changed.
    :param pods: the Pods that the VMI controls.
    :param pvcs: the claims its volumes name; None for one that does not exist.
    :param noted: its VM has taken note of its end.
    :param obstacles: why there can't be a Pod for it.
    :param addresses: VSOCK addresses of other machines.
    :param attachments: the Pods that hold claims for its launcher.
    :param image: of the launchers that are created now.
    :param data_volumes: those that fill its claims, by name.
    """
    wanted: Object = {**vmi, "metadata": dict(vmi["metadata"]), "status": copy.deepcopy(vmi.get("status") or {})}
    draft = _Draft(wanted)
    pod = by_role(vmi, pods).launcher
    if is_final(vmi):
        _finish(draft, pods, now, noted=noted, attached=bool(attachments))
    else:
        if not is_deleted(vmi) and (
            finalizers := with_finalizer(vmi["metadata"], labels.VMI_FINALIZER, labels.VMI_FINALIZER_OLD)
        ):
            wanted["metadata"]["finalizers"] = finalizers
        if phase_of(vmi) in HANDED_OVER:
            _watch_over(draft, pod, now)
            if pod is not None:
                comparison.note_version(wanted, pod, image)
                comparison.note_size(wanted, pod)
            if volumes := wanted["status"].get("volumeStatus"):
                wanted["status"]["volumeStatus"] = refreshed(volumes, vmi["spec"], pvcs)
        else:
            _bring_up(draft, pod, pvcs, now, obstacles, data_volumes or {})
            if draft.create_pod and vsock.is_without_address(wanted):
                wanted["status"]["VSOCKCID"] = vsock.allocate(wanted["metadata"]["uid"], addresses)
    if is_final(wanted) and not is_final(vmi):
        draft.delete_pods = [each for each in pods if not is_deleted(each)]
    _follow_volumes(draft, pod, attachments, pvcs, data_volumes or {})
    if pod is not None and not is_final(wanted):
        draft.network_info = sriov.info(wanted, pod)
    conditions = wanted["status"].setdefault("conditions", [])
    # The VMI is stored when its Pod has been created: its condition need not lag behind.
    exists = pod is not None or draft.create_pod
    before = get_condition(conditions, "Ready")
    # Whoever ended it has said that it isn't ready; for another reason of the same nobody needs a write.
    settled = is_final(vmi) and before is not None and before.get("status") == "False"
    opening = draft.gate == conditions_of.GATE_OPEN
    if not settled and not (pod is not None and before and conditions_of.is_gate_unread(wanted, pod, opening=opening)):
        going = pod is not None and pod in draft.delete_pods
        ready = conditions_of.ready(wanted, pod or {"metadata": {}} if exists else None, going=going)
        set_condition(conditions, "Ready", *ready, rfc3339(now))
    return draft.done()


def _follow_volumes(
    draft: _Draft,
    launcher: Object | None,
    attachments: Sequence[Object],
    pvcs: Mapping[str, Object | None],
    data_volumes: Mapping[str, Object],
) -> None:
    """Bring claims to a launcher that has a node, and away from it; when it ends, all of them go."""
    if is_final(draft.vmi) or launcher is None:
        draft.detach = [pod for pod in attachments if not is_deleted(pod)]
        return
    if not launcher["spec"].get("nodeName") or end.has_ended(launcher):
        return
    changes = hotplug.follow(draft.vmi, launcher, attachments, pvcs, data_volumes)
    if changes is not None:
        draft.vmi["status"]["volumeStatus"] = changes.entries
        draft.attach, draft.detach = changes.create, changes.delete
        draft.events += changes.events


def _bring_up(
    draft: _Draft,
    pod: Object | None,
    pvcs: Mapping[str, Object | None],
    moment: datetime,
    obstacles: Sequence[str],
    data_volumes: Mapping[str, Object],
) -> None:
    """Pending and Scheduling: this controller owns the VMI."""
    vmi, status, now = draft.vmi, draft.vmi["status"], rfc3339(moment)
    conditions = status.setdefault("conditions", [])
    if is_deleted(vmi):
        set_phase(status, FAILED, now)
        return
    if pod is None:
        rejected = (get_condition(conditions, "Synchronized") or {}).get("reason") == _REJECTED
        if phase_of(vmi) == SCHEDULING and not rejected:
            _fail(draft, "the virt-launcher Pod is gone", now, remedies.POD_GONE)
            draft.lost_pod = True
            return
        needed = claim_names(_without_hotplug(vmi["spec"]))
        if not _are_filled(draft, {name: data_volumes[name] for name in needed if name in data_volumes}, now):
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
        return
    set_phase(status, SCHEDULING, now)
    pod_status = pod.get("status") or {}
    if end.is_rejected(pod):
        _replace(draft, pod, moment)
        return
    if end.has_ended(pod):
        _fail(draft, end.why(pod)[1], now)
        return
    if is_deleted(pod):
        _fail(draft, "the virt-launcher Pod was deleted", now, remedies.POD_GONE)
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


def _are_filled(draft: _Draft, data_volumes: Mapping[str, Object], now: str) -> bool:
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


def _replace(draft: _Draft, pod: Object, now: datetime) -> None:
    """The node rejected the Pod, which is no fault of the VMI's: delete it, and make another one when it is gone.

    Pauses become longer with the time that the start has taken.
    """
    conditions = draft.vmi["status"]["conditions"]
    status = pod["status"]
    message = f"the node rejected the virt-launcher Pod ({status['reason']}): {status.get('message') or 'no message'}"
    if set_condition(conditions, "Synchronized", "False", _REJECTED, message, rfc3339(now)):
        draft.events.append(("Warning", _REJECTED, remedies.advised(message, remedies.POD_REJECTED)))
    made = parse_time(pod["metadata"].get("creationTimestamp")) or now
    began = _since(draft.vmi, SCHEDULING) or made
    pause = min(_REPLACE_LONGEST, max(_REPLACE_FIRST, (made - began).total_seconds() / 2))
    if (left := rest_of(pause, made, now)) > 0:
        draft.wait = left
    elif not is_deleted(pod):
        draft.delete_pods = [pod]


def _hand_over(draft: _Draft, pod: Object, node: str, now: str) -> None:
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
    vmi["metadata"]["labels"] = {**(vmi["metadata"].get("labels") or {}), labels.NODE_NAME: node}
    # Set before the guest runs, so that being ready costs no further round trip then.
    if vmi["spec"].get("startStrategy") != "Paused":
        draft.gate = conditions_of.GATE_OPEN


def _watch_over(draft: _Draft, pod: Object | None, now: datetime) -> None:
    """Scheduled and Running: the node agent owns the VMI; only a Pod that ended without its word counts."""
    vmi = draft.vmi
    if pod is None:
        _fail(draft, "the virt-launcher Pod is gone", rfc3339(now), remedies.POD_GONE)
        draft.lost_pod = True
        return
    if end.has_ended(pod):
        ended = end.ended_at(pod) or now
        if (left := rest_of(_LAST_WORD, ended, now)) > 0:
            draft.wait = left
        else:
            _fail(draft, end.why(pod)[1], rfc3339(now))
        return
    if is_deleted(pod) and not is_deleted(vmi) and not conditions_of.is_pod_known_to_leave(vmi):
        draft.events.append(
            (
                "Warning",
                "LauncherPodDeleted",
                (
                    f"the virt-launcher Pod {pod['metadata']['name']} is being deleted ({end.disruption(pod)}): the "
                    "guest is asked to shut down; a VirtualMachine with runStrategy Always starts a new instance, "
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
    conditions = vmi["status"].setdefault("conditions", [])
    if (node := vmi["status"].get("evacuationNodeName")) and node == vmi["status"].get("nodeName"):
        message = f"the virt-launcher Pod has to leave node {node}"
        set_condition(conditions, "EvictionRequested", "True", "EvictionRequested", message, rfc3339(now))
    else:
        remove_condition(conditions, "EvictionRequested")
    if is_deleted(vmi):
        draft.gate = conditions_of.GATE_TERMINATING
    elif phase_of(vmi) == RUNNING or vmi["spec"].get("startStrategy") != "Paused":
        draft.gate = conditions_of.GATE_PAUSED if is_true(conditions, "Paused") else conditions_of.GATE_OPEN


def _wait_for_agent(draft: _Draft, now: datetime) -> None:
    """Report an agent that has done nothing for a while. The launcher waits on; the agent removes the condition."""
    vmi, status = draft.vmi, draft.vmi["status"]
    conditions = status.setdefault("conditions", [])
    since = _since(vmi, SCHEDULED)
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


def _since(vmi: Object, phase: str) -> datetime | None:
    """Return when the VMI last came into a phase."""
    for entry in reversed(vmi["status"].get("phaseTransitionTimestamps") or ()):
        if entry.get("phase") == phase:
            return parse_time(entry.get("phaseTransitionTimestamp"))
    return None


def _finish(draft: _Draft, pods: Sequence[Object], now: datetime, *, noted: bool, attached: bool) -> None:
    """Succeeded and Failed: the Pods go, those that hold claims for it too; then, if it is being deleted, the VMI.

    The VM's finalizer goes in the same write if the VM has taken note of how it ended; else the VM's controller takes
    it away afterwards.
    """
    vmi = draft.vmi
    draft.delete_pods = [pod for pod in pods if not is_deleted(pod)]
    if any(not end.has_ended(pod) for pod in draft.delete_pods) and (left := _untold(vmi, now)) > 0:
        draft.delete_pods, draft.wait = [], left
        draft.gate = conditions_of.GATE_ENDED
        return
    for pod in draft.delete_pods:
        # The node agent saw the guest end, not why the Pod did.
        reason, message = end.why(pod)
        if end.has_ended(pod) and reason != "Failed":
            draft.events.append(("Warning", reason, message))
            if phase_of(vmi) == FAILED:
                conditions = vmi["status"].setdefault("conditions", [])
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


def _untold(vmi: Object, now: datetime) -> float:
    """Return how many seconds the kubelet has left to say why the Pod of a VMI ended that failed by itself."""
    if phase_of(vmi) != FAILED:
        return 0.0
    deleted = parse_time(vmi["metadata"].get("deletionTimestamp"))
    for entry in reversed(vmi["status"].get("phaseTransitionTimestamps") or ()):
        failed = parse_time(entry.get("phaseTransitionTimestamp"))
        if entry.get("phase") == FAILED and failed is not None:
            return 0.0 if deleted is not None and deleted < failed else rest_of(_LAST_WORD, failed, now)
    return 0.0


def _fail(draft: _Draft, message: str, now: str, remedy: str = "") -> None:
    status = draft.vmi["status"]
    set_phase(status, FAILED, now)
    set_condition(status.setdefault("conditions", []), "Synchronized", "False", "LauncherFailed", message, now)
    draft.failure = remedies.advised(message, remedy) if remedy else message
