# SPDX-License-Identifier: GPL-3.0-or-later
"""Several networks of one guest, and what a guest can't send: with a frame generator in the guest's place."""

import fcntl
import os
import select
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from turtles.domain import network
from turtles.domain.interface_names import pod_interface_name
from turtles.domain.network import InterfacePlan
from turtles.handler import plumbing

from .rig import Pod
from .test_plumbing import addresses, links, netns_of, rules

pytestmark = pytest.mark.root

MAC, OTHER = "02:00:00:00:00:11", "02:00:00:00:00:22"
BLUE = {"name": "blue", "multus": {"networkName": "blue"}}
NAME = pod_interface_name(BLUE)
_TUNSETIFF, _TAP = 0x400454CA, 0x1002
_ALL = 3
#: What frames of the tests have at their end, which sets them apart from the kernel's.
MARK = b"turtles!"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def outside() -> Iterator[str]:
    """A network namespace that is the outside world; links are made in it."""
    name = f"to{uuid.uuid4().hex[:8]}"
    ip("netns", "add", name)
    yield name
    ip("netns", "delete", name)


def attach(pod: Pod, outside: str, kind: str = "veth", *cidrs: str) -> None:
    """Give a Pod an interface of the network, as a CNI plugin would; its other end is ``wire`` outside."""
    if kind == "veth":
        ip("-n", outside, "link", "add", "wire", "type", "veth", "peer", "name", NAME, "netns", pod.netns)
        ip("-n", outside, "link", "set", "wire", "up")
    else:
        ip("-n", outside, "link", "add", "wire", "type", "veth", "peer", "name", "under")
        ip("-n", outside, "link", "add", "link", "under", "name", NAME, "type", kind, "mode", "bridge")
        for name in ("wire", "under"):
            ip("-n", outside, "link", "set", name, "up")
        ip("-n", outside, "link", "set", NAME, "netns", pod.netns)
    for cidr in cidrs:
        ip("-n", pod.netns, "addr", "add", cidr, "dev", NAME)
    ip("-n", pod.netns, "link", "set", NAME, "up")


def connect(pod: Pod, interface: dict[str, Any], each: dict[str, Any], mac: str = MAC) -> InterfacePlan:
    """Connect a guest twice."""
    with netns_of(pod) as netns:
        facts = plumbing.read_pod_interface(netns, pod_interface_name(each))
        plan = network.plan(interface, each, facts, mac, index=1)
        plumbing.connect(netns, plan, facts)
        plumbing.connect(netns, plan, facts)
    return plan


class Guest:
    """The guest's end of a tap."""

    def __init__(self, pod: Pod, plan: InterfacePlan) -> None:
        def opened() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", plan.tap.encode(), _TAP))
            return descriptor

        with netns_of(pod) as netns:
            self.descriptor = plumbing.in_namespace(netns, opened)
        deadline = time.monotonic() + 10
        while links(pod)[plan.tap]["linkinfo"]["info_slave_data"]["state"] != "forwarding":
            assert time.monotonic() < deadline  # the kernel notices a carrier in its own time

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            os.write(self.descriptor, frame)

    def receives(self, frame: bytes) -> bool:
        """Whether a frame comes out of the tap; others are ignored."""
        deadline = time.monotonic() + 2
        while select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
            if os.read(self.descriptor, 2048).startswith(frame):
                return True
        return False


def listener(where: str, interface: str) -> socket.socket:
    """A socket that gets what arrives at an interface of a named network namespace."""

    def opened() -> socket.socket:
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        found.bind((interface, 0))
        return found

    descriptor = os.open(f"/run/netns/{where}", os.O_RDONLY)
    try:
        return plumbing.in_namespace(descriptor, opened)
    finally:
        os.close(descriptor)


