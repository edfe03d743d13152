# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from turtles.domain import paths
from turtles.domain.definition.elements import Host, add_text, devices_of, virtio

#: Prefixes of guest device names, by bus.
_TARGET_PREFIX = {"virtio": "vd", "sata": "sd", "scsi": "sd", "usb": "sd"}
#: Volumes no guest boots from; they get no place in the automatic boot order.
_SEEDS = ("cloudInitNoCloud", "cloudInitConfigDrive")
#: Volumes that live and die with the Pod.
_POD_LOCAL = ("containerDisk", "emptyDisk", "cloudInitNoCloud", "cloudInitConfigDrive")


def disk_targets(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the guest device names (vda, sda, …) of a VMI's disks, by the disk's name, in the order of the spec."""
    counts: dict[str, int] = {}
    targets = {}
    for disk in devices_of(spec).get("disks") or ():
        prefix = _TARGET_PREFIX[bus_of(disk)]
        targets[disk["name"]] = prefix + _letters(counts.get(prefix, 0))
        counts[prefix] = counts.get(prefix, 0) + 1
    return targets


def _letters(index: int) -> str:
    """Return the index-th name of a, b, …, z, aa, ab, …"""
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("a") + rest) + name
    return name


def _kind(disk: Mapping[str, Any]) -> str:
    return next((kind for kind in ("cdrom", "lun", "disk") if disk.get(kind) is not None), "disk")


def bus_of(disk: Mapping[str, Any]) -> str:
    """Return the bus of a disk.

    :raises ValueError: if there is no such bus.
    """
    bus = str((disk.get(_kind(disk)) or {}).get("bus") or "sata")
    if bus not in _TARGET_PREFIX:
        raise ValueError(f"disk {disk['name']!r}: bus {bus!r} is not supported; use one of {', '.join(_TARGET_PREFIX)}")
    return bus


def _boot_orders(spec: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the boot order of the disks: the spec's, or (if nothing has one) hard disks first, then CD-ROMs."""
    devices = devices_of(spec)
    disks: list[Mapping[str, Any]] = list(devices.get("disks") or ())
    if any(device.get("bootOrder") for device in (*disks, *(devices.get("interfaces") or ()))):
        return {disk["name"]: int(disk["bootOrder"]) for disk in disks if disk.get("bootOrder")}
    bootable = [disk for disk in disks if not any(seed in volumes.get(disk["name"], {}) for seed in _SEEDS)]
    bootable.sort(key=lambda disk: _kind(disk) == "cdrom")
    return {disk["name"]: order for order, disk in enumerate(bootable, 1)}


def add_disks(devices: Element, spec: Mapping[str, Any], host: Host, block: frozenset[str]) -> None:
    """Add the disks.

    :param block: names of the volumes that are block devices.
    :raises ValueError: if a disk has no volume or no known bus; the message names the disk.
    """
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    targets = disk_targets(spec)
    orders = _boot_orders(spec, volumes)
    for disk in devices_of(spec).get("disks") or ():
        name, kind = disk["name"], _kind(disk)
        if name not in volumes:
            raise ValueError(f"disk {name!r} has no volume of that name")
        volume, settings = volumes[name], disk.get(kind) or {}
        if name in block:
            source, format_, type_, attribute = paths.claim_device(name), "raw", "block", "dev"
        else:
            source, format_ = paths.disk_source(volume)
            type_, attribute = "file", "file"
        element = SubElement(devices, "disk", {"type": type_, "device": kind})
        if bus_of(disk) == "virtio" and devices_of(spec).get("useVirtioTransitional"):
            element.set("model", virtio(spec))
        driver = SubElement(element, "driver", name="qemu", type=format_)
        driver.set("cache", _cache(disk, volume, host))
        driver.set("error_policy", disk.get("errorPolicy") or "stop")
        if disk.get("io") and disk["io"] != "default":
            driver.set("io", disk["io"])
        driver.set("discard", "unmap")
        SubElement(element, "source", {attribute: str(source)})
        target = SubElement(element, "target", dev=targets[name], bus=bus_of(disk))
        if kind == "cdrom" and settings.get("tray"):
            target.set("tray", settings["tray"])
        if disk.get("serial"):
            add_text(element, "serial", disk["serial"])
        readonly = (
            settings.get("readonly", kind == "cdrom")
            or (volume.get("persistentVolumeClaim") or {}).get("readOnly")
            or any(seed in volume for seed in _SEEDS)
        )
        # libvirt has no read-only SATA hard disks; a seed there belongs to this guest alone.
        if readonly and not (kind == "disk" and bus_of(disk) == "sata"):
            SubElement(element, "readonly")
        if disk.get("shareable"):
            SubElement(element, "shareable")
        if name in orders:
            SubElement(element, "boot", order=str(orders[name]))
        SubElement(element, "alias", name=f"ua-{name}")


def _cache(disk: Mapping[str, Any], volume: Mapping[str, Any], host: Host) -> str:
    if disk.get("cache"):
        return str(disk["cache"])
    if disk.get("io") == "native":
        return "none"  # the only mode in which QEMU has native I/O
    if any(source in volume for source in _POD_LOCAL) or volume["name"] in host.no_direct_io:
        # The guests of one image share its pages; a guest's flush still reaches the disk.
        return "writeback"
    return "none"
