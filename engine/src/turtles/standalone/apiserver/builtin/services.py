# SPDX-License-Identifier: GPL-3.0-or-later
"""Services: defaults, and what an update carries over.

Rules: Kubernetes documentation, "Service" and "Services API: type changes" (fields that a type doesn't have go when the
type changes and the client left them alone).
"""

from contextlib import AbstractContextManager
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import service_rules
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, as_map, column, created, name_of, wide
from turtles.standalone.apiserver.builtin.service_rules import EXTERNAL, checks_health, has_addresses, ports_of
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.storage.entries import Key
from turtles.standalone.apiserver.wire.errors import Cause, Object

_SERVICE = "@core.v1.ServiceSpec."


class Services(Strategy):
    """Services. Their addresses and ports are given out while they are written; see service_addresses.py."""

    returns_deleted = True
    may_grow = True
    columns = (
        NAME,
        column("Type", f"{_SERVICE}type"),
        column("Cluster-IP", f"{_SERVICE}clusterIP"),
        column("External-IP", f"{_SERVICE}externalIPs"),
        column("Port(s)", f"{_SERVICE}ports"),
        AGE,
        wide("Selector", f"{_SERVICE}selector"),
    )

    def cells(self, obj: Object) -> list[Any]:
        spec = as_map(obj.get("spec"))
        ports = ",".join(_port(one) for one in as_list(spec.get("ports")))
        selector = ",".join(f"{key}={value}" for key, value in sorted(as_map(spec.get("selector")).items()))
        return [
            name_of(obj),
            spec.get("type", ""),
            spec.get("clusterIP") or "<none>",
            _external(obj),
            ports or "<none>",
            created(obj),
            selector or "<none>",
        ]

    async def validate(self, context: Context, obj: Object, old: Object | None) -> list[Cause]:
        causes = await super().validate(context, obj, old)
        if not causes and (obj.get("spec") or {}).get("externalIPs"):
            context.warnings.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
        return causes

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec["sessionAffinity"] == "ClientIP":
            affinity = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
            affinity.setdefault("timeoutSeconds", 10800)
        elif spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        if has_addresses(spec):
            spec.setdefault("internalTrafficPolicy", "Cluster")
            if spec.get("clusterIP") and not spec.get("clusterIPs"):
                spec["clusterIPs"] = [spec["clusterIP"]]
        if spec["type"] in EXTERNAL:
            spec.setdefault("externalTrafficPolicy", "Cluster")
        if spec["type"] == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
        for port in ports_of(spec):
            port.setdefault("protocol", "TCP")
            if "port" in port and port.get("targetPort") in (None, "", 0):
                port["targetPort"] = port["port"]
        obj.setdefault("status", {}).setdefault("loadBalancer", {})

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        """Bring what was allocated into an update, and drop what the new type doesn't have."""
        _carry_over(new, old)

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        return service_rules.validate(obj, old)

    def allocated(self, cluster: Cluster, key: Key, obj: Object) -> AbstractContextManager[None]:
        """Fill in addresses and ports while the write is on its way."""
        return cluster.allocator.allocated(key, obj)


def _port(port: Object) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}"


def _external(obj: Object) -> str:
    spec, kind = as_map(obj.get("spec")), as_map(obj.get("spec")).get("type")
    own = [str(one) for one in as_list(spec.get("externalIPs"))]
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind != "LoadBalancer":
        return ",".join(own) or "<none>"
    ingress = as_list(as_map(as_map(obj.get("status")).get("loadBalancer")).get("ingress"))
    addresses = [str(one.get("ip") or one.get("hostname") or "") for one in ingress]
    return ",".join([*sorted(filter(None, addresses)), *own]) or "<pending>"


def _carry_over(new: Object, old: Object) -> None:
    after, before = new.get("spec"), old.get("spec") or {}
    if not isinstance(after, dict):
        return
    kind, was = after.get("type", "ClusterIP"), before.get("type", "ClusterIP")
    _carry_addresses(after, before, kind)
    if kind in EXTERNAL and was in EXTERNAL:
        chosen = {port["nodePort"] for port in ports_of(after) if port.get("nodePort")}
        known = {(port.get("protocol", "TCP"), port.get("port")): port.get("nodePort") for port in ports_of(before)}
        for port in ports_of(after):
            node_port = known.get((port.get("protocol") or "TCP", port.get("port")))
            if not port.get("nodePort") and node_port and node_port not in chosen:
                port["nodePort"] = node_port
                chosen.add(node_port)
    elif was in EXTERNAL:
        untouched = {port.get("nodePort") for port in ports_of(before)}
        for port in ports_of(after):
            if port.get("nodePort") in untouched:
                port.pop("nodePort", None)
        if after.get("externalTrafficPolicy") == before.get("externalTrafficPolicy"):
            after.pop("externalTrafficPolicy", None)
    if was == "LoadBalancer" and kind != was:
        for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"):
            if after.get(name) == before.get(name):
                after.pop(name, None)
    if after.get("healthCheckNodePort") is None and before.get("healthCheckNodePort") and checks_health(after):
        after["healthCheckNodePort"] = before["healthCheckNodePort"]


def _carry_addresses(after: Object, before: Object, kind: str) -> None:
    own, requested = before.get("clusterIP"), after.get("clusterIP")
    if kind == "ExternalName":
        if requested == own:
            after.pop("clusterIP", None)
            requested = None
        if requested is None:
            for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
                if after.get(name) == before.get(name):
                    after.pop(name, None)
        return
    if not has_addresses(before) or not own:
        return
    if not requested and after.get("clusterIPs") in (None, [], before.get("clusterIPs")):
        after["clusterIP"], after["clusterIPs"] = own, list(before.get("clusterIPs") or [own])
    elif requested == own and not after.get("clusterIPs"):
        after["clusterIPs"] = list(before.get("clusterIPs") or [own])
    elif requested and requested != own and after.get("clusterIPs") in (None, before.get("clusterIPs")):
        after["clusterIPs"] = [requested]
