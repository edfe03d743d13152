# SPDX-License-Identifier: GPL-3.0-or-later
"""A VMI's status.volumeStatus: its disks in the guest, volumes that come and go, dumps of its memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turtles.api import quantity
from turtles.api.kinds.vmi import hotplug
from turtles.domain import definition
from turtles.domain.live_domain import LiveDisk

#: Phases of a volume that the guest's memory is written to.
_DUMPS = (hotplug.DUMPING, hotplug.DUMPED, hotplug.DUMP_FAILED)


@dataclass(frozen=True)
class Plugged:
    """How far a volume is that comes or goes while the guest runs.

    :param mounted: the launcher sees its claim. :param failure: why it can't be plugged in or unplugged.
    """

    mounted: bool
    failure: str = ""


@dataclass(frozen=True)
class Dump:
    """A dump of a guest's memory: the file, when it began and ended (RFC 3339), and why it failed."""

    file: str
    started: str
    ended: str = ""
    failure: str = ""


def volume_status(
    spec: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]] | None,
    checksums: Mapping[str, int],
    disks: Mapping[str, LiveDisk] | None = None,
    plugged: Mapping[str, Plugged] | None = None,
    dumps: Mapping[str, Dump] | None = None,
) -> list[dict[str, Any]]:
    """Return status.volumeStatus with the guest's device names and sizes added, other keys and entries kept.

    :param checksums: those of container disks that are known, by the volumes' names.
    :param disks: the guest's disks; None if they aren't known.
    :param plugged: how far the volumes are that come or go while the guest runs.
    :param dumps: of its memory, by the volumes' names.
    """
    entries = {entry["name"]: dict(entry) for entry in before or ()}
    coming = hotplug.hotpluggable_volumes(spec)
    sizes = {volume["name"]: size for volume in spec.get("volumes") or () if (size := _asked_size(volume))}
    for name, target in definition.disk_targets(spec).items():
        if name in coming:
            continue
        entry = entries.setdefault(name, {"name": name})
        entry["target"] = disks[name].target if disks and name in disks else target
        if name in sizes:
            entry["size"] = sizes[name]
        if name in checksums:
            entry["containerDiskVolume"] = {"checksum": checksums[name]}
    for name, state in (plugged or {}).items():
        if name in entries and disks is not None:
            entries[name].update(_progress(name, name in coming, entries[name], disks.get(name), state))
    for name, dump in (dumps or {}).items():
        if name in entries and name in coming:
            entries[name].update(_dumped(name, entries[name], dump))
    return sorted(entries.values(), key=lambda entry: str(entry["name"]))


def _dumped(name: str, before: Mapping[str, Any], dump: Dump) -> dict[str, Any]:
    """Return what is new about a volume to which memory is dumped."""
    info = {**(before.get("memoryDumpVolume") or {}), "startTimestamp": dump.started, "targetFileName": dump.file}
    if not dump.ended:
        words = f"Memory dump Volume {name} is attached, getting memory dump"
        phase, reason = hotplug.DUMPING, "VolumeMountedToPod"
    elif dump.failure:
        words, phase, reason = (
            f"Memory dump to pvc {name} failed: {dump.failure}",
            hotplug.DUMP_FAILED,
            "MemoryDumpError",
        )
    else:
        words, phase, reason = f"Memory dump Volume {name} has been completed", hotplug.DUMPED, "MemoryDumpCompleted"
    if dump.ended:
        info["endTimestamp"] = dump.ended
    return {"phase": phase, "reason": reason, "message": words, "memoryDumpVolume": info}


def dump_file(vmi: str, volume: str, now: str) -> str:
    """Return the name of a file for a VMI's memory.

    :param now: the current time (RFC 3339).
    """
    stamp = now[:19].replace("-", "").replace(":", "").replace("T", "-")
    return f"{vmi}-{volume}-{stamp}.memory.dump"


def _progress(
    name: str, wanted: bool, before: Mapping[str, Any], disk: LiveDisk | None, state: Plugged
) -> dict[str, Any]:
    """Return what is new about a volume that comes or goes.

    :param wanted: the VMI has it. :param before: its entry.
    """
    loaded = disk is not None and disk.loaded
    if wanted and loaded and disk is not None:
        words = f"Successfully attach hotplugged volume {name} to VM"
        return {"target": disk.target, "phase": hotplug.READY, "reason": "VolumeReady", "message": words}
    if wanted and state.failure:
        return {"reason": "FailedAttachVolume", "message": state.failure} | (
            {"phase": hotplug.MOUNTED} if state.mounted else {}
        )
    if wanted and state.mounted and before.get("phase") not in _DUMPS:
        words = f"Volume {name} has been mounted in virt-launcher pod"
        return {"phase": hotplug.MOUNTED, "reason": "VolumeMountedToPod", "message": words}
    if wanted:
        return {}
    if loaded:
        words = state.failure or f"The guest has been asked to release volume {name}"
        reason = "FailedDetachVolume" if state.failure else "VolumeDetaching"
        return {"phase": hotplug.DETACHING, "reason": reason, "message": words}
    if state.mounted:
        return {"target": "", "phase": hotplug.DETACHING, "message": state.failure, "reason": "VolumeUnplugged"}
    words = f"Volume {name} has been unmounted from virt-launcher pod"
    return {"target": "", "phase": hotplug.UNMOUNTED, "reason": "VolumeUnMountedFromPod", "message": words}


def _asked_size(volume: Mapping[str, Any]) -> int | None:
    """Return the bytes that a volume is to have; None if it doesn't say."""
    source = volume.get("emptyDisk") or volume.get("hostDisk") or {}
    return quantity.to_int(source["capacity"]) if source.get("capacity") else None
