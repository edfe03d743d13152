# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a VMI's status that follow from what its guest has: processors and memory."""

from collections.abc import Mapping
from typing import Any

from turtles.api import quantity
from turtles.domain import definition


def cpu_topology(spec: Mapping[str, Any], vcpus: int = 0) -> dict[str, int]:
    """Return status.currentCPUTopology.

    :param vcpus: that the guest has; 0 if not known.
    """
    topology = definition.cpu_topology(spec)
    sockets = vcpus // (topology.cores * topology.threads) or topology.sockets
    return {"cores": topology.cores, "sockets": sockets, "threads": topology.threads}


def memory(spec: Mapping[str, Any], current: int, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return status.memory.

    :param current: what the balloon leaves the guest, in bytes; 0 if not known, as while libvirtd starts again.
    :param before: the status.memory there is: what the guest booted with stays, and so does what isn't known now.
    """
    wanted = quantity.format_binary(definition.guest_memory(spec))
    before = before or {}
    return {
        **before,
        "guestAtBoot": before.get("guestAtBoot") or wanted,
        "guestCurrent": quantity.format_binary(current) if current else before.get("guestCurrent") or wanted,
        "guestRequested": wanted,
    }
