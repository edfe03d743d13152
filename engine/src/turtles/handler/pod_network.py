# SPDX-License-Identifier: GPL-3.0-or-later
"""How CNI connected a guest's Pod to its networks, and how the guest is connected to that."""

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


def pod_interfaces(
    vmi: Mapping[str, Any], guest: Guest, launcher: Launcher, live: Live | None = None
) -> Mapping[str, PodInterface]:
    """Return what CNI gave the Pod for the guest's interfaces, by the Pod's names: as stored, else read.

    :param live: the guest's domain, if it runs.
    :raises turtles.handler.plumbing.PlumbingError: if the Pod lacks one of them.
    """
    known = guest.state.pod_interfaces
    for _, interface, pod_network in network.connections(vmi["spec"]):
        name = network.pod_interface_name(pod_network)
        if name in known:
            continue
        facts = plumbing.read_pod_interface(launcher.netns, name, network.describe(pod_network))
        if live is not None and live.macs.get(interface["name"]):
            # The store was lost while the guest ran. Where the guest took over the Pod's MAC, only the domain has it.
            facts = replace(facts, mac=live.macs[interface["name"]])
        known[name] = facts
        guest.save()
    return known


def plans(
    vmi: Mapping[str, Any], facts: Mapping[str, PodInterface], live: Live | None = None
) -> tuple[InterfacePlan, ...]:
    """Return how the guest's interfaces are connected to the Pod's.

    :param live: the guest's domain, if it runs: it has the MACs that it was started with.
    :raises GuestEnded: if they can't be.
    """
    try:
        planned = network.plans(vmi, facts)
    except ValueError as error:
        raise GuestEnded(end.network_not_supported(error)) from error
    macs = live.macs if live is not None else {}
    return tuple(replace(plan, guest_mac=(macs.get(plan.name) or plan.guest_mac).lower()) for plan in planned)


def connect(vmi: Mapping[str, Any], guest: Guest, launcher: Launcher) -> tuple[InterfacePlan, ...]:
    """Connect the guest's interfaces to the Pod's, and return how.

    :raises GuestEnded: if they can't be.
    """
    facts = pod_interfaces(vmi, guest, launcher)
    connected = plans(vmi, facts)
    for plan in connected:
        try:
            plumbing.connect(launcher.netns, plan, facts[plan.pod_interface])
        except plumbing.UnsuitableError as error:
            raise GuestEnded(end.network_not_supported(error)) from error
    return connected
