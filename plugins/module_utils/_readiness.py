# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a guest that runs is waited for: the option wait_for."""

from __future__ import annotations

from . import _reachable, _wait
from ._cloud_init_status import CloudInit

# Each includes those before it but for agent, which ssh and cloud_init don't need.
WAIT_FOR = ("running", "address", "agent", "ssh", "cloud_init")
# What the guest is then, for messages.
_GOALS = {
    "address": "known by an address",
    "agent": "connected to its guest agent",
    "ssh": "reachable by SSH from the machine on which the task runs",
    "cloud_init": "set up by cloud-init",
}
# Seconds between two looks at what nothing tells of when it comes.
_LOOKS = {"ssh": 0.05, "cloud_init": 0.5}
_LACKS = {
    "address": "none of its interfaces has an IP address yet",
    "agent": "its guest agent hasn't connected (AgentConnected isn't True); the guest needs qemu-guest-agent",
}


class Readiness:
    """How far one guest that runs is on the way to what is wanted of it."""

    def __init__(self, wanted, client, namespace, name):
        self.goal = _GOALS.get(wanted, "running")
        # Seconds between two looks; None where the instance tells.
        self.look = _LOOKS.get(wanted)
        self._wanted = wanted
        self._cloud_init = CloudInit(client, namespace, name) if wanted == "cloud_init" else None
        self._ssh = _reachable.Ssh(client, namespace, name) if wanted == "ssh" else None

    def lack(self, vmi):
        """Return what the guest still lacks, in a sentence; "" if nothing.

        :param vmi: its instance, or None.
        :raises KubeError: it won't come.
        """
        address = address_of(vmi)
        if self._wanted in ("address", "ssh") and not address:
            return _LACKS["address"]
        if self._wanted == "agent" and not _wait.is_true(vmi, "AgentConnected"):
            return _LACKS["agent"]
        if self._cloud_init:
            return self._cloud_init.lack(vmi)
        return self._ssh.lack(address) if self._ssh else ""

    def warnings(self):
        """Return what is worth telling although it doesn't keep the guest from being ready."""
        if self._cloud_init:
            return ["cloud-init: %s" % text for text in self._cloud_init.warnings]
        return self._ssh.warnings if self._ssh else []

    def close(self):
        """End connections."""
        if self._cloud_init:
            self._cloud_init.close()


def address_of(vmi):
    """Return the first known IP address of an instance (or None); "" where there is none."""
    interfaces = ((vmi or {}).get("status") or {}).get("interfaces") or []
    return next((one["ipAddress"] for one in interfaces if one.get("name") and one.get("ipAddress")), "")
