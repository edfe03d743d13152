# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces, and the networks they are connected to."""

from __future__ import annotations

from turtles.api.language import (
    BOOLEAN,
    INT32,
    INT64,
    STRING,
    STRINGS,
    UINT32,
    Struct,
    field,
    group,
    group_list,
)

_NO_SETTINGS = Struct("No settings.")

_DHCP_OPTIONS = Struct(
    "What the guest is told by DHCP in addition to its address.",
    field("bootFileName", STRING, "Boot file (option 67)."),
    field("tftpServerName", STRING, "TFTP server (option 66)."),
    field("ntpServers", STRINGS, "IPv4 addresses of NTP servers (option 42)."),
    group_list(
        "privateOptions",
        "Options of a site's own.",
        field("option", INT32, "Its number, 224 to 254.", required=True),
        field("value", STRING, "Its value, a string.", required=True),
    ),
)

INTERFACE = Struct(
    "A network interface, connected to the network of the same name.",
    field("name", STRING, "Name of the interface and of its network.", required=True),
    field("model", STRING, "e1000, e1000e, igb, ne2k_pci, pcnet, rtl8139 or virtio (the default).", absent="virtio"),
    field("bridge", _NO_SETTINGS, "The guest is on the network itself, with the Pod's address there, by DHCP."),
    field("masquerade", _NO_SETTINGS, "The guest is behind the Pod's address, by NAT."),
    field("passtBinding", _NO_SETTINGS, "The guest has the Pod's address, and passt makes its connections."),
    field("sriov", _NO_SETTINGS, "A virtual function of a NIC, by a device plugin and Multus."),
    group(
        "binding",
        "A network binding plugin of the KubeVirt object.",
        field("name", STRING, "Its name in the KubeVirt object.", required=True),
    ),
    field("slirp", _NO_SETTINGS, "Removed: use masquerade."),
    field("passt", _NO_SETTINGS, "Removed: use passtBinding."),
    field("macvtap", _NO_SETTINGS, "Removed: use a network binding plugin."),
    group_list(
        "ports",
        "Ports that are forwarded to the guest; all of them if none is given.",
        field("name", STRING, "Name of the port, unique in the interface."),
        field("port", INT32, "Number, 1 to 65535.", required=True),
        field("protocol", STRING, "TCP (the default) or UDP.", absent="TCP"),
    ),
    group_list(
        "portRanges",
        "Ranges of ports that masquerade forwards to the guest, instead of ports. Needs the gate PortRangesSpec.",
        field("start", INT32, "The first, 1 to 65535.", required=True),
        field("end", INT32, "The last, 1 to 65535.", required=True),
        field("protocol", STRING, "TCP (the default) or UDP.", absent="TCP"),
        max_items=10,
    ),
    field("macAddress", STRING, "MAC address the guest sees, such as 02:00:00:aa:bb:cc."),
    field("bootOrder", UINT32, "Position in the boot order, from 1; unique across disks and interfaces."),
    field("dhcpOptions", _DHCP_OPTIONS, "What the guest is told by DHCP in addition to its address.", absent={}),
    field("pciAddress", STRING, "PCI address of the interface in the guest, such as 0000:81:01.0."),
    field("acpiIndex", INT64, "ACPI index, from which the guest derives the interface's name (eno1)."),
    field("tag", STRING, "Tag that the guest finds in its config drive."),
    field("state", STRING, "up (the default), down (no link) or absent (not attached)."),
)

NETWORK = Struct(
    "A network an interface is connected to; exactly one type is set.",
    field("name", STRING, "Name of the network and of its interface.", required=True),
    group(
        "pod",
        "The Pod's own network.",
        field(
            "vmNetworkCIDR",
            STRING,
            "IPv4 network between Pod and guest with masquerade; 10.0.2.0/24 if not given.",
            absent="10.0.2.0/24",
        ),
        field(
            "vmIPv6NetworkCIDR",
            STRING,
            "IPv6 network between Pod and guest with masquerade; fd10:0:2::/120 if not given.",
        ),
    ),
    group(
        "multus",
        "A secondary network, by Multus.",
        field("networkName", STRING, "NetworkAttachmentDefinition: its name, or namespace/name.", required=True),
        field("default", BOOLEAN, "Whether it takes the Pod network's place."),
    ),
    group(
        "resourceClaim",
        "A network device by a resource claim. Needs the gate NetworkDevicesWithDRA.",
        field("claimName", STRING, "The claim, one of spec.resourceClaims."),
        field("requestName", STRING, "The request in it."),
    ),
)
