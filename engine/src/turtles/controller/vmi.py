# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstance → launcher Pod, until the node agent takes over.

Phases and conditions are KubeVirt's (kubevirt.io API, VirtualMachineInstanceStatus): Pending without a Pod, Scheduling
with one, Scheduled when its containers are ready. From then on the node agent owns the VMI; this controller only adds
what it knows of the Pod, in patches that test what they replace. :func:`plan` is pure; :class:`VMIController` reads
the caches, asks it, and writes what it says.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from turtles.api import labels, times
from turtles.api.conditions import GUEST_NOT_RUNNING, get_condition, is_true, remove_condition, set_condition
from turtles.api.configuration import ClusterConfiguration
from turtles.api.guests import QEMU_UID
from turtles.api.objects import Object, controller_of, is_deleted
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
from turtles.api.times import parse_time, rfc3339
from turtles.controller import pod_end, remedies
from turtles.controller.changes import json_diff
from turtles.controller.launcher_pod import LauncherConfig, launcher_pod, pod_name
from turtles.controller.server import Server, image_volumes
from turtles.controller.vm import claim_names, with_finalizer
from turtles.kube.client import JSON, AlreadyExists, ApiError, Client, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import VMI
from turtles.kube.resources import POD

log = logging.getLogger(__name__)

#: Index of the Pod informer: uid of the VMI that controls the Pod.
BY_OWNER = "owner"
#: Index of the informer of ResourceQuotas.
BY_NAMESPACE = "namespace"
#: Seconds the node agent has to say how a guest ended after its Pod did, and the kubelet the other way round.
_LAST_WORD = 5
#: Reasons of a waiting container that are nothing to worry about; any other is told to the user.
_NORMAL_WAITING = ("", "ContainerCreating", "PodInitializing")
#: Reasons of ``Synchronized`` that the node agent sets and takes back; all others are ours.
_AGENT_REASON = "Synchronizing with the Domain failed."
_FAILED_CREATE = "FailedCreate"
_TERMINATING = "PodTerminating"
#: What a kubelet says of a Pod whose containers are ready and whose readiness gates are not.
_GATES_CLOSED = "ReadinessGatesNotReady"


@dataclass(frozen=True)
class Plan:
    """What is to happen for a VMI.

    :param vmi: the VMI as it is to be stored (metadata.labels, metadata.finalizers and status may differ).
    :param create_pod: make the launcher Pod; the VMI is stored afterwards.
    :param delete_pods: Pods to delete.
    :param unpaused: what the Pod's readiness gate is to say, or None to leave it.
    :param lost_pod: the VMI is to fail because its Pod is not in the cache; make sure that it does not exist.
    :param events: (type, reason, message) to tell about the VMI.
    :param failure: why the VMI fails now, for events on it and on its VM.
    :param wait: seconds until the next look, or None.
    """

    vmi: Object
    create_pod: bool = False
    delete_pods: Sequence[Object] = ()
    unpaused: bool | None = None
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
    unpaused: bool | None = None
    lost_pod: bool = False
    events: list[tuple[str, str, str]] = field(default_factory=list)
    failure: str = ""
    wait: float | None = None

    def done(self) -> Plan:
        return Plan(**vars(self))


