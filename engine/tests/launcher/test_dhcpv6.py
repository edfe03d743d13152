# SPDX-License-Identifier: GPL-3.0-or-later
"""DHCPv6's answers and router advertisements, byte by byte; and both on real links."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from turtles.domain.network import InterfacePlan
from turtles.handler import plumbing
from turtles.launcher import dhcpv6, router
from turtles.launcher.pod import Resolver

PLAN = InterfacePlan(
    name="default",
    binding="masquerade",
    pod_interface="eth0",
    bridge="k6t-eth0",
    tap="tap0",
    guest_mac="02:00:00:00:00:01",
    guest_ip="10.0.2.2",
    prefix=24,
    gateway="10.0.2.1",
    server_ip="10.0.2.1",
    mtu=1450,
    guest_ip6="fd10:0:2::2",
    prefix6=120,
    gateway6="fd10:0:2::1",
)
NO_RESOLVER = Resolver()
CLIENT = (dhcpv6.CLIENT_ID, b"client")
SERVER = (dhcpv6.SERVER_ID, dhcpv6.server_id(PLAN))
WANTED = (dhcpv6.IA_NA, b"iaid" + bytes(8))
GIVEN = struct.pack(">HH", dhcpv6.IA_ADDRESS, 24) + IPv6Address("fd10:0:2::2").packed + b"\xff" * 8


def packet(kind: int, *options: tuple[int, bytes]) -> bytes:
    return bytes([kind]) + b"xid" + dhcpv6.encode(list(options))


def answer(kind: int, *options: tuple[int, bytes], resolver: Resolver = NO_RESOLVER) -> tuple[int, dict[int, bytes]]:
    reply = dhcpv6.answer(packet(kind, *options), PLAN, resolver)
    assert reply is not None
    assert reply[1:4] == b"xid"
    return reply[0], dict(dhcpv6.parse(reply[4:]) or ())


@pytest.mark.parametrize(
    ("kind", "options", "answered"),
    [
        (dhcpv6.SOLICIT, (CLIENT, WANTED), dhcpv6.ADVERTISE),
        (dhcpv6.SOLICIT, (CLIENT, WANTED, (dhcpv6.RAPID_COMMIT, b"")), dhcpv6.REPLY),
        (dhcpv6.REQUEST, (CLIENT, SERVER, WANTED), dhcpv6.REPLY),
        (dhcpv6.RENEW, (CLIENT, SERVER, WANTED), dhcpv6.REPLY),
        (dhcpv6.REBIND, (CLIENT, WANTED), dhcpv6.REPLY),
    ],
)
def test_a_guest_gets_its_address(kind: int, options: tuple[tuple[int, bytes], ...], answered: int) -> None:
    found, values = answer(kind, *options)
    assert found == answered
    assert values[dhcpv6.IA_NA] == b"iaid" + b"\xff" * 8 + GIVEN
    assert (values[dhcpv6.CLIENT_ID], values[dhcpv6.SERVER_ID]) == (b"client", SERVER[1])
    assert (dhcpv6.RAPID_COMMIT in values) == (kind == dhcpv6.SOLICIT and answered == dhcpv6.REPLY)


def test_a_second_address_is_not_to_be_had() -> None:
    reply = dhcpv6.answer(packet(dhcpv6.SOLICIT, CLIENT, WANTED, (dhcpv6.IA_NA, b"more" + bytes(8))), PLAN, Resolver())
    associations = [value for code, value in dhcpv6.parse((reply or b"")[4:]) or () if code == dhcpv6.IA_NA]
    assert [value[12:] for value in associations] == [GIVEN, struct.pack(">HHH", dhcpv6.STATUS, 2, dhcpv6.NO_ADDRESS)]


@pytest.mark.parametrize(("address", "status"), [("fd10:0:2::2", dhcpv6.SUCCESS), ("fd10::9", dhcpv6.NOT_ON_LINK)])
def test_an_address_is_confirmed(address: str, status: int) -> None:
    inner = dhcpv6.encode([(dhcpv6.IA_ADDRESS, IPv6Address(address).packed + bytes(8))])
    found, values = answer(dhcpv6.CONFIRM, CLIENT, (dhcpv6.IA_NA, b"iaid" + bytes(8) + inner))
    assert (found, values[dhcpv6.STATUS]) == (dhcpv6.REPLY, struct.pack(">H", status))


def test_what_else_there_is_to_know() -> None:
    resolver = Resolver(("10.96.0.10", "fd00::a"), ("shop.svc.cluster.local",))
    found, values = answer(dhcpv6.INFORMATION_REQUEST, resolver=resolver)
    assert (found, dhcpv6.IA_NA in values) == (dhcpv6.REPLY, False)
    assert values[dhcpv6.DNS_SERVERS] == IPv6Address("fd00::a").packed
    assert values[dhcpv6.DOMAINS] == b"\x04shop\x03svc\x07cluster\x05local\x00"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01xi",
        packet(dhcpv6.SOLICIT, WANTED),
        packet(dhcpv6.REQUEST, CLIENT, WANTED),
        packet(dhcpv6.REQUEST, CLIENT, WANTED, (dhcpv6.SERVER_ID, b"another")),
        packet(dhcpv6.REPLY, CLIENT, SERVER),
        packet(200, CLIENT),
        packet(dhcpv6.SOLICIT, CLIENT)[:-1],
    ],
)
def test_what_is_not_answered(data: bytes) -> None:
    assert dhcpv6.answer(data, PLAN, Resolver()) is None


def test_an_advertisement() -> None:
    message = router.advertisement(PLAN, bytes.fromhex("02000000000a"))
    assert message[:8] == bytes([134, 0, 0, 0, 64, 0xC0]) + struct.pack(">H", 1800)
    assert message[16:24] == bytes([1, 1]) + bytes.fromhex("02000000000a")
    assert message[24:32] == struct.pack(">BBHI", 5, 1, 0, 1450)
    assert message[32:36] == bytes([3, 4, 120, 0x80])
    assert message[48:] == IPv6Network("fd10:0:2::/120").network_address.packed
    assert router.advertisement(replace(PLAN, gateway6=None), bytes(6))[6:8] == bytes(2), "it leads nowhere"


@pytest.fixture
def links() -> Iterator[tuple[str, str]]:
    """A Pod with the bridge, and a guest on it; two network namespaces."""
    pod, guest = (f"t6{kind}{uuid.uuid4().hex[:8]}" for kind in "pg")

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    for name in (pod, guest):
        ip("netns", "add", name)
    ip("-n", pod, "link", "add", PLAN.bridge, "type", "bridge", "mcast_snooping", "0")
    ip("-n", pod, "link", "add", "tap0", "type", "veth", "peer", "name", "eth0", "netns", guest)
    for name, link in ((pod, PLAN.bridge), (guest, "eth0")):
        path = f"/proc/sys/net/ipv6/conf/{link}/accept_dad"
        subprocess.run(["ip", "netns", "exec", name, "sh", "-c", f"echo 0 > {path}"], check=True)
        ip("-n", name, "link", "set", link, "up")
    ip("-n", pod, "link", "set", "tap0", "master", PLAN.bridge, "up")
    yield pod, guest
    for name in (pod, guest):
        ip("netns", "delete", name)


@pytest.mark.root
def test_on_real_links(links: tuple[str, str]) -> None:
    """A kernel takes the router, and a client gets its address; other messages don't disturb."""
    pod, guest = (Path("/run/netns", name) for name in links)
    with contextlib.ExitStack() as opened:
        netns = [os.open(path, os.O_RDONLY) for path in (pod, guest)]
        for descriptor in netns:
            opened.callback(os.close, descriptor)
        ended = threading.Event()

        def serve() -> None:
            server = dhcpv6.Server(Resolver())
            advertiser = router.Router(plumbing.router_socket(netns[0]))
            for each in (server, advertiser):
                each.serve([PLAN])
            while not ended.is_set():
                for each in select.select([server, advertiser], [], [], 0.1)[0]:
                    each.handle()

        def ask() -> tuple[bytes, str]:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.settimeout(1)
                client.bind(("::", 546))
                for _ in range(20):
                    to = (dhcpv6.GROUP, dhcpv6.SERVER_PORT, 0, socket.if_nametoindex("eth0"))
                    client.sendto(b"\x01", to)
                    client.sendto(packet(dhcpv6.SOLICIT, CLIENT, WANTED), to)
                    with contextlib.suppress(TimeoutError):
                        reply = client.recv(1500)
                        break
            # Down and up again: the kernel looks for a router.
            for state in ("down", "up"):
                subprocess.run(["ip", "link", "set", "eth0", state], check=True)
            for _ in range(60):
                command = ["timeout", "0.2", "ip", "-6", "route", "show", "default"]
                routes = subprocess.run(command, capture_output=True, text=True, check=False).stdout
                if "proto ra" in routes:
                    break
                threading.Event().wait(0.2)
            return reply, routes

        thread = threading.Thread(target=plumbing.in_namespace, args=(netns[0], serve))
        thread.start()
        try:
            reply, routes = plumbing.in_namespace(netns[1], ask)
        finally:
            ended.set()
            thread.join()
    assert reply[:4] == bytes([dhcpv6.ADVERTISE]) + b"xid"
    assert "via fe80::" in routes
