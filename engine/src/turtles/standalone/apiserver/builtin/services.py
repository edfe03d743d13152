# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server does with Services: defaults, validation, cluster IPs and node ports.

Rules: Kubernetes documentation, "Service" and "Service ClusterIP allocation" (KEP-3070: the lower part of the range is
left to those who name an address), "Services API: type changes" (fields that a type doesn't have go when the type
changes and nobody touched them). One address family, IPv4.
"""

import contextlib
import ipaddress
import random
import re
from collections.abc import Iterator
from typing import Any

from turtles.standalone.apiserver.builtin import network_rules
from turtles.standalone.apiserver.schema.metadata import label_causes, subdomain_causes
from turtles.standalone.apiserver.storage.store import DELETED, Event, Key, Store
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    internal,
    invalid,
    invalid_value,
    not_supported,
    required,
)

RESOURCE = "/services"
DEFAULT_RANGE = "10.96.0.0/16"
NODE_PORTS = range(30000, 32768)

_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
_EXTERNAL = ("NodePort", "LoadBalancer")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PORT_RANGE = "must be between 1 and 65535, inclusive"


def service_range(text: str) -> str:
    """Check the addresses of Services, as a command line names them.

    :raises ValueError: no IPv4 network in canonical form with at least 8 addresses.
    """
    network = ipaddress.IPv4Network(text)
    if network.prefixlen > 29:
        raise ValueError(f"{text} has too few addresses: at least a /29 is needed")
    return str(network)


def first_address(text: str) -> str:
    """Return the address of the API server's own Service in a range."""
    return str(ipaddress.IPv4Network(text)[1])


def _ports(spec: Object) -> list[Object]:
    return [port for port in spec.get("ports") or () if isinstance(port, dict)]


def _addressed(spec: Object) -> bool:
    return spec.get("type") != "ExternalName"


# -- defaults


def default(obj: Object) -> None:
    """Set a Service's defaults in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        affinity = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        affinity.setdefault("timeoutSeconds", 10800)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if _addressed(spec):
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
    if spec["type"] in _EXTERNAL:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in _ports(spec):
        port.setdefault("protocol", "TCP")
        if "port" in port and port.get("targetPort") in (None, "", 0):
            port["targetPort"] = port["port"]
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def carry_over(new: Object, old: Object) -> None:
    """Bring what was allocated for a Service into an update, and drop what its new type doesn't have."""
    after, before = new.get("spec"), old.get("spec") or {}
    if not isinstance(after, dict):
        return
    kind, was = after.get("type", "ClusterIP"), before.get("type", "ClusterIP")
    _carry_addresses(after, before, kind)
    if kind in _EXTERNAL and was in _EXTERNAL:
        given = {port["nodePort"] for port in _ports(after) if port.get("nodePort")}
        known = {(port.get("protocol", "TCP"), port.get("port")): port.get("nodePort") for port in _ports(before)}
        for port in _ports(after):
            node_port = known.get((port.get("protocol") or "TCP", port.get("port")))
            if not port.get("nodePort") and node_port and node_port not in given:
                port["nodePort"] = node_port
                given.add(node_port)
    elif was in _EXTERNAL:
        untouched = {port.get("nodePort") for port in _ports(before)}
        for port in _ports(after):
            if port.get("nodePort") in untouched:
                port.pop("nodePort", None)
        if after.get("externalTrafficPolicy") == before.get("externalTrafficPolicy"):
            after.pop("externalTrafficPolicy", None)
    if was == "LoadBalancer" and kind != was:
        for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"):
            if after.get(name) == before.get(name):
                after.pop(name, None)
    if after.get("healthCheckNodePort") is None and before.get("healthCheckNodePort") and _checks_health(after):
        after["healthCheckNodePort"] = before["healthCheckNodePort"]


def _carry_addresses(after: Object, before: Object, kind: str) -> None:
    own, given = before.get("clusterIP"), after.get("clusterIP")
    if kind == "ExternalName":
        if given == own:
            after.pop("clusterIP", None)
            given = None
        if given is None:
            for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
                if after.get(name) == before.get(name):
                    after.pop(name, None)
        return
    if not _addressed(before) or not own:
        return
    if not given and after.get("clusterIPs") in (None, [], before.get("clusterIPs")):
        after["clusterIP"], after["clusterIPs"] = own, list(before.get("clusterIPs") or [own])
    elif given and given != own and after.get("clusterIPs") in (None, before.get("clusterIPs")):
        after["clusterIPs"] = [given]