def plan(vmi: Object, pods: Sequence[Object], pvcs: Mapping[str, Object | None], now: datetime, *,
         noted: bool = False) -> Plan:
    """Decide what a VMI needs.

    :param vmi: as stored; it is not changed.
    :param pods: the Pods that the VMI controls.
    :param pvcs: the claims its volumes name; None for one that does not exist.
    :param noted: its VM has taken note of its end.
    """
    wanted: Object = {**vmi, "metadata": dict(vmi["metadata"]), "status": copy.deepcopy(vmi.get("status") or {})}
    draft = _Draft(wanted)
    pod = _current(vmi, pods)
    if is_final(vmi):
        _finish(draft, pods, now, noted=noted)
    else:
        if not is_deleted(vmi) and (finalizers := with_finalizer(
                vmi["metadata"], labels.VMI_FINALIZER, labels.VMI_FINALIZER_OLD)):
            wanted["metadata"]["finalizers"] = finalizers
        if phase_of(vmi) in HANDED_OVER:
            _watch_over(draft, pod, now)
        else:
            _bring_up(draft, pod, pvcs, rfc3339(now))
    if is_final(wanted) and not is_final(vmi):
        draft.delete_pods = [each for each in pods if not is_deleted(each)]
    conditions = wanted["status"].setdefault("conditions", [])
    # The VMI is stored when its Pod has been created: its condition need not lag behind.
    exists = pod is not None or draft.create_pod
    before = get_condition(conditions, "Ready")
    # Whoever ended it has said that it isn't ready; for another reason of the same nobody needs a write.
    settled = is_final(vmi) and before is not None and before.get("status") == "False"
    if not settled and not (pod is not None and before and _is_gate_unread(wanted, pod)):
        going = pod is not None and pod in draft.delete_pods
        ready = _ready(wanted, pod or {"metadata": {}} if exists else None, going=going)
        set_condition(conditions, "Ready", *ready, rfc3339(now))
    return draft.done()


def _current(vmi: Object, pods: Sequence[Object]) -> Object | None:
    """Return the Pod the VMI runs in: the one on its node, else the one with the name we give."""
    expected = pod_name(vmi)
    return next((pod for pod in pods if pod["metadata"]["name"] == expected), pods[0] if pods else None)


def _bring_up(draft: _Draft, pod: Object | None, pvcs: Mapping[str, Object | None], now: str) -> None:
    """Pending and Scheduling: this controller owns the VMI."""
    vmi, status = draft.vmi, draft.vmi["status"]
    conditions = status.setdefault("conditions", [])
    if is_deleted(vmi):
        set_phase(status, FAILED, now)
        return
    if pod is None:
        if phase_of(vmi) == SCHEDULING:
            _fail(draft, "the virt-launcher Pod is gone", now, remedies.POD_GONE)
            draft.lost_pod = True
            return
        if not phase_of(vmi):
            set_phase(status, PENDING, now)
        if missing := sorted(name for name, pvc in pvcs.items() if pvc is None):
            message = f"PVC {vmi['metadata']['namespace']}/{missing[0]} does not exist, waiting for it to appear"
            if set_condition(conditions, "Synchronized", "False", "FailedPvcNotFound", message, now):
                draft.events.append(("Warning", "FailedPvcNotFound", remedies.advised(message, remedies.CLAIM)))
            return
        draft.create_pod = True
        set_phase(status, SCHEDULING, now)
        if volumes := claim_status(vmi["spec"], pvcs):
            status["volumeStatus"] = volumes
        _clear_unsynchronized(conditions)
        return
    set_phase(status, SCHEDULING, now)
    pod_status = pod.get("status") or {}
    if pod_end.has_ended(pod):
        _fail(draft, pod_end.why(pod)[1], now)
        return
    if is_deleted(pod):
        _fail(draft, "the virt-launcher Pod was deleted", now, remedies.POD_GONE)
        return
    scheduled = get_condition(pod_status.get("conditions"), "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        set_condition(conditions, "PodScheduled", "False", scheduled.get("reason", ""), scheduled.get("message", ""),
                      now)
    else:
        remove_condition(conditions, "PodScheduled")
    if trouble := _container_trouble(pod):
        if set_condition(conditions, "Synchronized", "False", *trouble, now):
            reason, words = trouble
            remedy = remedies.of_waiting(reason, pod["metadata"]["name"])
            draft.events.append(("Warning", reason, remedies.advised(words, remedy)))
    else:
        _clear_unsynchronized(conditions)
    node = (pod.get("spec") or {}).get("nodeName")
    if node and is_true(pod_status.get("conditions"), "ContainersReady"):
        _hand_over(draft, pod, node, now)


