# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a VirtualMachine's template that its running instance can follow. Pure.

Which those are, and why others take a restart: KubeVirt user guide, "VM Rollout Strategies".
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from turtles.api import labels, quantity
from turtles.api.changes import merge_diff
from turtles.api.conditions import condition_of
from turtles.api.kinds.vmi import hotplug
from turtles.api.kinds.vmi.headroom import memory_obstacle
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import RUNNING, phase_of
from turtles.controller.vm import interfaces

#: Fields of an instance's spec that say where it may run: they count when it moves.
_PLACEMENT = ("nodeSelector", "affinity", "tolerations")
#: Those that its guest can follow, below the domain.
_AMOUNTS = (("cpu", "sockets"), ("memory", "guest"))


@dataclass(frozen=True)
class Update:
    """What follows from a changed template.

    :param patch: of the instance's spec.
    :param restart: why the instance can't follow without a restart; nothing if it can.
    :param annotations: of the instance that change.
    """

    patch: Object
    restart: str = ""
    annotations: Mapping[str, str | None] | None = None


def can_follow(vmi: Object | None) -> bool:
    """Say whether an instance can follow its template: its guest runs."""
    return vmi is not None and phase_of(vmi) == RUNNING and not is_deleted(vmi)


def without_live_fields(spec: Mapping[str, Any], *, volumes: bool = True) -> Object:
    """Return the spec of a template without the fields that running instances can follow.

    :param volumes: those that may come and go are among them.
    """
    found = copy.deepcopy(dict(spec))
    coming = hotplug.hotpluggable_volumes(found)
    # A claim for memory dumps is the engine's own doing.
    _remove_volumes(found, {name for name, volume in coming.items() if volumes or "memoryDump" in volume})
    for field in _PLACEMENT:
        found.pop(field, None)
    for part, field in _AMOUNTS:
        holder = (found.get("domain") or {}).get(part)
        if holder:
            holder.pop(field, None)
    interfaces.without_live(found)
    return found


def _remove_volumes(spec: Object, coming: Collection[str]) -> None:
    """Remove volumes that may come and go, with their disks; drives stay when media go."""
    if not coming:
        return
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in coming]
    devices = (spec.get("domain") or {}).get("devices") or {}
    if disks := devices.get("disks"):
        devices["disks"] = [disk for disk in disks if disk["name"] not in coming or hotplug.is_cdrom(disk)]


def update(vmi: Object, wanted: Mapping[str, Any], *, volumes: bool = True) -> Update:
    """Return how a running instance follows its VirtualMachine's template.

    :param wanted: the spec of an instance that is made of the template now.
    :param volumes: whether it follows in its volumes, too.
    """
    found = _follow_amounts(vmi, wanted)
    return _follow_volumes(vmi, wanted, found.patch) if volumes and not found.restart else found


def _follow_amounts(vmi: Object, wanted: Mapping[str, Any]) -> Update:
    spec = vmi["spec"]
    if why := _sockets_obstacle(vmi, wanted) or _memory_obstacle(vmi, wanted) or interfaces.obstacle(vmi, wanted):
        return Update({}, why)
    after = {field: wanted.get(field) for field in _PLACEMENT}
    before = {field: spec.get(field) for field in _PLACEMENT}
    patch = merge_diff(before, after)
    if _sockets(spec) != _sockets(wanted):
        patch["domain"] = {"cpu": {"sockets": _sockets(wanted)}}
    if _guest(spec) not in (0, _guest(wanted)):
        patch.setdefault("domain", {})["memory"] = {"guest": get(wanted, "domain", "memory", "guest")}
    if (change := interfaces.followed(vmi, wanted)) is not None:
        patch.setdefault("domain", {})["devices"] = {"interfaces": change[0]}
        if change[1] != (spec.get("networks") or []):
            patch["networks"] = change[1]
    return Update(patch)


def _follow_volumes(vmi: Object, wanted: Mapping[str, Any], patch: Object) -> Update:
    """Add an instance's volumes to what changes of it."""
    spec = vmi["spec"]
    chosen, disks, kept = _storage(vmi, wanted)
    changed = {**spec, "volumes": chosen, "domain": {**spec["domain"], "devices": {**_devices(spec), "disks": disks}}}
    for cause in hotplug.change_causes(changed, spec):
        return Update({}, cause.message)
    if chosen != list(spec.get("volumes") or ()):
        patch["volumes"] = chosen
    if disks != _disks(spec):
        patch.setdefault("domain", {}).setdefault("devices", {})["disks"] = disks
    if kept == hotplug.only_of_instance(vmi):
        return Update(patch)
    return Update(patch, annotations={labels.EPHEMERAL_HOTPLUG: hotplug.mark(kept)})