def arrived(sock: socket.socket, last: bytes) -> list[bytes]:
    """Marked frames that came, until a last one."""
    found: list[bytes] = []
    sock.settimeout(60)
    while True:
        frame = sock.recv(2048)
        if MARK in frame:
            found.append(frame[: frame.index(MARK) + len(MARK)])
        if found and found[-1] == last:
            return found


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(payload: bytes, kind: int, source: str = MAC, target: str = "ff:ff:ff:ff:ff:ff") -> bytes:
    return octets(target) + octets(source) + struct.pack(">H", kind) + payload + MARK


def arp(sender_mac: str, sender_ip: str) -> bytes:
    who = octets(sender_mac) + socket.inet_aton(sender_ip) + bytes(6) + socket.inet_aton("192.0.2.99")
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + who


def ipv4(source: str, sport: int = 1000, dport: int = 1000, to: str = "255.255.255.255") -> bytes:
    udp = struct.pack(">HHHH", sport, dport, 8 + len(MARK), 0)
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    head = struct.pack(">BBHHHBB", 0x45, 0, 28 + len(MARK), 0, 0, 64, 17)
    total = sum(struct.unpack(">9H", head + ends))
    total = (total & 0xFFFF) + (total >> 16)
    return head + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + ends + udp


def ipv6(source: str, kind: int = 135) -> bytes:
    header = struct.pack(">IHBB", 6 << 28, 24 + len(MARK), 58, 255)
    target = socket.inet_pton(socket.AF_INET6, "ff02::1")
    return header + socket.inet_pton(socket.AF_INET6, source) + target + bytes([kind, 0, 0, 0]) + bytes(20)


def test_a_guest_on_a_further_network(make_pod: Callable[[], Pod], outside: str) -> None:
    pod = make_pod()
    attach(pod, outside, "veth", "192.0.2.7/24")
    plan = connect(pod, {"name": "blue", "bridge": {}}, BLUE)
    made = links(pod)
    assert addresses(made[plan.bridge]) == ["169.254.75.11/32"]
    assert addresses(made[NAME]) == ["192.0.2.7/24"]
    assert made[NAME]["operstate"] == "DOWN"
    assert made[plan.wire]["master"] == made[plan.tap]["master"] == plan.bridge
    guest, wire = Guest(pod, plan), listener(outside, "wire")
    good = frame(ipv4("192.0.2.7"), 0x0800)
    guest.send(good)
    assert arrived(wire, good) == [good]
    answer = frame(ipv4("192.0.2.99"), 0x0800, OTHER, MAC)
    wire.send(answer)
    assert guest.receives(answer)


def test_a_guest_on_a_macvlan_network_gets_what_is_for_its_mac(make_pod: Callable[[], Pod], outside: str) -> None:
    pod = make_pod()
    attach(pod, outside, "macvlan")
    plan = connect(pod, {"name": "blue", "bridge": {}}, BLUE)
    assert links(pod)[plan.wire]["address"] == MAC
    assert not addresses(links(pod)[plan.bridge])
    guest, wire = Guest(pod, plan), listener(outside, "wire")
    good = frame(ipv4("192.0.2.1"), 0x0800)
    guest.send(good)
    assert arrived(wire, good) == [good]
    answer = frame(ipv4("192.0.2.99"), 0x0800, OTHER, MAC)
    wire.send(answer)
    assert guest.receives(answer)


