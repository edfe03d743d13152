# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces that come to a running guest and leave it (KubeVirt user guide, "Hotplug Network Interfaces")."""

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object, get

#: The state of an interface that is to leave the guest, and that one doesn't start with.
ABSENT = "absent"
#: A source of ``infoSource``: the Pod is attached to the network, as its network status says.
MULTUS = "multus-status"
#: The other sources.
DOMAIN, AGENT = "domain", "guest-agent"


def of(spec: Mapping[str, Any]) -> dict[str, Object]:
    """Return the interfaces of a VMI's *spec* by their names."""
    return {each["name"]: each for each in get(spec, "domain", "devices", "interfaces") or ()}


def networks_of(spec: Mapping[str, Any]) -> dict[str, Object]:
    """Return the networks of a VMI's *spec* by their names."""
    return {each["name"]: each for each in spec.get("networks") or ()}


def pluggable(spec: Mapping[str, Any]) -> dict[str, Object]:
    """Return the interfaces that may come and go while the guest runs: those with a bridge on a secondary network."""
    networks = networks_of(spec)
    return {
        name: interface
        for name, interface in of(spec).items()
        if interface.get("bridge") is not None and _is_further(networks.get(name, {}))
    }


def _is_further(network: Mapping[str, Any]) -> bool:
    multus = network.get("multus")
    return multus is not None and not multus.get("default")


def sources(entry: Mapping[str, Any]) -> list[str]:
    """Return where an entry of ``status.interfaces`` comes from."""
    return [each for each in str(entry.get("infoSource") or "").split(", ") if each]


def reported(vmi: Mapping[str, Any], source: str) -> set[str]:
    """Return the names of the interfaces in a VMI's status that come from a *source*, among others."""
    entries = get(vmi, "status", "interfaces") or ()
    return {entry["name"] for entry in entries if entry.get("name") and source in sources(entry)}
