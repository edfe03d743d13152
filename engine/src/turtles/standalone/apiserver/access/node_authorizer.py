# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node may do: read what its own Pods need, write what it says of itself and of them.

Source: the Kubernetes documentation "Using Node Authorization" (with selectors, KEP-4601) and "Admission Control",
NodeRestriction, whose messages these are.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from turtles.api.objects import annotations_of
from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Object, forbidden
from turtles.standalone.well_known import ARCH, BETA_ARCH, BETA_OS, HOSTNAME, MIRROR, OS

PREFIX = "system:node:"
GROUP = "system:nodes"
LEASES = "kube-node-lease"
_READ = ("get", "list", "watch")
#: Labels of Kubernetes' domains that a node may give itself, and the domains within which it may give any.
_OWN_LABELS = (
    HOSTNAME,
    ARCH,
    OS,
    BETA_ARCH,
    BETA_OS,
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
)
_OWN_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_RESTRICTED = "node-restriction.kubernetes.io"


class Request(NamedTuple):
    """What a node wants: as in an authorizer's attributes; ``node`` is the node that a field selector names."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    node: str


#: What every node may, as (group, resource, verbs). A subresource is written with its resource.
_ALWAYS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "services", _READ),
    ("", "events", ("create", "patch", "update")),
    ("events.k8s.io", "events", ("create", "patch", "update")),
    ("authentication.k8s.io", "tokenreviews", ("create",)),
    ("authorization.k8s.io", "subjectaccessreviews", ("create",)),
    ("authorization.k8s.io", "localsubjectaccessreviews", ("create",)),
    ("", "nodes", ("create", "update", "patch", "delete")),
    ("", "nodes/status", ("update", "patch")),
    ("", "pods", ("create", "delete")),
    ("", "pods/status", ("update", "patch")),
    ("", "pods/eviction", ("create",)),
    ("k8s.cni.cncf.io", "network-attachment-definitions", _READ),
)


def node_of(user: User) -> str:
    """Return the name of the node that a user is, '' for others."""
    return user.name[len(PREFIX) :] if user.name.startswith(PREFIX) and GROUP in user.groups else ""


class Nodes:
    """Answers for nodes, from the Pods that are bound to them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def allowed(self, node: str, wanted: Request) -> bool:
        """Say whether a node may."""
        full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
        if any((group, one) == (wanted.group, full) and wanted.verb in verbs for group, one, verbs in _ALWAYS):
            return True
        if wanted.group == "coordination.k8s.io" and full == "leases":
            return self._lease(node, wanted)
        if wanted.group:
            return False
        if full == "nodes":
            return wanted.verb in _READ and wanted.name == node
        if full == "pods":
            return wanted.verb in _READ and (wanted.node == node or self._is_bound(node, wanted))
        if full == "serviceaccounts/token":
            return wanted.verb == "create" and self._uses(node, wanted, "serviceaccounts")
        if full in ("secrets", "configmaps", "persistentvolumeclaims"):
            return wanted.verb in _READ and bool(wanted.name) and self._uses(node, wanted, full)
        if full == "persistentvolumeclaims/status":
            return wanted.verb in ("get", "update", "patch") and self._uses(node, wanted, "persistentvolumeclaims")
        return full == "persistentvolumes" and wanted.verb in _READ and self._mounts(node, wanted.name)

    @staticmethod
    def _lease(node: str, wanted: Request) -> bool:
        if wanted.namespace != LEASES:
            return False
        if wanted.verb == "create":
            return not wanted.name or wanted.name == node
        return wanted.verb in ("get", "update", "patch", "delete") and wanted.name == node

    def _is_bound(self, node: str, wanted: Request) -> bool:
        entry = self._store.get(Key("/pods", wanted.namespace, wanted.name))
        return entry is not None and (entry.object().get("spec") or {}).get("nodeName") == node

    def _pods(self, node: str, namespace: str = "", naming: str = "") -> Iterator[Object]:
        """Yield the Pods bound to a node, of those whose text has ``naming`` in it."""
        bound, inside = f'"nodeName":"{node}"'.encode(), naming.encode()
        for entry in self._store.entries("/pods", namespace):
            if bound in entry.raw and inside in entry.raw:
                pod = entry.object()
                if pod["spec"].get("nodeName") == node:
                    yield pod

    def _uses(self, node: str, wanted: Request, plural: str) -> bool:
        if not wanted.namespace:
            # In all namespaces there may be others' objects of the same name.
            return False
        return any(
            wanted.name in _references(pod["spec"], plural)
            for pod in self._pods(node, wanted.namespace, f'"{wanted.name}"')
        )

    def _mounts(self, node: str, volume: str) -> bool:
        entry = self._store.get(Key("/persistentvolumes", "", volume)) if volume else None
        claim = (entry.object()["spec"].get("claimRef") or {}) if entry is not None else {}
        wanted = Request("get", "", "persistentvolumeclaims", "", claim.get("namespace", ""), claim.get("name", ""), "")
        return bool(claim) and self._uses(node, wanted, "persistentvolumeclaims")


#: Fields of a Pod that refer to an object, by the object's kind: the field and the name within it.
_FIELDS = {
    "secrets": (
        ("secret", "secretName"),
        ("secret", "name"),
        ("secretRef", "name"),
        ("secretKeyRef", "name"),
        ("imagePullSecrets", "name"),
        ("nodePublishSecretRef", "name"),
    ),
    "configmaps": (("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")),
    "persistentvolumeclaims": (("persistentVolumeClaim", "claimName"),),
}


