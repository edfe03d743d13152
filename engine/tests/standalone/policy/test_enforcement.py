# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkPolicies between real network namespaces on one bridge."""

import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from itertools import permutations
from typing import Any

import pytest
from networks import subnet

from turtles.handler.plumbing import in_namespace
from turtles.standalone import nft
from turtles.standalone.policy import enforcer
from turtles.standalone.policy.rules import FAMILIES, Member, compute, script

pytestmark = pytest.mark.root

BRIDGE = f"tp{os.getpid()}"
TABLE = f"{BRIDGE}-policies"
NAMES = ("web", "db", "client")
#: By version of IP.
NETWORKS = {4: ip_network(subnet("policy")), 6: ip_network(f"fd00:{os.getpid() & 0xFFFF:x}:7::/64")}
PORTS = (80, 8080)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Place:
    """A Pod's network namespace, in which TCP ports are listened at."""

    def __init__(self, name: str, address: str) -> None:
        self.member = Member("shop", {"app": name}, address)
        family, anywhere = (socket.AF_INET6, "::") if ":" in address else (socket.AF_INET, "")
        self.netns = f"{BRIDGE}{name}"
        ip("netns", "add", self.netns)
        ip("link", "add", f"{BRIDGE}{name[:2]}", "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        ip("link", "set", f"{BRIDGE}{name[:2]}", "master", BRIDGE, "up")
        length, options = (64, ["nodad"]) if ":" in address else (24, [])
        ip("-n", self.netns, "addr", "add", f"{address}/{length}", "dev", "eth0", *options)
        ip("-n", self.netns, "link", "set", "eth0", "up")
        self.listening = [
            self.do(lambda port=port: socket.create_server((anywhere, port), family=family))  # type: ignore[misc]
            for port in PORTS
        ]

    def do(self, function: Any) -> Any:
        descriptor = os.open(f"/run/netns/{self.netns}", os.O_RDONLY)
        try:
            return in_namespace(descriptor, function)
        finally:
            os.close(descriptor)

    def reaches(self, other: "Place", port: int = 80, timeout: float = 0.5) -> bool:
        try:
            self.do(lambda: socket.create_connection((other.member.address, port), timeout=timeout)).close()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        for sock in self.listening:
            sock.close()
        # With its namespace it would go, too, but some time later, and the next one has its name.
        ip("link", "delete", f"{BRIDGE}{self.member.labels['app'][:2]}")
        ip("netns", "delete", self.netns)


@pytest.fixture(scope="module", params=NETWORKS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def places(version: int) -> Iterator[dict[str, Place]]:
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    found = {name: Place(name, str(NETWORKS[version][10 + index])) for index, name in enumerate(NAMES)}
    # A neighbour that isn't known is asked for again after a second, should its first answer be lost.
    assert all(one.reaches(other, timeout=60) for one, other in permutations(found.values(), 2))
    yield found
    for place in found.values():
        place.close()
    ip("link", "delete", BRIDGE)


@pytest.fixture
def enforce(places: dict[str, Place], version: int) -> Iterator[Any]:
    """Enforce policies, given by their specs."""

    def run(*specs: dict[str, Any]) -> None:
        policies = [{"metadata": {"namespace": "shop", "name": f"p{n}"}, "spec": spec} for n, spec in enumerate(specs)]
        members = [place.member for place in places.values()]
        enforcer._filter_bridges()
        nft.run(script(TABLE, compute(policies, members, {"shop": {}}, version)))

    yield run
    assert nft.remove_table(TABLE, FAMILIES[version])
    assert not nft.remove_table(TABLE, FAMILIES[version])


def selects(name: str) -> dict[str, Any]:
    return {"matchLabels": {"app": name}}


def test_pods_on_one_bridge(places: dict[str, Place], enforce: Any, version: int) -> None:
    web, db, client = (places[name] for name in NAMES)
    assert client.reaches(web)
    enforce({"podSelector": {}, "policyTypes": ["Ingress"]})
    assert not client.reaches(web)
    assert not web.reaches(db)
    enforce(
        {"podSelector": {}, "policyTypes": ["Ingress"]},
        {
            "podSelector": selects("web"),
            "ingress": [{"from": [{"podSelector": selects("client")}], "ports": [{"port": 8000, "endPort": 8100}]}],
        },
    )
    assert client.reaches(web, 8080)
    assert not client.reaches(web, 80)
    assert not db.reaches(web, 8080)
    enforce(
        {
            "podSelector": selects("client"),
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": selects("db")}]}],
        }
    )
    assert client.reaches(db)
    assert not client.reaches(web)
    assert web.reaches(client), "answers are no egress"
    network = NETWORKS[version]
    block = {"cidr": str(network), "except": [f"{db.member.address}/{network.max_prefixlen}"]}
    enforce({"podSelector": selects("web"), "ingress": [{"from": [{"ipBlock": block}]}]})
    assert client.reaches(web)
    assert not db.reaches(web)


def test_an_open_connection_survives_a_change_of_its_rules(places: dict[str, Place], enforce: Any) -> None:
    web, _, client = (places[name] for name in NAMES)
    enforce({"podSelector": selects("web"), "ingress": [{"ports": [{"port": 80}]}]})
    sock = client.do(lambda: socket.create_connection((web.member.address, 80), timeout=2))
    accepted, _address = web.listening[0].accept()
    while _address[1] != sock.getsockname()[1]:
        accepted.close()
        accepted, _address = web.listening[0].accept()
    enforce({"podSelector": selects("web"), "ingress": [{"ports": [{"port": 80}]}, {"ports": [{"port": 443}]}]})
    sock.sendall(b"still here")
    assert accepted.recv(20) == b"still here"
    for each in (sock, accepted):
        each.close()