def _hand_over(draft: _Draft, pod: Object, node: str, now: str) -> None:
    """The Pod is up: from here the node agent owns the VMI."""
    vmi, status = draft.vmi, draft.vmi["status"]
    set_phase(status, SCHEDULED, now)
    status["nodeName"] = node
    status["activePods"] = {pod["metadata"]["uid"]: node}
    status["runtimeUser"] = QEMU_UID
    status["launcherContainerImageVersion"] = pod["spec"]["containers"][0]["image"]
    if qos := (pod.get("status") or {}).get("qosClass"):
        status["qosClass"] = qos
    vmi["metadata"]["labels"] = {**(vmi["metadata"].get("labels") or {}), labels.NODE_NAME: node}
    # Set before the guest runs, so that being ready costs no further round trip then.
    if vmi["spec"].get("startStrategy") != "Paused":
        draft.unpaused = True


def _watch_over(draft: _Draft, pod: Object | None, now: datetime) -> None:
    """Scheduled and Running: the node agent owns the VMI; only a Pod that ended without its word counts."""
    vmi = draft.vmi
    if pod is None:
        _fail(draft, "the virt-launcher Pod is gone", rfc3339(now), remedies.POD_GONE)
        draft.lost_pod = True
        return
    if pod_end.has_ended(pod):
        ended = pod_end.ended_at(pod) or now
        if (left := _LAST_WORD - (now - ended).total_seconds()) > 0:
            draft.wait = left
        else:
            _fail(draft, pod_end.why(pod)[1], rfc3339(now))
        return
    if is_deleted(pod) and not is_deleted(vmi) and not _was_told(vmi):
        draft.events.append(("Warning", "LauncherPodDeleted", (
            f"the virt-launcher Pod {pod['metadata']['name']} is being deleted ({pod_end.disruption(pod)}): the guest "
            "is asked to shut down; a VirtualMachine with runStrategy Always starts a new instance, others have to be "
            "started again")))
    conditions = vmi["status"].setdefault("conditions", [])
    if (node := vmi["status"].get("evacuationNodeName")) and node == vmi["status"].get("nodeName"):
        message = f"the virt-launcher Pod is to leave node {node}"
        set_condition(conditions, "EvictionRequested", "True", "EvictionRequested", message, rfc3339(now))
    else:
        remove_condition(conditions, "EvictionRequested")
    paused = is_true(conditions, "Paused")
    if phase_of(vmi) == RUNNING or vmi["spec"].get("startStrategy") != "Paused":
        draft.unpaused = not paused


def _finish(draft: _Draft, pods: Sequence[Object], now: datetime, *, noted: bool) -> None:
    """Succeeded and Failed: the Pods go, then, if it is being deleted, the VMI.

    The VM's finalizer goes in the same write if the VM has taken note of how it ended; else the VM's controller takes
    it away afterwards.
    """
    vmi = draft.vmi
    draft.delete_pods = [pod for pod in pods if not is_deleted(pod)]
    if any(not pod_end.has_ended(pod) for pod in draft.delete_pods) and (left := _untold(vmi, now)) > 0:
        draft.delete_pods, draft.wait = [], left
        return
    for pod in draft.delete_pods:
        # The node agent saw the guest end, not why the Pod did.
        reason, message = pod_end.why(pod)
        if pod_end.has_ended(pod) and reason != "Failed":
            draft.events.append(("Warning", reason, message))
    if not pods and vmi["status"].get("activePods"):
        del vmi["status"]["activePods"]
    if not is_deleted(vmi) or pods:
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
            return 0.0 if deleted is not None and deleted < failed else _LAST_WORD - (now - failed).total_seconds()
    return 0.0


def _fail(draft: _Draft, message: str, now: str, remedy: str = "") -> None:
    status = draft.vmi["status"]
    set_phase(status, FAILED, now)
    set_condition(status.setdefault("conditions", []), "Synchronized", "False", "LauncherFailed", message, now)
    draft.failure = remedies.advised(message, remedy) if remedy else message


def _was_told(vmi: Object) -> bool:
    """Whether it is known already that the Pod is on its way out."""
    return (get_condition(vmi["status"].get("conditions"), "Ready") or {}).get("reason") == _TERMINATING


def _clear_unsynchronized(conditions: list[Object]) -> None:
    """What kept the VMI from starting is over."""
    condition = get_condition(conditions, "Synchronized")
    if condition and condition.get("status") == "False" and condition.get("reason") != _AGENT_REASON:
        remove_condition(conditions, "Synchronized")


