# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proxy of Services has to know about this node's Pods, from their network's CNI configuration."""

import ipaddress
from collections.abc import Iterable
from typing import Any

from turtles.standalone.podrunner import cni
from turtles.standalone.podrunner.config import Config
from turtles.standalone.proxy.rules import Settings


def served(config: Config) -> tuple[tuple[Settings, ...], tuple[str, ...]] | None:
    """Return the proxy's settings for each family and the Pods' bridges, None where Services are not served.

    :raises turtles.standalone.podrunner.cni.CNIError: the network's configuration can't be read.
    """
    services = config.services
    if services is None:
        return None
    plugins = cni.load_network(config.cni_conf_dir)["plugins"]
    bridges = tuple(str(plugin.get("bridge", "cni0")) for plugin in plugins if plugin["type"] == "bridge")
    pods = [text for plugin in plugins for text in _subnets(plugin.get("ipam") or {})]
    pods += [network for _, *networks in services.other_nodes for network in networks]

    def settings(cidr: str) -> Settings:
        version = ipaddress.ip_network(cidr).version

        def mine(networks: Iterable[str]) -> tuple[str, ...]:
            return tuple(text for text in networks if ipaddress.ip_network(text).version == version)

        return Settings(
            f"{config.cgroup_parent}-services",
            cidr,
            mine(services.node_port_addresses),
            mine(pods),
            mine(services.external_addresses),
            # IPv6 addresses of several nodes are routed
            masquerades=bool(services.other_nodes) and version == 4,
        )

    families = tuple(settings(cidr) for cidr in (services.cidr, services.cidr_ipv6) if cidr)
    return families, (*bridges, *(bridge for bridge, *_ in services.other_nodes))


def _subnets(ipam: dict[str, Any]) -> list[str]:
    """Return the networks of the plugin host-local, in either of its forms."""
    subnets = [entry.get("subnet") for ranges in ipam.get("ranges") or [] for entry in ranges]
    subnets.append(ipam.get("subnet"))
    return [str(ipaddress.ip_network(text, strict=False)) for text in subnets if text]
