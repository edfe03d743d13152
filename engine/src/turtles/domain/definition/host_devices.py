# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of the node that the guest gets: GPUs and host devices.

A device plugin tells its container in environment variables which devices it was given (KubeVirt user guide, "Host
Devices Assignment"): ``PCI_RESOURCE_<resource>`` has PCI addresses, ``MDEV_PCI_RESOURCE_<resource>`` UUIDs of mediated
devices, ``USB_RESOURCE_<resource>`` buses and devices of USB. The resource's name is in capitals, and whatever isn't a
letter or digit is an underscore.

Virtual functions of NICs are named by the SR-IOV network device plugin in ``PCIDEVICE_<resource>``; which resource a
network's is, virt-controller says in ``KUBEVIRT_RESOURCE_NAME_<network>``.
"""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.domain.definition.elements import add_alias, add_pci_address, devices_of

PCI_PREFIX, MDEV_PREFIX, USB_PREFIX = "PCI_RESOURCE", "MDEV_PCI_RESOURCE", "USB_RESOURCE"
PREFIXES = (PCI_PREFIX, MDEV_PREFIX, USB_PREFIX)
FUNCTION_PREFIX, RESOURCE_PREFIX = "PCIDEVICE", "KUBEVIRT_RESOURCE_NAME"
#: What all variables begin with that say which devices a Pod was given.
ALL_PREFIXES = (*PREFIXES, FUNCTION_PREFIX, RESOURCE_PREFIX)
_PCI = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_MDEV = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_USB = re.compile(r"([0-9]{1,3}):([0-9]{1,3})")
_PATTERNS = {PCI_PREFIX: _PCI, MDEV_PREFIX: _MDEV, USB_PREFIX: _USB}


def variable(prefix: str, resource: str) -> str:
    """Return the environment variable in which a device plugin names the devices of a *resource*."""
    return f"{prefix}_{re.sub('[^A-Z0-9]', '_', resource.upper())}"


def add_host_devices(devices: Element, spec: Mapping[str, Any], assigned: Mapping[str, str]) -> None:
    """Add the GPUs and host devices.

    :param assigned: the launcher's environment, or that part of it which begins with one of PREFIXES.
    :raises ValueError: if a device is missing in it.
    """
    left = {
        name: [(prefix, address) for address in text.split(",") if _PATTERNS[prefix].fullmatch(address)]
        for name, text in assigned.items()
        for prefix in PREFIXES
        if name.startswith(f"{prefix}_")
    }
    for field, alias in (("gpus", "gpu"), ("hostDevices", "hostdevice")):
        for device in devices_of(spec).get(field) or ():
            prefix, address = _take(left, device)
            element = _ADD[prefix](devices, address, device)
            add_alias(element, f"{alias}-{device['name']}")


def add_functions(
    devices: Element, spec: Mapping[str, Any], assigned: Mapping[str, str], info: Mapping[str, str]
) -> None:
    """Add the virtual functions of SR-IOV interfaces.

    :param assigned: as of :func:`add_host_devices`. :param info: PCI addresses by network, as far as Multus reports.
    :raises ValueError: if a device is missing, or it isn't known which it is.
    """
    wanted = [each for each in devices_of(spec).get("interfaces") or () if _is_function(each)]
    resources = {each["name"]: assigned.get(f"{RESOURCE_PREFIX}_{each['name']}", "") for each in wanted}
    for interface in wanted:
        address = info.get(interface["name"]) or _only_function(interface["name"], resources, assigned)
        if not _PCI.fullmatch(address):
            raise ValueError(f"interface {interface['name']!r}: {address!r}, its device, is not a PCI address")
        element = _add_pci(devices, address, {})
        if interface.get("bootOrder"):
            SubElement(element, "boot", order=str(interface["bootOrder"]))
        add_alias(element, f"sriov-{interface['name']}")
        if interface.get("pciAddress"):
            add_pci_address(element, interface["pciAddress"])


def _is_function(interface: Mapping[str, Any]) -> bool:
    return interface.get("sriov") is not None and interface.get("state") != "absent"


def _only_function(name: str, resources: Mapping[str, str], assigned: Mapping[str, str]) -> str:
    """Return the address of a network's device, where its resource is no other network's."""
    resource = resources[name]
    key = variable(FUNCTION_PREFIX, resource)
    addresses = [address for address in assigned.get(key, "").split(",") if _PCI.fullmatch(address)]
    if not resource or not addresses:
        raise ValueError(
            f"interface {name!r}: the Pod was given no device of {resource!r}; check that its plugin sets {key}"
        )
    if list(resources.values()).count(resource) > 1:
        raise ValueError(
            f"interface {name!r}: several networks have devices of {resource!r}, and Multus doesn't report which is "
            "whose; give each network a resource of its own, or use a Multus that reports device-info"
        )
    return addresses[0]


def _take(left: Mapping[str, list[tuple[str, str]]], device: Mapping[str, Any]) -> tuple[str, str]:
    resource = device.get("deviceName") or ""
    for prefix in (MDEV_PREFIX, PCI_PREFIX, USB_PREFIX):
        if addresses := left.get(variable(prefix, resource)):
            return addresses.pop(0)
    raise ValueError(
        f"device {device['name']!r}: the Pod was given no device of {resource!r}; check that its plugin sets "
        f"{variable(PCI_PREFIX, resource)} or the like"
    )


def _add_pci(devices: Element, address: str, device: Mapping[str, Any]) -> Element:
    element = SubElement(devices, "hostdev", type="pci", mode="subsystem", managed="no")
    match = _PCI.fullmatch(address)
    assert match is not None
    parts = {key: f"0x{part}" for key, part in zip(("domain", "bus", "slot", "function"), match.groups(), strict=True)}
    SubElement(SubElement(element, "source"), "address", parts)
    return element


def _add_mdev(devices: Element, address: str, device: Mapping[str, Any]) -> Element:
    element = SubElement(devices, "hostdev", type="mdev", mode="subsystem", model="vfio-pci")
    display = (device.get("virtualGPUOptions") or {}).get("display")
    if display is not None and display.get("enabled") is not False:
        element.set("display", "on")
        frame_buffer = display.get("ramFB")
        if frame_buffer is None or frame_buffer.get("enabled") is True:
            element.set("ramfb", "on")
    SubElement(SubElement(element, "source"), "address", uuid=address)
    return element


def _add_usb(devices: Element, address: str, device: Mapping[str, Any]) -> Element:
    element = SubElement(devices, "hostdev", type="usb", mode="subsystem", managed="no")
    bus, number = address.split(":")
    SubElement(SubElement(element, "source"), "address", bus=str(int(bus)), device=str(int(number)))
    return element


_ADD = {PCI_PREFIX: _add_pci, MDEV_PREFIX: _add_mdev, USB_PREFIX: _add_usb}
