# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces."""

from __future__ import annotations

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import Refusal
from turtles.api.objects import Object, get
from turtles.api.rules import Spec

_BRIDGE = "bridge"


def default_network(spec: Object, domain: Object, config: ClusterConfiguration) -> None:
    """Add an interface on the Pod network, where none is declared and none is ruled out."""
    if not _gets_interface(spec):
        return
    domain["devices"]["interfaces"] = [{"name": "default", config.default_network_interface: {}}]
    spec["networks"] = [{"name": "default", "pod": {}}]


def check_default_network(spec: Spec, config: ClusterConfiguration) -> None:
    """Check that the interface that would be added to a machine is allowed.

    :raises Refusal: it isn't.
    """
    if (
        config.default_network_interface == _BRIDGE
        and not config.permit_bridge_on_pod_network
        and _gets_interface(spec)
    ):
        raise Refusal("bridge interface is not enabled in kubevirt-config", 400)


def _gets_interface(spec: Spec) -> bool:
    devices = get(spec, "domain", "devices") or {}
    return not (devices.get("autoattachPodInterface") is False or spec.get("networks") or devices.get("interfaces"))
