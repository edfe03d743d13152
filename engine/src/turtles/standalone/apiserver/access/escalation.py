# SPDX-License-Identifier: GPL-3.0-or-later
"""Prevent users from granting rights that they don't have themselves.

Source: Kubernetes documentation, "Using RBAC Authorization", "Privilege escalation prevention and bootstrapping": a
role may only hold what its author may do, and be bound by who may do what it holds; the verbs escalate and bind, and
the group system:masters, lift that.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.schema.kinds import RBAC
from turtles.standalone.apiserver.wire.errors import Object, forbidden, not_found

_ANYTHING: Object = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
#: A rule that stands for more single rights than this is refused to who can't escalate: to compare them takes time.
_LIMIT = 100_000


def check_role(
    authorizer: Authorizer, user: User, plural: str, namespace: str, obj: Object, old: Object | None
) -> None:
    """Refuse a role that gives more than its author has.

    :param plural: roles or clusterroles.
    :raises StatusError: 403.
    """
    if old is not None and all(obj.get(key) == old.get(key) for key in ("rules", "aggregationRule")):
        return
    name = obj["metadata"].get("name", "")
    if authorizer.allowed(user, Attributes("escalate", RBAC, "v1", plural, "", namespace, name)):
        return
    rules = list(obj.get("rules") or ())
    if obj.get("aggregationRule"):
        rules.append(_ANYTHING)
    _refuse_missing(authorizer, user, plural, namespace, name, rules)


def check_binding(
    authorizer: Authorizer, user: User, plural: str, namespace: str, obj: Object, old: Object | None
) -> None:
    """Refuse a binding that gives more than its author has.

    :param plural: rolebindings or clusterrolebindings.
    :raises StatusError: 403; 404 for a binding to a role that isn't there.
    """
    if old is not None and all(obj.get(key) == old.get(key) for key in ("subjects", "roleRef")):
        return
    kind, role = obj["roleRef"]["kind"], obj["roleRef"]["name"]
    roles = "clusterroles" if kind == "ClusterRole" else "roles"
    if authorizer.allowed(user, Attributes("bind", RBAC, "v1", roles, "", namespace, role)):
        return
    rules = authorizer.role(kind, role, namespace)
    if rules is None:
        raise not_found(RBAC, roles, role)
    _refuse_missing(authorizer, user, plural, namespace, obj["metadata"].get("name", ""), rules)


def _refuse_missing(
    authorizer: Authorizer, user: User, plural: str, namespace: str, name: str, rules: Iterable[Object]
) -> None:
    own = authorizer.rules(user, "") + (authorizer.rules(user, namespace) if namespace else [])
    missing = [rule for rule in rules if not _covered(rule, own)]
    if missing:
        why = (
            f'user "{user.name}" (groups={list(user.groups)}) is attempting to grant RBAC permissions not currently '
            f"held: {'; '.join(_text(rule) for rule in missing)}"
        )
        raise forbidden(RBAC, plural, name, why)


def _covered(rule: Object, own: list[Object]) -> bool:
    """Say whether each single right of a rule is one that some own rule gives."""
    verbs = list(rule.get("verbs") or ())
    urls = list(rule.get("nonResourceURLs") or ())
    groups, resources = list(rule.get("apiGroups") or ()), list(rule.get("resources") or ())
    names = list(rule.get("resourceNames") or ()) or [None]
    if len(verbs) * (len(urls) + len(groups) * len(resources) * len(names)) > _LIMIT:
        return False
    return all(any(_gives_url(one, verb, url) for one in own) for verb, url in product(verbs, urls)) and all(
        any(_gives(one, *right) for one in own) for right in product(verbs, groups, resources, names)
    )


def _gives(own: Object, verb: str, group: str, resource: str, name: str | None) -> bool:
    subresource = str(resource).partition("/")[2]
    names = own.get("resourceNames")
    return (
        _has(own.get("verbs"), verb)
        and _has(own.get("apiGroups"), group)
        and (_has(own.get("resources"), resource) or bool(subresource and f"*/{subresource}" in own["resources"]))
        and (not names or name in names)
    )


def _gives_url(own: Object, verb: str, url: str) -> bool:
    return _has(own.get("verbs"), verb) and any(
        pattern == url or (pattern.endswith("*") and url.startswith(pattern[:-1]))
        for pattern in own.get("nonResourceURLs") or ()
    )


def _has(values: Iterable[Any] | None, value: Any) -> bool:
    values = values or ()
    return "*" in values or value in values


def _text(rule: Object) -> str:
    return ", ".join(f"{key}: {rule[key]}" for key in sorted(rule) if rule[key])
