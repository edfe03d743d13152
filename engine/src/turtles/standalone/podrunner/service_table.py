# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proxy of Services has to know about this node's Pods, from their network's CNI configuration."""

import ipaddress
from typing import Any

from turtles.standalone.podrunner import cni
from turtles.standalone.podrunner.config import Config
from turtles.standalone.proxy.rules import Settings


def served(config: Config) -> tuple[Settings, tuple[str, ...]] | None:
    """Return the proxy's settings and the Pods' bridges, None where Services are not served.

    :raises turtles.standalone.podrunner.cni.CNIError: the network's configuration can't be read.
    """
    if config.services is None:
        return None
    plugins = cni.load_network(config.cni_conf_dir)["plugins"]
    bridges = tuple(str(plugin.get("bridge", "cni0")) for plugin in plugins if plugin["type"] == "bridge")
    ranges = tuple(text for plugin in plugins for text in _subnets(plugin.get("ipam") or {}))
    table = f"{config.cgroup_parent}-services"
    services = config.services
    settings = Settings(
        table,
        services.cidr,
        services.node_port_addresses,
        (*ranges, *(network for _, network in services.other_nodes)),
        services.external_addresses,
        masquerades=bool(services.other_nodes),
    )
    return settings, (*bridges, *(bridge for bridge, _ in services.other_nodes))


def _subnets(ipam: dict[str, Any]) -> list[str]:
    """Return the IPv4 networks of the plugin host-local, in either of its forms."""
    found = [entry.get("subnet") for ranges in ipam.get("ranges") or [] for entry in ranges]
    found.append(ipam.get("subnet"))
    networks = [ipaddress.ip_network(text, strict=False) for text in found if text]
    return [str(network) for network in networks if network.version == 4]
