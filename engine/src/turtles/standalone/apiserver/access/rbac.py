# SPDX-License-Identifier: GPL-3.0-or-later
"""Role-based access control, as rbac.authorization.k8s.io/v1 says it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.access.node_authorizer import Nodes, Request, node_of
from turtles.standalone.apiserver.schema.kinds import RBAC
from turtles.standalone.apiserver.schema.selectors import match_selector
from turtles.standalone.apiserver.storage.entries import Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Object, StatusError, resource_name

#: Users whose rules are remembered; a review may ask about any name.
_REMEMBERED = 1000
_RESOURCES = {f"{RBAC}/{plural}" for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")}


@dataclass(frozen=True)
class Attributes:
    """What a request wants to do. ``path`` is set for requests that aren't about a resource."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    #: Node that a field selector of a list or watch of Pods names.
    node: str = ""


class Authorizer:
    """Decides from the roles and bindings in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules: dict[tuple[User, str], list[Object]] = {}
        self._nodes = Nodes(store)
        store.observe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.entry.key.resource in _RESOURCES:
            self._rules.clear()

    def allowed(self, user: User, wanted: Attributes) -> bool:
        """Say whether ``user`` may do what is ``wanted``."""
        if "system:masters" in user.groups:
            return True
        node = node_of(user)
        if node and not wanted.path and self._nodes.allowed(node, _request(wanted)):
            return True
        if any(_permits(rule, wanted) for rule in self.rules(user, "")):
            return True
        return bool(wanted.namespace) and any(_permits(rule, wanted) for rule in self.rules(user, wanted.namespace))

    def check(self, user: User, wanted: Attributes) -> None:
        """Check that ``user`` may do what is ``wanted``.

        :raises StatusError: 403 in the words of kube-apiserver.
        """
        if self.allowed(user, wanted):
            return
        if wanted.path:
            message = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
            raise StatusError(403, "Forbidden", message, {})
        plural = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
        where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
        what = resource_name(wanted.group, wanted.resource) + (f' "{wanted.name}"' if wanted.name else "")
        message = (
            f'{what} is forbidden: User "{user.name}" cannot {wanted.verb} resource "{plural}" '
            f'in API group "{wanted.group}" {where}'
        )
        details: Object = {"kind": wanted.resource}
        if wanted.name:
            details["name"] = wanted.name
        if wanted.group:
            details["group"] = wanted.group
        raise StatusError(403, "Forbidden", message, details)

    def rules(self, user: User, namespace: str) -> list[Object]:
        """Return the rules that bindings give a user: cluster-wide ones, or those of one namespace."""
        rules = self._rules.get((user, namespace))
        if rules is None:
            if len(self._rules) >= _REMEMBERED:
                self._rules.clear()
            rules = self._rules[user, namespace] = list(self._collect(user, namespace))
        return rules

    def _collect(self, user: User, namespace: str) -> Iterator[Object]:
        plural = "rolebindings" if namespace else "clusterrolebindings"
        for entry in self._store.entries(f"{RBAC}/{plural}", namespace):
            binding = entry.object()
            if any(_is_subject(subject, user, namespace) for subject in binding.get("subjects") or ()):
                reference = binding.get("roleRef") or {}
                yield from self.role(reference.get("kind", ""), reference.get("name", ""), namespace) or ()

    def role(self, kind: str, name: str, namespace: str, seen: set[str] | None = None) -> list[Object] | None:
        """Return the rules of a Role or ClusterRole, with those it aggregates; None when there is no such role.

        :param seen: ClusterRoles whose rules are counted already: roles may aggregate each other.
        """
        cluster = kind == "ClusterRole"
        key = Key(f"{RBAC}/clusterroles", "", name) if cluster else Key(f"{RBAC}/roles", namespace, name)
        entry = self._store.get(key)
        if entry is None:
            return None
        role = entry.object()
        aggregation = role.get("aggregationRule")
        # What an aggregated role says of its rules may be older than the roles it selects.
        rules: list[Object] = [] if aggregation else list(role.get("rules") or [])
        if kind == "ClusterRole" and isinstance(aggregation, dict):
            seen = set() if seen is None else seen
            seen.add(name)
            rules += self._aggregated(aggregation, seen)
        return rules

    def _aggregated(self, aggregation: Object, seen: set[str]) -> Iterator[Object]:
        selectors = [one for one in aggregation.get("clusterRoleSelectors") or () if one]
        for entry in self._store.entries(f"{RBAC}/clusterroles"):
            if entry.key.name not in seen and any(match_selector(one, entry.labels) for one in selectors):
                yield from self.role("ClusterRole", entry.key.name, "", seen) or ()


def _request(wanted: Attributes) -> Request:
    return Request(
        wanted.verb, wanted.group, wanted.resource, wanted.subresource, wanted.namespace, wanted.name, wanted.node
    )


def _is_subject(subject: Object, user: User, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return bool(user.name == name)
    if kind == "Group":
        return name in user.groups
    where = subject.get("namespace") or namespace
    return kind == "ServiceAccount" and user.name == f"system:serviceaccount:{where}:{name}"


def _has(values: Any, value: str) -> bool:
    return isinstance(values, list) and ("*" in values or value in values)


def _permits(rule: Object, wanted: Attributes) -> bool:
    if not _has(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(
            pattern == wanted.path or (pattern.endswith("*") and wanted.path.startswith(pattern[:-1]))
            for pattern in rule.get("nonResourceURLs") or ()
        )
    if not _has(rule.get("apiGroups"), wanted.group):
        return False
    resources = rule.get("resources") or ()
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    if not ("*" in resources or full in resources or (wanted.subresource and f"*/{wanted.subresource}" in resources)):
        return False
    names = rule.get("resourceNames")
    return not names or wanted.name in names
