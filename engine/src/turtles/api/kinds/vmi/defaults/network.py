# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces."""

from __future__ import annotations

from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object


def default_network(spec: Object, domain: Object, config: ClusterConfiguration) -> None:
    """Add an interface on the Pod network, where none is declared and none is ruled out."""
    devices = domain["devices"]
    if devices.get("autoattachPodInterface") is False or spec.get("networks") or devices.get("interfaces"):
        return
    devices["interfaces"] = [{"name": "default", config.default_network_interface: {}}]
    spec["networks"] = [{"name": "default", "pod": {}}]
