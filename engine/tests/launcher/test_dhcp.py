# SPDX-License-Identifier: GPL-3.0-or-later
"""DHCP's answers, byte by byte. (The socket is tried out in test_pod.)"""

import struct
from dataclasses import replace

import pytest

from turtles.domain.network import InterfacePlan
from turtles.launcher import dhcp
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
)
NO_RESOLVER = Resolver()
MAC = bytes.fromhex("020000000001")
GUEST, SERVER = bytes([10, 0, 2, 2]), bytes([10, 0, 2, 1])


def packet(kind: int, *options: tuple[int, bytes], mac: bytes = MAC, ciaddr: bytes = bytes(4)) -> bytes:
    head = struct.pack(">BBBB4sHH4s12x", 1, 1, 6, 0, b"xid!", 0, 0, ciaddr) + mac.ljust(16, b"\0") + bytes(192)
    tail = b"".join(bytes([code, len(value)]) + value for code, value in ((53, bytes([kind])), *options))
    return head + b"\x63\x82\x53\x63" + tail + b"\xff"


def answer(data: bytes, plan: InterfacePlan = PLAN, resolver: Resolver = NO_RESOLVER):
    return dhcp.answer(data, plan, dhcp.lease_options(plan, resolver, "testvm"))


def test_discover():
    kind, reply = answer(
        packet(dhcp.DISCOVER), resolver=Resolver(("fd00::10", "10.96.0.10", "10.96.0.11"), ("svc.local",))
    )
    assert kind == dhcp.OFFER
    assert len(reply) >= 300
    assert (reply[4:8], reply[16:20], reply[28:34]) == (b"xid!", GUEST, MAC)
    assert dhcp.parse_options(reply) == {
        53: bytes([dhcp.OFFER]),
        54: SERVER,
        51: b"\xff" * 4,
        1: bytes([255, 255, 255, 0]),
        3: SERVER,
        6: bytes([10, 96, 0, 10, 10, 96, 0, 11]),
        12: b"testvm",
        15: b"svc.local",
        119: b"\x03svc\x05local\x00",
        26: struct.pack(">H", 1450),
    }


@pytest.mark.parametrize(
    ("options", "ciaddr"),
    [
        ([(50, GUEST), (54, SERVER)], bytes(4)),  # selecting
        ([(50, GUEST)], bytes(4)),  # after a reboot
        ([], GUEST),  # renewing
    ],
)
def test_request(options, ciaddr):
    kind, reply = answer(packet(dhcp.REQUEST, *options, ciaddr=ciaddr))
    assert kind == dhcp.ACK
    assert (reply[12:16], reply[16:20]) == (ciaddr, GUEST)


def test_chosen_options():
    chosen = {
        "bootFileName": "pxelinux.0",
        "tftpServerName": "tftp.example",
        "ntpServers": ["192.0.2.1", "192.0.2.2"],
        "privateOptions": [{"option": 240, "value": "private"}],
    }
    _, reply = answer(packet(dhcp.DISCOVER), replace(PLAN, dhcp_options=chosen))
    options = dhcp.parse_options(reply)
    assert (options[66], options[67], options[240]) == (b"tftp.example", b"pxelinux.0", b"private")
    assert options[42] == bytes([192, 0, 2, 1, 192, 0, 2, 2])
    assert not {42, 66, 67, 240} & dhcp.parse_options(answer(packet(dhcp.DISCOVER))[1]).keys()


def test_request_for_another_address_is_refused():
    kind, reply = answer(packet(dhcp.REQUEST, (50, bytes([192, 168, 1, 1]))))
    assert kind == dhcp.NAK
    assert reply[16:20] == bytes(4)
    assert dhcp.parse_options(reply) == {53: bytes([dhcp.NAK]), 54: SERVER}


def test_inform_gets_no_address():
    kind, reply = answer(packet(dhcp.INFORM, ciaddr=GUEST))
    assert kind == dhcp.ACK
    assert (reply[12:16], reply[16:20]) == (GUEST, bytes(4))
    assert 51 not in dhcp.parse_options(reply)


def test_client_id_is_returned():
    assert dhcp.parse_options(answer(packet(dhcp.DISCOVER, (61, b"\1me")))[1])[61] == b"\1me"


def test_gateway_outside_of_the_subnet_gets_a_route():
    plan = InterfacePlan(**{**vars(PLAN), "guest_ip": "10.1.1.1", "prefix": 32, "gateway": "169.254.1.1"})
    options = dhcp.parse_options(answer(packet(dhcp.DISCOVER), plan)[1])
    gateway = bytes([169, 254, 1, 1])
    assert options[121] == b"\x20" + gateway + bytes(4) + b"\0" + gateway
    assert options[1] == b"\xff" * 4


def test_routes():
    """Who gets routes ignores the router, which therefore is among them."""
    routes = (("192.168.16.0/20", "10.0.2.9"), ("172.16.0.0/12", "10.0.3.9"))
    options = dhcp.parse_options(answer(packet(dhcp.DISCOVER), replace(PLAN, routes=routes))[1])
    assert options[121] == (
        bytes([32, 10, 0, 3, 9, 0, 0, 0, 0])
        + bytes([20, 192, 168, 16, 10, 0, 2, 9])
        + bytes([12, 172, 16, 10, 0, 3, 9])
        + bytes([0])
        + SERVER
    )
    assert options[3] == SERVER


def test_no_gateway():
    assert 3 not in dhcp.parse_options(
        answer(packet(dhcp.DISCOVER), InterfacePlan(**{**vars(PLAN), "gateway": None}))[1]
    )


def test_long_search_list_is_split():
    search = tuple(f"{letter * 60}.example" for letter in "abcdef")
    _, reply = answer(packet(dhcp.DISCOVER), resolver=Resolver((), search))
    assert len(dhcp.parse_options(reply)[119]) == 6 * (61 + 8 + 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\1\6" + bytes(300),
        packet(dhcp.DISCOVER, mac=b"\2\0\0\0\0\2"),
        packet(dhcp.REQUEST, (54, bytes([10, 0, 2, 7]))),
        packet(dhcp.DECLINE),
        packet(dhcp.RELEASE),
        packet(99),
        b"\2" + packet(dhcp.DISCOVER)[1:],
        packet(dhcp.DISCOVER)[:240],
    ],
)
def test_not_answered(data):
    assert answer(data) is None


@pytest.mark.parametrize("options", [b"\x35", b"\x35\x01", b"\x35\xff\x01", b"\0\0\0", b"\x0c\x00\x35\x01\x01"])
def test_malformed_options_do_no_harm(options):
    answer(packet(dhcp.DISCOVER)[:240] + options)
