# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about disks and filesystems, and the order in which devices are booted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import HOTPLUG_VOLUMES, PERSISTENT_RESERVATION, VIRTIOFS_STORAGE
from turtles.api.kinds.vmi.defaults.disks import with_default_disks
from turtles.api.kinds.vmi.rules.common import MAX_STRING, SERIAL, Rule
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, UNSUPPORTED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, label_problems, one_of

_TARGETS = ("disk", "lun", "cdrom")
_BUSES = ("virtio", "scsi", "sata", "usb")
_PCI_ADDRESS = re.compile(r"[\da-fA-F]{4}:[\da-fA-F]{2}:[\da-fA-F]{2}\.[0-7]", re.ASCII)
_MIN_BLOCK_SIZE, _MAX_BLOCK_SIZE = 512, 2 * 2**20
#: Sources of volumes that can be shared as filesystems, and those of them whose content the user may change.
_SHARED = ("configMap", "secret", "serviceAccount", "downwardAPI", "containerPath")
_STORAGE = ("persistentVolumeClaim", "dataVolume")
#: Directories of the Pod that are the engine's.
_RESERVED_PREFIXES = ("/var/run/kubevirt", "/var/run/libvirt")


def _mapping(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Match disks with their volumes, and see that no two devices have the same place in the boot order."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    taken: set[int] = set()
    for index, disk in enumerate(with_default_disks(spec)):
        here = f"{path}.domain.devices.disks[{index}]"
        volume = volumes.get(disk["name"])
        if volume is None:
            yield from _no_volume(disk, here, config)
        else:
            yield from _volume_of_disk(disk, volume, here)
        order = disk.get("bootOrder")
        if order in taken:
            message = f"Boot order for {here}.bootOrder already set for a different device."
            yield Cause(INVALID, message, f"{here}.bootOrder")
        if order is not None:
            taken.add(order)
    yield from _boot_order_of_interfaces(spec, path, taken)


def _no_volume(disk: Spec, here: str, config: ClusterConfiguration) -> Causes:
    if disk.get("cdrom") is None:
        yield Cause(INVALID, f"{here}.Name '{disk['name']}' not found.", f"{here}.name")
    elif not config.has_gate(HOTPLUG_VOLUMES):
        message = f"{HOTPLUG_VOLUMES} feature gate not enabled, cannot define an empty CD-ROM disk"
        yield Cause(INVALID, message, f"{here}.name")


def _volume_of_disk(disk: Spec, volume: Spec, here: str) -> Causes:
    if disk.get("lun") is not None and not any(volume.get(source) is not None for source in _STORAGE):
        message = f"{here}.lun can only be mapped to a DataVolume or PersistentVolumeClaim volume."
        yield Cause(INVALID, message, f"{here}.lun")
    if volume.get("downwardMetrics") is None:
        return
    target = disk.get("disk")
    if target is None:
        message = f"DownwardMetrics volume must be mapped to a disk, but disk is not set on {here}.disk."
        yield Cause(REQUIRED, message, f"{here}.disk")
    elif target.get("bus") not in (None, "", "virtio"):
        message = f"DownwardMetrics volume must be mapped to virtio bus, but {here}.disk.bus is set to {target['bus']}"
        yield Cause(INVALID, message, f"{here}.disk.bus")


def _boot_order_of_interfaces(spec: Spec, path: str, taken: set[int]) -> Causes:
    for index, interface in enumerate(get(spec, "domain", "devices", "interfaces") or ()):
        order = interface.get("bootOrder")
        if order is None:
            continue
        here = f"{path}.domain.devices.interfaces[{index}]"
        if order < 1:
            # Clients know the cause by this field, which lacks the names between.
            short = f"{path}[{index}]"
            yield Cause(INVALID, f"{short} must have a boot order > 0, if supplied", f"{short}.bootOrder")
            continue
        if order in taken:
            message = f"Boot order for {here}.bootOrder already set for a different device."
            yield Cause(INVALID, message, f"{here}.bootOrder")
        taken.add(order)


def _disks(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    yield from disk_causes(with_default_disks(spec), f"{path}.domain.devices.disks")


def _impossible(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, disk in enumerate(get(spec, "domain", "devices", "disks") or ()):
        here = f"{path}.domain.devices.disks[{index}]"
        yield from one_of(get(disk, "cdrom", "tray"), f"{here}.cdrom.tray", ("open", "closed"))
        if disk.get("io") == "native" and (cache := disk.get("cache")) in ("writethrough", "writeback"):
            yield Cause(INVALID, f"{here}.io native needs cache none or directsync, not {cache}", f"{here}.io")


def disk_causes(disks: Sequence[Spec], where: str) -> Causes:
    """Return what is wrong with disks, whatever their volumes are.

    A disk that names no bus is judged once it has one: an instance has, a template needn't.

    :param where: path of the list.
    """
    for index, disk in enumerate(disks):
        here = f"{where}[{index}]"
        # As KubeVirt has it: its paths of some fields begin twice.
        twice = f"{where}.domain.devices.disks[{index}]"
        for other, earlier in enumerate(disks[:index]):
            if earlier["name"] == disk["name"]:
                message = f"{here} and {where}[{other}] must not have the same Name."
                yield Cause(INVALID, message, f"{here}.name")
        targets = [name for name in _TARGETS if disk.get(name) is not None]
        if len(targets) > 1:
            yield Cause(INVALID, f"{here} can only have a single target type defined", here)
        kind = targets[0] if targets else "disk"
        target = disk.get(kind) or {}
        bus = target.get("bus") or ""
        yield from _pci_address(target.get("pciAddress"), bus, f"{where}.domain.devices.disks.disk[{index}]")
        order = disk.get("bootOrder")
        if order is not None and order < 1:
            yield Cause(INVALID, f"{here} must have a boot order > 0, if supplied", f"{here}.bootOrder")
        if bus:
            yield from _bus(kind, target, bus, here)
        if disk.get("dedicatedIOThread") and bus not in ("", "virtio"):
            yield Cause(NOT_SUPPORTED, f"IOThreads are not supported for disks on a {bus} bus", twice)
        if get(disk, "lun", "reservation") and (wrong := disk["lun"].get("bus") or "") != "scsi":
            message = f"Persistent reservation requires a SCSI bus, but {wrong} was specified"
            yield Cause(INVALID, message, f"{here}.lun.bus")
        yield from _tuning(disk, here, where, twice)
        # The name becomes that of a volume of the Pod.
        for problem in label_problems(disk["name"]):
            yield Cause(INVALID, problem, f"{twice}.name")
        yield from _block_size(disk, bus, f"{here}.blockSize")


def _pci_address(address: str | None, bus: str, here: str) -> Causes:
    if not address:
        return
    if bus != "virtio":
        message = f"disk {here}.name - setting a PCI address is only possible with bus type virtio."
        yield Cause(INVALID, message, f"{here}.pciAddress")
    if not _PCI_ADDRESS.fullmatch(address):
        yield Cause(INVALID, f"disk {here}.name has malformed PCI address ({address}).", f"{here}.pciAddress")


def _bus(kind: str, target: Spec, bus: str, here: str) -> Causes:
    field = f"{here}.{kind}.bus"
    if bus == "ide":
        yield Cause(INVALID, "IDE bus is not supported", field)
    elif bus == "virtio" and kind == "cdrom":
        yield Cause(INVALID, f"Bus type {bus} is invalid for CD-ROM device", field)
    elif bus == "sata" and kind == "disk" and target.get("readonly"):
        yield Cause(INVALID, "sata hard-disks do not support read-only.", field)
    elif bus not in _BUSES:
        message = f"{here} is set with an unrecognized bus {bus}, must be one of: [{' '.join(_BUSES)}]"
        yield Cause(INVALID, message, field)


def _tuning(disk: Spec, here: str, where: str, twice: str) -> Causes:
    serial = disk.get("serial")
    if serial and not SERIAL.fullmatch(serial):
        message = f"{here} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(INVALID, message, f"{here}.serial")
    if serial and len(serial) > MAX_STRING:
        message = f"{here} must be less than or equal to {MAX_STRING} in length, if specified"
        yield Cause(INVALID, message, f"{here}.serial")
    cache, mode = disk.get("cache"), disk.get("io")
    if cache and cache not in ("none", "writethrough", "writeback", "directsync"):
        yield Cause(INVALID, f"{here}.cache has invalid value {cache}", f"{here}.cache")
    if mode and mode not in ("native", "threads"):
        message = f"Disk IO mode for {where} is not supported. Supported modes are: native, threads."
        yield Cause(NOT_SUPPORTED, message, f"{twice}.io")
    policy = disk.get("errorPolicy")
    if policy is not None and policy not in ("stop", "ignore", "report", "enospace"):
        yield Cause(INVALID, f'{here}.errorPolicy has invalid value "{policy}"', f"{here}.errorPolicy")


def _block_size(disk: Spec, bus: str, here: str) -> Causes:
    custom = get(disk, "blockSize", "custom")
    if custom is None:
        return
    matching = get(disk, "blockSize", "matchVolume")
    if matching is not None and matching.get("enabled") is not False:
        yield Cause(INVALID, "Block size matching can't be enabled together with a custom value", here)
        return
    logical, physical, discard = custom["logical"], custom["physical"], custom.get("discardGranularity")
    if logical > physical:
        message = f"Logical size {logical} must be the same or less than the physical size of {physical}"
        yield Cause(INVALID, message, f"{here}.custom.logical")
    elif bus == "sata" and logical != _MIN_BLOCK_SIZE:
        message = f"Logical size {logical} must be {_MIN_BLOCK_SIZE} for SATA devices"
        yield Cause(INVALID, message, f"{here}.custom.logical")
    elif discard is not None and logical and discard % logical:
        message = f"Discard granularity {discard} must be multiples of logical size {logical}"
        yield Cause(INVALID, message, f"{here}.custom.discardGranularity")
    else:
        yield from _size_of_blocks(logical, f"{here}.custom.logical")
        yield from _size_of_blocks(physical, f"{here}.custom.physical")


def _size_of_blocks(size: int, here: str) -> Causes:
    if size < _MIN_BLOCK_SIZE:
        message = f"Provided size of {size} is less than the supported minimum size of {_MIN_BLOCK_SIZE}"
        yield Cause(INVALID, message, here)
    elif size > _MAX_BLOCK_SIZE:
        message = f"Provided size of {size} is greater than the supported maximum size of {_MAX_BLOCK_SIZE}"
        yield Cause(INVALID, message, here)
    elif size & (size - 1):
        yield Cause(INVALID, f"Provided size of {size} is not a power of 2", here)


def _reservation(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    disks = get(spec, "domain", "devices", "disks") or ()
    if not any(get(disk, "lun", "reservation") for disk in disks):
        return
    here = f"{path}.domain.devices.disks.luns.reservation"
    if not config.has_gate(PERSISTENT_RESERVATION):
        yield Cause(INVALID, "persistent reservation is not enabled in kubevirt config", here)


def _reserved(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, disk in enumerate(get(spec, "domain", "devices", "disks") or ()):
        if get(disk, "lun", "reservation"):
            here = f"{path}.domain.devices.disks[{index}].lun.reservation"
            yield Cause(NOT_SUPPORTED, f"{here} is {UNSUPPORTED}: its nodes have no pr-helper", here)


def _claims_as_filesystems(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    if config.has_gate(VIRTIOFS_STORAGE):
        return
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    for filesystem in get(spec, "domain", "devices", "filesystems") or ():
        if any(volumes.get(filesystem["name"], {}).get(source) is not None for source in _STORAGE):
            message = "virtiofs is not allowed: virtiofs feature gate is not enabled for PVC"
            yield Cause(INVALID, message, f"{path}.domain.devices.filesystems")


def _filesystems(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    where = f"{path}.domain.devices.filesystems"
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    disks = {disk["name"] for disk in get(spec, "domain", "devices", "disks") or ()}
    seen: dict[str, int] = {}
    for index, filesystem in enumerate(get(spec, "domain", "devices", "filesystems") or ()):
        here, name = f"{where}[{index}]", filesystem["name"]
        volume = volumes.get(name)
        if volume is None:
            yield Cause(INVALID, f"{here}.name '{name}' not found.", f"{here}.name")
            continue
        if name in seen:
            yield Cause(INVALID, f"{here} and {where}[{seen[name]}] must not have the same Name.", f"{here}.name")
        seen.setdefault(name, index)
        if name in disks and volume.get("containerPath") is None:
            yield Cause(INVALID, f"{here}: volume '{name}' can't be a disk and a filesystem", f"{here}.name")
        if not any(volume.get(source) is not None for source in (*_SHARED, *_STORAGE)):
            kinds = ", ".join((*_SHARED, *_STORAGE))
            yield Cause(
                INVALID, f"{here}: volume '{name}' can't be shared; it has to be one of: {kinds}", f"{here}.name"
            )
        for problem in label_problems(name):
            yield Cause(INVALID, problem, f"{here}.name")


def volumes_without_disk(spec: Spec, path: str) -> Causes:
    """Tell of volumes that no disk and no filesystem uses, or the wrong one of them.

    In a template they are no faults yet: the instance gets disks.
    """
    devices = get(spec, "domain", "devices") or {}
    disks, filesystems = ({device["name"] for device in devices.get(kind) or ()} for kind in ("disks", "filesystems"))
    for index, volume in enumerate(spec.get("volumes") or ()):
        name, here = volume["name"], f"{path}.domain.volumes[{index}]"
        if volume.get("memoryDump") is not None:
            continue
        if name not in disks | filesystems:
            yield Cause(INVALID, f"{here}.name '{name}' not found.", f"{here}.name")
        if (source := volume.get("containerPath")) is not None:
            words = f"ContainerPath volume '{name}'"
            if name in disks:
                yield Cause(INVALID, f"{words} must be mapped to a filesystem, not a disk", here)
            if name not in filesystems:
                message = f"{words} must have a matching filesystem defined in spec.domain.devices.filesystems"
                yield Cause(INVALID, message, here)
            yield from _reserved_path(source["path"], words, f"{here}.containerPath.path")


def _reserved_path(path: str, words: str, here: str) -> Causes:
    prefix = next((prefix for prefix in _RESERVED_PREFIXES if path.startswith(prefix)), None)
    if prefix is not None:
        yield Cause(INVALID, f"{words} uses reserved path prefix '{prefix}'", here)


#: What disks are mapped to, which is judged before they are.
MAPPING: tuple[Rule, ...] = (_mapping,)
RULES: tuple[Rule, ...] = (_disks,)
#: What is judged when everything else of disks and volumes has been.
LAST: tuple[Rule, ...] = (_reservation, _claims_as_filesystems)
FUTILE: tuple[Rule, ...] = (_filesystems, _impossible, _reserved)
