# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a guest answers on the network, as this machine sees it."""

from __future__ import annotations

import socket
import time

from . import _resources
from ._errors import KubeError

SSH_PORT = 22
# Seconds for an answer. A guest that is up answers at once; a SYN that was lost is better sent again.
ANSWER = 1.0
# An SSH server introduces itself within its first line or, at worst, after lines of its own (RFC 4253, section 4.2).
_BANNER = b"SSH-"
_LONGEST_BANNER = 8192
# Seconds until it is tried through the API whether a guest answers that doesn't at its address, and between attempts.
PATIENCE, PAUSE = 15, 10
_INSTANCES = _resources.known("kubevirt.io/v1", "VirtualMachineInstance")._replace(
    api_version="subresources.kubevirt.io/v1"
)
_PROTOCOL = "plain.kubevirt.io"


class Ssh:
    """The SSH server of a guest, at its address or, where that can't be reached, through the API.

    From outside of a cluster nobody reaches the addresses of its Pod network.
    """

    def __init__(self, client, namespace, name):
        self._client = client
        self._path = _resources.path(_INSTANCES, namespace, name, "portforward/%d" % SSH_PORT)
        self._next = time.monotonic() + PATIENCE
        self.warnings = []

    def lack(self, address):
        """Return why it doesn't answer, "" if it does."""
        why = why_no_ssh(address)
        if why is None:
            return ""
        if time.monotonic() < self._next or not self._answers_through_api():
            return why
        self.warnings = [
            "its SSH server answers through the API, but not at %s from here. Connect to it by "
            "turtles.kubevirt.portforward, or by a Service." % address
        ]
        return ""

    def _answers_through_api(self):
        try:
            stream = self._client.stream(self._path, _PROTOCOL)
        except KubeError:
            # Not allowed, not offered, or not there yet: the address counts.
            return False
        finally:
            self._next = time.monotonic() + PAUSE
        try:
            return (stream.receive(ANSWER) or b"").startswith(_BANNER)
        finally:
            stream.close()


def why_no_ssh(address, port=SSH_PORT):
    """Return why no SSH server answers at an address; None if one does."""
    where = "%s port %d" % (address, port)
    try:
        with socket.create_connection((address, port), timeout=ANSWER) as connection:
            heard = b""
            while len(heard) < _LONGEST_BANNER:
                part = connection.recv(256)
                if not part:
                    return "%s accepts connections but closes them" % where
                heard += part
                if any(line.startswith(_BANNER) for line in heard.split(b"\n")):
                    return None
    except socket.timeout:
        return "%s doesn't answer" % where
    except OSError as exc:
        return "%s: %s" % (where, exc.strerror or exc)
    return "%s answers, but not as an SSH server does" % where
