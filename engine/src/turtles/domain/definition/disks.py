# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks."""

from collections.abc import Collection, Mapping
from itertools import count
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from turtles.domain import paths
from turtles.domain.definition import iothreads
from turtles.domain.definition.compute import cpu_topology
from turtles.domain.definition.elements import Host, add_alias, add_pci_address, add_text, devices_of, virtio

#: Prefixes of guest device names, by bus.
_TARGET_PREFIX = {"virtio": "vd", "sata": "sd", "scsi": "sd", "usb": "sd"}
#: Volumes no guest boots from or writes to; they get no place in the automatic boot order.
_SEEDS = (
    "cloudInitNoCloud",
    "cloudInitConfigDrive",
    "configMap",
    "secret",
    "serviceAccount",
    "downwardAPI",
    "sysprep",
    "downwardMetrics",
)
#: Volumes that live and die with the Pod.
_POD_LOCAL = ("containerDisk", "emptyDisk", "ephemeral", *_SEEDS)
#: Sizes of blocks on the bus sata.
_SATA_BLOCK = 512
#: XML namespace of what libvirt passes on to QEMU as it is.
_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
#: Buses on which a SCSI device can be handed to the guest.
_LUN_BUSES = ("scsi", "virtio")


def disk_targets(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the guest device names (vda, sda, …) with which a VMI's disks start, by the disk's name.

    They are in the order of the spec. Disks that come while the guest runs get names that are free.
    """
    counts: dict[str, int] = {}
    targets = {}
    for disk in seen_disks(spec):
        prefix = _TARGET_PREFIX[bus_of(disk)]
        targets[disk["name"]] = prefix + _letters(counts.get(prefix, 0))
        counts[prefix] = counts.get(prefix, 0) + 1
    return targets


def seen_disks(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the disks of a VMI's *spec* that its guest sees: all but those that memory is dumped to."""
    dumps = {volume["name"] for volume in spec.get("volumes") or () if "memoryDump" in volume}
    return [disk for disk in devices_of(spec).get("disks") or () if disk["name"] not in dumps]


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
    disks = seen_disks(spec)
    if any(device.get("bootOrder") for device in (*disks, *(devices_of(spec).get("interfaces") or ()))):
        return {disk["name"]: int(disk["bootOrder"]) for disk in disks if disk.get("bootOrder")}
    bootable = [
        disk for disk in disks if disk["name"] in volumes and not any(seed in volumes[disk["name"]] for seed in _SEEDS)
    ]
    bootable.sort(key=lambda disk: _kind(disk) == "cdrom")
    return {disk["name"]: order for order, disk in enumerate(bootable, 1)}


def add_disks(devices: Element, spec: Mapping[str, Any], host: Host, block: frozenset[str]) -> None:
    """Add the disks, but for those whose volumes come later.

    :param block: names of the volumes that are block devices.
    :raises ValueError: if a disk has no volume, no known bus, or is what its volume can't be; it names the disk.
    """
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    targets, orders, threads = disk_targets(spec), _boot_orders(spec, volumes), iothreads.of_disks(spec)
    for disk in seen_disks(spec):
        name, kind = disk["name"], _kind(disk)
        volume = None if name in host.absent else volumes.get(name)
        if volume is None and kind != "cdrom":
            if name in host.absent:
                continue
            raise ValueError(f"disk {name!r} has no volume of that name")
        devices.append(_disk(spec, disk, volume, targets[name], host, block, threads, orders.get(name)))


def added_disk(vmi: Mapping[str, Any], disk: Mapping[str, Any], target: str, host: Host) -> str:
    """Return the device of a disk that a running guest gets, as XML.

    :param disk: of the VMI's spec.
    :param target: its device name in the guest.
    :raises ValueError: as of :func:`add_disks`.
    """
    spec, name = vmi["spec"], disk["name"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    element = _disk(spec, disk, volumes.get(name), target, host, paths.block_volumes(vmi), {})
    return tostring(element, encoding="unicode")


def free_target(disk: Mapping[str, Any], taken: Collection[str]) -> str:
    """Return a device name for a disk that no other one has.

    :param taken: those of the others.
    """
    prefix = _TARGET_PREFIX[bus_of(disk)]
    return next(name for index in count() if (name := prefix + _letters(index)) not in taken)


def _disk(
    spec: Mapping[str, Any],
    disk: Mapping[str, Any],
    volume: Mapping[str, Any] | None,
    target: str,
    host: Host,
    block: frozenset[str],
    threads: Mapping[str, int],
    order: int | None = None,
) -> Element:
    """Return the device of a disk.

    :param order: its place in the boot order.
    """
    name, kind, bus = disk["name"], _kind(disk), bus_of(disk)
    settings = disk.get(kind) or {}
    element = Element("disk", {"type": "file", "device": kind})
    if bus == "virtio" and devices_of(spec).get("useVirtioTransitional"):
        element.set("model", virtio(spec))
    if volume is not None:
        _add_source(element, disk, volume, host, block)
    if bus == "virtio":
        _tune_virtio(element, name, spec, threads)
    seen = SubElement(element, "target", dev=target, bus=bus)
    if kind == "cdrom" and settings.get("tray"):
        seen.set("tray", settings["tray"])
    _add_block_sizes(element, disk, host)
    if disk.get("serial"):
        add_text(element, "serial", disk["serial"])
    # libvirt has no read-only SATA hard disks; a seed there belongs to this guest alone.
    if _is_read_only(kind, settings, volume) and not (kind == "disk" and bus == "sata"):
        SubElement(element, "readonly")
    if disk.get("shareable") or ((volume or {}).get("hostDisk") or {}).get("shared"):
        SubElement(element, "shareable")
    if order is not None:
        SubElement(element, "boot", order=str(order))
    add_alias(element, name)
    if settings.get("pciAddress"):
        add_pci_address(element, settings["pciAddress"])
    return element


def _add_source(
    element: Element, disk: Mapping[str, Any], volume: Mapping[str, Any], host: Host, block: frozenset[str]
) -> None:
    """Add what backs a disk, and how QEMU is to use it."""
    name, kind = disk["name"], _kind(disk)
    if name in block and "ephemeral" not in volume:
        element.set("type", "block")
        source, format_, attribute = paths.claim_device(name), "raw", "dev"
    else:
        source, format_ = paths.disk_source(volume)
        attribute = "file"
    if kind == "lun" and attribute != "dev":
        raise ValueError(f"disk {name!r} is a LUN, so its claim must be a block device (volumeMode: Block)")
    if kind == "lun" and bus_of(disk) not in _LUN_BUSES:
        raise ValueError(f"disk {name!r} is a LUN, which bus {bus_of(disk)!r} doesn't support; use scsi")
    driver = SubElement(element, "driver", name="qemu", type=format_)
    driver.set("cache", _cache(disk, volume, host))
    driver.set("error_policy", disk.get("errorPolicy") or "stop")
    if disk.get("io"):
        driver.set("io", disk["io"])
    driver.set("discard", "unmap")
    SubElement(element, "source", {attribute: str(source)})


def _tune_virtio(element: Element, name: str, spec: Mapping[str, Any], threads: Mapping[str, int]) -> None:
    """Say which thread serves a disk on the bus virtio, and how many queues it has."""
    driver = element.find("driver")
    if driver is None:
        return
    if name in threads:
        driver.set("iothread", str(threads[name]))
    if devices_of(spec).get("blockMultiQueue"):
        driver.set("queues", str(cpu_topology(spec).vcpus))


def _is_read_only(kind: str, settings: Mapping[str, Any], volume: Mapping[str, Any] | None) -> bool:
    if settings.get("readonly", kind == "cdrom"):
        return True
    if volume is None or any(seed in volume for seed in _SEEDS):
        return True
    return "ephemeral" not in volume and paths.is_read_only(volume)


def _add_block_sizes(element: Element, disk: Mapping[str, Any], host: Host) -> None:
    if custom := (disk.get("blockSize") or {}).get("custom"):
        logical, physical = custom["logical"], custom["physical"]
    elif matches_volume(disk) and disk["name"] in host.block_sizes:
        logical, physical = host.block_sizes[disk["name"]]
        if bus_of(disk) == "sata":
            logical = _SATA_BLOCK  # QEMU's controller knows no other
    else:
        return
    SubElement(element, "blockio", logical_block_size=str(logical), physical_block_size=str(physical))


def matches_volume(disk: Mapping[str, Any]) -> bool:
    """Say whether a disk's blocks are to have the size of its volume's."""
    matching = (disk.get("blockSize") or {}).get("matchVolume")
    return matching is not None and matching.get("enabled") is not False


def add_discard_granularities(root: Element, spec: Mapping[str, Any]) -> None:
    """Set the smallest units that can be discarded, which libvirt has no element for."""
    for disk in seen_disks(spec):
        if size := ((disk.get("blockSize") or {}).get("custom") or {}).get("discardGranularity"):
            override = root.find("qemu:override")
            if override is None:
                root.set("xmlns:qemu", _QEMU_NAMESPACE)
                override = SubElement(root, "qemu:override")
            device = SubElement(override, "qemu:device", alias=f"ua-{disk['name']}")
            frontend = SubElement(device, "qemu:frontend")
            SubElement(frontend, "qemu:property", name="discard_granularity", type="unsigned", value=str(size))


def _cache(disk: Mapping[str, Any], volume: Mapping[str, Any], host: Host) -> str:
    if disk.get("cache"):
        return str(disk["cache"])
    if disk.get("io") == "native":
        return "none"  # the only mode in which QEMU has native I/O
    if any(source in volume for source in _POD_LOCAL) or volume["name"] in host.no_direct_io:
        # The guests of one image share its pages; a guest's flush still reaches the disk.
        return "writeback"
    return "none"
