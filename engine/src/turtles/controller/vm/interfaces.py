# SPDX-License-Identifier: GPL-3.0-or-later
"""How a running instance follows its VirtualMachine's network interfaces. Pure.

A new interface with a bridge on a secondary network is plugged in; one whose state becomes ``absent`` is unplugged, and
then removed from instance and template. Source: KubeVirt user guide, "Hotplug Network Interfaces".
"""

from collections.abc import Mapping
from typing import Any

from turtles.api.kinds.vmi import interfaces
from turtles.api.kinds.vmi.interfaces import ABSENT, networks_of, of, pluggable
from turtles.api.objects import Object

#: States between which the link of a running guest's interface can change.
LINK_STATES = (None, "", "up", "down")


def without_live(spec: Object) -> None:
    """Remove from the *spec* of a template what running instances can follow: it is compared with the instance's."""
    coming = pluggable(spec)
    devices = (spec.get("domain") or {}).get("devices") or {}
    if "interfaces" in devices:
        devices["interfaces"] = [each for each in devices["interfaces"] if each["name"] not in coming]
    if "networks" in spec:
        spec["networks"] = [each for each in spec["networks"] if each["name"] not in coming]
    for interface in devices.get("interfaces") or ():
        if interface.get("state") in LINK_STATES:
            interface.pop("state", None)


def obstacle(vmi: Object, wanted: Mapping[str, Any]) -> str:
    """Return why an instance can't follow the interfaces of its VirtualMachine without a restart; nothing if it can.

    :param wanted: the spec of an instance that is made of the template now.
    """
    spec = vmi["spec"]
    before, after = of(spec), of(wanted)
    for name, interface in before.items():
        if interface.get("state") == ABSENT:
            continue
        if name not in after:
            return f"interface {name!r} is no longer in the template; state {ABSENT!r} unplugs it"
        changed = networks_of(spec).get(name) != networks_of(wanted).get(name)
        if changed or _without_state(interface) != _without_state(after[name]):
            return f"interface {name!r} was changed in the template beyond its state"
    for name, interface in after.items():
        if name not in before and interface.get("state") != ABSENT and name not in pluggable(wanted):
            return f"interface {name!r} can't be hot-plugged: only bridge interfaces on secondary networks can"
    return ""


def followed(vmi: Object, wanted: Mapping[str, Any]) -> tuple[list[Object], list[Object]] | None:
    """Return an instance's interfaces and networks as they are to be; None if they are.

    One that was unplugged goes once the status no longer has it. If it is wanted again by then, it is plugged in again.
    """
    spec, there = vmi["spec"], _in_status(vmi)
    after = of(wanted)
    coming_and_going = pluggable(spec)
    kept = [
        _with_state(interface, after.get(name, {}).get("state"), leaves=name in coming_and_going)
        for name, interface in of(spec).items()
        if interface.get("state") != ABSENT or name in there
    ]
    names = {each["name"] for each in kept}
    coming = [
        interface
        for name, interface in after.items()
        if name not in names and name not in there and interface.get("state") != ABSENT
    ]
    chosen = [*kept, *coming]
    known = {**networks_of(wanted), **networks_of(spec)}
    networks = [known[each["name"]] for each in chosen if each["name"] in known]
    if chosen == list(of(spec).values()) and networks == list(networks_of(spec).values()):
        return None
    return chosen, networks


def without_unplugged(template: Mapping[str, Any], vmi: Object | None) -> Object | None:
    """Return a patch that removes unplugged interfaces from the *spec* of a template; None if there are none.

    :param vmi: the instance that runs, if one does.
    """
    there = set() if vmi is None else of(vmi["spec"]).keys() | _in_status(vmi)
    gone = {
        name
        for name, interface in pluggable(template).items()
        if interface.get("state") == ABSENT and name not in there
    }
    if not gone:
        return None
    return {
        "domain": {"devices": {"interfaces": [each for name, each in of(template).items() if name not in gone]}},
        "networks": [each for name, each in networks_of(template).items() if name not in gone],
    }


def _in_status(vmi: Object) -> set[str]:
    return interfaces.reported(vmi, interfaces.DOMAIN) | interfaces.reported(vmi, interfaces.MULTUS)


def _with_state(interface: Object, state: str | None, *, leaves: bool) -> Object:
    """Return an interface with the state that is wanted; one that goes can't be held up.

    :param leaves: it may be unplugged.
    """
    before = interface.get("state")
    if before == ABSENT or (before or "up") == (state or "up") or (state == ABSENT and not leaves):
        return interface
    return {**interface, "state": state or "up"}


def _without_state(interface: Mapping[str, Any]) -> Object:
    return {key: value for key, value in interface.items() if key != "state"}
