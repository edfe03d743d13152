# SPDX-License-Identifier: GPL-3.0-or-later
"""From Services and EndpointSlices to DNS records: pure functions, with two caches to look things up in.

Sources: Kubernetes, "DNS-Based Service Discovery" (schema version 1.1.0) and "DNS for Services and Pods".
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
from dns.name import Name
from dns.rdatatype import RdataType

from turtles.api.objects import Object
from turtles.standalone.well_known import SERVICE_NAME

#: Seconds for which clients may keep an answer, as with CoreDNS.
TTL = 5
_SCHEMA = "1.1.0"
_PROTOCOLS = ("_tcp", "_udp", "_sctp")
_ADDRESSES = {RdataType.A: "IPv4", RdataType.AAAA: "IPv6"}

Record = tuple[Name, dns.rdata.Rdata]


class Cache(Protocol):
    """What is asked of an informer."""

    def get(self, namespace: str | None, name: str) -> Object | None:
        """Return an object, or None."""

    def by_index(self, name: str, value: str) -> list[Object]:
        """Return the objects that an index has under a value."""


@dataclass(frozen=True)
class Found:
    """What a zone knows about a name and type.

    :param exists: whether there are records of any type at the name or below it.
    :param records: the answer.
    :param alias: where the last record of the answer leads, if it is an alias.
    :param additional: records that the client is going to need.
    """

    exists: bool
    records: tuple[Record, ...] = ()
    alias: Name | None = None
    additional: tuple[Record, ...] = ()


NOTHING = Found(exists=False)


@dataclass(frozen=True)
class _Node:
    """All records at a name, by their type, and those that go with SRV records."""

    records: dict[RdataType, list[dns.rdata.Rdata]] = field(default_factory=dict)
    additional: tuple[Record, ...] = ()


def namespace_of(service: Object) -> list[str]:
    """Return what the index ``namespace`` has of a Service."""
    return [service["metadata"]["namespace"]]


def service_of(endpoint_slice: Object) -> list[str]:
    """Return what the index ``service`` has of an EndpointSlice."""
    metadata = endpoint_slice["metadata"]
    name = (metadata.get("labels") or {}).get(SERVICE_NAME)
    return [f"{metadata['namespace']}/{name}"] if name else []


def cluster_ips(service: Object) -> list[str]:
    """Return what the index ``address`` has of a Service: its cluster IPs."""
    spec = service["spec"]
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return (
        []
        if spec.get("type") == "ExternalName"
        else [address for address in addresses if address and address != "None"]
    )


def named_addresses(endpoint_slice: Object) -> list[str]:
    """Return what the index ``address`` has of an EndpointSlice: addresses of endpoints that have a name."""
    return [
        address
        for endpoint in endpoint_slice.get("endpoints") or []
        if endpoint.get("hostname")
        for address in endpoint.get("addresses") or []
    ]


class Zone:
    """Answers questions about the names of one cluster.

    :param domain: of the cluster, such as ``cluster.local``.
    :param services: Services, with the indices ``address`` by :func:`cluster_ips` and ``namespace`` by
        :func:`namespace_of`.
    :param slices: EndpointSlices, with the indices ``service`` by :func:`service_of` and ``address`` by
        :func:`named_addresses`.
    """

    def __init__(self, domain: str, services: Cache, slices: Cache) -> None:
        self.origin = dns.name.from_text(domain)
        self._services, self._slices = services, slices
        self._server = dns.name.from_text("ns.dns", self.origin)

    def soa(self) -> dns.rdata.Rdata:
        """Return the record that says how long clients may keep that there is nothing."""
        return _rdata(RdataType.SOA, f"{self._server} hostmaster.{self.origin} 1 7200 1800 86400 {TTL}")

    def lookup(self, name: Name, kind: RdataType) -> Found:
        """Answer a question about a name of the zone."""
        labels = [label.decode(errors="replace").lower() for label in name.relativize(self.origin).labels]
        node = self._node(labels[::-1])
        if node is None:
            return NOTHING
        aliases = node.records.get(RdataType.CNAME)
        if aliases and kind not in (RdataType.CNAME, RdataType.ANY):
            (alias,) = aliases
            return Found(True, ((name, alias),), alias=alias.target)  # type: ignore[attr-defined]
        wanted = [*node.records.values()] if kind == RdataType.ANY else [node.records.get(kind, [])]
        records = tuple((name, record) for group in wanted for record in group)
        return Found(True, records, additional=node.additional if records and kind == RdataType.SRV else ())

    def reverse(self, name: Name) -> Found | None:
        """Say which name an address has, None if it has none in this cluster."""
        try:
            address = dns.reversename.to_address(name)
        except (dns.exception.DNSException, ValueError):
            return None
        names = [self._fqdn(service) for service in self._services.by_index("address", address)]
        for one in self._slices.by_index("address", address):
            service = self._service(one)
            if service is None or not _is_headless(service):
                continue
            for endpoint in _served([one]):
                if address in endpoint["addresses"] and endpoint.get("hostname"):
                    names.append(_below(_label(endpoint), self._fqdn(service)))
        if not names:
            return None
        return Found(True, tuple((name, _rdata(RdataType.PTR, target.to_text())) for target in dict.fromkeys(names)))

    # --- what there is at a name; labels begin with the last one -----------------------------------------------------

    def _node(self, labels: list[str]) -> _Node | None:
        match labels:
            case []:
                return _Node({RdataType.SOA: [self.soa()], RdataType.NS: [_rdata(RdataType.NS, str(self._server))]})
            case ["dns-version"]:
                return _Node({RdataType.TXT: [_rdata(RdataType.TXT, _SCHEMA)]})
            case ["svc"] | ["pod"] | ["dns"] | ["dns", "ns"]:
                return _Node()
            case ["pod", namespace] | ["svc", namespace]:
                return _Node() if self._services.by_index("namespace", namespace) else None
            case ["pod", namespace, dashed]:
                return _pod(dashed) if self._services.by_index("namespace", namespace) else None
            case ["svc", namespace, name, *rest]:
                service = self._services.get(namespace, name)
                return None if service is None else self._below_service(service, rest)
        return None

    def _below_service(self, service: Object, labels: list[str]) -> _Node | None:
        if service["spec"].get("type") == "ExternalName":
            target = dns.name.from_text(str(service["spec"].get("externalName") or ""))
            return _Node({RdataType.CNAME: [_rdata(RdataType.CNAME, target.to_text())]}) if not labels else None
        match labels:
            case []:
                return _Node(_address_records(self._addresses(service)))
            case [protocol] if protocol in _PROTOCOLS:
                return _Node() if any(self._ports(service, protocol[1:], None)) else None
            case [protocol, port] if protocol in _PROTOCOLS and port.startswith("_"):
                return self._port(service, protocol[1:], port[1:])
            case [host] if _is_headless(service):
                served = _served(self._endpoint_slices(service))
                records = _address_records(
                    address for one in served if _label(one) == host for address in one["addresses"]
                )
                return _Node(records) if records else None
        return None

    def _addresses(self, service: Object) -> list[str]:
        if not _is_headless(service):
            return cluster_ips(service)
        return [address for one in _served(self._endpoint_slices(service)) for address in one["addresses"]]

    def _port(self, service: Object, protocol: str, name: str) -> _Node | None:
        """Return the SRV records of a port, and the addresses of their targets."""
        targets = dict.fromkeys(self._ports(service, protocol, name))
        if not targets:
            return None
        weight = max(1, 100 // len(targets))
        records = [_rdata(RdataType.SRV, f"0 {weight} {port} {target}") for target, port, _ in targets]
        additional = tuple(
            (target, record)
            for target, _, addresses in targets
            for group in _address_records(addresses).values()
            for record in group
        )
        return _Node({RdataType.SRV: records}, additional)

    def _ports(self, service: Object, protocol: str, name: str | None) -> Iterator[tuple[Name, int, tuple[str, ...]]]:
        """Return target, port and addresses behind named ports of a protocol.

        :param name: of the port; None for any.
        """

        def is_meant(port: Object) -> bool:
            written = (port.get("name") or "").lower()
            return (port.get("protocol") or "TCP").lower() == protocol and (
                bool(written) if name is None else written == name
            )

        fqdn = self._fqdn(service)
        if not _is_headless(service):
            for port in filter(is_meant, service["spec"].get("ports") or []):
                yield fqdn, port["port"], tuple(cluster_ips(service))
            return
        for one in self._endpoint_slices(service):
            for port in filter(is_meant, one.get("ports") or []):
                for endpoint in _served([one]):
                    yield _below(_label(endpoint), fqdn), port["port"], tuple(endpoint["addresses"])

    def _endpoint_slices(self, service: Object) -> list[Object]:
        metadata = service["metadata"]
        return self._slices.by_index("service", f"{metadata['namespace']}/{metadata['name']}")

    def _service(self, endpoint_slice: Object) -> Object | None:
        for text in service_of(endpoint_slice):
            return self._services.get(*text.split("/"))
        return None

    def _fqdn(self, service: Object) -> Name:
        metadata = service["metadata"]
        return dns.name.from_text(f"{metadata['name']}.{metadata['namespace']}.svc", self.origin)


def _rdata(kind: RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, kind, text)


def _below(label: str, name: Name) -> Name:
    return dns.name.from_text(label, name)


def _is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def _served(slices: Iterable[Object]) -> Iterator[Object]:
    """Return the endpoints that clients shall find: a missing condition means ready."""
    for one in slices:
        if one.get("addressType") not in _ADDRESSES.values():
            continue
        for endpoint in one.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses"):
                yield endpoint


def _label(endpoint: Object) -> str:
    """Return the name of an endpoint below its Service: its host name, or one made from its address."""
    address = ipaddress.ip_address(endpoint["addresses"][0])
    made = str(address).replace(".", "-") if address.version == 4 else address.exploded.replace(":", "-")
    return str(endpoint.get("hostname") or made).lower()


def _address_records(addresses: Iterable[str]) -> dict[RdataType, list[dns.rdata.Rdata]]:
    records: dict[RdataType, list[dns.rdata.Rdata]] = {}
    for address in dict.fromkeys(addresses):
        kind = RdataType.AAAA if ":" in address else RdataType.A
        records.setdefault(kind, []).append(_rdata(kind, address))
    return records


def _pod(dashed: str) -> _Node | None:
    """Return the record of a Pod's address: it follows from the name alone."""
    for separator in (".", ":"):
        try:
            return _Node(_address_records([str(ipaddress.ip_address(dashed.replace("-", separator)))]))
        except ValueError:
            continue
    return None
