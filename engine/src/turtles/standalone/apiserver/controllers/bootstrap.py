# SPDX-License-Identifier: GPL-3.0-or-later
"""What every cluster has from the start: namespaces, roles, priority classes, APIServices, published certificates."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from turtles.api.objects import labels_of
from turtles.standalone.apiserver.access import bootstrap_roles as roles
from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import local_services, service_addresses
from turtles.standalone.apiserver.controllers import own_service
from turtles.standalone.apiserver.controllers.internal import kind_of
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.delete import delete
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.schema.kinds import RBAC, REGISTRATION
from turtles.standalone.apiserver.storage.entries import Key
from turtles.standalone.apiserver.wire.errors import Object, StatusError
from turtles.standalone.apiserver.wire.options import DeleteOptions

log = logging.getLogger(__name__)

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
PRIORITY_CLASSES: tuple[Object, ...] = (
    {
        "metadata": {"name": "system-cluster-critical"},
        "value": 2000000000,
        "description": "Used for system critical pods that must run in the cluster, but can be moved to another node "
        "if necessary.",
    },
    {
        "metadata": {"name": "system-node-critical"},
        "value": 2000001000,
        "description": "Used for system critical pods that must not be moved from their current node.",
    },
)


async def bootstrap(resources: Resources, pki: Path, address: str, port: int) -> None:
    """Create what is missing. Built-in roles and bindings are brought up to date, others' changes stay.

    :param address: where the server is reached, for the Service ``default/kubernetes``.
    """
    await asyncio.gather(*(_ensure(resources, "/namespaces", "", {"metadata": {"name": one}}) for one in NAMESPACES))
    tasks = [_ensure(resources, f"{RBAC}/clusterroles", "", one, True) for one in roles.CLUSTER_ROLES]
    tasks += [
        _ensure(resources, f"{RBAC}/clusterrolebindings", "", one, one["metadata"]["name"] == "system:node")
        for one in roles.CLUSTER_ROLE_BINDINGS
    ]
    tasks += [_ensure(resources, "scheduling.k8s.io/priorityclasses", "", one) for one in PRIORITY_CLASSES]
    tasks += [_ensure(resources, f"{REGISTRATION}/apiservices", "", one) for one in local_services.builtin()]
    front_proxy = _read(pki / "front-proxy-ca.crt")
    data = {
        "client-ca-file": _read(pki / "ca.crt"),
        "requestheader-client-ca-file": front_proxy,
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-username-headers": '["X-Remote-User"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
    }
    name = {"name": "extension-apiserver-authentication"}
    tasks.append(_ensure(resources, "/configmaps", "kube-system", {"metadata": name, "data": data}, True))
    tasks += [_ensure(resources, f"{RBAC}/roles", "kube-system", one, True) for one in roles.ROLES]
    tasks += [_ensure(resources, f"{RBAC}/rolebindings", "kube-system", one) for one in roles.ROLE_BINDINGS]
    await asyncio.gather(*tasks)
    await _services(resources, address, port)


async def _services(resources: Resources, address: str, port: int) -> None:
    """Keep the server's own Service; give an address to Services stored by a version that gave none."""
    kind, cluster_ip = kind_of(resources, service_addresses.RESOURCE), resources.allocator.first
    own = Context(kind, INTERNAL, "default", own_service.NAME)
    entry = resources.store.get(own.key)
    if entry is not None and (entry.object().get("spec") or {}).get("clusterIP") != cluster_ip:
        await delete(resources, own, DeleteOptions())
    for resource, obj in own_service.objects(cluster_ip, address, port):
        await _ensure(resources, resource, "default", obj, True)
    for entry in list(resources.store.entries(service_addresses.RESOURCE)):
        spec = entry.object().get("spec") or {}
        if spec.get("type") != "ExternalName" and not spec.get("clusterIP"):
            try:
                await modify(resources, Context(kind, INTERNAL, entry.key.namespace, entry.key.name), _unaddressed)
            except StatusError as error:
                log.warning("a Service gets no address", extra={"service": entry.key.name, "error": str(error)})


async def _unaddressed(service: Object) -> Object:
    return {**service, "spec": {**service["spec"], "clusterIP": ""}}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


async def _ensure(resources: Resources, resource: str, namespace: str, obj: Object, update: bool = False) -> None:
    kind = kind_of(resources, resource)
    name = obj["metadata"]["name"]
    context = Context(kind, INTERNAL, namespace, name)
    if resources.store.get(Key(resource, namespace, name)) is None:
        try:
            await create(resources, context, {**obj, "metadata": dict(obj["metadata"])})
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
        return
    if not update:
        return

    async def refreshed(old: Object) -> Object:
        changed: dict[str, Any] = {field: value for field, value in obj.items() if field != "metadata"}
        labels = {**labels_of(old), **labels_of(obj)}
        if labels:
            old["metadata"]["labels"] = labels
        return {**old, **changed}

    await modify(resources, context, refreshed)
