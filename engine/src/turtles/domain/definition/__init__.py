# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstance → libvirt domain XML. Pure.

Sources: KubeVirt user guide ("Virtual hardware", "Disks and volumes", "Interfaces and networks") for what a field
means, libvirt's "Domain XML format" for how it is said. Names that users and tools rely on are KubeVirt's: the domain
is called ``<namespace>_<name>``, disks and interfaces have the alias ``ua-<name>``, SMBIOS says KubeVirt.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from turtles.domain import paths
from turtles.domain.definition.compute import (
    MEMORY_ALIAS,
    Topology,
    add_cpu,
    add_memory,
    add_memory_device,
    add_placement,
    add_vcpus,
    cpu_topology,
    guest_memory,
    locked_memory,
    most_memory,
    most_sockets,
    realtime_vcpus,
)
from turtles.domain.definition.devices import (
    add_consoles,
    add_controllers,
    add_free_ports,
    add_interfaces,
    add_other_devices,
    added_interface,
)
from turtles.domain.definition.disks import (
    add_discard_granularities,
    add_disks,
    added_disk,
    bus_of,
    disk_targets,
    free_target,
    matches_volume,
)
from turtles.domain.definition.elements import Host, add_text
from turtles.domain.definition.filesystems import add_filesystems
from turtles.domain.definition.host_devices import add_functions, add_host_devices
from turtles.domain.definition.iothreads import add_iothreads
from turtles.domain.definition.machine import (
    acpi_enabled,
    add_clock,
    add_features,
    add_launch_security,
    add_os,
    add_sysinfo,
    domain_uuid,
    emulation_cache,
    ends_on_reboot,
    keeps_efi_variables,
)
from turtles.domain.network import InterfacePlan

__all__ = (
    "MEMORY_ALIAS",
    "METADATA_NAMESPACE",
    "Host",
    "Topology",
    "acpi_enabled",
    "added_disk",
    "added_interface",
    "bus_of",
    "cpu_topology",
    "disk_targets",
    "domain_uuid",
    "domain_xml",
    "emulation_cache",
    "free_target",
    "guest_memory",
    "keeps_efi_variables",
    "locked_memory",
    "matches_volume",
    "most_memory",
    "most_sockets",
    "realtime_vcpus",
)

#: XML namespace of the element in which KubeVirt keeps the VMI's uid.
METADATA_NAMESPACE = "http://kubevirt.io"


def domain_xml(vmi: Mapping[str, Any], plans: Sequence[InterfacePlan], host: Host) -> str:
    """Return the domain XML of a VMI.

    :param plans: how the VMI's interfaces are connected, one for each that the guest shall have.
    :raises ValueError: if the spec asks for what can't be expressed; the message names the object.
    """
    metadata, spec = vmi["metadata"], vmi["spec"]
    root = Element("domain", type="kvm" if host.kvm else "qemu")
    add_text(root, "name", paths.domain_name(metadata["namespace"], metadata["name"]))
    add_text(root, "uuid", domain_uuid(vmi))
    kubevirt = SubElement(SubElement(root, "metadata"), "kubevirt:kubevirt")
    kubevirt.set("xmlns:kubevirt", METADATA_NAMESPACE)
    add_text(kubevirt, "kubevirt:uid", metadata["uid"])
    add_memory(root, spec)
    add_vcpus(root, spec)
    add_iothreads(root, spec)
    add_placement(root, spec, host)
    add_os(root, vmi)
    add_sysinfo(root, vmi, host.cluster.smbios)
    add_features(root, spec, host)
    add_cpu(root, spec, host)
    add_clock(root, spec, host)
    add_text(root, "on_poweroff", "destroy")
    add_text(root, "on_reboot", "destroy" if ends_on_reboot(spec) else "restart")
    add_text(root, "on_crash", "destroy")
    devices = SubElement(root, "devices")
    add_text(devices, "emulator", host.emulator)
    add_disks(devices, spec, host, paths.block_volumes(vmi))
    add_filesystems(root, devices, spec)
    add_controllers(devices, spec)
    add_interfaces(root, devices, spec, plans)
    add_consoles(devices, vmi, logged=host.logs_console)
    add_other_devices(devices, vmi, host.cluster)
    add_host_devices(devices, spec, host.assigned)
    add_functions(devices, spec, host.assigned, host.network_info)
    add_discard_granularities(root, spec)
    add_memory_device(devices, spec)
    add_free_ports(devices, spec)
    add_launch_security(root, spec)
    indent(root)
    return tostring(root, encoding="unicode")
