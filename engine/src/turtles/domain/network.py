# SPDX-License-Identifier: GPL-3.0-or-later
"""How a VMI's interfaces are connected to its Pod's interfaces: addresses and device names. Pure functions.

The node agent builds the devices and the domain XML from the plan, the launcher serves it by DHCP; both derive it from
the same facts, so that nothing has to be passed between them. The rules are those of the KubeVirt user guide,
"Interfaces and networks": with *bridge* the Pod's address and MAC move into the guest; with *masquerade* the guest has
10.0.2.2 behind NAT. A secondary network (``multus``) has an interface of its own in the Pod, whose name is derived from
the network's as KubeVirt does it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from turtles.api.configuration import MANAGED_TAP, TAP
from turtles.domain.connections import own_connections
from turtles.domain.interface_names import device_names, pod_interface_name
from turtles.domain.macs import chosen_mac

#: What the kernel has at most for a tap.
_MAX_QUEUES = 256
#: What :func:`binding_of` calls ``passtBinding``.
PASST = "passt"
#: The first version of libvirt that starts passt for an interface of vhost-user (its NEWS), as libvirt counts them.
LIBVIRT_WITH_PASST = 11_001_000
#: Default of a network's ``pod.vmNetworkCIDR``.
MASQUERADE_CIDR = "10.0.2.0/24"
#: Default of a network's ``pod.vmIPv6NetworkCIDR``.
MASQUERADE_IPV6_CIDR = "fd10:0:2::/120"


@dataclass(frozen=True)
class PodInterface:
    """What CNI gave the Pod, read before anything is changed.

    ``addresses`` are (address, prefix length) pairs, without those of the link. ``gateway`` is that of the IPv4 default
    route, ``gateway6`` of the IPv6 one, ``mtu`` in bytes. ``routes`` are its other IPv4 routes by a gateway:
    (destination with prefix length, gateway) pairs. ``is_tap``: QEMU can open it, as it is (macvtap, say).
    """

    name: str
    mac: str
    addresses: tuple[tuple[str, int], ...]
    gateway: str | None
    mtu: int
    routes: tuple[tuple[str, str], ...] = ()
    gateway6: str | None = None
    is_tap: bool = False

    def has_ipv4(self) -> bool:
        """Whether there is an IPv4 address."""
        return any(ip_address(address).version == 4 for address, _ in self.addresses)

    def ipv4(self) -> tuple[str, int]:
        """Return the first IPv4 address and its prefix length.

        :raises ValueError: if there is none.
        """
        for address, prefix in self.addresses:
            if ip_address(address).version == 4:
                return address, prefix
        raise ValueError(f"interface {self.name} of the Pod has no IPv4 address; check the node's CNI configuration")

    def ipv6(self) -> tuple[str, int] | None:
        """Return the first IPv6 address and its prefix length; None if there is none."""
        addresses = (each for each in self.addresses if ip_address(each[0]).version == 6)
        return next(addresses, None)


@dataclass(frozen=True)
class Port:
    """A port forwarded to a masqueraded guest; protocol is "tcp" or "udp". With ``last`` it is a range of them."""

    protocol: str
    number: int
    last: int | None = None


@dataclass(frozen=True)
class InterfacePlan:
    """Everything about one interface of a guest.

    ``gateway`` is None if the Pod has no default route there. ``ports`` empty means: all of them. ``server_ip`` is
    the address of the in-Pod bridge, from which DHCP answers; its prefix is ``prefix`` for masquerade and 32 for
    bridge. On a network without addresses, ``guest_ip`` and ``server_ip`` are empty: the guest brings its own.
    ``guest_ip6``, ``prefix6`` and ``gateway6`` are the same in IPv6, of which DHCP's server has no address of its
    own. With passt there is neither bridge nor tap. ``addresses`` are the Pod's, at which the guest is reached.
    ``queues`` are pairs of queues of its tap. ``dhcp_options`` is the interface's ``dhcpOptions``.
    """

    name: str
    binding: str
    pod_interface: str
    bridge: str
    tap: str
    guest_mac: str
    guest_ip: str
    prefix: int
    gateway: str | None
    server_ip: str
    mtu: int
    ports: tuple[Port, ...] = ()
    queues: int = 1
    link_up: bool = True
    dhcp_options: Mapping[str, Any] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    guest_ip6: str = ""
    prefix6: int = 0
    gateway6: str | None = None

    @property
    def wire(self) -> str:
        """Name of the Pod's end of the wire, once its own name is the placeholder's (bridge binding)."""
        return device_names(self.pod_interface).wire

    @property
    def has_address(self) -> bool:
        """Whether the guest's address is known, and given by DHCP."""
        return bool(self.guest_ip or self.guest_ip6)

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """What the guest may send from; nothing if that isn't known."""
        if not self.has_address:
            return ()
        if self.binding == "bridge":
            return self.addresses
        return tuple(address for address in (self.guest_ip, self.guest_ip6) if address)


