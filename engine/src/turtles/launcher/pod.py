# SPDX-License-Identifier: GPL-3.0-or-later
"""What the launcher learns about its Pod without any privilege: the network interface and the resolver's settings."""

import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_address
from pathlib import Path

from turtles.domain.interface_names import POD_INTERFACE
from turtles.domain.network import PodInterface
from turtles.launcher.errors import LaunchError

# <linux/sockios.h>
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_SIOCGIFMTU = 0x8921
_SIOCGIFHWADDR = 0x8927
_RTF_GATEWAY = 0x2


def pod_interface(name: str = POD_INTERFACE, of: str = "the Pod network") -> PodInterface:
    """Return what CNI made of interface *name*, as it is now.

    To be called before the libvirt socket is shown to the node agent, which then moves addresses away. A Pod without
    an IPv4 address gives one with empty ``addresses``; whether that matters is the interface plan's decision.

    :param of: the interface's network, for messages.
    :raises LaunchError: if there is no such interface.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            mac = _ioctl(sock, _SIOCGIFHWADDR, name)[2:8].hex(":")
            mtu: int = struct.unpack_from("=i", _ioctl(sock, _SIOCGIFMTU, name))[0]
        except OSError as error:
            own = name == POD_INTERFACE
            remedy = "check the node's CNI configuration" if own else "the cluster needs Multus for it"
            raise LaunchError(
                f"the Pod has no network interface {name} of {of} ({error.strerror}); {remedy}"
            ) from error
        try:
            address = IPv4Address(_ioctl(sock, _SIOCGIFADDR, name)[4:8])
            netmask = IPv4Address(_ioctl(sock, _SIOCGIFNETMASK, name)[4:8])
        except OSError:
            return PodInterface(name, mac, (), None, mtu)
    prefix = IPv4Network(f"0.0.0.0/{netmask}").prefixlen
    routes = Path("/proc/net/route").read_text()
    default, others = gateways(routes, name)
    return PodInterface(name, mac, ((str(address), prefix),), default, mtu, others)


def _ioctl(sock: socket.socket, request: int, name: str) -> bytes:
    """Return the union part of ``struct ifreq`` after *request* for interface *name*."""
    return fcntl.ioctl(sock, request, struct.pack("16s24x", name.encode()))[16:]


def gateways(routes: str, interface: str) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """Return the gateway of the IPv4 default route over *interface*, None if there is none, and its other routes.

    Those are (destination with prefix length, gateway) pairs.

    :param routes: text of ``/proc/net/route`` (addresses are hexadecimal numbers in the machine's byte order).
    """
    default, others = None, []
    for line in routes.splitlines()[1:]:
        fields = line.split()
        name, destination, gateway, flags, mask = fields[0], fields[1], fields[2], fields[3], fields[7]
        if name != interface or not int(flags, 16) & _RTF_GATEWAY:
            continue
        if int(destination, 16) == int(mask, 16) == 0:
            default = default or str(_address(gateway))
        else:
            others.append((str(IPv4Network(f"{_address(destination)}/{_address(mask)}")), str(_address(gateway))))
    return default, tuple(others)


def _address(text: str) -> IPv4Address:
    return IPv4Address(struct.pack("=I", int(text, 16)))


@dataclass(frozen=True)
class Resolver:
    """Name servers and search domains to hand to the guest."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def resolver(text: str) -> Resolver:
    """Return the settings in the *text* of a resolv.conf.

    Loopback servers are left out: they are the Pod's or the node's own, which a guest can't reach; so are those of a
    link. As in resolv.conf(5), the last ``search`` or ``domain`` line counts.
    """
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 2 or fields[0][0] in "#;":
            continue
        if fields[0] == "nameserver":
            try:
                address = ip_address(fields[1])
            except (AddressValueError, ValueError):
                continue
            if not (address.is_loopback or address.is_link_local or str(address) in servers):
                servers.append(str(address))
        elif fields[0] in ("search", "domain"):
            search = tuple(domain.rstrip(".") for domain in fields[1:] if domain.rstrip("."))
    return Resolver(tuple(servers), search)


def read_resolver(path: Path = Path("/etc/resolv.conf")) -> Resolver:
    """Return the Pod's resolver settings; empty ones if there is no resolv.conf."""
    try:
        return resolver(path.read_text())
    except OSError:
        return Resolver()
