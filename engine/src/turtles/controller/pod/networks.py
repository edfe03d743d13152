# SPDX-License-Identifier: GPL-3.0-or-later
"""What a launcher Pod asks Multus for, and what Multus reports about it. Pure.

Source: Network Plumbing Working Group, "Kubernetes Network Custom Resource Definition De-facto Standard"; KubeVirt user
guide, "Interfaces and networks".
"""

import json
from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.objects import Object
from turtles.domain import network


def annotations(vmi: Object) -> dict[str, str]:
    """Return the annotations of a VMI's Pod for the networks that it is attached to."""
    found = {}
    entries = [_entry(vmi, *pair) for pair in network.further_networks(vmi["spec"])]
    if entries:
        found[labels.NETWORKS] = json.dumps(entries, separators=(",", ":"))
    for _, _, each in network.connections(vmi["spec"]):
        if (each.get("multus") or {}).get("default"):
            found[labels.DEFAULT_NETWORK] = each["multus"]["networkName"]
    return found


def _entry(vmi: Object, interface: Mapping[str, Any], each: Mapping[str, Any]) -> Object:
    namespace, _, name = each["multus"]["networkName"].rpartition("/")
    return {
        "name": name,
        "namespace": namespace or vmi["metadata"]["namespace"],
        "mac": network.chosen_mac(vmi, interface, each),
        "interface": network.pod_interface_name(each),
    }


def interfaces(vmi: Object, pod: Object) -> list[Object]:
    """Return status.interfaces of a VMI whose guest doesn't run yet: those that its Pod has, as Multus reports."""
    text = (pod["metadata"].get("annotations") or {}).get(labels.NETWORK_STATUS)
    try:
        entries = json.loads(text) if text else []
        reported = {entry.get("interface") for entry in entries}
    except (ValueError, AttributeError, TypeError):
        return []
    return [
        {"name": interface["name"], "podInterfaceName": name, "infoSource": "multus-status"}
        for _, interface, each in network.connections(vmi["spec"])
        if each.get("multus") is not None and (name := network.pod_interface_name(each)) in reported
    ]
