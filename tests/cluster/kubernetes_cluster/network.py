# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The network of a cluster: a bridge on the control machine, a cable from there to each node and one to the host."""

from __future__ import annotations

import subprocess

from .errors import ClusterError
from .machine import Machine
from .settings import Settings

BRIDGE = "lan"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Cables and routes. They end with the machines that hold their ends, so nothing undoes them.

    Nodes and the host reach Pods through routes to their node, as with a CNI plugin that routes ("host-gw"). The host
    reaches Services through the first node, where kube-proxy translates them.
    """

    def __init__(self, settings: Settings, control: Machine) -> None:
        self._settings = settings
        self._control = control

    def start(self) -> None:
        """The bridge, and the host's cable."""
        settings, control = self._settings, self._control
        control.run("ip", "link", "add", BRIDGE, "type", "bridge")
        control.run("ip", "address", "add", f"{settings.control_address}/24", "dev", BRIDGE)
        control.run("ip", "link", "set", BRIDGE, "up")
        _ip("link", "add", settings.instance, "type", "veth", "peer", "name", "host", "netns", str(control.pid))
        control.run("ip", "link", "set", "host", "master", BRIDGE, "up")
        _ip("address", "add", f"{settings.host_address}/24", "dev", settings.instance)
        _ip("link", "set", settings.instance, "up")

    def connect(self, number: int, node: Machine) -> None:
        """A node's cable and the routes from it."""
        settings, control = self._settings, self._control
        peer = ("peer", "name", node.name, "netns", str(control.pid))
        _ip("link", "add", "eth0", "netns", str(node.pid), "type", "veth", *peer)
        control.run("ip", "link", "set", node.name, "master", BRIDGE, "up")
        node.run("ip", "address", "add", f"{settings.node_address(number)}/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")
        node.run("ip", "route", "add", "default", "via", settings.control_address)
        for other in range(1, settings.nodes + 1):
            if other != number:
                node.run("ip", "route", "add", settings.pod_network(other), "via", settings.node_address(other))
        route = (settings.pod_network(number), "via", settings.node_address(number))
        control.run("ip", "route", "add", *route)
        _ip("route", "add", *route)
        if number == 1:
            services = (str(settings.services), "via", settings.node_address(number))
            control.run("ip", "route", "add", *services)
            _ip("route", "add", *services)


def remove(settings: Settings) -> None:
    """The host's cable, if the machine at its other end didn't take it along yet."""
    subprocess.run(["ip", "link", "delete", settings.instance], capture_output=True, check=False)
