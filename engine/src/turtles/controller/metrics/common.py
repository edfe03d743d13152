# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels that machines and their instances share. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api.objects import get

#: Annotations of a template that say what the guest is.
_SYSTEM = ("os", "workload", "flavor")
#: An instance type or preference of a vendor whose names KubeVirt doesn't give away.
OTHER = "<other>"
#: What there is no value for.
NONE = "<none>"
_BINDINGS = ("bridge", "masquerade", "sriov", "passtBinding")


def system(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what annotations say about a guest."""
    annotations = (metadata or {}).get("annotations") or {}
    return {name: str(annotations.get(f"vm.kubevirt.io/{name}") or "") for name in _SYSTEM}


def vnics(obj: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Return the labels of the interfaces of an instance's spec."""
    networks = {network["name"]: network for network in spec.get("networks") or ()}
    for interface in get(dict(spec), "domain", "devices", "interfaces") or ():
        network = networks.get(interface["name"])
        if network is None:
            continue
        type_, binding = _binding(interface)
        yield {
            "name": obj["metadata"]["name"],
            "namespace": obj["metadata"]["namespace"],
            "vnic_name": interface["name"],
            "binding_type": type_,
            "network": get(network, "multus", "networkName") or "pod networking",
            "binding_name": binding,
            "model": interface.get("model") or NONE,
        }


def _binding(interface: Mapping[str, Any]) -> tuple[str, str]:
    if plugin := get(dict(interface), "binding", "name"):
        return "plugin", str(plugin)
    return "core", next((name for name in _BINDINGS if interface.get(name) is not None), "")
