# SPDX-License-Identifier: GPL-3.0-or-later
"""status.interfaces of a VMI: what the domain, the Pod's network status and the guest agent say of them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from turtles.api.kinds.vmi.interfaces import AGENT, DOMAIN, MULTUS, sources
from turtles.domain.guest_info import AgentInterface
from turtles.domain.live_domain import Live
from turtles.domain.network import InterfacePlan


def interfaces(
    plans: Sequence[InterfacePlan],
    seen_inside: Mapping[str, AgentInterface],
    live: Live | None = None,
    before: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return status.interfaces: those of the VMI, those on their way out, and those that only the guest knows.

    Under both bindings the Pod's addresses are where the guest is reached. Where it has none, the guest's own are.

    :param seen_inside: the guest's interfaces by MAC, empty without a guest agent.
    :param live: the running guest's domain.
    :param before: the status.interfaces there are, with what virt-controller knows of the Pod.
    """
    entries = list(before or ())
    of_multus = {entry["name"] for entry in entries if entry.get("name") and MULTUS in sources(entry)}
    statuses = [_interface(plan, seen_inside.get(plan.guest_mac), live, plan.name in of_multus) for plan in plans]
    known = {entry["name"] for entry in statuses}
    statuses += [
        left
        for entry in entries
        if entry.get("name") and entry["name"] not in known and (left := _leaving(entry, live)) is not None
    ]
    macs = {entry.get("mac") for entry in statuses}
    return statuses + [_only_inside(mac, inside) for mac, inside in seen_inside.items() if mac not in macs]


def _interface(
    plan: InterfacePlan, inside: AgentInterface | None, live: Live | None, of_multus: bool
) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": plan.name, "podInterfaceName": plan.pod_interface}
    origins = [MULTUS] if of_multus else []
    if live is not None and not live.has_interface(plan.name, plan.guest_mac):  # it is about to be plugged in
        return {**entry, "infoSource": ", ".join(origins)}
    entry["mac"] = plan.guest_mac
    if addresses := plan.addresses or (inside.addresses if inside else ()):
        entry |= {"ipAddress": addresses[0], "ipAddresses": list(addresses)}
    if inside is not None:
        entry["interfaceName"] = inside.name
        origins.insert(0, AGENT)
    is_up = live.links.get(plan.guest_mac, plan.link_up) if live is not None else plan.link_up
    return {
        **entry,
        "infoSource": ", ".join([DOMAIN, *origins]),
        "queueCount": plan.queues,
        "linkState": "up" if is_up else "down",
    }


def _leaving(entry: Mapping[str, Any], live: Live | None) -> dict[str, Any] | None:
    """Return the entry of an interface that the VMI doesn't want any longer; None if nothing is left of it."""
    if live is None or live.has_interface(entry["name"], str(entry.get("mac"))):
        return dict(entry)
    if MULTUS not in sources(entry):
        return None
    return {"name": entry["name"], "podInterfaceName": entry.get("podInterfaceName", ""), "infoSource": MULTUS}


def _only_inside(mac: str, inside: AgentInterface) -> dict[str, Any]:
    """Return the entry of an interface that the guest has made itself, a bridge say."""
    entry: dict[str, Any] = {"mac": mac, "interfaceName": inside.name, "infoSource": AGENT, "queueCount": -1}
    if inside.addresses:
        entry |= {"ipAddress": inside.addresses[0], "ipAddresses": list(inside.addresses)}
    return entry


def known_interfaces(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, AgentInterface]:
    """Return the guest's interfaces by MAC, as status.interfaces has them from an earlier answer."""
    return {
        entry["mac"]: AgentInterface(entry["interfaceName"], tuple(entry.get("ipAddresses") or ()))
        for entry in entries or ()
        if entry.get("interfaceName")
    }
