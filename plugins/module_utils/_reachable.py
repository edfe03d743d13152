# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a guest answers on the network, as this machine sees it."""

from __future__ import annotations

import socket

SSH_PORT = 22
# Seconds for an answer. A guest that is up answers at once; a SYN that was lost is better sent again.
ANSWER = 1.0
# An SSH server introduces itself within its first line or, at worst, after lines of its own (RFC 4253, section 4.2).
_BANNER = b"SSH-"
_LONGEST_BANNER = 8192


def why_no_ssh(address, port=SSH_PORT):
    """Return why no SSH server answers at an address; None if one does."""
    where = "%s port %d" % (address, port)
    try:
        with socket.create_connection((address, port), timeout=ANSWER) as connection:
            heard = b""
            while len(heard) < _LONGEST_BANNER:
                part = connection.recv(256)
                if not part:
                    return "%s accepts connections, but closes them" % where
                heard += part
                if any(line.startswith(_BANNER) for line in heard.split(b"\n")):
                    return None
    except socket.timeout:
        return "%s doesn't answer" % where
    except OSError as exc:
        return "%s: %s" % (where, exc.strerror or exc)
    return "%s answers, but not as an SSH server does" % where
