# SPDX-License-Identifier: GPL-3.0-or-later
"""MAC addresses of guests' interfaces."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from turtles.domain.connections import connections, is_behind_pod
from turtles.domain.interface_names import POD_INTERFACE, pod_interface_name


def generated_mac(owner_uid: str, interface: str) -> str:
    """Return a locally administered unicast MAC, always the same for a machine's *interface*.

    :param owner_uid: what :func:`owner_uid` returns for its VMI.
    """
    digest = hashlib.sha256(f"{owner_uid}/{interface}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def owner_uid(vmi: Mapping[str, Any]) -> str:
    """Return what all instances of a machine have in common: the VirtualMachine's uid, the VMI's if it has none."""
    for reference in vmi["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and reference.get("kind") == "VirtualMachine":
            return str(reference["uid"])
    return str(vmi["metadata"]["uid"])


def chosen_mac(vmi: Mapping[str, Any], interface: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """Return the MAC that a VMI's interface is to have; empty where it is the Pod's (bridge on the Pod's own network).

    :param interface: an entry of ``spec.domain.devices.interfaces``. :param network: its network.
    """
    if requested := normalized_mac(str(interface.get("macAddress") or "")):
        return requested
    if not is_behind_pod(interface) and pod_interface_name(network) == POD_INTERFACE:
        return ""
    return generated_mac(owner_uid(vmi), interface["name"])


def macs(vmi: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (interface's name, where its MAC counts, the MAC) for a VMI's interfaces whose MAC others can see.

    That is on a secondary network, whose definition is named, or with a bridge on the Pod network.
    """
    for _, interface, network in connections(vmi["spec"]):
        mac = chosen_mac(vmi, interface, network)
        if mac and not is_behind_pod(interface):
            namespace, _, name = str((network.get("multus") or {}).get("networkName") or "").rpartition("/")
            where = f"{namespace or vmi['metadata']['namespace']}/{name}" if name else ""
            yield interface["name"], where, mac


def normalized_mac(mac: str) -> str:
    """Return a MAC address in lower case with colons, empty for none."""
    digits = re.sub(r"[:.-]", "", mac.lower())
    return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2))
