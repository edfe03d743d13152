# SPDX-License-Identifier: GPL-3.0-or-later
"""DHCPv6 for the one guest of the Pod (RFC 8415): its address, and who resolves names. Its router is advertised.

As in IPv4, one client with one fixed address needs no file of leases. The guest is told apart from others by the link:
what comes from elsewhere on its network never gets to the in-Pod bridge's own sockets (:mod:`turtles.handler.rules`).
"""

import logging
import socket
import struct
import uuid
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from turtles.domain.network import InterfacePlan
from turtles.launcher.dhcp import domain_list
from turtles.launcher.links import index_of, join
from turtles.launcher.pod import Resolver

log = logging.getLogger(__name__)

SERVER_PORT = 547
#: All DHCP relay agents and servers.
GROUP = "ff02::1:2"
SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE = range(1, 10)
INFORMATION_REQUEST = 11
#: Those that are for a certain server, and those with addresses to be had or kept.
_TO_A_SERVER, _FOR_ADDRESSES = (REQUEST, RENEW, RELEASE, DECLINE), (SOLICIT, REQUEST, RENEW, REBIND)
CLIENT_ID, SERVER_ID, IA_NA, IA_ADDRESS, STATUS, RAPID_COMMIT, DNS_SERVERS, DOMAINS = 1, 2, 3, 5, 13, 14, 23, 24
SUCCESS, NO_ADDRESS, NOT_ON_LINK = 0, 2, 4
_FOREVER = 0xFFFFFFFF
_INFO = struct.Struct("=16sI")

Options = list[tuple[int, bytes]]


def parse(data: bytes) -> Options | None:
    """Return options (RFC 8415, section 21.1) in their order, None if they are malformed."""
    options, position = [], 0
    while position < len(data):
        if position + 4 > len(data):
            return None
        code, length = struct.unpack_from(">HH", data, position)
        position += 4
        if position + length > len(data):
            return None
        options.append((code, data[position : position + length]))
        position += length
    return options


def encode(options: Options) -> bytes:
    """Return options as they are sent."""
    return b"".join(struct.pack(">HH", code, len(value)) + value for code, value in options)


def server_id(plan: InterfacePlan) -> bytes:
    """Return the server's DUID (section 11.5): always the same for a guest's interface, on whatever node."""
    return struct.pack(">H", 4) + uuid.uuid5(uuid.NAMESPACE_OID, f"turtles/{plan.guest_mac}").bytes


def answer(packet: bytes, plan: InterfacePlan, resolver: Resolver) -> bytes | None:
    """Return what answers a client's message; None if it isn't for this server to answer."""
    options = parse(packet[4:]) if len(packet) >= 4 else None
    if options is None:
        return None
    kind, values = packet[0], dict(options)
    own = server_id(plan)
    if kind not in (*_FOR_ADDRESSES, CONFIRM, RELEASE, DECLINE, INFORMATION_REQUEST):
        return None
    if CLIENT_ID not in values and kind != INFORMATION_REQUEST:
        return None
    if (kind in _TO_A_SERVER and SERVER_ID not in values) or values.get(SERVER_ID, own) != own:
        return None
    reply: Options = [(SERVER_ID, own)]
    if CLIENT_ID in values:
        reply.append((CLIENT_ID, values[CLIENT_ID]))
    commits = kind == SOLICIT and RAPID_COMMIT in values
    if commits:
        reply.append((RAPID_COMMIT, b""))
    wanted = [value for code, value in options if code == IA_NA and len(value) >= 12]
    if kind in _FOR_ADDRESSES:
        reply += _associations(wanted, plan)
    elif kind == CONFIRM:
        reply.append(_status(SUCCESS if set(_addresses(wanted)) <= {plan.guest_ip6} else NOT_ON_LINK))
    elif kind != INFORMATION_REQUEST:
        if kind == DECLINE:
            log.warning("the guest declines its address: another machine uses it", extra={"address": plan.guest_ip6})
        reply.append(_status(SUCCESS))
    if servers := [server for server in resolver.servers if ":" in server]:
        reply.append((DNS_SERVERS, b"".join(IPv6Address(server).packed for server in servers)))
    if resolver.search and (domains := domain_list(resolver.search)):
        reply.append((DOMAINS, domains))
    answered = ADVERTISE if kind == SOLICIT and not commits else REPLY
    return bytes([answered]) + packet[1:4] + encode(reply)


def _associations(wanted: Sequence[bytes], plan: InterfacePlan) -> Iterator[tuple[int, bytes]]:
    """Yield identity associations (section 21.4): the first has the guest's address, others none."""
    address = IPv6Address(plan.guest_ip6).packed + struct.pack(">II", _FOREVER, _FOREVER)
    for index, value in enumerate(wanted):
        inner = (IA_ADDRESS, address) if index == 0 else _status(NO_ADDRESS)
        yield IA_NA, value[:4] + struct.pack(">II", _FOREVER, _FOREVER) + encode([inner])


def _addresses(wanted: Sequence[bytes]) -> Iterator[str]:
    for value in wanted:
        for code, inner in parse(value[12:]) or ():
            if code == IA_ADDRESS and len(inner) >= 16:
                yield str(IPv6Address(inner[:16]))


def _status(code: int) -> tuple[int, bytes]:
    return STATUS, struct.pack(">H", code)


class Server:
    """Answers the guest on its in-Pod bridges. Call :meth:`handle` whenever :meth:`fileno` is readable.

    :raises OSError: if port 547 can't be bound: net.ipv4.ip_unprivileged_port_start is above it.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._plans: list[InterfacePlan] = []
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._socket.bind(("::", SERVER_PORT))

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def serve(self, plans: Sequence[InterfacePlan]) -> None:
        """Answer on these interfaces from now on, which have an address; their bridges are there."""
        known = {plan.bridge for plan in self._plans}
        self._plans = list(plans)
        join(self._socket, GROUP, dict.fromkeys(plan.bridge for plan in plans if plan.bridge not in known))

    def handle(self) -> None:
        """Answer every packet that is waiting."""
        while True:
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(2048, socket.CMSG_SPACE(_INFO.size))
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("DHCPv6: receiving failed", extra={"error": str(error)})
                return
            index = next((_INFO.unpack(data)[1] for level, kind, data in ancillary if len(data) == _INFO.size), 0)
            for plan in self._plans:
                if index == index_of(plan.bridge) and (reply := answer(packet, plan, self._resolver)) is not None:
                    self._send(reply, sender, plan)

    def _send(self, reply: bytes, client: tuple[str, int, int, int], plan: InterfacePlan) -> None:
        try:
            self._socket.sendto(reply, client)
        except OSError as error:
            log.warning("DHCPv6: sending failed", extra={"error": str(error), "interface": plan.bridge})
            return
        word = "offer" if reply[0] == ADVERTISE else "reply"
        log.info("DHCPv6: %s", word, extra={"address": plan.guest_ip6})
