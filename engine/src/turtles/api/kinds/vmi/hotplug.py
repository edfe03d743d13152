# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that come and go while a machine runs. Pure.

Rules and messages: KubeVirt user guide, "Hotplug Volumes", and the KubeVirt API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from turtles.api import labels
from turtles.api.language import INVALID, Cause
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, Spec

#: Sources that can be added to a running machine, and what in them names the claim.
_SOURCES = {"persistentVolumeClaim": "claimName", "dataVolume": "name"}
#: Buses on which disks can be added, by what the guest sees.
_BUSES = {"disk": ("scsi", "virtio"), "lun": ("scsi",)}

# Phases of such a volume (KubeVirt API, VolumePhase)
PENDING = "Pending"
BOUND = "Bound"
ATTACHED = "AttachedToNode"
MOUNTED = "MountedToPod"
READY = "Ready"
DETACHING = "Detaching"
UNMOUNTED = "UnMountedFromPod"
DUMPING = "MemoryDumpInProgress"
DUMPED = "MemoryDumpCompleted"
DUMP_FAILED = "MemoryDumpFailed"
#: Those in which the claim is in the machine's Pod.
IN_POD = (MOUNTED, READY, DETACHING, DUMPING, DUMPED, DUMP_FAILED)


def is_hotpluggable(volume: Mapping[str, Any]) -> bool:
    """Say whether a volume comes to a machine's Pod only once that runs, and may leave it."""
    if volume.get("memoryDump") is not None:
        return True
    return any((volume.get(source) or {}).get("hotpluggable") for source in _SOURCES)


def source_name(source: Mapping[str, Any]) -> str:
    """Return the name of the claim or DataVolume in a volume's source; nothing if it is another source."""
    for kind, key in _SOURCES.items():
        found = source.get(kind)
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return str(found[key])
    return ""


def hotpluggable_volumes(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the volumes of a spec that may come and go, by name."""
    return {volume["name"]: volume for volume in spec.get("volumes") or () if is_hotpluggable(volume)}


def is_cdrom(disk: Mapping[str, Any]) -> bool:
    """Say whether a disk is a CD-ROM drive, which stays when its medium comes or goes."""
    return disk.get("cdrom") is not None


def only_of_instance(vmi: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the volumes that were added to an instance alone, not to its VirtualMachine."""
    text = ((vmi.get("metadata") or {}).get("annotations") or {}).get(labels.EPHEMERAL_HOTPLUG)
    try:
        names = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def mark(names: Sequence[str]) -> str | None:
    """Return the annotation that :func:`only_of_instance` reads; None for no names."""
    return json.dumps(sorted(names)) if names else None


def disk_causes(disk: Spec, name: str, prefix: str, field: str = "") -> Causes:
    """Return why a disk can't be added to a running machine.

    :param prefix: what the messages begin with.
    """
    kind = next((kind for kind in ("disk", "lun") if disk.get(kind) is not None), None)
    if kind is None:
        message = f"{prefix} for [{name}] requires diskDevice of type 'disk' or 'lun' to be used."
        yield Cause(INVALID, message, field)
        return
    bus = disk[kind].get("bus") or ""
    if bus not in _BUSES[kind]:
        words = f"disk [{name}]" if kind == "disk" else f"LUN [{name}]"
        buses = " or ".join(f"'{each}'" for each in _BUSES[kind])
        yield Cause(INVALID, f"{prefix} for {words} requires bus to be {buses}. [{bus}] is not permitted.", field)
    elif disk.get("dedicatedIOThread"):
        if bus != "virtio":
            yield Cause(INVALID, f"{prefix} for [{name}] requires virtio bus for IOThreads.", field)
        else:
            message = f"{prefix} for [{name}]: dedicatedIOThread is not supported by this engine while a machine runs"
            yield Cause(INVALID, message, field)
    elif get(disk, "blockSize", "custom", "discardGranularity"):
        message = f"{prefix} for [{name}]: discardGranularity is not supported by this engine while a machine runs"
        yield Cause(INVALID, message, field)


def change_causes(new: Spec, old: Spec) -> Causes:
    """Return why the volumes and disks of a running machine can't change in this way.

    :param new: the spec as it is to be. :param old: as it is.
    """
    if _storage(new) == _storage(old):
        return
    if message := _mismatch(new):
        yield Cause(INVALID, message, "")
        return
    volumes, before = _by_name(new.get("volumes")), _by_name(old.get("volumes"))
    disks, disks_before = _by_name(_disks(new)), _by_name(_disks(old))
    permanent = {name for name, volume in before.items() if not is_hotpluggable(volume)}
    if len(permanent & volumes.keys()) != len(permanent):
        yield Cause(INVALID, "Number of permanent volumes has changed", "")
        return
    for name, volume in volumes.items():
        kind = "permanent" if name in permanent else "hotplug"
        if name in before:
            if volume != before[name]:
                yield Cause(INVALID, f"{kind} volume {name}, changed", "")
            elif "memoryDump" not in volume and name in disks_before and name not in disks:
                yield Cause(INVALID, f"volume {name} doesn't have a matching disk", "")
            elif disks.get(name) != disks_before.get(name):
                yield Cause(INVALID, f"{kind} disk {name}, changed", "")
        else:
            yield from _added(name, volume, disks.get(name), disks_before.get(name))


def _added(name: str, volume: Spec, disk: Spec | None, disk_before: Spec | None) -> Causes:
    if volume.get("memoryDump") is not None:
        return
    if not source_name(volume):
        yield Cause(INVALID, f"volume {name} is not a PVC or DataVolume", "")
    elif not is_hotpluggable(volume):
        yield Cause(INVALID, f"volume {name} is not hotpluggable", "")
    elif disk is None:
        yield Cause(INVALID, f"disk {name} does not exist", "")
    elif disk_before is None:
        yield from disk_causes(disk, name, "Hotplug configuration")
    elif disk != disk_before:
        yield Cause(INVALID, f"hotplug disk {name}, changed", "")


def _mismatch(spec: Spec) -> str:
    """Say that there are volumes without a device, or devices without a volume, if there are."""
    names = [volume["name"] for volume in spec.get("volumes") or () if volume.get("memoryDump") is None]
    needed = len(get(spec, "domain", "devices", "filesystems") or ())
    needed += sum(disk["name"] in names or not is_cdrom(disk) for disk in _disks(spec))
    if needed == len(set(names)) == len(names):
        return ""
    return f"mismatch between volumes declared ({len(names)}) and required ({needed})"


def _disks(spec: Spec) -> Sequence[Object]:
    return get(spec, "domain", "devices", "disks") or ()


def _storage(spec: Spec) -> tuple[Any, Any]:
    return spec.get("volumes") or [], list(_disks(spec))


def _by_name(entries: Any) -> dict[str, Spec]:
    return {entry["name"]: entry for entry in entries or ()}
