# SPDX-License-Identifier: GPL-3.0-or-later
"""Cluster IPs and node ports of Services.

Rules: Kubernetes documentation, "Service ClusterIP allocation" (KEP-3070: the lower part of the range is left to those
who name an address). One address family, IPv4.
"""

import contextlib
import ipaddress
import random
from collections.abc import Iterator

from turtles.standalone.apiserver.builtin.service_rules import EXTERNAL, checks_health, has_addresses, ports_of
from turtles.standalone.apiserver.storage.entries import DELETED, Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Cause, Object, internal, invalid, invalid_value

RESOURCE = "/services"
DEFAULT_RANGE = "10.96.0.0/16"
NODE_PORTS = range(30000, 32768)


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


class Allocator:
    """Knows which cluster IPs and node ports Services have, and gives out free ones.

    Everything runs on the store's event loop: nothing else runs between looking and taking. What was given out
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
            if has_addresses(spec) and spec.get("clusterIP") != "None":
                causes += self._address(key, spec, mine)
            if spec.get("type") in EXTERNAL:
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
            given: dict[int, int] = {}
            for port in ports_of(spec):
                number = port["port"]
                if not port.get("nodePort"):
                    # The same port of another protocol shares the node port, as DNS has it.
                    port["nodePort"] = given.get(number) or self._free_port(mine)
                given[number] = port["nodePort"]
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
    return [address for address in spec.get("clusterIPs") or () if address != "None"]


def _node_ports_of(spec: Object) -> list[int]:
    numbers = [port["nodePort"] for port in ports_of(spec) if port.get("nodePort")]
    return [*numbers, spec["healthCheckNodePort"]] if spec.get("healthCheckNodePort") else numbers
