# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Service must look like.

Rules: Kubernetes documentation, "Service". What depends on the families that are served is in service_families.py.
"""

import ipaddress
from typing import Any

from turtles.standalone.apiserver.builtin import network_rules
from turtles.standalone.apiserver.builtin.service_families import FAMILIES, POLICIES, SINGLE, family_of
from turtles.standalone.apiserver.schema.metadata import label_causes, subdomain_causes
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    invalid_value,
    not_supported,
    required,
)

_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
#: Types that have node ports.
EXTERNAL = ("NodePort", "LoadBalancer")


def ports_of(spec: Object) -> list[Object]:
    """Return the ports that a Service names."""
    return [port for port in spec.get("ports") or () if isinstance(port, dict)]


def has_addresses(spec: Object) -> bool:
    """Whether a Service has cluster IPs."""
    return spec.get("type") != "ExternalName"


def checks_health(spec: Object) -> bool:
    """Whether a Service has a port that tells load balancers of its health."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def validate(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Service."""
    spec: Object = obj.get("spec") or {}
    causes: list[Cause] = []
    kind = spec.get("type")
    if kind not in _TYPES:
        causes.append(not_supported("spec.type", kind, _TYPES))
    headless = spec.get("clusterIP") == "None"
    ports = spec.get("ports") or []
    if not ports and kind != "ExternalName" and not headless:
        causes.append(required("spec.ports"))
    causes += _validate_ports(spec, ports)
    affinity = spec.get("sessionAffinity")
    if affinity not in ("ClientIP", "None"):
        causes.append(not_supported("spec.sessionAffinity", affinity, ["ClientIP", "None"]))
    if affinity == "ClientIP":
        seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
        if not isinstance(seconds, int) or not 0 < seconds <= 86400:
            path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            causes.append(invalid_value(path, seconds, "must be greater than 0 and less than 86400"))
    if kind == "ExternalName":
        external = str(spec.get("externalName") or "").rstrip(".")
        if not external:
            causes.append(required("spec.externalName"))
        else:
            causes += subdomain_causes(external, "spec.externalName")
        if spec.get("clusterIP") or spec.get("clusterIPs"):
            causes.append(field_forbidden("spec.clusterIPs", "may not be set for ExternalName services"))
    else:
        causes += _validate_addresses(spec, kind, headless)
    causes += _validate_policies(spec, kind)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        causes += network_rules.special_causes(address, f"spec.externalIPs[{index}]")
    # A Service that changes its type still has the addresses of its load balancer, until they are taken back.
    if old is None or obj.get("status") != old.get("status"):
        causes += _validate_ingress(obj, kind)
    if old is not None:
        causes += _validate_change(spec, old.get("spec") or {})
    return causes


def _validate_ports(spec: Object, ports: list[Any]) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    pairs: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name:
            if len(ports) > 1:
                causes.append(required(f"{path}.name"))
        else:
            causes += label_causes(name, f"{path}.name")
            if name in names:
                causes.append(duplicate(f"{path}.name", name))
        names.add(name)
        number = port.get("port")
        causes += network_rules.port_causes(number, f"{path}.port")
        protocol = port.get("protocol")
        causes += network_rules.protocol_causes(port, path)
        target = port.get("targetPort")
        if isinstance(target, str):
            causes += network_rules.port_name_causes(target, f"{path}.targetPort")
        elif target is not None:
            causes += network_rules.port_causes(target, f"{path}.targetPort")
        if (protocol, number) in pairs:
            # As Kubernetes shows it: what a port is told apart by, in its Go type.
            shown = {"Name": "", "Protocol": protocol, "AppProtocol": None, "Port": number}
            causes.append(duplicate(path, {**shown, "TargetPort": 0, "NodePort": 0}))
        pairs.add((str(protocol), number))
        node_port = port.get("nodePort")
        if node_port and spec.get("type") not in EXTERNAL:
            text = f"may not be used when `type` is '{spec.get('type')}'"
            causes.append(field_forbidden(f"{path}.nodePort", text))
        elif node_port and (protocol, node_port) in node_ports:
            causes.append(duplicate(f"{path}.nodePort", node_port))
        if node_port:
            node_ports.add((str(protocol), node_port))
    return causes


def _is_ip(address: Any) -> bool:
    try:
        ipaddress.ip_address(address if isinstance(address, str) else "")
    except ValueError:
        return False
    return True


