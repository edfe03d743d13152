# SPDX-License-Identifier: GPL-3.0-or-later
"""What all parts of a definition share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.api.configuration import DEFAULT, ClusterConfiguration

_ALIAS = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Host:
    """What the node offers a domain.

    ``kvm``: hardware virtualisation can be used. ``no_direct_io``: volumes on a file system that can't bypass the page
    cache. ``cluster``: what the installation chooses for all of its machines. ``block_sizes``: logical and physical
    sizes of the blocks of volumes, for disks that are to have the same. ``processors``: those of the node that the Pod
    may run on. ``numa``: the NUMA node of each. ``absent``: volumes that come later. ``assigned``: the node's devices
    that the Pod was given, see :mod:`turtles.domain.definition.host_devices`. ``logs_console``: the launcher takes the
    serial console's output. ``network_info``: PCI addresses of the devices of SR-IOV networks, as Multus reports.
    """

    kvm: bool
    emulator: str = "/usr/bin/qemu-system-x86_64"
    no_direct_io: frozenset[str] = field(default_factory=frozenset)
    cluster: ClusterConfiguration = DEFAULT
    block_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    processors: tuple[int, ...] = ()
    numa: Mapping[int, int] = field(default_factory=dict)
    absent: frozenset[str] = field(default_factory=frozenset)
    assigned: Mapping[str, str] = field(default_factory=dict)
    logs_console: bool = False
    network_info: Mapping[str, str] = field(default_factory=dict)


def devices_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the devices in a VMI's *spec*."""
    return (spec.get("domain") or {}).get("devices") or {}


def virtio(spec: Mapping[str, Any]) -> str:
    """Return libvirt's model of the machine's virtio devices; old guests know only the transitional one."""
    return "virtio-transitional" if devices_of(spec).get("useVirtioTransitional") else "virtio"


def add_pci_address(element: Element, address: str) -> None:
    """Add where the guest sees a device, such as 0000:81:01.0."""
    domain, bus, slot, function = re.split("[:.]", address)
    SubElement(
        element,
        "address",
        type="pci",
        domain=f"0x{domain}",
        bus=f"0x{bus}",
        slot=f"0x{slot}",
        function=f"0x{function}",
    )


def add_text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    """Add an element with this text, and return it."""
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element


def add_alias(element: Element, name: str) -> None:
    """Name a device by what users call it. libvirt takes some names only; one with another gets libvirt's own."""
    if _ALIAS.fullmatch(name):
        SubElement(element, "alias", name=f"ua-{name}")


def share_memory(root: Element) -> None:
    """Let other processes see the guest's memory: those behind devices of vhost-user do."""
    backing = root.find("memoryBacking")
    if backing is None:
        backing = SubElement(root, "memoryBacking")
    if backing.find("hugepages") is None and backing.find("source") is None:
        SubElement(backing, "source", type="memfd")
    if backing.find("access") is None:
        SubElement(backing, "access", mode="shared")
