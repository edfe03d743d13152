# SPDX-License-Identifier: GPL-3.0-or-later
"""Which interface of a Pod belongs to a network, and the names of it and of the devices that connect a guest to it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Interface of the Pod network inside a Pod (CNI specification: the runtime's choice; every runtime chooses this).
POD_INTERFACE = "eth0"
#: How many digits of a hash are in the names of devices for secondary networks; the kernel's names have 15 characters.
_DIGITS = 11


def pod_interface_name(network: Mapping[str, Any]) -> str:
    """Return the name that a network's interface has in the Pod.

    :param network: an entry of ``spec.networks``.
    """
    multus = network.get("multus")
    if multus is None or multus.get("default"):
        return POD_INTERFACE
    return further_interface_name(network["name"])


def further_interface_name(name: str) -> str:
    """Return the name that the interface of a secondary network has in the Pod.

    :param name: of the network.
    """
    return f"pod{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}"


def _suffix(pod_interface: str) -> str:
    """Return what the names of an interface's devices have in common."""
    return pod_interface if pod_interface == POD_INTERFACE else pod_interface.removeprefix("pod")


@dataclass(frozen=True)
class DeviceNames:
    """Names of the devices that connect a guest to an interface of its Pod."""

    bridge: str
    tap: str
    wire: str


def device_names(pod_interface: str) -> DeviceNames:
    """Return the names of the devices that belong to an interface of the Pod, by its name."""
    suffix = _suffix(pod_interface)
    return DeviceNames(f"k6t-{suffix}", "tap0" if suffix == POD_INTERFACE else f"tap{suffix}", f"{suffix}-nic")
