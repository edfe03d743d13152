# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces come to a running guest and leave it (KubeVirt user guide, "Hotplug Network Interfaces").

virt-controller has the Pod attached to the network, and says so in the VMI's status. Here the guest is connected to
that: bridge and tap, then the device. Unplugging goes the other way round, and the guest has a say in it. What has
been done is read back from the domain and from what is stored about the Pod's interfaces.
"""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from turtles.api.kinds.vmi import interfaces
from turtles.api.objects import Object
from turtles.domain import definition
from turtles.domain.connections import connections
from turtles.domain.interface_names import POD_INTERFACE, further_interface_name, pod_interface_name
from turtles.domain.network import InterfacePlan
from turtles.domain.report import Observation
from turtles.handler import plumbing, pod_network
from turtles.handler.domain import Domain
from turtles.handler.errors import LibvirtError
from turtles.handler.guest import Guest
from turtles.handler.launcher import Launcher
from turtles.handler.plumbing import PlumbingError

log = logging.getLogger(__name__)

#: Seconds after which what failed is tried again, and a guest is asked again to release an interface.
_RETRY, _ASK_AGAIN = 10.0, 15.0
_NO_PORT = "No more available PCI slots"
_FREE_A_PORT = "; the machine has no free port for another device: unplug one, or restart the machine"


def follow(vmi: Object, guest: Guest, launcher: Launcher, domain: Domain, seen: Observation) -> bool:
    """Plug interfaces in and out as the VMI wants it; return whether there is something new to see."""
    if seen.live is None:
        return False
    changed = False
    for plan in seen.plans:
        if not seen.live.has_interface(plan.name, plan.guest_mac):
            act = functools.partial(_plug, vmi, guest, launcher, domain, plan, seen.plans)
            changed |= _attempt(guest, plan.name, _RETRY, act, "plugged in")
    declared = interfaces.of(vmi["spec"])
    leaving = {name for name, interface in declared.items() if interface.get("state") == interfaces.ABSENT}
    for name in seen.live.macs.keys() & leaving:
        act = functools.partial(domain.detach, f"ua-{name}")
        changed |= _attempt(guest, name, _ASK_AGAIN, act, "unplugged", repeat=True)
    return changed


def give_back(vmi: Object, guest: Guest, launcher: Launcher, seen: Observation) -> None:
    """Give interfaces of the Pod back that neither the VMI nor its guest has any longer.

    :raises PlumbingError: that failed.
    """
    if seen.live is None:
        return
    named = {pod_interface_name(each) for _, _, each in connections(vmi["spec"])}
    used = named | {further_interface_name(name) for name in seen.live.macs} | {POD_INTERFACE}
    for name in guest.state.pod_interfaces.keys() - used:
        plumbing.disconnect(launcher.netns, guest.state.pod_interfaces[name])
        del guest.state.pod_interfaces[name]
        guest.save()
        log.info("interface unplugged", extra={"vmi": str(guest), "pod_interface": name})
    for name in guest.interface_failures.keys() - interfaces.of(vmi["spec"]).keys():
        del guest.interface_failures[name]


def next_look(guest: Guest, otherwise: float) -> float:
    """Return after how many seconds to look again."""
    now = time.monotonic()
    # What was due and wasn't attempted again has no need to be.
    guest.interface_retry = {name: moment for name, moment in guest.interface_retry.items() if moment > now}
    return min([otherwise, *(moment - now for moment in guest.interface_retry.values())])


def _plug(
    vmi: Object,
    guest: Guest,
    launcher: Launcher,
    domain: Domain,
    plan: InterfacePlan,
    plans: tuple[InterfacePlan, ...],
) -> None:
    """Connect an interface, have the launcher answer its DHCP, then give it to the guest."""
    plumbing.connect(launcher.netns, plan, guest.state.pod_interfaces[plan.pod_interface])
    pod_network.announce(guest, launcher, plans)
    domain.attach(definition.added_interface(vmi["spec"], interfaces.of(vmi["spec"])[plan.name], plan))
    log.info("interface plugged in", extra={"vmi": str(guest), "interface": plan.name})


def _attempt(guest: Guest, name: str, pause: float, act: Callable[[], Any], verb: str, *, repeat: bool = False) -> bool:
    """Do something for an interface, unless the last attempt was a moment ago; return whether there is news.

    :param pause: seconds until the next attempt. :param repeat: also after one that succeeded.
    """
    if guest.interface_retry.get(name, 0.0) > time.monotonic():
        return False
    guest.interface_retry[name] = time.monotonic() + pause
    try:
        act()
    except (LibvirtError, PlumbingError, OSError) as error:
        message = f"interface {name!r} can't be {verb}: {error}"
        message += _FREE_A_PORT if _NO_PORT in message else ""
        log.warning("%s", message, extra={"vmi": str(guest)})
        return guest.interface_failures.setdefault(name, message) is message
    guest.interface_failures.pop(name, None)
    if not repeat:
        del guest.interface_retry[name]
    return True
