# SPDX-License-Identifier: GPL-3.0-or-later
"""How CNI connected a guest's Pod to its networks, and how the guest is connected to that."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from turtles.api.kinds.vmi import interfaces
from turtles.domain import end, handover, network, paths
from turtles.domain.connections import own_connections
from turtles.domain.interface_names import pod_interface_name
from turtles.domain.live_domain import Live
from turtles.domain.network import InterfacePlan, PodInterface
from turtles.handler import plumbing
from turtles.handler.errors import GuestEnded
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.peer import StrangerError
from turtles.handler.plumbing import PlumbingError

log = logging.getLogger(__name__)

#: Seconds that the launcher may take.
_SECONDS = 10.0


def pod_interfaces(
    vmi: Mapping[str, Any], guest: Guest, launcher: Launcher, live: Live | None = None
) -> Mapping[str, PodInterface]:
    """Return what CNI gave the Pod for the guest's interfaces, by the Pod's names: as stored, else read.

    :param live: the guest's domain, if it runs.
    :raises turtles.handler.plumbing.PlumbingError: if the Pod lacks one of them.
    """
    known = guest.state.pod_interfaces
    for _, interface, pod_network in own_connections(vmi["spec"]):
        name = pod_interface_name(pod_network)
        if name in known or (live is not None and not _is_attached(vmi, interface["name"], live)):
            continue
        facts = plumbing.read_pod_interface(launcher.netns, name, network.describe(pod_network))
        if live is not None and live.macs.get(interface["name"]):
            # The store was lost while the guest ran. Where the guest took over the Pod's MAC, only the domain has it.
            facts = replace(facts, mac=live.macs[interface["name"]])
        known[name] = facts
        guest.save()
    return known


def _is_attached(vmi: Mapping[str, Any], name: str, live: Live) -> bool:
    """Say whether the Pod has an interface for a running guest's: one that is plugged in may be on its way."""
    return name in live.macs or name in interfaces.reported(vmi, interfaces.MULTUS)


def plans(
    vmi: Mapping[str, Any], guest: Guest, facts: Mapping[str, PodInterface], live: Live | None = None
) -> tuple[InterfacePlan, ...]:
    """Return how the guest's interfaces are connected to the Pod's.

    :param live: the guest's domain, if it runs: it has the MACs that it was started with.
    :raises GuestEnded: if they can't be.
    """
    try:
        attachments = {name: plugin.attachment for name, plugin in guest.bindings.items()}
        planned = network.plans(vmi, facts, attachments)
    except ValueError as error:
        raise GuestEnded(end.network_not_supported(error)) from error
    macs = live.macs if live is not None else {}
    return tuple(replace(plan, guest_mac=(macs.get(plan.name) or plan.guest_mac).lower()) for plan in planned)


def connect(vmi: Mapping[str, Any], guest: Guest, launcher: Launcher) -> tuple[InterfacePlan, ...]:
    """Connect the guest's interfaces to the Pod's, and return how.

    :raises GuestEnded: if they can't be.
    """
    facts = pod_interfaces(vmi, guest, launcher)
    connected = plans(vmi, guest, facts)
    for plan in connected:
        try:
            plumbing.connect(launcher.netns, plan, facts[plan.pod_interface])
        except plumbing.UnsuitableError as error:
            raise GuestEnded(end.network_not_supported(error)) from error
    if any(plan.guest_ip6 for plan in connected):
        announce(guest, launcher, connected)
    return connected


def announce(guest: Guest, launcher: Launcher, connected: Sequence[InterfacePlan]) -> None:
    """Tell the launcher how the guest's interfaces are connected, so that it gives the guest their addresses.

    With the socket for router advertisements: in a Pod, an ordinary user can't open that.

    :raises PlumbingError: if that isn't possible (yet).
    """
    with contextlib.ExitStack() as opened:
        descriptors = []
        if any(plan.guest_ip6 for plan in connected):
            descriptors.append(opened.enter_context(plumbing.router_socket(launcher.netns)).fileno())
        request = handover.interfaces_view(connected)
        try:
            launcher.ask(paths.INTERFACES_SOCKET, request, seconds=_SECONDS, limit=0, descriptors=descriptors)
        except FileNotFoundError:
            # A launcher of an earlier version, which serves the IPv4 addresses that its guest started with.
            log.warning("the launcher isn't told about interfaces", extra={"vmi": str(guest)})
        except (OSError, StrangerError) as error:
            raise PlumbingError(f"the launcher can't be told about interfaces: {error}") from error