def _validate_addresses(spec: Object, kind: Any, headless: bool) -> list[Cause]:
    causes: list[Cause] = []
    addresses = spec.get("clusterIPs") or []
    own = spec.get("clusterIP") or ""
    if headless and kind in EXTERNAL:
        causes.append(invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if own and not addresses:
        causes.append(required("spec.clusterIPs"))
    elif own and addresses[0] != own:
        causes.append(invalid_value("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    elif addresses and not own:
        text = "must be empty when `clusterIP` is not specified"
        causes.append(invalid_value("spec.clusterIPs", addresses, text))
    families = spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        path = f"spec.ipFamilies[{index}]"
        if family not in FAMILIES:
            causes.append(not_supported(path, family, list(FAMILIES)))
        if family in families[:index]:
            causes.append(duplicate(path, family))
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in POLICIES:
        causes.append(not_supported("spec.ipFamilyPolicy", policy, list(POLICIES)))
    return causes + _validate_cluster_ips(addresses, families)


def _validate_cluster_ips(addresses: list[Any], families: list[Any]) -> list[Cause]:
    path = "spec.clusterIPs"
    causes: list[Cause] = []
    if addresses and addresses[0] == "None":
        text = "'None' must be the first and only value"
        return [invalid_value(path, addresses, text)] if len(addresses) > 1 else []
    for index, address in enumerate(addresses):
        if not _is_ip(address):
            causes.append(invalid_value(f"{path}[{index}]", address, network_rules.IP))
    malformed = bool(causes)
    if len(addresses) > len(FAMILIES):
        causes.append(invalid_value(path, addresses, "may only hold up to 2 values"))
    if malformed:
        return causes
    if len({family_of(address) for address in addresses}) < min(len(addresses), len(FAMILIES)):
        causes.append(invalid_value(path, addresses, "may specify no more than one IP for each IP family"))
    for index, (address, family) in enumerate(zip(addresses, families, strict=False)):
        if family in FAMILIES and family_of(address) != family:
            text = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            causes.append(invalid_value(f"{path}[{index}]", address, text))
    return causes


def _validate_policies(spec: Object, kind: Any) -> list[Cause]:
    causes: list[Cause] = []
    policies = ["Cluster", "Local"]
    external = spec.get("externalTrafficPolicy")
    if kind in EXTERNAL:
        if external not in policies:
            causes.append(not_supported("spec.externalTrafficPolicy", external, policies))
    elif external:
        text = "may only be set for externally-accessible services"
        causes.append(invalid_value("spec.externalTrafficPolicy", external, text))
    internal_policy = spec.get("internalTrafficPolicy")
    if kind != "ExternalName" and internal_policy not in policies:
        causes.append(not_supported("spec.internalTrafficPolicy", internal_policy, policies))
    ranges = spec.get("loadBalancerSourceRanges")
    if ranges and kind != "LoadBalancer":
        text = "may only be used when `type` is 'LoadBalancer'"
        causes.append(field_forbidden("spec.LoadBalancerSourceRanges", text))
    for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
        if spec.get(name) is not None and kind != "LoadBalancer":
            causes.append(field_forbidden(f"spec.{name}", "may only be used when `type` is 'LoadBalancer'"))
    return causes


def _validate_ingress(obj: Object, kind: Any) -> list[Cause]:
    """Return what is wrong with the addresses that a load balancer says it has."""
    path = "status.loadBalancer.ingress"
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    if ingress and kind != "LoadBalancer":
        return [field_forbidden(path, 'may only be used when `spec.type` is "LoadBalancer"')]
    causes: list[Cause] = []
    for index, one in enumerate(ingress):
        if one.get("ip") and not _is_ip(one["ip"]):
            causes.append(invalid_value(f"{path}[{index}].ip", one["ip"], network_rules.IP))
        if one.get("hostname"):
            causes += subdomain_causes(one["hostname"], f"{path}[{index}].hostname")
            if _is_ip(one["hostname"]):
                text = "must be a DNS name, not an IP address"
                causes.append(invalid_value(f"{path}[{index}].hostname", one["hostname"], text))
    return causes


def _validate_change(spec: Object, before: Object) -> list[Cause]:
    """Return what may not change of a Service's addresses and families: the first one stays, a second one may go."""
    if not has_addresses(before) or not has_addresses(spec):
        return []
    if spec.get("clusterIP") == "None" == before.get("clusterIP"):
        return []
    single = spec.get("ipFamilyPolicy") == SINGLE
    causes: list[Cause] = []
    for name, word in (("clusterIPs", "clusterIP"), ("ipFamilies", "ipFamily")):
        now, then = spec.get(name) or [], before.get(name) or []
        if not then or (name == "ipFamilies" and not now):
            # Families that aren't given follow from the addresses
            continue
        path = f"spec.{name}[{{}}]"
        if not now:
            causes.append(invalid_value(path.format(0), now, f"primary {word} can not be unset"))
        for index, (old, new) in enumerate(zip(then, now, strict=False)):
            if old != new and (index == 0 or len(now) == len(then)):
                causes.append(invalid_value(path.format(index), now, "may not change once set"))
        if len(now) == 1 < len(then) and not single:
            text = f"must be set to 'SingleStack' when releasing the secondary {word}"
            causes.append(invalid_value("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), text))
    return causes
