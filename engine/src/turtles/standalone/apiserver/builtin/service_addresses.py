# SPDX-License-Identifier: GPL-3.0-or-later
"""Cluster IPs and node ports of Services.

Rules: Kubernetes documentation, "Service ClusterIP allocation" (KEP-3070: the lower part of the range is left to those
who name an address).
"""

import contextlib
import ipaddress
import itertools
import random
from collections.abc import Iterator

from turtles.standalone.apiserver.builtin import service_families
from turtles.standalone.apiserver.builtin.service_rules import EXTERNAL, checks_health, has_addresses, ports_of
from turtles.standalone.apiserver.storage.entries import DELETED, Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Cause, Object, internal, invalid, invalid_value

RESOURCE = "/services"
DEFAULT_RANGE = "10.96.0.0/16"
NODE_PORTS = range(30000, 32768)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def service_range(text: str) -> str:
    """Check the addresses of Services, as a command line names them: an IPv4 network, and after a comma an IPv6 one.

    :raises ValueError: they aren't that, in canonical form with at least 8 addresses each.
    """
    first, comma, second = text.partition(",")
    networks: list[Network] = [ipaddress.IPv4Network(first)]
    if comma:
        networks.append(ipaddress.IPv6Network(second))
    for network in networks:
        if network.max_prefixlen - network.prefixlen < 3:
            raise ValueError(f"{network} has too few addresses: at least a /{network.max_prefixlen - 3} is needed")
    return ",".join(map(str, networks))


def networks_of(text: str) -> dict[str, Network]:
    """Return the networks of cluster IPs by family, the default one first."""
    networks = [ipaddress.ip_network(each) for each in text.split(",")]
    return {f"IPv{network.version}": network for network in networks}


def first_address(text: str) -> str:
    """Return the address of the API server's own Service in a range."""
    return str(next(iter(networks_of(text).values()))[1])


class Allocator:
    """Knows which cluster IPs and node ports Services have, and gives out free ones.

    Everything runs on the store's event loop: nothing else runs between looking and taking. What was given out
    for a write that is still on its way to disk stays taken until the write is over.
    """

    def __init__(self, store: Store, service_range: str = DEFAULT_RANGE) -> None:
        self._store = store
        self._networks = networks_of(service_range)
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
            for port in _node_ports_of(before):
                if self._ports.get(port) == key:
                    del self._ports[port]
        if event.type != DELETED:
            self._take(key, event.entry.object().get("spec") or {})

    def _take(self, key: Key, spec: Object) -> None:
        for address in _addresses_of(spec):
            self._addresses[address] = key
        for port in _node_ports_of(spec):
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
            if has_addresses(spec):
                causes = service_families.settle(spec, self._before(key), tuple(self._networks))
                if not causes and spec.get("clusterIP") != "None":
                    causes = self._cluster_ips(key, spec, mine)
            if spec.get("type") in EXTERNAL:
                causes += self._node_ports(key, spec, mine)
            if causes:
                raise invalid("", "Service", key.name, causes)
            yield
        finally:
            self._pending -= mine

    def _before(self, key: Key) -> Object:
        """Return what the store has of a Service; nothing that matters if it has no addresses."""
        entry = self._store.get(key)
        spec: Object = (entry.object().get("spec") or {}) if entry is not None else {}
        return spec if has_addresses(spec) else {}

    def _reserve(self, value: str | int, mine: set[str | int]) -> None:
        self._pending.add(value)
        mine.add(value)

    def _cluster_ips(self, key: Key, spec: Object, mine: set[str | int]) -> list[Cause]:
        """Fill in an address of each of a Service's families."""
        addresses = list(spec.get("clusterIPs") or ())
        for index, family in enumerate(spec["ipFamilies"]):
            if index == len(addresses):
                addresses.append(self._free_address(self._networks[family]))
            elif self._addresses.get(_canonical(addresses[index])) == key:
                continue
            elif why := self._unavailable(addresses[index], self._networks[family]):
                text = f"failed to allocate IP {addresses[index]}: {why}"
                return [invalid_value("spec.clusterIPs", addresses, text)]
            self._reserve(_canonical(addresses[index]), mine)
        spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses
        return []

    def _unavailable(self, wanted: str, network: Network) -> str:
        """Return why an address can't be had."""
        address = ipaddress.ip_address(wanted)
        unusable = (network[0], network[-1]) if network.version == 4 else (network[0],)
        if address not in network or address in unusable:
            return f"the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {network}"
        if str(address) in self._addresses or str(address) in self._pending:
            return "provided IP is already allocated"
        return ""

    def _free_address(self, network: Network) -> str:
        size = network.num_addresses - (1 if network.version == 4 else 0)
        # The lower part is for those who name an address (KEP-3070).
        band = min(max(16, size // 16), 256) if size > 32 else 1
        for _ in range(64):
            address = str(network[random.randrange(band, size)])  # noqa: S311 - a name, not a secret
            if address not in self._addresses and address not in self._pending and address != self.first:
                return address
        for number in itertools.chain(range(band, size), range(2, band)):
            address = str(network[number])
            if address not in self._addresses and address not in self._pending:
                return address
        raise internal("failed to allocate a serviceIP: range is full")

    def _node_ports(self, key: Key, spec: Object, mine: set[str | int]) -> list[Cause]:
        causes: list[Cause] = []
        for index, port in enumerate(ports_of(spec)):
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
            taken: dict[int, int] = {}
            for port in ports_of(spec):
                number = port["port"]
                if not port.get("nodePort"):
                    # The same port of another protocol shares the node port, as DNS has it.
                    port["nodePort"] = taken.get(number) or self._free_port(mine)
                taken[number] = port["nodePort"]
        if checks_health(spec) and not spec.get("healthCheckNodePort"):
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
    return [_canonical(address) for address in spec.get("clusterIPs") or () if address != "None"]


def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address))


def _node_ports_of(spec: Object) -> list[int]:
    numbers = [port["nodePort"] for port in ports_of(spec) if port.get("nodePort")]
    return [*numbers, spec["healthCheckNodePort"]] if spec.get("healthCheckNodePort") else numbers
