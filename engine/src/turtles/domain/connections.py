# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's interfaces with the networks they are on."""

from collections.abc import Iterator, Mapping
from typing import Any

from turtles.domain.interface_names import POD_INTERFACE, pod_interface_name


def connections(spec: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the interfaces of a VMI's *spec* that are connected to an interface of the Pod.

    Each is (index, interface, network). Interfaces that are absent aren't connected.
    """
    networks = {network["name"]: network for network in spec.get("networks") or ()}
    for index, interface in enumerate(spec.get("domain", {}).get("devices", {}).get("interfaces") or ()):
        network = networks.get(interface["name"])
        if network is None or interface.get("state") == "absent":
            continue
        if network.get("pod") is not None or network.get("multus") is not None:
            yield index, interface, network


def is_behind_pod(interface: Mapping[str, Any]) -> bool:
    """Say whether a guest's interface is hidden behind its Pod's: others see the Pod's MAC address, never the guest's.

    :param interface: an entry of ``spec.domain.devices.interfaces``.
    """
    return any(interface.get(binding) is not None for binding in ("masquerade", "passtBinding"))


def has_passt(spec: Mapping[str, Any]) -> bool:
    """Say whether an interface of a VMI's *spec* is connected by passt."""
    return any(interface.get("passtBinding") is not None for _, interface, _ in connections(spec))


def own_connections(spec: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield those of :func:`connections` that have an interface in the Pod's network, other than a device (SR-IOV)."""
    return (each for each in connections(spec) if each[1].get("sriov") is None)


def further_networks(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the connected interfaces of a VMI's *spec*, each with its network, that aren't on the Pod's own."""
    for _, interface, network in connections(spec):
        if pod_interface_name(network) != POD_INTERFACE:
            yield interface, network
