# SPDX-License-Identifier: GPL-3.0-or-later
"""How a VMI's interface is connected to its Pod's interface: addresses and device names. Pure functions.

The node agent builds the devices and the domain XML from the plan, the launcher serves it by DHCP; both derive it from
the same facts, so that nothing has to be passed between them. The rules are those of the KubeVirt user guide,
"Interfaces and networks": with *bridge* the Pod's address and MAC move into the guest; with *masquerade* the guest has
10.0.2.2 behind NAT.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address
from typing import Any

#: Interface of the Pod network inside a Pod (CNI specification: the runtime's choice; every runtime chooses this).
POD_INTERFACE = "eth0"
#: Address of the DHCP server under the bridge binding: link-local, /32, answers on the in-Pod bridge only.
BRIDGE_DHCP_SERVER = "169.254.75.10"
#: What the kernel has at most for a tap.
_MAX_QUEUES = 256
#: Default of a network's ``pod.vmNetworkCIDR``.
MASQUERADE_CIDR = "10.0.2.0/24"


@dataclass(frozen=True)
class PodInterface:
    """What CNI gave the Pod, read before anything is changed.

    ``addresses`` are (address, prefix length) pairs, ``gateway`` is that of the IPv4 default route, ``mtu`` in bytes.
    """

    name: str
    mac: str
    addresses: tuple[tuple[str, int], ...]
    gateway: str | None
    mtu: int

    def ipv4(self) -> tuple[str, int]:
        """Return the first IPv4 address and its prefix length.

        :raises ValueError: if there is none.
        """
        for address, prefix in self.addresses:
            if ip_address(address).version == 4:
                return address, prefix
        raise ValueError(f"interface {self.name} of the Pod has no IPv4 address; check the node's CNI configuration")


@dataclass(frozen=True)
class Port:
    """A port forwarded to a masqueraded guest; protocol is "tcp" or "udp". With ``last`` it is a range of them."""

    protocol: str
    number: int
    last: int | None = None


@dataclass(frozen=True)
class InterfacePlan:
    """Everything about one interface of a guest.

    ``gateway`` is None if the Pod has no default route. ``ports`` empty means: all of them. ``server_ip`` is the
    address of the in-Pod bridge, from which DHCP answers; its prefix is ``prefix`` for masquerade and 32 for bridge.
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


def binding_of(interface: Mapping[str, Any]) -> str:
    """Return "masquerade" or "bridge" for an entry of ``spec.domain.devices.interfaces``.

    :raises ValueError: for a binding this engine doesn't have.
    """
    for binding in ("masquerade", "bridge"):
        if interface.get(binding) is not None:
            return binding
    raise ValueError(f"interface {interface.get('name')!r} has no supported binding; use masquerade or bridge")


def generated_mac(vmi_uid: str, interface: str) -> str:
    """Return a locally administered unicast MAC, always the same for a VMI's *interface*."""
    digest = hashlib.sha256(f"{vmi_uid}/{interface}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


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
    vmi_uid: str,
    pairs: int = 1,
) -> InterfacePlan:
    """Return the plan of one interface.

    :param interface: an entry of ``spec.domain.devices.interfaces``.
    :param network: the entry of ``spec.networks`` with the same name.
    :param pod_interface: the Pod's interface as CNI left it.
    :param pairs: of queues, if the interface's model has several.
    :raises ValueError: if the network isn't the Pod's, the binding isn't known, or the Pod has no IPv4 address.
    """
    name = interface["name"]
    pod = network.get("pod")
    if pod is None:
        raise ValueError(f"network {name!r} is not the Pod network; only networks with 'pod' are supported")
    binding = binding_of(interface)
    address, prefix = pod_interface.ipv4()
    requested_mac = _with_colons(str(interface.get("macAddress") or ""))
    bridge = f"k6t-{pod_interface.name}"
    common: dict[str, Any] = {
        "queues": pairs if interface.get("model", "virtio") == "virtio" else 1,
        "link_up": interface.get("state") != "down",
        "dhcp_options": interface.get("dhcpOptions") or {},
    }
    if binding == "bridge":
        return InterfacePlan(
            name=name,
            binding=binding,
            pod_interface=pod_interface.name,
            bridge=bridge,
            tap="tap0",
            guest_mac=requested_mac or pod_interface.mac,
            guest_ip=address,
            prefix=prefix,
            gateway=pod_interface.gateway,
            server_ip=BRIDGE_DHCP_SERVER,
            mtu=pod_interface.mtu,
            **common,
        )
    subnet = IPv4Network(pod.get("vmNetworkCIDR") or MASQUERADE_CIDR)
    gateway = str(subnet[1])
    return InterfacePlan(
        name=name,
        binding=binding,
        pod_interface=pod_interface.name,
        bridge=bridge,
        tap="tap0",
        guest_mac=requested_mac or generated_mac(vmi_uid, name),
        guest_ip=str(subnet[2]),
        prefix=subnet.prefixlen,
        gateway=gateway,
        server_ip=gateway,
        mtu=pod_interface.mtu,
        ports=_ports(interface),
        **common,
    )


def _ports(interface: Mapping[str, Any]) -> tuple[Port, ...]:
    ports = [Port(_protocol(port), int(port["port"])) for port in interface.get("ports") or ()]
    ranges = [Port(_protocol(each), int(each["start"]), int(each["end"])) for each in interface.get("portRanges") or ()]
    return (*ports, *ranges)


def _protocol(port: Mapping[str, Any]) -> str:
    return str(port.get("protocol") or "TCP").lower()


def _with_colons(mac: str) -> str:
    digits = re.sub(r"[:.-]", "", mac.lower())
    return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2))


def plans(vmi: Mapping[str, Any], pod_interface: PodInterface | None) -> tuple[InterfacePlan, ...]:
    """Return the plans of all interfaces of a VMI; empty if none is on the Pod network.

    :param pod_interface: the Pod's interface as CNI left it.
    :raises ValueError: as :func:`plan` does.
    """
    pair = pod_network_interface(vmi["spec"])
    if pair is None or pod_interface is None:
        return ()
    return (plan(*pair, pod_interface, vmi["metadata"]["uid"], queues(vmi["spec"])),)


def pod_network_interface(spec: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return the interface of a VMI's *spec* that is on the Pod network, with its network; None if there is none."""
    networks = {network["name"]: network for network in spec.get("networks") or ()}
    for interface in spec.get("domain", {}).get("devices", {}).get("interfaces") or ():
        network = networks.get(interface["name"])
        if network is not None and network.get("pod") is not None:
            return interface, network
    return None
