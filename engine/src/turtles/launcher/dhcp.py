# SPDX-License-Identifier: GPL-3.0-or-later
"""DHCP for the one guest of the Pod (RFC 2131, RFC 2132).

Why not dnsmasq: its DHCP demands CAP_NET_ADMIN (it writes the client's ARP entry, and checks the capability at start
even when every answer is broadcast), which a launcher Pod must not have. One client with one fixed address needs no
lease file, no ping and no ARP entry: all answers are broadcast on the in-Pod bridge.

The socket is an ordinary UDP socket on port 67; packets are told apart by the interface they came in on (IP_PKTINFO,
ip(7)). So it can be opened before the node agent makes the bridge, and CAP_NET_BIND_SERVICE can be dropped afterwards.
"""

import logging
import socket
import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from turtles.domain.network import InterfacePlan
from turtles.launcher.links import index_of
from turtles.launcher.pod import Resolver

log = logging.getLogger(__name__)

SERVER_PORT = 67
CLIENT_PORT = 68
_MAGIC = b"\x63\x82\x53\x63"
_IP_PKTINFO = 8  # <linux/in.h>; the socket module gained the name in 3.12
_PKTINFO = struct.Struct("=i4s4s")
_INFINITE = b"\xff\xff\xff\xff"
_MIN_REPLY = 300  # BOOTP's minimum; some clients drop shorter ones

#: Gateway of a route to what is on the link (RFC 3442).
_ON_LINK = str(IPv4Address(0))
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
_OPT_REQUESTED_IP, _OPT_MESSAGE_TYPE, _OPT_SERVER_ID, _OPT_CLIENT_ID = 50, 53, 54, 61


def parse_options(packet: bytes) -> dict[int, bytes]:
    """Return the options of a DHCP *packet*; what is behind a malformed one is left out."""
    options: dict[int, bytes] = {}
    position = 240
    while position < len(packet) and packet[position] != 255:
        code = packet[position]
        if code == 0:
            position += 1
            continue
        if position + 1 >= len(packet):
            break
        length = packet[position + 1]
        options[code] = options.get(code, b"") + packet[position + 2 : position + 2 + length]
        position += 2 + length
    return options


def domain_list(domains: tuple[str, ...]) -> bytes:
    """Return *domains* in DNS wire format without compression (RFC 3397); those that can't be encoded are left out."""
    encoded = b""
    for domain in domains:
        try:
            labels = [label.encode("ascii") for label in domain.split(".")]
        except UnicodeEncodeError:
            continue
        if all(0 < len(label) < 64 for label in labels):
            encoded += b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return encoded


def lease_options(plan: InterfacePlan, resolver: Resolver, hostname: str) -> list[tuple[int, bytes]]:
    """Return the DHCP options of the guest's lease, as (code, value) pairs.

    The lease is infinite: the address is the Pod's, which never changes.
    """
    network = IPv4Network((plan.guest_ip, plan.prefix), strict=False)
    options = [(51, _INFINITE), (1, network.netmask.packed)]
    routes = list(plan.routes)
    if plan.gateway is not None:
        options.append((3, IPv4Address(plan.gateway).packed))
        if routes or IPv4Address(plan.gateway) not in network:
            # Who gets routes ignores the router.
            routes.append(("0.0.0.0/0", plan.gateway))
    if routes:
        outside = dict.fromkeys(gateway for _, gateway in routes if IPv4Address(gateway) not in network)
        # A gateway outside of the subnet (some CNI plugins give /32 addresses) needs a route to it first.
        options.append((121, _routes([*((f"{gateway}/32", _ON_LINK) for gateway in outside), *routes])))
    if servers := [server for server in resolver.servers if ":" not in server]:
        options.append((6, b"".join(IPv4Address(server).packed for server in servers)))
    options.append((12, hostname.encode("ascii", "ignore")))
    if resolver.search:
        # The longest is the most specific one: namespace.svc.cluster.local.
        options.append((15, max(resolver.search, key=len).encode("ascii", "ignore")))
        options.append((119, domain_list(resolver.search)))
    options.append((26, struct.pack(">H", min(plan.mtu, 0xFFFF))))
    options += _chosen_options(plan.dhcp_options)
    return [(code, value) for code, value in options if value]


def _routes(routes: list[tuple[str, str]]) -> bytes:
    """Return classless static routes (RFC 3442): destinations, with as many octets as count, and gateways."""
    encoded = b""
    for destination, gateway in routes:
        network = IPv4Network(destination)
        octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
        encoded += bytes([network.prefixlen]) + octets + IPv4Address(gateway).packed
    return encoded


def _chosen_options(chosen: Mapping[str, Any]) -> list[tuple[int, bytes]]:
    """Return what an interface's ``dhcpOptions`` adds: RFC 2132, and numbers of a site's own."""
    return [
        (42, b"".join(IPv4Address(server).packed for server in chosen.get("ntpServers") or ())),
        (66, str(chosen.get("tftpServerName") or "").encode()),
        (67, str(chosen.get("bootFileName") or "").encode()),
        *((int(option["option"]), str(option["value"]).encode()) for option in chosen.get("privateOptions") or ()),
    ]