def _references(spec: Object, plural: str) -> set[str]:
    """Return the names of the Secrets, ConfigMaps, claims or service accounts that a Pod uses."""
    if plural == "serviceaccounts":
        return {spec.get("serviceAccountName") or ""}
    fields = _FIELDS[plural]
    names: set[str] = set()

    def walk(value: Any, field: str) -> None:
        if isinstance(value, dict):
            names.update(str(value[name]) for where, name in fields if where == field and value.get(name))
            for name, inner in value.items():
                walk(inner, name)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, field)

    walk({name: spec.get(name) for name in ("volumes", "containers", "initContainers", "imagePullSecrets")}, "")
    return names


# -- admission


class Change(NamedTuple):
    """A write that a node wants."""

    operation: str
    resource: str
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None


def restrict(store: Store, node: str, change: Change) -> None:
    """Refuse what a node may not write.

    :raises StatusError: 403.
    """
    if change.resource == "/pods":
        why = _pod(store, node, change)
    elif change.resource == "/nodes":
        why = _node(node, change)
    elif change.resource == "coordination.k8s.io/leases":
        why = _lease_why(node, change)
    else:
        return
    if why:
        group, _, plural = change.resource.partition("/")
        raise forbidden(group, plural, change.name, why)


def _pod(store: Store, node: str, change: Change) -> str:
    entry: Entry | None = store.get(Key("/pods", change.namespace, change.name))
    bound = ((entry.object().get("spec") or {}).get("nodeName") if entry is not None else None) == node
    itself = "for pods with spec.nodeName set to itself"
    if change.subresource == "eviction":
        return "" if bound else f'node "{node}" can only evict pods with spec.nodeName set to itself'
    if change.operation == "DELETE":
        return "" if bound else f'node "{node}" can only delete pods with spec.nodeName set to itself'
    obj = change.obj or {}
    if change.operation == "UPDATE":
        if change.subresource != "status":
            return f'node "{node}" can only update pod status'
        if not bound:
            return f'node "{node}" can only update pod status {itself}'
        before = ((change.old or {}).get("metadata") or {}).get("labels")
        same = (obj.get("metadata") or {}).get("labels") == before
        return "" if same else f'node "{node}" cannot update labels through pod status'
    if MIRROR not in annotations_of(obj):
        return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
    spec = obj.get("spec") or {}
    if spec.get("nodeName") != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    for plural, what in (
        ("secrets", "secrets"),
        ("configmaps", "configmaps"),
        ("persistentvolumeclaims", "persistentvolumeclaims"),
    ):
        if _references(spec, plural):
            return f'node "{node}" can not create pods that reference {what}'
    return ""


def _node(node: str, change: Change) -> str:
    if change.name != node:
        return f'node "{node}" is not allowed to modify node "{change.name}"'
    if change.obj is None:
        return ""
    after = (change.obj.get("metadata") or {}).get("labels") or {}
    before = ((change.old or {}).get("metadata") or {}).get("labels") or {}
    changed = sorted(name for name in {*after, *before} if after.get(name) != before.get(name))
    bad = [name for name in changed if not _own_label(name)]
    if bad:
        verb = "set" if change.operation == "CREATE" else "modify"
        return f"is not allowed to {verb} the following labels: {', '.join(bad)}"
    if change.operation == "UPDATE" and (
        (change.obj.get("spec") or {}).get("taints") != ((change.old or {}).get("spec") or {}).get("taints")
    ):
        return f'node "{node}" is not allowed to modify taints'
    return ""


def _own_label(name: str) -> bool:
    domain = name.rpartition("/")[0]
    if domain == _RESTRICTED or domain.endswith(f".{_RESTRICTED}"):
        return False
    if name in _OWN_LABELS or any(domain == one or domain.endswith(f".{one}") for one in _OWN_DOMAINS):
        return True
    return not any(domain == one or domain.endswith(f".{one}") for one in ("kubernetes.io", "k8s.io"))


def _lease_why(node: str, change: Change) -> str:
    if change.namespace != LEASES:
        return f'can only access leases in the "{LEASES}" system namespace'
    return "" if change.name == node else "can only access node lease with the same name as the requesting node"


def restrict_token(store: Store, node: str, namespace: str, account: str, body: Any) -> None:
    """Refuse a token that a node asks for but that isn't for a Pod of its own.

    Source: admitServiceAccount in Kubernetes' plugin/pkg/admission/noderestriction.

    :param namespace: the service account's.
    :param account: the service account's name.
    :param body: the TokenRequest.
    :raises StatusError: 403.
    """
    spec = body.get("spec") if isinstance(body, dict) else None
    reference = spec.get("boundObjectRef") if isinstance(spec, dict) else None
    why = ""
    if not isinstance(reference, dict) or reference.get("kind") != "Pod" or not reference.get("name"):
        why = "node requested token not bound to a pod"
    elif not reference.get("uid"):
        why = "node requested token with a pod binding without a uid"
    else:
        entry = store.get(Key("/pods", namespace, str(reference["name"])))
        if entry is None:
            why = f'pods "{reference["name"]}" not found'
        elif entry.metadata.uid != reference["uid"]:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record"
        elif entry.object()["spec"].get("nodeName") != node:
            why = "node requested token bound to a pod scheduled on a different node"
    if why:
        raise forbidden("", "serviceaccounts", account, why)
