# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Service of the infrastructure cluster stands for a load balancer of the workload cluster. Pure.

Names and labels are those of KubeVirt's cloud provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object, get, labels_of

CLUSTER, ROLE = "cluster.x-k8s.io/cluster-name", "cluster.x-k8s.io/role"
SERVICE_NAME, SERVICE_NAMESPACE = "cluster.x-k8s.io/tenant-service-name", "cluster.x-k8s.io/tenant-service-namespace"
#: Keeps a Service until its load balancer is gone (KEP-980).
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
_WITHOUT_DEFAULT = ("loadBalancerIP", "loadBalancerSourceRanges")
_COPIED = ("loadBalancerIP", "loadBalancerSourceRanges", "sessionAffinity", "sessionAffinityConfig")


class NotPossible(Exception):
    """A Service can't have a load balancer; the message says why, and what to do."""


def wants_one(service: Mapping[str, Any]) -> bool:
    """Return whether a Service is to have a load balancer of this provider."""
    spec = service["spec"]
    deleted = service["metadata"].get("deletionTimestamp")
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass") and not deleted


def name_of(service: Mapping[str, Any]) -> str:
    """Return the name of a Service's load balancer: always the same, and no other Service's, in any cluster."""
    return f"a{service['metadata']['uid'].replace('-', '')}"[:32]


def marks(cluster: str, service: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a Service's load balancer."""
    metadata = service["metadata"]
    return {CLUSTER: cluster, SERVICE_NAME: metadata["name"], SERVICE_NAMESPACE: metadata["namespace"]}


def belongs_to(balancer: Mapping[str, Any]) -> tuple[str, str]:
    """Return namespace and name of the Service that a load balancer is for, from its labels."""
    own = labels_of(balancer)
    return own.get(SERVICE_NAMESPACE, ""), own.get(SERVICE_NAME, "")


def wanted(service: Mapping[str, Any], cluster: str, selector: Mapping[str, str]) -> Object:
    """Return the load balancer of a Service.

    :param selector: labels of the machines that take its connections.
    :raises NotPossible: it has no ports of the nodes.
    """
    spec = service["spec"]
    ports = []
    for number, port in enumerate(spec.get("ports") or []):
        if not port.get("nodePort"):
            raise NotPossible(
                f"spec.ports[{number}] has no nodePort, through which machines are reached: set "
                "spec.allocateLoadBalancerNodePorts to true"
            )
        entry = {"name": port.get("name"), "protocol": port.get("protocol") or "TCP", "port": port["port"]}
        ports.append({**{key: value for key, value in entry.items() if value}, "targetPort": port["nodePort"]})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name_of(service), "labels": marks(cluster, service)},
        "spec": {
            "type": "LoadBalancer",
            "selector": dict(selector),
            "ports": ports,
            **{key: spec[key] for key in _COPIED if spec.get(key) is not None},
        },
    }


def difference(balancer: Mapping[str, Any], target: Object) -> Object:
    """Return what to change of a load balancer that exists, as a merge patch; {} for nothing.

    :param target: what :func:`wanted` says. Ports of nodes that the server has allotted stay.
    """
    before, after = balancer["spec"], target["spec"]
    allotted = {_port_key(port): port.get("nodePort") for port in before.get("ports") or []}
    ports = [
        {**port, **({"nodePort": allotted[_port_key(port)]} if allotted.get(_port_key(port)) else {})}
        for port in after["ports"]
    ]
    changed: Object = {}
    if selector := _replaced(before.get("selector") or {}, after["selector"]):
        changed["selector"] = selector
    if ports != before.get("ports"):
        changed["ports"] = ports
    for name in ("type", *_COPIED):
        if name in after and before.get(name) != after[name]:
            changed[name] = after[name]
        elif name not in after and name in _WITHOUT_DEFAULT and before.get(name):
            changed[name] = None
    return {"spec": changed} if changed else {}


def ingress(balancer: Mapping[str, Any] | None) -> list[Object]:
    """Return the addresses that a load balancer has got."""
    return list(get(balancer or {}, "status", "loadBalancer", "ingress") or [])


def _port_key(port: Mapping[str, Any]) -> tuple[str, int]:
    return port.get("protocol") or "TCP", port["port"]


def _replaced(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    gone: dict[str, str | None] = dict.fromkeys(before.keys() - after.keys())
    return {**gone, **{key: value for key, value in after.items() if before.get(key) != value}}