def _storage(vmi: Object, wanted: Mapping[str, Any]) -> tuple[list[Object], list[Object], tuple[str, ...]]:
    """Return an instance's volumes and disks as they are to be, and which of them aren't its VirtualMachine's.

    A volume that has changed, or its disk, goes first; as its new self it comes once the status no longer has it.
    """
    spec = vmi["spec"]
    # Those for memory dumps come and go with requests.
    coming = {name: each for name, each in hotplug.hotpluggable_volumes(wanted).items() if "memoryDump" not in each}
    kept = tuple(name for name in hotplug.only_of_instance(vmi) if name not in coming)
    before = {volume["name"]: volume for volume in spec.get("volumes") or ()}

    def is_same_disk(name: str) -> bool:
        one, other = (next((disk for disk in _disks(each) if disk["name"] == name), None) for each in (spec, wanted))
        return one == other

    volumes = [
        volume
        for name, volume in before.items()
        if not hotplug.is_hotpluggable(volume)
        or "memoryDump" in volume
        or name in kept
        or (coming.get(name) == volume and is_same_disk(name))
    ]
    leaving = {entry["name"] for entry in (vmi.get("status") or {}).get("volumeStatus") or ()} | before.keys()
    volumes += [dict(volume) for name, volume in coming.items() if name not in leaving]
    names = {volume["name"] for volume in volumes}
    drives = {disk["name"] for disk in _disks(spec) if hotplug.is_cdrom(disk)}
    disks = [disk for disk in _disks(spec) if disk["name"] in names | drives]
    there = {disk["name"] for disk in disks}
    disks += [dict(disk) for disk in _disks(wanted) if disk["name"] in names - there and disk["name"] in coming]
    return volumes, disks, kept


def _devices(spec: Mapping[str, Any]) -> Object:
    return get(spec, "domain", "devices") or {}


def _disks(spec: Mapping[str, Any]) -> list[Object]:
    return list(_devices(spec).get("disks") or ())


def _sockets(spec: Mapping[str, Any]) -> int:
    return int(get(spec, "domain", "cpu", "sockets") or 1)


def _guest(spec: Mapping[str, Any]) -> int:
    return quantity.to_int(get(spec, "domain", "memory", "guest") or 0)


def _sockets_obstacle(vmi: Object, wanted: Mapping[str, Any]) -> str:
    spec, sockets = vmi["spec"], _sockets(wanted)
    if sockets == _sockets(spec):
        return ""
    if sockets > (get(spec, "domain", "cpu", "maxSockets") or 0):
        return "CPU sockets updated in template spec to a value higher than what's available"
    if sockets < (get(vmi, "status", "currentCPUTopology", "sockets") or 1):
        return "Reduction of CPU socket count requires a restart"
    if get(spec, "domain", "cpu", "dedicatedCpuPlacement"):
        return "dedicated CPUs can only be assigned when the guest starts"
    return ""


def _memory_obstacle(vmi: Object, wanted: Mapping[str, Any]) -> str:
    spec = vmi["spec"]
    # An instance that doesn't say its memory wasn't completed by admission: there is nothing to compare with.
    if _guest(spec) in (0, _guest(wanted)):
        return ""
    failed = condition_of(vmi, "HotMemoryChange") or {}
    if failed.get("status") == "False":
        return "memory hotplug failed"
    if _guest(wanted) < quantity.to_int(get(vmi, "status", "memory", "guestAtBoot") or 0):
        return "memory updated in template spec to a value lower than what the VM started with"
    grown = {**spec, "domain": {**spec["domain"], "memory": {**spec["domain"]["memory"], "guest": _guest(wanted)}}}
    if why := memory_obstacle(grown, get(spec, "domain", "memory", "maxGuest")):
        return f"memory hotplug not supported, {why}"
    limit = get(spec, "domain", "resources", "limits", "memory")
    if limit is not None and _guest(wanted) > quantity.to_int(limit):
        return "memory updated in template spec to a value higher than the memory limit of the running Pod"
    return ""
