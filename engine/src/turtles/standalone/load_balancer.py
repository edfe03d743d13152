# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives Services of type LoadBalancer addresses of this machine's, as a cloud's controller does.

Several Services share an address as long as their ports differ, so one address of each family is enough for many.
"""

import contextlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address

from turtles.api.objects import Object
from turtles.kube.client import Client, NotFound
from turtles.kube.events import Recorder
from turtles.kube.informer import Informer, Key, key_of
from turtles.kube.manager import Controller, Trigger
from turtles.kube.writer import Writer

_FAILED = "SyncLoadBalancerFailed"

Network = IPv4Network | IPv6Network


class NoAddress(Exception):
    """A Service can't have an address now; the message says why, and what to do."""


def is_ours(service: Object) -> bool:
    """Say whether a Service gets its address here: those with a class are somebody else's."""
    return service["spec"].get("type") == "LoadBalancer" and not service["spec"].get("loadBalancerClass")


def given(service: Object) -> list[str]:
    """Return the addresses that a Service has."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return [str(entry["ip"]) for entry in ingress if entry.get("ip")]


def ports(service: Object) -> set[tuple[str, int]]:
    """Return protocols and ports of a Service."""
    return {(port.get("protocol") or "TCP", port["port"]) for port in service["spec"].get("ports") or []}


def families_of(service: Object) -> list[int]:
    """Return the IP versions of a Service's addresses, the first one first."""
    return [int(family[-1]) for family in service["spec"].get("ipFamilies") or ["IPv4"]]


def allot(service: Object, others: Iterable[Object], pool: Iterable[Network]) -> list[str]:
    """Return the addresses for a Service: one of each of its families for which there are any.

    Each is the one that it has or asks for, else the first one whose ports are free.

    :param others: all Services; this one may be among them.
    :raises NoAddress: there is none.
    """
    families, pool = families_of(service), tuple(pool)
    by_version = {version: [network for network in pool if network.version == version] for version in families}
    if not any(by_version.values()):
        kind = f"IPv{families[0]} " if pool else ""
        raise NoAddress(f"there are no {kind}addresses for load balancers: set turtles_external_addresses")
    taken: dict[str, set[tuple[str, int]]] = {}
    for other in others:
        if key_of(other) != key_of(service):
            for address in (*given(other), *(other["spec"].get("externalIPs") or ())):
                taken.setdefault(address, set()).update(ports(other))
    asked = service["spec"].get("loadBalancerIP")
    if asked and not any(_is_in(asked, networks) for networks in by_version.values()):
        raise NoAddress(f"spec.loadBalancerIP {asked} is not one of turtles_external_addresses")
    if asked:
        by_version = {version: networks for version, networks in by_version.items() if _is_in(asked, networks)}
    addresses = []
    for networks in filter(None, by_version.values()):
        candidates = [asked] if asked else _candidates(given(service), networks)
        addresses.append(_free(candidates, ports(service), taken, asked))
    return addresses


def _free(
    candidates: Iterable[str], wanted: set[tuple[str, int]], taken: dict[str, set[tuple[str, int]]], asked: str | None
) -> str:
    for address in candidates:
        if not wanted & taken.get(address, set()):
            return address
    clash = ", ".join(f"{port}/{protocol}" for protocol, port in sorted(wanted))
    where = asked or "all of turtles_external_addresses"
    raise NoAddress(f"other Services have {clash} at {where}: choose other ports, or give more addresses")


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    return any(ip_address(address) in network for network in networks)


def _candidates(own: list[str], networks: Iterable[Network]) -> Iterator[str]:
    yield from (address for address in own if _is_in(address, networks))
    for network in networks:
        for host in network.hosts():
            yield str(host)


class LoadBalancers:
    """Writes the addresses to Services' status.

    :param pool: networks with the addresses.
    """

    def __init__(self, client: Client, recorder: Recorder, services: Informer, pool: tuple[Network, ...]) -> None:
        self._writer, self._recorder, self._services, self._pool = Writer(client), recorder, services, pool

    def controller(self) -> Controller:
        """Return what the manager runs."""
        return Controller("load-balancers", self.reconcile, [Trigger(self._services, self._concerned)])

    def _concerned(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return a Service, and those that wait for what it may have given back."""
        waiting: list[Key] = []
        if old is not None and is_ours(old) and (new is None or _claims(old) != _claims(new)):
            waiting = [key_of(one) for one in self._services.list() if is_ours(one) and not given(one)]
        return [key_of(new or old or {}), *waiting]

    def reconcile(self, key: Key) -> None:
        """Give one Service an address, or take it back."""
        service = self._services.get(*key)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return
        if not is_ours(service):
            if given(service) and not service["spec"].get("loadBalancerClass"):
                self._write(service, [])
            return
        try:
            addresses = allot(service, self._services.list(), self._pool)
        except NoAddress as error:
            reference = {"apiVersion": "v1", "kind": "Service", **service}
            self._recorder.event(reference, "Warning", _FAILED, str(error))
            if given(service):
                self._write(service, [])
            return
        if given(service) != addresses:
            self._write(service, [{"ip": address, "ipMode": "VIP"} for address in addresses])

    def _write(self, service: Object, ingress: list[Object]) -> None:
        status = {"loadBalancer": {"ingress": ingress}}
        with contextlib.suppress(NotFound):
            self._writer.patch(self._services, service, {"status": status}, subresource="status")


def _claims(service: Object) -> tuple[bool, list[str], set[tuple[str, int]]]:
    return is_ours(service), given(service), ports(service)
