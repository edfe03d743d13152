# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of type LoadBalancer in the workload cluster become such Services of the infrastructure cluster."""

import logging
from collections.abc import Mapping

from turtles.api.objects import Object, get
from turtles.cloud_controller import balancers
from turtles.kube.client import AlreadyExists, ApiError, Client, Conflict, NotFound, Unavailable
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import SERVICE
from turtles.kube.writer import Writer

log = logging.getLogger(__name__)

_FAILED = "SyncLoadBalancerFailed"
#: Seconds after which to look whether somebody else's Service is gone whose name is needed: such aren't watched.
_FREED = 10.0


class ServiceController:
    """Creates, changes and removes load balancers, and brings their addresses back.

    :param client: of the workload cluster. :param infrastructure: of the other one.
    :param cluster: the workload cluster's name, in the labels of its load balancers.
    :param selector: labels of the machines that take connections.
    :param services: the workload cluster's. :param existing: this cluster's load balancers in the namespace.
    """

    def __init__(
        self,
        client: Client,
        infrastructure: Client,
        namespace: str,
        cluster: str,
        selector: Mapping[str, str],
        recorder: Recorder,
        services: Informer,
        existing: Informer,
    ) -> None:
        self._client, self._writer = client, Writer(client)
        self._infrastructure, self._balancers = infrastructure, Writer(infrastructure)
        self._namespace, self._recorder = namespace, recorder
        self._cluster, self._selector = cluster, selector
        self._services, self._existing = services, existing

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (each(self._services), Trigger(self._existing, self._by_balancer))
        return Controller("load-balancer", self.reconcile, triggers)

    @staticmethod
    def _by_balancer(old: Object | None, new: Object | None) -> list[Key]:
        return [balancers.belongs_to(new or old or {})]

    def reconcile(self, key: Key) -> float | None:
        """Bring the load balancer of one Service in line with it; returns seconds after which to look again."""
        service = self._services.get(*key)
        if service is None:
            self._remove_orphans(key)
        elif balancers.wants_one(service):
            return self._ensure(service)
        elif balancers.FINALIZER in _finalizers(service):
            self._release(service)
        return None

    def _ensure(self, service: Object) -> float | None:
        if balancers.FINALIZER not in _finalizers(service):
            service = self._set_finalizers(service, [*_finalizers(service), balancers.FINALIZER])
        try:
            target = balancers.wanted(service, self._cluster, self._selector)
        except balancers.NotPossible as error:
            self._event(service, "Warning", _FAILED, str(error))
            return None
        try:
            balancer = self._apply(service, target)
        except (Conflict, Unavailable):
            raise
        except ApiError as error:
            where = f"Service {self._namespace}/{target['metadata']['name']} of the infrastructure cluster"
            self._event(service, "Warning", _FAILED, f"Error syncing load balancer: {where}: {error.message}")
            raise
        if balancer is None:
            return _FREED
        self._report(service, balancers.ingress(balancer))
        return None

    def _apply(self, service: Object, target: Object) -> Object | None:
        """Return the load balancer as it is to be; None if one of its name is somebody else's."""
        name = target["metadata"]["name"]
        balancer = self._existing.get(self._namespace, name)
        if balancer is None:
            try:
                created = self._balancers.create(self._existing, _in_namespace(target, self._namespace))
            except AlreadyExists:
                # The cache is late, or it isn't ours.
                balancer = self._infrastructure.get(SERVICE, self._namespace, name)
            else:
                self._event(service, "Normal", "EnsuredLoadBalancer", f"Created load balancer {self._namespace}/{name}")
                return created
        if balancers.belongs_to(balancer) != balancers.belongs_to(target):
            message = f"infrastructure Service {self._namespace}/{name} belongs to another cluster; delete it"
            self._event(service, "Warning", _FAILED, message)
            return None
        if patch := balancers.difference(balancer, target):
            balancer = self._balancers.patch(self._existing, balancer, patch)
            self._event(service, "Normal", "UpdatedLoadBalancer", f"Updated load balancer {self._namespace}/{name}")
        return balancer

    def _report(self, service: Object, ingress: list[Object]) -> None:
        """Write the addresses of a load balancer to its Service."""
        if balancers.ingress(service) == ingress:
            return
        status = {"loadBalancer": {"ingress": ingress or None}}
        self._writer.patch(self._services, service, {"status": status}, subresource="status")
        log.info("addresses of a load balancer", extra={"service": "/".join(_key(service)), "ingress": ingress})

    def _release(self, service: Object) -> None:
        """Remove the load balancer of a Service that wants none any more, and let go of the Service."""
        self._delete(balancers.name_of(service))
        if not service["metadata"].get("deletionTimestamp"):
            self._report(service, [])
            service = self._services.get(*_key(service)) or service
        self._set_finalizers(service, [each for each in _finalizers(service) if each != balancers.FINALIZER])

    def _remove_orphans(self, key: Key) -> None:
        """Remove load balancers of a Service that is gone, whose finalizer somebody has taken off."""
        left = [balancer for balancer in self._existing.list() if balancers.belongs_to(balancer) == key]
        if not left:
            return
        try:
            self._client.get(SERVICE, *key)
        except NotFound:
            for balancer in left:
                self._delete(balancer["metadata"]["name"])

    def _delete(self, name: str) -> None:
        balancer = self._existing.get(self._namespace, name)
        if balancer is not None and self._balancers.delete(self._existing, balancer):
            log.info("load balancer deleted", extra={"service": f"{self._namespace}/{name}"})

    def _set_finalizers(self, service: Object, finalizers: list[str]) -> Object:
        return self._writer.patch(self._services, service, {"metadata": {"finalizers": finalizers}})

    def _event(self, service: Object, kind: str, reason: str, message: str) -> None:
        self._recorder.event({"apiVersion": "v1", "kind": "Service", **service}, kind, reason, message)


def _in_namespace(obj: Object, namespace: str) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}


def _finalizers(service: Object) -> list[str]:
    return list(get(service, "metadata", "finalizers") or [])


def _key(service: Object) -> Key:
    return service["metadata"]["namespace"], service["metadata"]["name"]