@pytest.mark.parametrize("known", [True, False])
def test_a_guest_can_not_send_in_anothers_name(make_pod: Callable[[], Pod], outside: str, known: bool) -> None:
    pod = make_pod()
    attach(pod, outside, "veth", *(("192.0.2.7/24",) if known else ()))
    plan = connect(pod, {"name": "blue", "bridge": {}}, BLUE)
    guest, wire = Guest(pod, plan), listener(outside, "wire")
    good = [
        frame(arp(MAC, "192.0.2.7"), 0x0806),
        frame(arp(MAC, "0.0.0.0"), 0x0806),
        frame(ipv4("192.0.2.7"), 0x0800),
        frame(ipv6("fe80::1"), 0x86DD),
        frame(ipv6("::"), 0x86DD),
    ]
    of_another_mac = [
        frame(arp(OTHER, "192.0.2.7"), 0x0806),
        frame(arp(MAC, "192.0.2.7"), 0x0806, OTHER),
        frame(ipv4("192.0.2.7"), 0x0800, OTHER),
    ]
    of_another_address = [
        frame(arp(MAC, "192.0.2.8"), 0x0806),
        frame(ipv4("192.0.2.8"), 0x0800),
        frame(ipv4("192.0.2.7", 67, 68), 0x0800),
        frame(ipv6("2001:db8::1"), 0x86DD),
        frame(ipv6("fe80::1", 134), 0x86DD),
        frame(bytes(20), 0x88CC),
    ]
    tagged = frame(struct.pack(">HH", 5, 0x0800) + ipv4("192.0.2.7"), 0x8100)
    untagged = frame(ipv4("192.0.2.7"), 0x0800)  # as a packet socket gives it
    last = frame(arp(MAC, "192.0.2.7") + b"last", 0x0806)
    guest.send(*of_another_mac, tagged, *of_another_address, *good, last)
    assert arrived(wire, last) == [*([] if known else [untagged, *of_another_address]), *good, last]


