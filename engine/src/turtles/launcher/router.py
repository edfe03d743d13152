# SPDX-License-Identifier: GPL-3.0-or-later
"""Router advertisements for the guest (RFC 4861): DHCPv6 has no option for a router.

They are sent from the in-Pod bridge, which forwards what the guest sends, through a socket that the node agent has
opened: an ordinary user can't.
"""

import logging
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv6Network

from turtles.domain.network import InterfacePlan
from turtles.launcher.links import index_of, join, mac_of

log = logging.getLogger(__name__)

#: Seconds between two advertisements that nobody asked for, and for how long the router is one (section 6.2.1).
INTERVAL, _LIFETIME = 300, 1800
#: All nodes of a link; all routers.
_NODES, _ROUTERS = "ff02::1", "ff02::2"
_ADVERTISEMENT, _SOLICITATION = 134, 133
_HOP_LIMIT = 64
#: Addresses, and everything else, are to be had by DHCPv6.
_MANAGED, _OTHER = 0x80, 0x40
#: The prefix is on the link; no address is made of it.
_ON_LINK = 0x80
_SOURCE, _PREFIX, _MTU = 1, 3, 5
_FOREVER = 0xFFFFFFFF
_INFO = struct.Struct("=16sI")


def advertisement(plan: InterfacePlan, mac: bytes) -> bytes:
    """Return the message, without checksum, which the kernel computes.

    :param mac: the router's.
    """
    lifetime = _LIFETIME if plan.gateway6 is not None else 0
    head = struct.pack(">BBHBBHII", _ADVERTISEMENT, 0, 0, _HOP_LIMIT, _MANAGED | _OTHER, lifetime, 0, 0)
    network = IPv6Network((plan.guest_ip6, plan.prefix6), strict=False)
    prefix = struct.pack(">BBBBIII", _PREFIX, 4, plan.prefix6, _ON_LINK, _FOREVER, _FOREVER, 0)
    mtu = struct.pack(">BBHI", _MTU, 1, 0, plan.mtu)
    return head + struct.pack(">BB", _SOURCE, 1) + mac + mtu + prefix + network.network_address.packed


class Router:
    """Advertises itself on the guest's in-Pod bridges.

    Call :meth:`handle` whenever :meth:`fileno` is readable, and :meth:`advertise` every :data:`INTERVAL` seconds.

    :param opened: an ICMPv6 socket that gets router solicitations only.
    """

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._plans: list[InterfacePlan] = []
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        # Others are refused (section 6.1.2).
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def serve(self, plans: Sequence[InterfacePlan]) -> None:
        """Advertise on these interfaces from now on; their bridges are there. A guest that comes up will ask."""
        known = {plan.bridge for plan in self._plans}
        self._plans = list(plans)
        join(self._socket, _ROUTERS, dict.fromkeys(plan.bridge for plan in plans if plan.bridge not in known))

    def handle(self) -> None:
        """Answer those that look for a router, all at once: they hear it as well as the others."""
        asked = set()
        while True:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(2048, socket.CMSG_SPACE(_INFO.size))
            except BlockingIOError:
                break
            except OSError as error:
                log.warning("router solicitations can't be received", extra={"error": str(error)})
                break
            if packet[:1] == bytes([_SOLICITATION]):
                asked |= {_INFO.unpack(data)[1] for _, _, data in ancillary if len(data) == _INFO.size}
        for plan in self._plans:
            if index_of(plan.bridge) in asked:
                self._advertise(plan)

    def advertise(self) -> None:
        """Advertise on all interfaces."""
        for plan in self._plans:
            self._advertise(plan)

    def _advertise(self, plan: InterfacePlan) -> None:
        try:
            message = advertisement(plan, mac_of(plan.bridge))
            self._socket.sendto(message, (_NODES, 0, 0, index_of(plan.bridge)))
        except OSError as error:
            log.warning("the router can't be advertised", extra={"error": str(error), "interface": plan.bridge})