def binding_of(interface: Mapping[str, Any], attachments: Mapping[str, str] = {}) -> str:
    """Return how an entry of ``spec.domain.devices.interfaces`` is connected.

    That is "masquerade", "bridge", "passt", "tap" or "managedTap", or nothing where a binding plugin's sidecar does it.

    :param attachments: of binding plugins, by their names.
    :raises ValueError: for a binding this engine doesn't have.
    """
    if (plugin := interface.get("binding")) is not None:
        return attachments.get(plugin["name"], "")
    if interface.get("passtBinding") is not None:
        return PASST
    for binding in ("masquerade", "bridge"):
        if interface.get(binding) is not None:
            return binding
    raise ValueError(
        f"interface {interface.get('name')!r} has no supported binding; use masquerade, bridge or passtBinding"
    )


def queues(spec: Mapping[str, Any]) -> int:
    """Return how many pairs of queues each interface of a VMI's *spec* has: one per virtual CPU, where wanted."""
    domain = spec.get("domain") or {}
    if not (domain.get("devices") or {}).get("networkInterfaceMultiqueue"):
        return 1
    cpu = domain.get("cpu") or {}
    vcpus = math.prod(int(cpu.get(key) or 1) for key in ("sockets", "cores", "threads"))
    return min(vcpus, _MAX_QUEUES)


