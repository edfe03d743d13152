# SPDX-License-Identifier: GPL-3.0-or-later
"""APIServices of the groups and versions that the server has itself, as kube-apiserver registers its own."""

from turtles.standalone.apiserver.schema.kinds import BUILTIN, REGISTRATION, REVIEWS
from turtles.standalone.apiserver.wire.errors import Object

#: Label of an APIService that the server keeps; its value says when: ``onstart``, or ``true`` for always.
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
#: Priorities of built-in groups, and of their versions where it isn't 15.
PRIORITIES = {
    "": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
    "policy": 17100, "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500,
    "discovery.k8s.io": 16200,
}  # fmt: skip
_VERSIONS = {"": 1, "discovery.k8s.io": 12}
_CUSTOM = (1000, 100)


def local(group: str, version: str) -> Object:
    """Return the APIService of a group and version of the server's own."""
    builtin = group in PRIORITIES
    minimum, priority = (PRIORITIES[group], _VERSIONS.get(group, 15)) if builtin else _CUSTOM
    spec: Object = {"version": version, "groupPriorityMinimum": minimum, "versionPriority": priority}
    if group:
        spec["group"] = group
    labels = {MANAGED: "onstart" if builtin else "true"}
    return {"metadata": {"name": f"{version}.{group}", "labels": labels}, "spec": spec}


def builtin() -> list[Object]:
    """Return those that are there from the start; the group of APIServices itself has none."""
    served = {(one.group, one.version) for one in BUILTIN} | {(one.group, one.version) for one in REVIEWS}
    return [local(*one) for one in sorted(served) if one[0] != REGISTRATION]