def test_a_masqueraded_guest_can_not_send_in_anothers_name(make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    plan = connect(pod, {"name": "default", "masquerade": {}}, {"name": "default", "pod": {}})
    guest, bridge = Guest(pod, plan), listener(pod.netns, plan.bridge)
    good = frame(ipv4("10.0.2.2"), 0x0800)
    guest.send(frame(ipv4("10.0.2.3"), 0x0800), frame(ipv4("10.0.2.2"), 0x0800, OTHER), good)
    assert arrived(bridge, good) == [good]


def test_networks_of_one_guest_are_no_way_to_each_other(make_pod: Callable[[], Pod], outside: str) -> None:
    """A Pod with a masqueraded guest forwards. It must do so for no one on the guest's other networks."""
    pod = make_pod()
    attach(pod, outside, "veth", "192.0.2.7/24")
    own = connect(pod, {"name": "default", "masquerade": {}}, {"name": "default", "pod": {}}, OTHER)
    plan = connect(pod, {"name": "blue", "bridge": {}}, BLUE)
    for name in ("all", plan.bridge):
        setting = f"net.ipv4.conf.{name}.rp_filter=0"
        subprocess.run(["ip", "netns", "exec", pod.netns, "sysctl", "-qw", setting], check=True)
    ip("-n", pod.netns, "neigh", "add", own.guest_ip, "lladdr", OTHER, "dev", own.bridge)
    guest, wire = Guest(pod, own), listener(outside, "wire")
    target = links(pod)[plan.bridge]["address"]
    wire.send(frame(ipv4("192.0.2.1", to=own.guest_ip), 0x0800, MAC, target))
    # The guest's MAC, that of the bridge, IPv4.
    assert not guest.receives(octets(OTHER) + octets(links(pod)[own.bridge]["address"]) + b"\x08\x00")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("ipvlan", "'blue': a guest can't be connected to an ipvlan interface"), ("", "to a device of the node")],
)
def test_types_that_are_not_for_guests_are_refused(
    make_pod: Callable[[], Pod], outside: str, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    """Types that the kernel of these tests may lack, or that take a device away from the machine."""
    pod = make_pod()
    attach(pod, outside)
    monkeypatch.setattr(plumbing, "_kind", lambda *_: kind)
    with pytest.raises(plumbing.UnsuitableError, match=words):
        connect(pod, {"name": "blue", "bridge": {}}, BLUE)


def test_a_missing_interface_names_its_network(make_pod: Callable[[], Pod]) -> None:
    pod = make_pod()
    with (
        netns_of(pod) as netns,
        pytest.raises(plumbing.PlumbingError, match=r"no interface 'pod16477688c0e' of network 'blue' \(Network"),
    ):
        plumbing.read_pod_interface(netns, NAME, network.describe(BLUE))


def test_an_interface_is_given_back(make_pod: Callable[[], Pod], outside: str) -> None:
    """As CNI left it, so that CNI finds it again; nothing else is left. It can be connected again."""
    pod = make_pod()
    attach(pod, outside, "veth", "192.0.2.7/24", "fd00:1::7/64")
    before = links(pod)
    with netns_of(pod) as netns:
        facts = plumbing.read_pod_interface(netns, NAME)
        for _ in range(2):
            plan = network.plan({"name": "blue", "bridge": {}}, BLUE, facts, MAC, index=1)
            plumbing.connect(netns, plan, facts)
            assert (plan.guest_ip, plan.guest_ip6) == ("192.0.2.7", "fd00:1::7")
            assert plan.tap in links(pod)
            plumbing.disconnect(netns, facts)
            plumbing.disconnect(netns, facts)
    after = links(pod)
    assert after.keys() == before.keys()
    assert after[NAME]["address"] == before[NAME]["address"]
    assert "kubevirt" not in rules(pod)


def test_a_binding_plugin_has_no_addresses_served(make_pod: Callable[[], Pod], outside: str) -> None:
    pod = make_pod()
    attach(pod, outside, "veth", "192.0.2.7/24")
    interface = {"name": "blue", "binding": {"name": "wired"}}
    with netns_of(pod) as netns:
        facts = plumbing.read_pod_interface(netns, NAME)
        plan = network.plan(interface, BLUE, facts, MAC, attachments={"wired": "managedTap"})
        plumbing.connect(netns, plan, facts)
        by_plugin = network.plan(interface, BLUE, facts, MAC, attachments={"wired": "tap"})
        missing = replace(by_plugin, tap=f"{plan.tap}x")
        with pytest.raises(plumbing.PlumbingError, match=f"made no {plan.tap}x in the Pod"):
            plumbing.connect(netns, missing, facts)
    made = links(pod)
    assert made[plan.wire]["master"] == made[plan.tap]["master"] == plan.bridge
    assert addresses(made[plan.bridge]) == []
    guest, wire = Guest(pod, plan), listener(outside, "wire")
    good = frame(ipv4("192.0.2.200"), 0x0800)
    guest.send(frame(ipv4("192.0.2.200"), 0x0800, OTHER), good)
    assert arrived(wire, good) == [good], "its MAC address counts, its own address is its affair"


def test_ipv6_of_a_guest_with_a_bridge(make_pod: Callable[[], Pod], outside: str) -> None:
    """The Pod is its router; what the launcher advertises doesn't leave the Pod."""
    pod = make_pod()
    attach(pod, outside, "veth", "192.0.2.7/24", "fd00:1::7/64")
    ip("-n", pod.netns, "-6", "route", "add", "default", "via", "fd00:1::1", "dev", NAME)
    plan = connect(pod, {"name": "blue", "bridge": {}}, BLUE)
    assert (plan.guest_ip6, plan.prefix6, plan.gateway6) == ("fd00:1::7", 64, "fd00:1::1")
    command = ["ip", "-n", pod.netns, "-6", "route", "show", "default"]
    routes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"via fd00:1::1 dev {plan.bridge}" in routes
    guest, wire = Guest(pod, plan), listener(outside, "wire")
    with netns_of(pod) as netns, plumbing.router_socket(netns) as router:
        index = plumbing.in_namespace(netns, lambda: socket.if_nametoindex(plan.bridge))
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        advertisement = bytes([134, 0, 0, 0, 64, 0, 0, 0]) + bytes(8) + MARK
        router.sendto(advertisement, ("ff02::1", 0, 0, index))
    good = frame(ipv6("fd00:1::7"), 0x86DD)
    guest.send(frame(ipv6("fd00:1::8"), 0x86DD), good)
    assert arrived(wire, good) == [good], "neither the advertisement nor what has another's address"