def plan(
    interface: Mapping[str, Any],
    network: Mapping[str, Any],
    pod_interface: PodInterface,
    mac: str,
    pairs: int = 1,
    index: int = 0,
    attachments: Mapping[str, str] = {},
) -> InterfacePlan:
    """Return the plan of one interface, which somebody else's sidecar doesn't see to.

    :param interface: an entry of ``spec.domain.devices.interfaces``.
    :param network: the entry of ``spec.networks`` with the same name.
    :param pod_interface: the Pod's interface as CNI left it.
    :param mac: what :func:`chosen_mac` returns for it.
    :param pairs: of queues, if the interface's model has several.
    :param index: of the interface in the list.
    :param attachments: of binding plugins, by their names.
    :raises ValueError: if the network or binding isn't known, or the Pod network has no IPv4 address.
    """
    name = interface["name"]
    pod = network.get("pod")
    if pod is None and network.get("multus") is None:
        raise ValueError(f"network {name!r} is neither the Pod network (pod) nor a secondary one (multus)")
    binding = binding_of(interface, attachments)
    if binding in ("masquerade", PASST) and pod is None:
        raise ValueError(f"interface {name!r}: {binding} needs the Pod network; use bridge")
    names = device_names(pod_interface.name)
    common: dict[str, Any] = {
        "name": name,
        "binding": binding,
        "pod_interface": pod_interface.name,
        "bridge": names.bridge,
        "tap": names.tap,
        "mtu": pod_interface.mtu,
        "queues": pairs if interface.get("model", "virtio") == "virtio" else 1,
        "link_up": interface.get("state") != "down",
        "dhcp_options": interface.get("dhcpOptions") or {},
        "addresses": tuple(address for address, _ in pod_interface.addresses),
    }
    if binding in (TAP, MANAGED_TAP):
        tap = pod_interface.name if binding == TAP and pod_interface.is_tap else names.tap
        unserved = {"guest_ip": "", "prefix": 0, "gateway": None, "server_ip": ""}
        return InterfacePlan(guest_mac=mac or pod_interface.mac, **{**common, **unserved, "tap": tap})
    if binding == PASST:
        # Guest and passt agree on addresses by themselves. Behind it, the Pod keeps its interface as it is.
        unserved = {"guest_ip": "", "prefix": 0, "gateway": None, "server_ip": ""}
        alone = {"bridge": "", "tap": "", "queues": 1, "ports": _ports(interface)}
        return InterfacePlan(guest_mac=mac, **{**common, **unserved, **alone})
    of_pod6 = pod_interface.ipv6()
    if binding == "bridge":
        if of_pod6 is not None:
            common |= {"guest_ip6": of_pod6[0], "prefix6": of_pod6[1], "gateway6": pod_interface.gateway6}
        address, prefix = _ipv4(name, pod_interface) if pod is not None or pod_interface.has_ipv4() else ("", 0)
        return InterfacePlan(
            guest_mac=mac or pod_interface.mac,
            guest_ip=address,
            prefix=prefix,
            gateway=pod_interface.gateway,
            # Link-local, /32, one for each interface: answers on its in-Pod bridge only.
            server_ip=f"169.254.75.{10 + index % 245}" if address else "",
            routes=pod_interface.routes,
            **common,
        )
    _ipv4(name, pod_interface)
    subnet = IPv4Network((pod or {}).get("vmNetworkCIDR") or MASQUERADE_CIDR)
    gateway = str(subnet[1])
    if of_pod6 is not None:
        subnet6 = IPv6Network((pod or {}).get("vmIPv6NetworkCIDR") or MASQUERADE_IPV6_CIDR)
        common |= {"guest_ip6": str(subnet6[2]), "prefix6": subnet6.prefixlen, "gateway6": str(subnet6[1])}
    return InterfacePlan(
        guest_mac=mac,
        guest_ip=str(subnet[2]),
        prefix=subnet.prefixlen,
        gateway=gateway,
        server_ip=gateway,
        ports=_ports(interface),
        **common,
    )


def _ipv4(name: str, pod_interface: PodInterface) -> tuple[str, int]:
    try:
        return pod_interface.ipv4()
    except ValueError as error:
        raise ValueError(f"interface {name!r}: {error}") from error


def _ports(interface: Mapping[str, Any]) -> tuple[Port, ...]:
    ports = [Port(_protocol(port), int(port["port"])) for port in interface.get("ports") or ()]
    ranges = [Port(_protocol(each), int(each["start"]), int(each["end"])) for each in interface.get("portRanges") or ()]
    return (*ports, *ranges)


def _protocol(port: Mapping[str, Any]) -> str:
    return str(port.get("protocol") or "TCP").lower()


def plans(
    vmi: Mapping[str, Any], pod_interfaces: Mapping[str, PodInterface], attachments: Mapping[str, str] = {}
) -> tuple[InterfacePlan, ...]:
    """Return the plans of those interfaces of a VMI whose Pod's interfaces are known.

    :param pod_interfaces: by name, as CNI left them.
    :param attachments: of binding plugins, by their names; interfaces of others aren't the engine's affair.
    :raises ValueError: as :func:`plan` does.
    """
    spec = vmi["spec"]
    return tuple(
        plan(
            interface,
            network,
            pod_interfaces[name],
            chosen_mac(vmi, interface, network),
            queues(spec),
            index,
            attachments,
        )
        for index, interface, network in own_connections(spec)
        if (name := pod_interface_name(network)) in pod_interfaces
        and (interface.get("binding") is None or binding_of(interface, attachments))
    )


def describe(network: Mapping[str, Any]) -> str:
    """Return a network in words, for messages."""
    multus = network.get("multus")
    if multus is None:
        return "the Pod network"
    return f"network {network['name']!r} (NetworkAttachmentDefinition {multus['networkName']})"
