# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt object → its status: what of the engine runs; and its deletion, which ends all machines first.

Phases and conditions are those of KubeVirt's operator (kubevirt.io API, KubeVirtStatus). What runs is seen at the
Deployments and the DaemonSet where the engine was installed on a cluster. Where it runs as services of a machine it is
seen at what the components themselves leave in the API: virt-api its APIService, virt-handler its nodes' heartbeats.
Where they run, and how many, the object says (:mod:`turtles.controller.arrangement`).
:func:`plan` is pure; :class:`KubeVirtController` reads the caches, asks it, and writes what it says.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from turtles import __version__
from turtles.api import configuration
from turtles.api.conditions import get_condition, is_true, set_condition
from turtles.api.kinds import SUBRESOURCES_GROUP, SUBRESOURCES_VERSIONS
from turtles.api.objects import Object, is_deleted
from turtles.api.times import rfc3339
from turtles.controller.arrangement import Arrangement
from turtles.controller.changes import merge_diff
from turtles.controller.node import HEARTBEAT_TIMEOUT, silent_for
from turtles.kube.client import ApiError, Client, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key
from turtles.kube.kubevirt import KUBEVIRT, VM, VMI
from turtles.kube.resources import APISERVICE, DAEMONSET, DEPLOYMENT, Resource

log = logging.getLogger(__name__)

FINALIZER = "foregroundDeleteKubeVirt"
#: The APIService by which virt-api is reached.
API_SERVICE = f"{SUBRESOURCES_VERSIONS[0]}.{SUBRESOURCES_GROUP}"
DEPLOYING, DEPLOYED, DELETING, DELETED = "Deploying", "Deployed", "Deleting", "Deleted"
#: Seconds between two looks: a node falls silent without an event.
_RECHECK = 60.0
#: Status, reason and message of the condition Synchronized while nothing was refused.
_SYNCHRONIZED = ("True", "ComponentsArranged", "The components are arranged as the object says.")
_REMEDY = ("machines that run go on. Look at the component's Pods (kubectl -n {namespace} get pods -l kubevirt.io), "
           "their events and logs")


@dataclass(frozen=True)
class Component:
    """A part of the engine.

    :param working: it does its work, if perhaps with fewer replicas than wanted.
    :param complete: all of it runs, in the version that is wanted.
    :param message: what is missing.
    """

    name: str
    working: bool
    complete: bool
    message: str = ""


def deployment(obj: Object) -> Component:
    """Judge a Deployment (Kubernetes documentation, "Deployment status")."""
    status, wanted = obj.get("status") or {}, int((obj.get("spec") or {}).get("replicas", 1))
    current = int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)
    available, updated = int(status.get("availableReplicas") or 0), int(status.get("updatedReplicas") or 0)
    superfluous = int(status.get("replicas") or 0) > updated
    name = obj["metadata"]["name"]
    complete = current and updated >= wanted and available >= wanted and not superfluous
    return Component(name, available > 0, complete, f"{name}: {available} of {wanted} replicas are available")


def daemonset(obj: Object) -> Component:
    """Judge a DaemonSet (Kubernetes documentation, "DaemonSet")."""
    status = obj.get("status") or {}
    current = int(status.get("observedGeneration") or 0) >= int(obj["metadata"].get("generation") or 0)
    wanted, available = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberAvailable") or 0)
    updated = int(status.get("updatedNumberScheduled") or 0)
    name = obj["metadata"]["name"]
    message = f"{name}: available on {available} of {wanted} nodes"
    if current and not wanted:
        message = f"{name}: no node fits its placement"
    complete = current and wanted > 0 and available >= wanted and updated >= wanted
    return Component(name, available > 0, complete, message)


