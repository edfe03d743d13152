# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod's links, as an ordinary user sees them."""

import fcntl
import socket
import struct
from collections.abc import Iterable

_SIOCGIFHWADDR = 0x8927  # <linux/sockios.h>


def join(listener: socket.socket, group: str, bridges: Iterable[str]) -> None:
    """Let a socket hear what is sent to a multicast group of IPv6 on some bridges.

    :raises OSError: a bridge isn't there.
    """
    for bridge in bridges:
        request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", index_of(bridge))
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)


def index_of(name: str) -> int:
    """Return the index of a link, -1 if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return -1


def mac_of(name: str) -> bytes:
    """Return the MAC address of a link.

    :raises OSError: if there is none of that name.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))[18:24]
