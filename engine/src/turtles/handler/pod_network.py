# SPDX-License-Identifier: GPL-3.0-or-later
"""How CNI connected a guest's Pod, and how the guest is connected to that."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from turtles.domain import end, network
from turtles.domain.network import InterfacePlan, PodInterface
from turtles.domain.status import Live
from turtles.handler import plumbing
from turtles.handler.errors import GuestEnded
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher


def pod_interface(
    vmi: Mapping[str, Any], guest: Guest, launcher: Launcher, live: Live | None = None
) -> PodInterface | None:
    """Return what CNI gave the Pod: as stored, else read. None if the guest has no interface on the Pod network.

    :param live: the guest's domain, if it runs.
    """
    pair = network.pod_network_interface(vmi["spec"])
    if pair is None or guest.state.pod_interface is not None:
        return guest.state.pod_interface
    facts = plumbing.read_pod_interface(launcher.netns, network.POD_INTERFACE)
    if live is not None and live.macs.get(pair[0]["name"]):
        # The store was lost while the guest ran. Where the guest took over the Pod's MAC, only the domain has it.
        facts = replace(facts, mac=live.macs[pair[0]["name"]])
    guest.state.pod_interface = facts
    guest.save()
    return facts


def plans(vmi: Mapping[str, Any], facts: PodInterface | None) -> tuple[InterfacePlan, ...]:
    """Return how the guest's interfaces are connected to the Pod's.

    :raises GuestEnded: if they can't be.
    """
    try:
        return network.plans(vmi, facts)
    except ValueError as error:
        raise GuestEnded(end.network_not_supported(error)) from error


def connect(vmi: Mapping[str, Any], guest: Guest, launcher: Launcher) -> tuple[InterfacePlan, ...]:
    """Connect the guest's interfaces to the Pod's, and return how.

    :raises GuestEnded: if they can't be.
    """
    facts = pod_interface(vmi, guest, launcher)
    connected = plans(vmi, facts)
    for plan in connected:
        assert facts is not None
        plumbing.connect(launcher.netns, plan, facts)
    return connected