def _is_gate_unread(vmi: Object, pod: Object) -> bool:
    """Whether the Pod isn't ready only because its kubelet has yet to read the gate that is open already.

    Its word follows within a second or so, and calls for the next look: what is said of the VMI until then may stay.
    """
    if phase_of(vmi) != RUNNING or is_deleted(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions")
    ready = get_condition(conditions, "Ready") or {}
    if ready.get("reason") != _GATES_CLOSED:
        return False
    return is_true(conditions, labels.UNPAUSED_READINESS_GATE)


def _ready(vmi: Object, pod: Object | None, *, going: bool = False) -> tuple[str, str, str]:
    """Return status, reason and message of the VMI's Ready condition; ``going``: the Pod is about to be deleted."""
    if pod is None:
        return "False", "PodNotExists", "virt-launcher pod has not yet been scheduled"
    if going or is_deleted(pod) or is_final(pod):
        return "False", _TERMINATING, "virt-launcher pod is terminating"
    if phase_of(vmi) != RUNNING:
        return "False", *GUEST_NOT_RUNNING
    ready = get_condition((pod.get("status") or {}).get("conditions"), "Ready")
    if ready is None:
        return "False", "PodConditionMissing", "virt-launcher pod is missing the Ready condition"
    return str(ready["status"]), str(ready.get("reason", "")), str(ready.get("message", ""))


def _container_trouble(pod: Object) -> tuple[str, str] | None:
    """Return reason and message of a container that cannot start, image volumes included."""
    for container in pod_end.container_statuses(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in _NORMAL_WAITING:
            return str(waiting["reason"]), str(waiting.get("message") or waiting["reason"])
    return None


def claim_status(spec: Mapping[str, Any], pvcs: Mapping[str, Object | None]) -> list[Object]:
    """Return the entries of ``status.volumeStatus`` for the volumes on PersistentVolumeClaims."""
    entries: list[Object] = []
    for volume in spec.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if not claim or (pvc := pvcs.get(claim)) is None:
            continue
        asked, status = pvc.get("spec") or {}, pvc.get("status") or {}
        info = {
            "claimName": claim,
            "accessModes": asked.get("accessModes"),
            "volumeMode": asked.get("volumeMode") or "Filesystem",
            "capacity": status.get("capacity"),
            "requests": (asked.get("resources") or {}).get("requests"),
        }
        known = {key: value for key, value in info.items() if value}
        entries.append({"name": volume["name"], "target": "", "persistentVolumeClaimInfo": known})
    return entries


def gate_patch(pod: Object, unpaused: bool, now: str) -> list[Object]:
    """Return the JSON patch that makes the Pod's readiness gate say whether the guest runs; empty if it does so."""
    before = (pod.get("status") or {}).get("conditions")
    conditions = [dict(condition) for condition in before or ()]
    words = ("True", "NotPaused", "the virtual machine is not paused") if unpaused else (
        "False", "Paused", "the virtual machine is paused")
    if not set_condition(conditions, labels.UNPAUSED_READINESS_GATE, *words, now):
        return []
    after = {**pod, "status": {**(pod.get("status") or {}), "conditions": conditions}}
    return json_diff(pod, after, [("status", "conditions")])


def node_label_patch(pod: Object, node: str) -> list[Object]:
    """Return the JSON patch that puts the VMI's node on its Pod as a label; empty if it is there."""
    labels_ = pod["metadata"].get("labels")
    if labels_ is None or labels_.get(labels.NODE_NAME) == node:
        return []  # a Pod of ours always has labels
    return json_diff(pod, {"metadata": {"labels": {**labels_, labels.NODE_NAME: node}}},
                     [("metadata", "labels", labels.NODE_NAME)])


def vmi_patch(old: Object, new: Object) -> list[Object]:
    """Return the JSON patch that stores a plan's VMI; empty when nothing changed."""
    patch = json_diff(old, new, [("metadata", "labels"), ("metadata", "finalizers"), ("status", "*")])
    if not patch:
        return []
    test = [{"op": "test", "path": "/metadata/uid", "value": old["metadata"]["uid"]}]
    if phase_of(old) not in HANDED_OVER:
        # Nobody else writes yet, or any more: whatever changed meanwhile has to be looked at first.
        test.append({"op": "test", "path": "/metadata/resourceVersion", "value": old["metadata"]["resourceVersion"]})
    elif phase_of(new) != phase_of(old) and not any(op["path"] == "/status/phase" for op in patch):
        test.append({"op": "test", "path": "/status/phase", "value": phase_of(old)})
    return [*test, *patch]


class VMIController:
    """Reconciles VirtualMachineInstances; :meth:`reconcile` is called by the workers."""

    def __init__(self, client: Client, vmis: Informer, pods: Informer, nodes: Informer, pvcs: Informer,
                 quotas: Informer, recorder: Recorder, config: LauncherConfig,
                 cluster: Callable[[], ClusterConfiguration] = ClusterConfiguration,
                 noted: Callable[[Object], bool] = lambda vmi: False) -> None:
        """Make the controller; ``pods`` must have the index :data:`BY_OWNER`, ``quotas`` :data:`BY_NAMESPACE`.

        :param cluster: gives the configuration in force.
        :param noted: tells whether a VMI's VM has taken note of its end.
        """
        self._client, self._vmis, self._pods, self._nodes, self._pvcs = client, vmis, pods, nodes, pvcs
        self._quotas, self._recorder = quotas, recorder
        self._config = config
        self._cluster, self._noted = cluster, noted
        self._server = Server(client)

    def reconcile(self, key: Key) -> float | None:
        """Bring one VMI closer to its spec; returns seconds after which to look again."""
        vmi = self._vmis.get(*key)
        if vmi is None:
            return None
        namespace = vmi["metadata"]["namespace"]
        pods = self._pods.by_index(BY_OWNER, vmi["metadata"]["uid"])
        pvcs = {name: self._pvcs.get(namespace, name) for name in claim_names(vmi["spec"])}
        decided = plan(vmi, pods, pvcs, datetime.now(UTC), noted=self._noted(vmi))
        if decided.lost_pod and (pod := self._live_pod(vmi)) is not None:
            self._pods.observe(pod)
            return 0.1
        if decided.create_pod:
            self._create_pod(vmi, decided.vmi)
        # A VMI that is final stays so; one that fails now is told first, so that nobody wonders about its Pod.
        stored = self._store(vmi, decided.vmi)
        for event in decided.events:
            self._recorder.event(vmi, *event)
        if decided.failure:
            self._tell_failure(vmi, decided.failure)
        for pod in decided.delete_pods:
            self._delete_pod(stored, pod)
        if (pod_ := _current(vmi, pods)) is not None:
            self._mark_pod(pod_, decided.unpaused, (stored.get("status") or {}).get("nodeName"))
        return decided.wait

    def _live_pod(self, vmi: Object) -> Object | None:
        """Return the VMI's Pod as the server has it now; caches of different kinds may be apart."""
        try:
            pod = self._client.get(POD, vmi["metadata"]["namespace"], pod_name(vmi))
        except NotFound:
            return None
        return pod if (controller_of(pod) or {}).get("uid") == vmi["metadata"]["uid"] else None

    def _create_pod(self, vmi: Object, planned: Object) -> None:
        namespace, name = vmi["metadata"]["namespace"], pod_name(vmi)
        try:
            pod = self._client.create(POD, launcher_pod(planned, self._launcher_config(namespace)))
        except AlreadyExists as error:
            found = self._live_pod(vmi)
            if found is None:
                self._not_created(vmi, f"a Pod {name} of somebody else is in the way", remedies.POD_IN_THE_WAY)
                raise error
            self._pods.observe(found)
            return
        except Unavailable:
            raise
        except ApiError as error:
            self._not_created(vmi, f"Error creating pod: {error.message}", remedies.of_refusal(error))
            raise
        self._pods.observe(pod)
        log.info("Pod created", extra={"namespace": namespace, "vmi": vmi["metadata"]["name"], "pod": name})
        self._recorder.event(vmi, "Normal", "SuccessfulCreate", f"Created virtual machine pod {name}")

    def _not_created(self, vmi: Object, message: str, remedy: str) -> None:
        """Tell the user why there is no Pod; the next try comes by itself."""
        status = copy.deepcopy(vmi.get("status") or {})
        now = times.now()
        set_phase(status, phase_of(vmi) or PENDING, now)
        conditions = status.setdefault("conditions", [])
        set_condition(conditions, "Synchronized", "False", _FAILED_CREATE, message, now)
        set_condition(conditions, "Ready", *_ready(vmi, None), now)
        self._store(vmi, {**vmi, "status": status})
        self._recorder.event(vmi, "Warning", _FAILED_CREATE, remedies.advised(message, remedy))

    def _delete_pod(self, vmi: Object, pod: Object) -> None:
        metadata = pod["metadata"]
        try:
            answer = self._client.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        except NotFound:
            return
        except ApiError as error:
            self._recorder.event(vmi, "Warning", "FailedDelete",
                                 f"Failed to delete virtual machine pod {metadata['name']}: {error.message}")
            raise
        if answer.get("kind") == POD.kind:
            self._pods.observe(answer)
        self._recorder.event(vmi, "Normal", "SuccessfulDelete", f"Deleted virtual machine pod {metadata['name']}")

    def _mark_pod(self, pod: Object, unpaused: bool | None, node: str | None) -> None:
        """Bring the Pod's readiness gate and its label with the VMI's node up to date, in one request where it can."""
        metadata = pod["metadata"]
        gate = [] if unpaused is None else gate_patch(pod, unpaused, times.now())
        label = node_label_patch(pod, node) if node else []
        if not gate and not label:
            return
        try:
            stored = self._client.patch(POD, metadata["namespace"], metadata["name"], [*gate, *label], kind=JSON,
                                        subresource="status" if gate else None)
        except NotFound:
            return
        self._pods.observe(stored)

    def _store(self, old: Object, new: Object) -> Object:
        patch = vmi_patch(old, new)
        if not patch:
            return old
        metadata = old["metadata"]
        try:
            stored = self._client.patch(VMI, metadata["namespace"], metadata["name"], patch, kind=JSON)
        except NotFound:
            return old
        self._vmis.observe(stored)
        return stored

    def _tell_failure(self, vmi: Object, message: str) -> None:
        """A user who looks at the VM must see what its VMI died of: the VMI may be gone by then."""
        metadata = vmi["metadata"]
        log.warning("VMI failed: %s", message, extra={"namespace": metadata["namespace"], "vmi": metadata["name"],
                                                      "uid": metadata["uid"]})
        self._recorder.event(vmi, "Warning", "Failed", message)
        owner = controller_of(vmi)
        if owner is not None:
            self._recorder.event({**owner, "namespace": metadata["namespace"]}, "Warning", "Failed", message)

    def _launcher_config(self, namespace: str) -> LauncherConfig:
        """Return the configuration in force with what the nodes offer, and the namespace asks for, now."""
        nodes = [node for node in self._nodes.list()
                 if (node["metadata"].get("labels") or {}).get(labels.NODE_SCHEDULABLE) == "true"]
        offered = [(node.get("status") or {}).get("allocatable") or {} for node in nodes]
        cluster = self._cluster()
        emulation = cluster.use_emulation
        kvm = _offers(offered, labels.DEVICE_KVM) if emulation is None else not emulation
        images = self._config.image_volumes
        if images is None:
            images = image_volumes(self._server.version(), nodes, cluster)
        return replace(self._config, cluster=cluster, kvm=kvm, image_volumes=images,
                       vhost_net=_offers(offered, labels.DEVICE_VHOST_NET),
                       limited=limited_resources(self._quotas.by_index(BY_NAMESPACE, namespace)))


def limited_resources(quotas: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return for which resources these ResourceQuotas demand a limit of every container: cpu, memory."""
    hard = {name for quota in quotas for name in (quota.get("spec") or {}).get("hard") or {}}
    return frozenset(name for name in ("cpu", "memory") if f"limits.{name}" in hard)


def _offers(allocatable: Sequence[Mapping[str, Any]], device: str) -> bool:
    return any(str(resources.get(device, "0")) not in ("0", "") for resources in allocatable)
