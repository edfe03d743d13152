# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pod's links, as an ordinary user sees them."""

import fcntl
import socket
import struct

_SIOCGIFHWADDR = 0x8927  # <linux/sockios.h>


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
