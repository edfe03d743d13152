# SPDX-License-Identifier: GPL-3.0-or-later
"""The KubeVirt object: looks at the components, places them as it says, and writes its status."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from turtles.api.changes import merge_diff
from turtles.api.conditions import get_condition, is_true
from turtles.api.objects import Object, is_deleted
from turtles.api.times import rfc3339
from turtles.controller.kubevirt.health import (
    API_SERVICE,
    Component,
    api_service,
    daemonset,
    deployment,
    node_agents,
)
from turtles.controller.kubevirt.placement import ComponentPlacement
from turtles.controller.kubevirt.plan import plan
from turtles.controller.node import is_news
from turtles.controller.shared import Shared
from turtles.kube.client import ApiError, NotFound
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import APISERVICE, DAEMONSET, DEPLOYMENT

log = logging.getLogger(__name__)

#: Seconds between two looks: a node falls silent without an event.
_RECHECK = 60.0
_REMEDY = (
    "running machines are not affected. See the component's Pods (kubectl -n {namespace} get pods -l kubevirt.io), "
    "their events and logs"
)


class KubeVirtController:
    """Reconciles the KubeVirt object."""

    def __init__(self, shared: Shared, namespace: str, image: str) -> None:
        """Make the controller.

        :param namespace: the engine's.
        :param image: of launchers.
        """
        manager, caches = shared.manager, shared.caches
        self._writer, self._namespace, self._image, self._recorder = shared.writer, namespace, image, shared.recorder
        self._kubevirts, self._nodes = caches.kubevirts, caches.nodes
        self._vms, self._vmis, self._heartbeats = caches.vms, caches.vmis, caches.heartbeats
        # Where the engine is services of one machine, there are no workloads
        self._deployments = manager.informer(DEPLOYMENT, namespace=namespace, optional=True)
        self._daemonsets = manager.informer(DAEMONSET, namespace=namespace, optional=True)
        self._api_service = manager.informer(APISERVICE, field_selector=f"metadata.name={API_SERVICE}")
        self._placement = ComponentPlacement(shared.client)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._kubevirts),
            *(Trigger(informer, self._all) for informer in (self._deployments, self._daemonsets, self._api_service)),
            Trigger(self._nodes, lambda old, new: self._all(old, new) if is_news(old, new) else []),
            # An object on its way out waits for the last machine.
            *(Trigger(informer, self._all_if_gone) for informer in (self._vms, self._vmis)),
        )
        # Nobody's machine waits for it
        return Controller("kubevirt", self.reconcile, triggers, essential=False)

    def _all(self, old: Object | None, new: Object | None) -> list[Key]:
        return [key_of(kubevirt) for kubevirt in self._kubevirts.list()]

    def _all_if_gone(self, old: Object | None, new: Object | None) -> list[Key]:
        return self._all(old, new) if new is None else []

    def reconcile(self, key: Key) -> float | None:
        """Bring the status of one KubeVirt object up to date; returns seconds after which to look again."""
        kubevirt = self._kubevirts.get(*key)
        if kubevirt is None:
            return None
        now = datetime.now(UTC)
        machines = [(cache, obj) for cache in (self._vms, self._vmis) for obj in cache.list()]
        # First: the status is about what runs as the object says, not as it said
        refusals = [] if is_deleted(kubevirt) else self._placement.apply(self._workloads(), kubevirt["spec"])
        decided = plan(kubevirt, self._components(now), len(machines), self._image, rfc3339(now), refusals)
        self._store(kubevirt, decided.kubevirt)
        if decided.remove_machines:
            self._remove(machines)
        return _RECHECK

    def _workloads(self) -> list[tuple[Informer, Object]]:
        """Return the Deployments and the DaemonSet that there are; none where the engine is services of a machine."""
        names = (
            (self._deployments, "virt-api"),
            (self._deployments, "virt-controller"),
            (self._daemonsets, "virt-handler"),
        )
        cached = ((informer, informer.get(self._namespace, name)) for informer, name in names)
        return [(informer, workload) for informer, workload in cached if workload is not None]

    def _components(self, now: datetime) -> list[Component]:
        components = [api_service(self._api_service.get(None, API_SERVICE))]
        workloads = self._workloads()
        components += [deployment(workload) for informer, workload in workloads if informer is self._deployments]
        agents = [daemonset(workload) for informer, workload in workloads if informer is self._daemonsets]
        return components + (
            agents or [node_agents(self._nodes.list(), lambda node: self._heartbeats.silence(node, now))]
        )

    def _store(self, old: Object, new: Object) -> None:
        """Write what differs: the status first, since without its finalizer the object goes."""
        name = old["metadata"]["name"]
        try:
            if status := merge_diff(old.get("status") or {}, new["status"]):
                self._writer.patch(self._kubevirts, old, {"status": status}, subresource="status", unchanged=False)
                if new["status"]["phase"] != (old.get("status") or {}).get("phase"):
                    log.info("phase changed", extra={"kubevirt": name, "phase": new["status"]["phase"]})
                self._tell(old, new)
            finalizers = new["metadata"].get("finalizers") or []
            if finalizers != (old["metadata"].get("finalizers") or []):
                self._writer.patch(self._kubevirts, old, {"metadata": {"finalizers": finalizers}}, unchanged=False)
        except NotFound:
            log.debug("already gone", extra={"kubevirt": name})

    def _tell(self, old: Object, new: Object) -> None:
        """Tell when something begins to be missing, when nothing works any more without it, and when all is back."""
        before, after = (obj.get("status", {}).get("conditions") for obj in (old, new))
        degraded = get_condition(after, "Degraded") or {}
        works, worked = is_true(after, "Available"), is_true(before, "Available")
        if degraded.get("status") == "True" and (not is_true(before, "Degraded") or (worked and not works)):
            # A rolling update is nothing to worry about
            remedy = _REMEDY.format(namespace=new["metadata"]["namespace"])
            self._recorder.event(
                new, "Normal" if works else "Warning", degraded["reason"], f"{degraded['message']}; {remedy}"
            )
        elif degraded.get("status") == "False" and is_true(before, "Degraded"):
            self._recorder.event(new, "Normal", degraded["reason"], "All components are ready again.")

    def _remove(self, machines: Iterable[tuple[Informer, Object]]) -> None:
        for cache, obj in machines:
            if is_deleted(obj):
                continue
            try:
                self._writer.delete(cache, obj)
            except ApiError as error:
                log.warning("cannot delete %s %s: %s", cache.resource.kind, "/".join(key_of(obj)), error)
                raise
