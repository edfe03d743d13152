# SPDX-License-Identifier: GPL-3.0-or-later
"""What every cluster has from the start: namespaces, roles, priority classes, APIServices, published certificates."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from turtles.standalone.apiserver import local_services, own_service, services
from turtles.standalone.apiserver.auth import INTERNAL
from turtles.standalone.apiserver.errors import Object, StatusError
from turtles.standalone.apiserver.kinds import RBAC, REGISTRATION, Kind
from turtles.standalone.apiserver.resource import Context, DeleteOptions, Resources
from turtles.standalone.apiserver.store import Key

log = logging.getLogger(__name__)

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_ALL = [*_READ, *_WRITE]


def _rule(groups: str, resources: str, verbs: list[str], names: str = "") -> Object:
    rule: Object = {
        "apiGroups": ["" if one == "core" else one for one in groups.split()], "resources": resources.split(),
        "verbs": verbs,
    }  # fmt: skip
    if names:
        rule["resourceNames"] = names.split()
    return rule


def _urls(*urls: str) -> Object:
    return {"nonResourceURLs": list(urls), "verbs": ["get"]}


def _role(name: str, *rules: Object, aggregate_to: str = "") -> Object:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    if aggregate_to:
        labels[f"rbac.authorization.k8s.io/aggregate-to-{aggregate_to}"] = "true"
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    return {"metadata": {"name": name, "labels": labels, "annotations": annotations}, "rules": list(rules)}


def _aggregated(name: str, into: str = "") -> Object:
    role = _role(name, aggregate_to=into)
    del role["rules"]  # a controller writes them
    labels = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}
    role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": labels}]}
    return role


def _binding(name: str, *subjects: tuple[str, str]) -> Object:
    binding = _role(name)
    del binding["rules"]
    binding["roleRef"] = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    binding["subjects"] = [{"apiGroup": RBAC, "kind": kind, "name": subject} for kind, subject in subjects]
    return binding


_VIEWED = (
    "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims "
    "persistentvolumeclaims/status pods pods/log pods/status resourcequotas resourcequotas/status serviceaccounts "
    "services services/status"
)
_EDITED = (
    "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy secrets "
    "serviceaccounts services services/proxy"
)

CLUSTER_ROLES: tuple[Object, ...] = (
    _role("cluster-admin", _rule("*", "*", ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}),
    _role("system:discovery", _urls("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
                                    "/openapi/*", "/readyz", "/version", "/version/")),
    _role("system:public-info-viewer", _urls("/healthz", "/livez", "/readyz", "/version", "/version/")),
    _role("system:service-account-issuer-discovery", _urls("/.well-known/openid-configuration",
                                                           "/.well-known/openid-configuration/", "/openid/v1/jwks",
                                                           "/openid/v1/jwks/")),
    _role("system:basic-user",
          _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ["create"]),
          _rule("authentication.k8s.io", "selfsubjectreviews", ["create"])),
    _role("system:auth-delegator", _rule("authentication.k8s.io", "tokenreviews", ["create"]),
          _rule("authorization.k8s.io", "subjectaccessreviews", ["create"])),
    _aggregated("admin"),
    _aggregated("edit", "admin"),
    _aggregated("view", "edit"),
    _role("system:aggregate-to-view", _rule("core", _VIEWED, _READ), _rule("discovery.k8s.io", "endpointslices", _READ),
          _rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", _READ),
          _rule("apps", "controllerrevisions", _READ), aggregate_to="view"),
    _role("system:aggregate-to-edit", _rule("core", _EDITED, _ALL), _rule("core", "pods/eviction", ["create"]),
          _rule("policy", "poddisruptionbudgets", _WRITE),
          _rule("coordination.k8s.io", "leases", _ALL), aggregate_to="edit"),
    _role("system:aggregate-to-admin", _rule("authorization.k8s.io", "localsubjectaccessreviews", ["create"]),
          _rule(RBAC, "roles rolebindings", _ALL), aggregate_to="admin"),
    _role("system:node",
          _rule("core", "nodes", ["create", "delete", "get", "list", "patch", "update", "watch"]),
          _rule("core", "nodes/status", ["patch", "update"]),
          _rule("core", "pods", ["create", "delete", "get", "list", "watch"]),
          _rule("core", "pods/status", ["patch", "update"]),
          _rule("core", "pods/eviction", ["create"]),
          _rule("core", "secrets configmaps services serviceaccounts namespaces", _READ),
          _rule("core", "serviceaccounts/token", ["create"]),
          _rule("core", "persistentvolumeclaims persistentvolumes", _READ),
          _rule("core", "persistentvolumeclaims/status", ["get", "patch", "update"]),
          _rule("core", "events", ["create", "patch", "update"]),
          _rule("events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("coordination.k8s.io", "leases", ["create", "delete", "get", "patch", "update"]),
          _rule("k8s.cni.cncf.io", "network-attachment-definitions", _READ),
          _rule("authentication.k8s.io", "tokenreviews", ["create"]),
          _rule("authorization.k8s.io", "subjectaccessreviews", ["create"])),
    _role("system:monitoring", _urls("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/readyz",
                                     "/readyz/*")),
    _role("system:kubelet-api-admin", _rule("core", "nodes", _READ), _rule("core", "nodes", ["proxy"]),
          _rule("core", "nodes/log nodes/metrics nodes/proxy nodes/stats", ["*"])),
    _role("system:node-problem-detector", _rule("core", "nodes", ["get"]), _rule("core", "nodes/status", ["patch"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"])),
    _role("system:persistent-volume-provisioner",
          _rule("core", "persistentvolumes", ["create", "delete", "get", "list", "watch"]),
          _rule("core", "persistentvolumeclaims", ["get", "list", "update", "watch"]),
          _rule("storage.k8s.io", "storageclasses", _READ), _rule("core", "events", ["watch"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"])),
    _role("system:node-proxier",
          _rule("core", "services endpoints", ["list", "watch"]),
          _rule("core", "nodes", _READ),
          _rule("discovery.k8s.io", "endpointslices", ["list", "watch"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"])),
    _role("system:kube-scheduler",
          _rule("core", "nodes namespaces pods persistentvolumeclaims persistentvolumes services", _READ),
          _rule("core", "pods", ["delete"]),
          _rule("core", "pods/binding bindings", ["create"]),
          _rule("core", "pods/status", ["patch", "update"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("core", "persistentvolumeclaims", ["patch", "update"]),
          _rule("storage.k8s.io", "storageclasses", _READ),
          _rule("policy", "poddisruptionbudgets", _READ),
          _rule("coordination.k8s.io", "leases", ["create", "get", "list", "patch", "update", "watch"])),
    _role("system:kube-controller-manager",
          _rule("core", "nodes namespaces pods services endpoints configmaps secrets serviceaccounts", _READ),
          _rule("core", "persistentvolumes", _ALL),
          _rule("core", "persistentvolumes/status", ["get", "patch", "update"]),
          _rule("core", "persistentvolumeclaims", ["get", "list", "watch", "patch", "update"]),
          _rule("core", "persistentvolumeclaims/status", ["get", "patch", "update"]),
          _rule("core events.k8s.io", "events", ["create", "patch", "update"]),
          _rule("core", "endpoints", _ALL),
          _rule("discovery.k8s.io", "endpointslices", _ALL),
          _rule("storage.k8s.io", "storageclasses", _ALL),
          _rule("policy", "poddisruptionbudgets", _READ),
          _rule("policy", "poddisruptionbudgets/status", ["patch", "update"]),
          _rule("coordination.k8s.io", "leases", ["create", "get", "list", "patch", "update", "watch"])),
)  # fmt: skip

_USERS, _ANYBODY = ("Group", "system:authenticated"), ("Group", "system:unauthenticated")
_MANAGER = ("User", "system:kube-controller-manager")
CLUSTER_ROLE_BINDINGS: tuple[Object, ...] = (
    _binding("cluster-admin", ("Group", "system:masters")),
    _binding("system:discovery", _USERS),
    _binding("system:basic-user", _USERS),
    _binding("system:public-info-viewer", _USERS, _ANYBODY),
    _binding("system:monitoring", ("Group", "system:monitoring")),
    _binding("system:service-account-issuer-discovery", ("Group", "system:serviceaccounts")),
    # Nodes have their own authorizer: the role says what for, and gives nobody anything.
    _binding("system:node"),
    # A node's one process is kubelet and kube-proxy here.
    _binding("system:node-proxier", ("User", "system:kube-proxy"), ("Group", "system:nodes")),
    # One process is scheduler and controllers here.
    _binding("system:kube-scheduler", ("User", "system:kube-scheduler"), _MANAGER),
    _binding("system:kube-controller-manager", _MANAGER),
)
PRIORITY_CLASSES: tuple[Object, ...] = (
    {"metadata": {"name": "system-cluster-critical"}, "value": 2000000000},
    {"metadata": {"name": "system-node-critical"}, "value": 2000001000},
)


async def bootstrap(resources: Resources, pki: Path, address: str, port: int) -> None:
    """Create what is missing. Built-in roles and bindings are brought up to date, others' changes stay.

    :param address: where the server is reached, for the Service ``default/kubernetes``.
    """
    await asyncio.gather(*(_ensure(resources, "/namespaces", "", {"metadata": {"name": one}}) for one in NAMESPACES))
    tasks = [_ensure(resources, f"{RBAC}/clusterroles", "", one, True) for one in CLUSTER_ROLES]
    tasks += [
        _ensure(resources, f"{RBAC}/clusterrolebindings", "", one, one["metadata"]["name"] == "system:node")
        for one in CLUSTER_ROLE_BINDINGS
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
    rule = _rule("core", "configmaps", _READ, "extension-apiserver-authentication")
    reader = {"metadata": {"name": "extension-apiserver-authentication-reader"}, "rules": [rule]}
    tasks.append(_ensure(resources, f"{RBAC}/roles", "kube-system", reader, True))
    await asyncio.gather(*tasks)
    await _services(resources, address, port)


async def _services(resources: Resources, address: str, port: int) -> None:
    """Keep the server's own Service; give an address to Services stored by a version that gave none."""
    kind, cluster_ip = kind_of(resources, services.RESOURCE), resources.allocator.first
    own = Context(kind, INTERNAL, "default", own_service.NAME)
    entry = resources.store.get(own.key)
    if entry is not None and (entry.object().get("spec") or {}).get("clusterIP") != cluster_ip:
        await resources.delete(own, DeleteOptions())
    for resource, obj in own_service.objects(cluster_ip, address, port):
        await _ensure(resources, resource, "default", obj, True)
    for entry in list(resources.store.entries(services.RESOURCE)):
        spec = entry.object().get("spec") or {}
        if spec.get("type") != "ExternalName" and not spec.get("clusterIP"):
            try:
                await resources.modify(Context(kind, INTERNAL, entry.key.namespace, entry.key.name), _unaddressed)
            except StatusError as error:
                log.warning("a Service stays without address", extra={"service": entry.key.name, "error": str(error)})


async def _unaddressed(service: Object) -> Object:
    return {**service, "spec": {**service["spec"], "clusterIP": ""}}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def kind_of(resources: Resources, resource: str) -> Kind:
    """Return the built-in kind stored under ``resource``."""
    kind = resources.registry.stored(resource)
    if kind is None:
        raise LookupError(resource)
    return kind


async def _ensure(resources: Resources, resource: str, namespace: str, obj: Object, update: bool = False) -> None:
    kind = kind_of(resources, resource)
    name = obj["metadata"]["name"]
    context = Context(kind, INTERNAL, namespace, name)
    if resources.store.get(Key(resource, namespace, name)) is None:
        try:
            await resources.create(context, {**obj, "metadata": dict(obj["metadata"])})
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
        return
    if not update:
        return

    async def refreshed(old: Object) -> Object:
        changed: dict[str, Any] = {field: value for field, value in obj.items() if field != "metadata"}
        labels = {**(old["metadata"].get("labels") or {}), **(obj["metadata"].get("labels") or {})}
        if labels:
            old["metadata"]["labels"] = labels
        return {**old, **changed}

    await resources.modify(context, refreshed)
