# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher Pod asks Multus for, and what Multus reports about it. Pure.

Source: Network Plumbing Working Group, "Kubernetes Network Custom Resource Definition De-facto Standard"; KubeVirt user
guide, "Interfaces and networks".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from turtles.api import labels, quantity
from turtles.api.configuration import BindingPlugin
from turtles.api.kinds.vmi import interfaces
from turtles.api.objects import Object
from turtles.api.texts import from_json
from turtles.domain.connections import connections, further_networks
from turtles.domain.interface_names import pod_interface_name
from turtles.domain.macs import chosen_mac

#: Names that interfaces of secondary networks have in the Pod.
_OURS = re.compile(r"pod[0-9a-f]{11}")


def annotations(vmi: Object, bindings: Mapping[str, BindingPlugin] = {}) -> dict[str, str]:
    """Return the annotations of a VMI's Pod for the networks that it is attached to.

    :param bindings: the network binding plugins there are.
    """
    result = {}
    if entries := [*_entries(vmi), *_of_plugins(vmi, bindings)]:
        result[labels.NETWORKS] = _text(entries)
    for _, _, each in connections(vmi["spec"]):
        if (each.get("multus") or {}).get("default"):
            result[labels.DEFAULT_NETWORK] = each["multus"]["networkName"]
    return result


def changed(vmi: Object, pod: Object) -> str | None:
    """Return the annotation that has a running Pod attached to the networks of its VMI; None if it says so already.

    A network that is to go stays while the guest has the interface.
    """
    before = (pod["metadata"].get("annotations") or {}).get(labels.NETWORKS)
    try:
        named = {_key(entry): entry for entry in from_json(before)} if before else {}
    except (ValueError, KeyError, TypeError):
        return None  # somebody else's
    in_guest = interfaces.reported(vmi, interfaces.DOMAIN)
    known = interfaces.networks_of(vmi["spec"])
    kept = {pod_interface_name(known[name]) for name in in_guest if name in known}
    wanted = {entry["interface"]: entry for entry in _entries(vmi)}
    # Others are a binding plugin's, or the user's own.
    after = {
        name: entry for name, entry in named.items() if name in wanted or name in kept or not _OURS.fullmatch(name)
    }
    after |= {name: entry for name, entry in wanted.items() if name not in after}
    return None if after.keys() == named.keys() else _text(list(after.values()))


def _entries(vmi: Object) -> list[Object]:
    return [_entry(vmi, *pair) for pair in further_networks(vmi["spec"])]


def _key(entry: Mapping[str, Any]) -> str:
    return str(entry.get("interface") or f"{entry['namespace']}/{entry['name']} {entry.get('cni-args')}")


def _of_plugins(vmi: Object, bindings: Mapping[str, BindingPlugin]) -> Iterator[Object]:
    """Yield what binding plugins have the Pod attached to: their CNI plugins learn which network it is about."""
    for interface, plugin in _used(vmi, bindings):
        if plugin.definition:
            namespace, _, name = plugin.definition.rpartition("/")
            yield {
                "name": name,
                "namespace": namespace or vmi["metadata"]["namespace"],
                "cni-args": {"logicNetworkName": interface["name"]},
            }


def memory(vmi: Object, bindings: Mapping[str, BindingPlugin]) -> int:
    """Return the bytes that the launcher needs for binding plugins; each counts once."""
    used = {interface["binding"]["name"]: plugin for interface, plugin in _used(vmi, bindings)}
    return sum(quantity.to_int(plugin.memory) for plugin in used.values())


def _used(vmi: Object, bindings: Mapping[str, BindingPlugin]) -> Iterator[tuple[Mapping[str, Any], BindingPlugin]]:
    """Yield the VMI's interfaces that have a binding plugin, each with it."""
    for _, interface, _ in connections(vmi["spec"]):
        if (plugin := bindings.get((interface.get("binding") or {}).get("name", ""))) is not None:
            yield interface, plugin


def _text(entries: Sequence[Object]) -> str:
    return json.dumps(entries, separators=(",", ":"))


def _entry(vmi: Object, interface: Mapping[str, Any], each: Mapping[str, Any]) -> Object:
    namespace, _, name = each["multus"]["networkName"].rpartition("/")
    return {
        "name": name,
        "namespace": namespace or vmi["metadata"]["namespace"],
        "mac": chosen_mac(vmi, interface, each),
        "interface": pod_interface_name(each),
    }


def reported(vmi: Object, pod: Object) -> list[Object]:
    """Return status.interfaces of a VMI with what Multus reports: which of them its Pod has.

    Whether the guest has them is for the node agent to say. What neither knows goes.
    """
    entries = [dict(entry) for entry in (vmi.get("status") or {}).get("interfaces") or ()]
    attached = _attached(pod)
    if attached is None:
        return entries
    names = {
        each["name"]: name
        for _, _, each in connections(vmi["spec"])
        if each.get("multus") is not None and (name := pod_interface_name(each)) in attached
    }
    for entry in entries:
        sources = interfaces.sources(entry)
        known = interfaces.MULTUS in sources or entry.get("name") in names
        others = [source for source in sources if source != interfaces.MULTUS]
        there = known and entry.get("podInterfaceName") in attached
        entry["infoSource"] = ", ".join([*others, interfaces.MULTUS] if there else others)
        names.pop(entry.get("name", ""), None)
    entries = [entry for entry in entries if entry["infoSource"]]
    return entries + [
        {"name": name, "podInterfaceName": of_pod, "infoSource": interfaces.MULTUS} for name, of_pod in names.items()
    ]


def _attached(pod: Object) -> set[str] | None:
    """Return the names of the Pod's interfaces, as its network status says; None if it doesn't."""
    text = (pod["metadata"].get("annotations") or {}).get(labels.NETWORK_STATUS)
    try:
        return {str(entry.get("interface")) for entry in from_json(text)} if text else None
    except (ValueError, AttributeError, TypeError):
        return None
