# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives the guest the addresses of its interfaces: by DHCP, and in IPv6 by DHCPv6 and router advertisements.

What interfaces with IPv4 addresses the guest starts with, the launcher knows by itself. Of others it is told by the
node agent: those that are plugged in later, and all those with IPv6 addresses.
"""

import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turtles.api.guests import hostname
from turtles.domain import handover, network, paths
from turtles.domain.connections import own_connections
from turtles.domain.interface_names import pod_interface_name
from turtles.domain.network import InterfacePlan
from turtles.launcher import dhcp, dhcpv6, pod, router
from turtles.launcher.errors import LaunchError
from turtles.launcher.listening import listen
from turtles.launcher.loop import every, on_readable

log = logging.getLogger(__name__)

#: Seconds that the node agent may take to say something, and bytes that count: a machine has up to 256 interfaces.
_PATIENCE, _LIMIT, _PART = 2.0, 1 << 20, 1 << 16


class Addressing:
    """Answers the guest's questions for addresses, in the launcher's event loop.

    :param vmi: what was delivered.
    :param path: of the socket at which the node agent says how interfaces are connected.
    :raises LaunchError: if the guest can't be connected, or the Pod's folders can't be used.
    """

    def __init__(self, vmi: Mapping[str, Any], path: Path = Path(paths.INTERFACES_SOCKET)) -> None:
        # What CNI gave the Pod is read now, before the node agent changes it.
        self._plans = _planned(vmi)
        self._hostname = hostname(vmi)
        self._resolver = pod.Resolver()
        self._dhcp: dhcp.Server | None = None
        self._dhcpv6: dhcpv6.Server | None = None
        self._router: router.Router | None = None
        self._opened = False
        self._listener = listen(path)
        on_readable(self._listener.fileno(), self._on_call)

    def open(self) -> None:
        """Start to answer, once there is a domain: the node agent has allowed the ports before it defined that.

        An ordinary user in a container gets no capability it could use for that: Kubernetes has no ambient ones
        (KEP-2763), and file capabilities don't work without privilege escalation.

        :raises LaunchError: if a port can't be opened.
        """
        if not self._opened:
            self._opened = True
            self._resolver = pod.read_resolver()
            self._serve()

    def _serve(self) -> None:
        v4, v6 = [[plan for plan in self._plans if getattr(plan, name)] for name in ("guest_ip", "guest_ip6")]
        try:
            if v4 and self._dhcp is None:
                self._dhcp = dhcp.Server(self._resolver, self._hostname)
                on_readable(self._dhcp.fileno(), self._dhcp.handle)
            if v6 and self._dhcpv6 is None:
                self._dhcpv6 = dhcpv6.Server(self._resolver)
                on_readable(self._dhcpv6.fileno(), self._dhcpv6.handle)
            if self._dhcp is not None:
                self._dhcp.serve(v4)
            if self._dhcpv6 is not None:
                self._dhcpv6.serve(v6)
            if self._router is not None:
                self._router.serve(v6)
        except OSError as error:
            raise LaunchError(f"the ports of the Pod for DHCP can't be used: {error}") from error

    def _on_call(self) -> None:
        """Take what the node agent says of interfaces."""
        client, _ = self._listener.accept()
        with client:
            try:
                data, descriptors = _receive(client)
                plans = handover.read_interfaces(data)
            except (OSError, handover.HandoverError) as error:
                log.warning("the node agent can't be understood: %s", error)
                return
        self._take_router(descriptors)
        self._plans = [plan for plan in plans if plan.has_address]
        if self._opened:
            try:
                self._serve()
            except LaunchError as error:
                # The guest runs on; only what was plugged in has no address.
                log.error("%s", error)

    def _take_router(self, descriptors: Sequence[int]) -> None:
        for descriptor in descriptors:
            opened = socket.socket(fileno=descriptor)
            if self._router is not None:
                opened.close()
                continue
            self._router = router.Router(opened)
            on_readable(self._router.fileno(), self._router.handle)
            every(router.INTERVAL, self._router.advertise)


def _receive(client: socket.socket) -> tuple[bytes, list[int]]:
    """Return what was sent, and the descriptors that came along.

    :raises OSError: if that takes too long, or is too much.
    """
    client.settimeout(_PATIENCE)
    data, descriptors, _, _ = socket.recv_fds(client, _PART, 1)
    while part := client.recv(_PART):
        data += part
        if len(data) > _LIMIT:
            raise OSError("that is too much")
    return data, descriptors


def _planned(vmi: Mapping[str, Any]) -> list[InterfacePlan]:
    """Return the interfaces that get an address."""
    facts = {}
    for _, _, pod_network in own_connections(vmi["spec"]):
        name = pod_interface_name(pod_network)
        facts[name] = pod.pod_interface(name, network.describe(pod_network))
    try:
        return [plan for plan in network.plans(vmi, facts) if plan.has_address]
    except ValueError as error:
        raise LaunchError(str(error)) from error
