# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces, and the networks they are connected to."""

from __future__ import annotations

from turtles.api.language import INT32, STRING, UINT32, ListOf, Struct, field, unsupported

INTERFACE = Struct(
    "A network interface, connected to the network of the same name.",
    field("name", STRING, "Name of the interface and of its network.", required=True),
    field("model", STRING, "e1000, e1000e, igb, ne2k_pci, pcnet, rtl8139 or virtio (the default).", absent="virtio"),
    field("bridge", Struct("No settings."), "The guest gets the Pod's own address, by DHCP."),
    field("masquerade", Struct("No settings."), "The guest is behind the Pod's address, by NAT."),
    field(
        "ports",
        ListOf(
            Struct(
                "A port that is forwarded to the guest.",
                field("name", STRING, "Name of the port, unique in the interface."),
                field("port", INT32, "Number, 1 to 65535.", required=True),
                field("protocol", STRING, "TCP or UDP.", default="TCP"),
            )
        ),
        "Ports that masquerade forwards to the guest; all of them if none is given.",
    ),
    field("macAddress", STRING, "MAC address the guest sees, such as 02:00:00:aa:bb:cc."),
    field("bootOrder", UINT32, "Position in the boot order, from 1; unique across disks and interfaces."),
    unsupported("slirp", "Removed.", refusal="Slirp interface support has been discontinued since v1.3"),
    unsupported("passt", "Removed.", refusal="Passt network binding has been discontinued since v1.3"),
    unsupported("macvtap", "Removed.", refusal="Macvtap network binding has been discontinued since v1.3"),
    unsupported("passtBinding", "Connect the guest with passt."),
    unsupported("sriov", "Hand a virtual function of a NIC to the guest."),
    unsupported("binding", "Connect the guest with a network binding plugin."),
    unsupported("portRanges", "Ranges of ports that are forwarded to the guest."),
    unsupported("dhcpOptions", "Further DHCP options."),
    unsupported("pciAddress", "PCI address of the interface in the guest."),
    unsupported("tag", "Tag passed to the guest in the config drive."),
    unsupported("acpiIndex", "ACPI index, from which the guest derives the interface's name.", neutral=(0,)),
    unsupported("state", "Link state, or absent.", neutral=("up",)),
)

NETWORK = Struct(
    "A network an interface is connected to; exactly one type is set.",
    field("name", STRING, "Name of the network and of its interface.", required=True),
    field(
        "pod",
        Struct(
            "The Pod's own network.",
            field(
                "vmNetworkCIDR",
                STRING,
                "IPv4 network between Pod and guest with masquerade; 10.0.2.0/24 if not given.",
                absent="10.0.2.0/24",
            ),
            unsupported("vmIPv6NetworkCIDR", "IPv6 network between Pod and guest with masquerade."),
        ),
        "The Pod's own network.",
    ),
    unsupported("multus", "A further network, by Multus."),
    unsupported("resourceClaim", "A network device by a resource claim."),
)