def _checks_health(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


# -- validation


def validate(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a Service."""
    spec: Object = obj.get("spec") or {}
    causes: list[Cause] = []
    name = str(obj["metadata"].get("name", ""))
    if not _DNS_1035.fullmatch(name) or len(name) > 63:
        text = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        )
        causes.append(invalid_value("metadata.name", name, text))
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
        if not _in_range(number):
            causes.append(invalid_value(f"{path}.port", number if number is not None else 0, _PORT_RANGE))
        protocol = port.get("protocol")
        if protocol not in ("SCTP", "TCP", "UDP"):
            causes.append(not_supported(f"{path}.protocol", protocol, ["SCTP", "TCP", "UDP"]))
        target = port.get("targetPort")
        if isinstance(target, str):
            causes += network_rules.port_name_causes(target, f"{path}.targetPort")
        elif target is not None and not _in_range(target):
            causes.append(invalid_value(f"{path}.targetPort", target, _PORT_RANGE))
        if (protocol, number) in pairs:
            causes.append(duplicate(path, {"protocol": protocol, "port": number}))
        pairs.add((str(protocol), number))
        node_port = port.get("nodePort")
        if node_port and spec.get("type") not in _EXTERNAL:
            text = f"may not be used when `type` is '{spec.get('type')}'"
            causes.append(field_forbidden(f"{path}.nodePort", text))
        elif node_port and (protocol, node_port) in node_ports:
            causes.append(duplicate(f"{path}.nodePort", node_port))
        if node_port:
            node_ports.add((str(protocol), node_port))
    return causes


def _in_range(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 65535


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
    if addresses and addresses[0] != own:
        causes.append(invalid_value("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    elif headless and kind in _EXTERNAL:
        text = f"may not be set to 'None' for {kind} services"
        causes.append(invalid_value("spec.clusterIPs[0]", "None", text))
    elif len(addresses) > 1:
        text = "may only hold one value: this cluster is not configured for dual-stack services"
        causes.append(invalid_value("spec.clusterIPs", addresses, text))
    elif own and not headless and not _is_ip(own):
        causes.append(invalid_value("spec.clusterIPs[0]", own, network_rules.IP))
    families = spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        path = f"spec.ipFamilies[{index}]"
        if family == "IPv6":
            causes.append(invalid_value(path, family, "not configured on this cluster"))
        elif family != "IPv4":
            causes.append(not_supported(path, family, ["IPv4", "IPv6"]))
        elif family in families[:index]:
            causes.append(duplicate(path, family))
    policies = ["PreferDualStack", "RequireDualStack", "SingleStack"]
    policy = spec.get("ipFamilyPolicy")
    if policy not in policies:
        causes.append(not_supported("spec.ipFamilyPolicy", policy, policies))
    elif policy == "RequireDualStack":
        text = "this cluster is not configured for dual-stack services"
        causes.append(invalid_value("spec.ipFamilyPolicy", policy, text))
    return causes


def _validate_policies(spec: Object, kind: Any) -> list[Cause]:
    causes: list[Cause] = []
    policies = ["Cluster", "Local"]
    external = spec.get("externalTrafficPolicy")
    if kind in _EXTERNAL:
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


def _validate_change(spec: Object, before: Object) -> list[Cause]:
    own = before.get("clusterIP")
    if not own or not _addressed(before) or not _addressed(spec) or spec.get("clusterIP") == own:
        return []
    return [invalid_value("spec.clusterIPs[0]", spec.get("clusterIPs") or [], "may not change once set")]


# -- allocation


class Allocator:
    """Knows which cluster IPs and node ports Services have, and gives out free ones.

    Everything runs on the store's event loop: between looking and taking nobody else gets a turn. What was given out
    for a write that is still on its way to disk stays taken until the write is over.
    """

    def __init__(self, store: Store, service_range: str = DEFAULT_RANGE) -> None:
        self.network = ipaddress.IPv4Network(service_range)
        self._addresses: dict[str, Key] = {}
        self._ports: dict[int, Key] = {}
        self._pending: set[str | int] = set()
        #: The address of the API server's own Service.
        self.first = first_address(service_range)
        for entry in store.entries(RESOURCE):
            self._take(entry.key, entry.object().get("spec") or {})
        store.observe(self._on_event)

    def _on_event(self, event: Event) -> None:
        key = event.entry.key
        if key.resource != RESOURCE:
            return
        if event.previous is not None:
            before = event.previous.object().get("spec") or {}
            for address in _addresses_of(before):
                if self._addresses.get(address) == key:
                    del self._addresses[address]
            for port in _ports_of(before):
                if self._ports.get(port) == key:
                    del self._ports[port]
        if event.type != DELETED:
            self._take(key, event.entry.object().get("spec") or {})

    def _take(self, key: Key, spec: Object) -> None:
        for address in _addresses_of(spec):
            self._addresses[address] = key
        for port in _ports_of(spec):
            self._ports[port] = key

    @contextlib.contextmanager
    def allocated(self, key: Key, obj: Object) -> Iterator[None]:
        """Fill in a Service's addresses and ports while its write is on its way.

        :param key: the Service's; what it has already is its own.
        :raises StatusError: 422 for a value that is taken or out of range, 500 when there is none left.
        """
        spec = obj.get("spec") or {}
        mine: set[str | int] = set()
        causes: list[Cause] = []
        try:
            if _addressed(spec) and spec.get("clusterIP") != "None":
                causes += self._address(key, spec, mine)
            if spec.get("type") in _EXTERNAL:
                causes += self._node_ports(key, spec, mine)
            if causes:
                raise invalid("", "Service", key.name, causes)
            yield
        finally:
            self._pending -= mine

    def _reserve(self, value: str | int, mine: set[str | int]) -> None:
        self._pending.add(value)
        mine.add(value)

    def _address(self, key: Key, spec: Object, mine: set[str | int]) -> list[Cause]:
        wanted = spec.get("clusterIP")
        if not wanted:
            wanted = self._free_address()
            spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
        elif self._addresses.get(wanted) == key:
            return []
        else:
            why = ""
            address = ipaddress.ip_address(wanted)
            if address not in self.network or address in (self.network[0], self.network[-1]):
                why = f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {self.network}"
            elif wanted in self._addresses or wanted in self._pending:
                why = "provided IP is already allocated"
            if why:
                return [invalid_value("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {why}")]
        self._reserve(wanted, mine)
        return []

    def _free_address(self) -> str:
        size = self.network.num_addresses - 1
        # The lower part is for those who name an address (KEP-3070).
        band = min(max(16, size // 16), 256) if size > 32 else 1
        for _ in range(64):
            address = str(self.network[random.randrange(band, size)])  # noqa: S311 - a name, not a secret
            if address not in self._addresses and address not in self._pending and address != self.first:
                return address
        for number in (*range(band, size), *range(2, band)):
            address = str(self.network[number])
            if address not in self._addresses and address not in self._pending:
                return address
        raise internal("failed to allocate a serviceIP: range is full")

    def _node_ports(self, key: Key, spec: Object, mine: set[str | int]) -> list[Cause]:
        causes: list[Cause] = []
        for index, port in enumerate(_ports(spec)):
            wanted = port.get("nodePort")
            if wanted:
                path = f"spec.ports[{index}].nodePort"
                if wanted not in NODE_PORTS:
                    text = (
                        f"provided port is not in the valid range. The range of valid ports is {NODE_PORTS[0]}-"
                        f"{NODE_PORTS[-1]}"
                    )
                    causes.append(invalid_value(path, wanted, text))
                elif wanted not in mine and (self._ports.get(wanted, key) != key or wanted in self._pending):
                    causes.append(invalid_value(path, wanted, "provided port is already allocated"))
                else:
                    self._reserve(wanted, mine)
        if causes:
            return causes
        if spec.get("type") != "LoadBalancer" or spec.get("allocateLoadBalancerNodePorts") is not False:
            given: dict[int, int] = {}
            for port in _ports(spec):
                number = port["port"]
                if not port.get("nodePort"):
                    # The same port of another protocol shares the node port, as DNS has it.
                    port["nodePort"] = given.get(number) or self._free_port(mine)
                given[number] = port["nodePort"]
        if _checks_health(spec) and not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = self._free_port(mine)
        return []

    def _free_port(self, mine: set[str | int]) -> int:
        candidates = [port for port in NODE_PORTS if port not in self._ports and port not in self._pending]
        if not candidates:
            raise internal("failed to allocate a nodePort: range is full")
        # The lowest 86 are left to those who name a port (KEP-3668).
        upper = [port for port in candidates if port >= NODE_PORTS[86]] or candidates
        port = random.choice(upper)  # noqa: S311 - a name, not a secret
        self._reserve(port, mine)
        return port


def _addresses_of(spec: Object) -> list[str]:
    return [address for address in spec.get("clusterIPs") or () if address != "None"]


def _ports_of(spec: Object) -> list[int]:
    found = [port["nodePort"] for port in _ports(spec) if port.get("nodePort")]
    return [*found, spec["healthCheckNodePort"]] if spec.get("healthCheckNodePort") else found
