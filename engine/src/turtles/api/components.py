# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the engine's components run on a cluster, and how many of each: what a KubeVirt object says of it. Pure.

Names and rules are those of the KubeVirt API (kubevirt.io/v1 KubeVirt: spec.infra, spec.workloads) and of its user
guide, "Node assignment for KubeVirt components": what an installation asks for is added to what a component has of
itself, and never takes anything of that away.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object

#: Default number of replicas of virt-api and virt-controller.
REPLICAS = 2
#: Part of the KubeVirt object's spec by component.
HANDLER = "virt-handler"
PART = {"virt-api": "infra", "virt-controller": "infra", HANDLER: "workloads"}
_TOLERATIONS = ({"key": "CriticalAddonsOnly", "operator": "Exists"},)
#: What the images are for.
_NODES = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}


def placement(component: str, asked: Mapping[str, Any]) -> Object:
    """Return nodeSelector, tolerations and, if there is any, affinity of a component's Pods.

    :param component: such as virt-api.
    :param asked: a nodePlacement of the KubeVirt object: nodeSelector, tolerations, affinity.
    """
    affinity = _merged(_apart(component) if PART[component] == "infra" else {}, asked.get("affinity") or {})
    result: Object = {
        "nodeSelector": {**(asked.get("nodeSelector") or {}), **_NODES},
        "tolerations": [*map(dict, _TOLERATIONS), *copy.deepcopy(asked.get("tolerations") or [])],
    }
    return {**result, "affinity": affinity} if affinity else result


def asked_placement(spec: Mapping[str, Any], component: str) -> Mapping[str, Any]:
    """Return the nodePlacement that a KubeVirt object's spec has for a component."""
    asked: Mapping[str, Any] = (spec.get(PART[component]) or {}).get("nodePlacement") or {}
    return asked


def asked_replicas(spec: Mapping[str, Any]) -> int:
    """Return the number of replicas of virt-api and virt-controller by a KubeVirt object's spec."""
    return int((spec.get("infra") or {}).get("replicas") or REPLICAS)


def _apart(component: str) -> Object:
    """Two on one node are better than one that can't be placed: a preference."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"kubevirt.io": component}}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _merged(own: Any, asked: Any) -> Any:
    """Put both together: objects by key, lists one after the other."""
    if isinstance(own, dict) and isinstance(asked, Mapping):
        return {
            **own,
            **{key: _merged(own[key], value) if key in own else copy.deepcopy(value) for key, value in asked.items()},
        }
    if isinstance(own, list) and isinstance(asked, list):
        return [*own, *copy.deepcopy(asked)]
    return copy.deepcopy(asked)