def answer(packet: bytes, plan: InterfacePlan, lease: list[tuple[int, bytes]]) -> tuple[int, bytes] | None:
    """Return the (message type, packet) that answers *packet*; None if it is not for this server to answer.

    :param lease: what :func:`lease_options` gave.
    """
    if len(packet) < 240 or packet[0] != 1 or packet[236:240] != _MAGIC:
        return None
    if packet[1] != 1 or packet[2] != 6 or packet[28:34] != bytes.fromhex(plan.guest_mac.replace(":", "")):
        return None
    options = parse_options(packet)
    server, guest = IPv4Address(plan.server_ip).packed, IPv4Address(plan.guest_ip).packed
    kind = options.get(_OPT_MESSAGE_TYPE, b"\0")[:1]
    if options.get(_OPT_SERVER_ID, server) != server:
        return None
    ciaddr, yiaddr = bytes(4), guest
    if kind == bytes([DISCOVER]):
        reply = OFFER
    elif kind == bytes([REQUEST]):
        ciaddr = packet[12:16]
        wanted = options.get(_OPT_REQUESTED_IP, ciaddr)
        reply = ACK if wanted == guest else NAK
    elif kind == bytes([INFORM]):
        reply, ciaddr, yiaddr = ACK, packet[12:16], bytes(4)
        lease = [(code, value) for code, value in lease if code != 51]
    else:
        if kind == bytes([DECLINE]):
            log.warning("the guest declines its address: another machine is using it", extra={"address": plan.guest_ip})
        return None
    if reply == NAK:
        ciaddr, yiaddr, lease = bytes(4), bytes(4), []
    fields = [(_OPT_MESSAGE_TYPE, bytes([reply])), (_OPT_SERVER_ID, server), *lease]
    if _OPT_CLIENT_ID in options:
        fields.append((_OPT_CLIENT_ID, options[_OPT_CLIENT_ID]))  # RFC 6842
    header = struct.pack(
        ">BBBB4sHH4s4s4s4s16s192x4s",
        2,
        1,
        6,
        0,
        packet[4:8],
        0,
        0x8000,
        ciaddr,
        yiaddr,
        server if reply != NAK else bytes(4),
        packet[24:28],
        packet[28:44],
        _MAGIC,
    )
    return reply, (header + _encode(fields) + b"\xff").ljust(_MIN_REPLY, b"\0")


def _encode(options: list[tuple[int, bytes]]) -> bytes:
    """Return *options* as type, length, value; a value of more than 255 bytes is split (RFC 3396)."""
    encoded = b""
    for code, value in options:
        for start in range(0, len(value), 255):
            part = value[start : start + 255]
            encoded += bytes([code, len(part)]) + part
    return encoded


class Server:
    """Answers the guest on its in-Pod bridges. Call :meth:`handle` whenever :meth:`fileno` is readable."""

    def __init__(self, resolver: Resolver, hostname: str) -> None:
        """Open the socket; the bridges needn't be there yet.

        :raises OSError: if port 67 can't be bound: net.ipv4.ip_unprivileged_port_start is above it.
        """
        self._resolver, self._hostname = resolver, hostname
        self._leases: list[tuple[InterfacePlan, list[tuple[int, bytes]]]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._socket.bind(("", SERVER_PORT))

    def serve(self, plans: Sequence[InterfacePlan]) -> None:
        """Answer on these interfaces from now on, which have an address."""
        self._leases = [(plan, lease_options(plan, self._resolver, self._hostname)) for plan in plans]

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def handle(self) -> None:
        """Answer every packet that is waiting."""
        while True:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(2048, socket.CMSG_SPACE(_PKTINFO.size))
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("DHCP: receiving failed", extra={"error": str(error)})
                return
            interface = next(
                (
                    _PKTINFO.unpack(data[: _PKTINFO.size])[0]
                    for level, kind, data in ancillary
                    if level == socket.IPPROTO_IP and kind == _IP_PKTINFO
                ),
                0,
            )
            for plan, lease in self._leases:
                if interface == index_of(plan.bridge):
                    self._answer(packet, interface, plan, lease)

    def _answer(self, packet: bytes, interface: int, plan: InterfacePlan, lease: list[tuple[int, bytes]]) -> None:
        result = answer(packet, plan, lease)
        if result is None:
            return
        kind, reply = result
        info = _PKTINFO.pack(interface, IPv4Address(plan.server_ip).packed, bytes(4))
        try:
            self._socket.sendmsg([reply], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, ("255.255.255.255", CLIENT_PORT))
        except OSError as error:
            log.warning("DHCP: sending failed", extra={"error": str(error), "interface": plan.bridge})
            return
        names = {OFFER: "offer", ACK: "acknowledge", NAK: "refuse"}
        log.info("DHCP: %s", names[kind], extra={"address": plan.guest_ip, "mac": plan.guest_mac})