def api_service(obj: Object | None) -> Component:
    """Judge virt-api by its APIService."""
    for condition in ((obj or {}).get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Available":
            good = condition.get("status") == "True"
            why = condition.get("message") or condition.get("reason") or ""
            return Component("virt-api", good, good, f"virt-api: APIService {API_SERVICE} isn't available: {why}")
    return Component("virt-api", False, False, f"virt-api: APIService {API_SERVICE} isn't registered")


def node_agents(nodes: Iterable[Object], now: datetime) -> Component:
    """Judge virt-handler by the heartbeats of the nodes that ever had one."""
    silences = {node["metadata"]["name"]: silent_for(node, now) for node in nodes}
    agents = {name: silence for name, silence in silences.items() if silence is not None}
    silent = sorted(name for name, silence in agents.items() if silence > HEARTBEAT_TIMEOUT)
    if not agents:
        return Component("virt-handler", False, False, "virt-handler: no node has had a heartbeat")
    message = f"virt-handler: no heartbeat from {', '.join(silent)}"
    return Component("virt-handler", len(silent) < len(agents), not silent, message)


@dataclass(frozen=True)
class Plan:
    """What is to happen: the object as it is to be stored, and whether all machines are to be deleted."""

    kubevirt: Object
    remove_machines: bool = False


def plan(kubevirt: Object, components: Sequence[Component], machines: int, image: str, now: str,
         refusals: Sequence[str] = ()) -> Plan:
    """Decide what a KubeVirt object needs.

    :param kubevirt: as stored; it is not changed.
    :param components: the parts of the engine as they are.
    :param machines: VirtualMachines and VirtualMachineInstances there are.
    :param image: of launchers.
    :param now: RFC 3339.
    :param refusals: why some components can't be arranged as the object says, in a sentence each.
    """
    wanted: Object = {**kubevirt, "metadata": dict(kubevirt["metadata"]),
                      "status": copy.deepcopy(kubevirt.get("status") or {})}
    metadata, status = wanted["metadata"], wanted["status"]
    finalizers = metadata.get("finalizers") or []
    conditions = status.setdefault("conditions", [])
    if is_deleted(kubevirt):
        blocked = configuration.from_kubevirt(kubevirt).uninstall_blocked
        message = f"{machines} virtual machines and instances are left"
        if machines and blocked:
            message += "; delete them, or set spec.uninstallStrategy to RemoveWorkloads"
        status["phase"] = DELETING if machines else DELETED
        for type_, value in (("Available", "False"), ("Progressing", "True"), ("Degraded", "False")):
            set_condition(conditions, type_, value, "DeletionInProgress", message if machines else "", now)
        if not machines:
            metadata["finalizers"] = [name for name in finalizers if name != FINALIZER]
        return Plan(wanted, remove_machines=bool(machines) and not blocked)
    if FINALIZER not in finalizers:
        metadata["finalizers"] = [*finalizers, FINALIZER]
    version, registry = f"v{__version__}", image.rpartition("/")[0]
    status.update(
        operatorVersion=version, targetKubeVirtVersion=version,
        targetDeploymentID=image, targetKubeVirtRegistry=registry,
        defaultArchitecture=configuration.from_kubevirt(kubevirt).architecture,
        observedGeneration=kubevirt["metadata"].get("generation", 1),
    )
    missing = [component for component in components if not component.complete]
    # Degraded says it too: what else is missing may be so because of it
    missing += [Component("arrangement", True, False, refusal) for refusal in refusals]
    _judge(status, missing, version, now)
    synchronized = ("False", "DeploymentFailed", "; ".join(refusals)) if refusals else _SYNCHRONIZED
    set_condition(conditions, "Synchronized", *synchronized, now)
    if not missing:
        status.update(observedKubeVirtVersion=version, observedDeploymentID=image, observedKubeVirtRegistry=registry)
    return Plan(wanted)


def _judge(status: Object, missing: Sequence[Component], version: str, now: str) -> None:
    """Set phase and conditions."""
    conditions = status["conditions"]
    message = "; ".join(component.message for component in missing)
    if not missing:
        status["phase"] = DEPLOYED
        judgement = [("Available", "True"), ("Progressing", "False"), ("Degraded", "False")]
        reason, message = "AllComponentsReady", "All components are ready."
    elif status.get("phase") != DEPLOYED:
        status["phase"] = DEPLOYING
        judgement = [("Available", "False"), ("Progressing", "True"), ("Degraded", "False")]
        reason, message = "DeploymentInProgress", f"Deploying version {version}: {message}"
    else:
        # A rolling update, or a part that broke: what works goes on working
        working = "True" if all(component.working for component in missing) else "False"
        judgement = [("Available", working), ("Progressing", "True"), ("Degraded", "True")]
        reason = "ComponentsNotReady"
    for type_, value in judgement:
        set_condition(conditions, type_, value, reason, message, now)
    set_condition(conditions, "Created", "True", "AllResourcesCreated", "All resources were created.", now)


class KubeVirtController:
    """Reconciles the KubeVirt object; :meth:`reconcile` is called by the workers of the leader."""

    def __init__(self, client: Client, namespace: str, kubevirts: Informer, nodes: Informer, vms: Informer,
                 vmis: Informer, recorder: Recorder, image: str) -> None:
        """Make the controller; the informers given are the component's, which starts and stops them."""
        self._client, self._namespace, self._image, self._recorder = client, namespace, image, recorder
        self._kubevirts, self._nodes, self._vms, self._vmis = kubevirts, nodes, vms, vmis
        self._deployments = Informer(client, DEPLOYMENT, namespace=namespace)
        self._daemonsets = Informer(client, DAEMONSET, namespace=namespace)
        self._api_service = Informer(client, APISERVICE, field_selector=f"metadata.name={API_SERVICE}")
        self._informers: list[Informer] = [self._api_service]
        self._arrangement = Arrangement(client)

    def start(self, changed: Callable[[], None]) -> None:
        """Start looking at what runs; ``changed`` is called when something of it changed.

        :raises ApiError: the API server can't be asked what it serves.
        """
        if self._serves_workloads():
            self._informers += [self._deployments, self._daemonsets]
        for informer in self._informers:
            informer.add_handler(lambda old, new: changed())
            informer.start()
        for informer in self._informers:
            informer.wait_synced(10.0)

    def stop(self) -> None:
        """Stop looking."""
        for informer in self._informers:
            informer.stop(timeout=0)

    def _serves_workloads(self) -> bool:
        try:
            answer = self._client.request("GET", f"/apis/{DEPLOYMENT.api_version}")
        except NotFound:
            return False
        served = {found.get("name") for found in answer.get("resources") or ()} if isinstance(answer, dict) else set()
        return {DEPLOYMENT.plural, DAEMONSET.plural} <= served

    def reconcile(self, key: Key) -> float | None:
        """Bring the status of one KubeVirt object up to date; returns seconds after which to look again."""
        kubevirt = self._kubevirts.get(*key)
        if kubevirt is None:
            return None
        now = datetime.now(UTC)
        machines = [*((VM, vm) for vm in self._vms.list()), *((VMI, vmi) for vmi in self._vmis.list())]
        # First: the status is about what runs as the object says, not as it said
        refusals = [] if is_deleted(kubevirt) else self._arrangement.bring(self._workloads(), kubevirt["spec"])
        decided = plan(kubevirt, self._components(now), len(machines), self._image, rfc3339(now), refusals)
        self._store(kubevirt, decided.kubevirt)
        if decided.remove_machines:
            self._remove(machines)
        return _RECHECK

    def _workloads(self) -> list[tuple[Informer, Object]]:
        """Give the Deployments and the DaemonSet that there are; none where the engine is services of a machine."""
        names = ((self._deployments, "virt-api"), (self._deployments, "virt-controller"),
                 (self._daemonsets, "virt-handler"))
        found = ((informer, informer.get(self._namespace, name)) for informer, name in names)
        return [(informer, workload) for informer, workload in found if workload is not None]

    def _components(self, now: datetime) -> list[Component]:
        found = [api_service(self._api_service.get(None, API_SERVICE))]
        workloads = self._workloads()
        found += [deployment(workload) for informer, workload in workloads if informer is self._deployments]
        agents = [daemonset(workload) for informer, workload in workloads if informer is self._daemonsets]
        return found + (agents or [node_agents(self._nodes.list(), now)])

    def _store(self, old: Object, new: Object) -> None:
        """Write what differs: the status first, since without its finalizer the object goes."""
        metadata = old["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            if status := merge_diff(old.get("status") or {}, new["status"]):
                self._kubevirts.observe(
                    self._client.patch(KUBEVIRT, namespace, name, {"status": status}, subresource="status"))
                if new["status"]["phase"] != (old.get("status") or {}).get("phase"):
                    log.info("phase changed", extra={"kubevirt": name, "phase": new["status"]["phase"]})
                self._tell(old, new)
            finalizers = new["metadata"].get("finalizers") or []
            if finalizers != (metadata.get("finalizers") or []):
                body: Mapping[str, Any] = {"metadata": {"finalizers": finalizers, "uid": metadata["uid"]}}
                self._client.patch(KUBEVIRT, namespace, name, body)
        except NotFound:
            log.debug("gone meanwhile", extra={"kubevirt": name})

    def _tell(self, old: Object, new: Object) -> None:
        """Tell when something begins to be missing, when nothing works any more without it, and when all is back."""
        before, after = (obj.get("status", {}).get("conditions") for obj in (old, new))
        degraded = get_condition(after, "Degraded") or {}
        works, worked = is_true(after, "Available"), is_true(before, "Available")
        if degraded.get("status") == "True" and (not is_true(before, "Degraded") or (worked and not works)):
            # A rolling update is nothing to worry about
            remedy = _REMEDY.format(namespace=new["metadata"]["namespace"])
            self._recorder.event(new, "Normal" if works else "Warning", degraded["reason"],
                                 f"{degraded['message']}; {remedy}")
        elif degraded.get("status") == "False" and is_true(before, "Degraded"):
            self._recorder.event(new, "Normal", degraded["reason"], "All components are ready again.")

    def _remove(self, machines: Iterable[tuple[Resource, Object]]) -> None:
        for resource, obj in machines:
            metadata = obj["metadata"]
            if is_deleted(obj):
                continue
            try:
                self._client.delete(resource, metadata["namespace"], metadata["name"], uid=metadata["uid"])
            except NotFound:
                continue
            except ApiError as error:
                log.warning("cannot delete %s %s/%s: %s", resource.kind, metadata["namespace"], metadata["name"], error)
                raise
