# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to add or remove volumes, as the status of a VirtualMachine has them (`volumeRequests`). Pure.

This engine changes the template at once and leaves none there; other controllers may write some. Rules and messages
are those of the KubeVirt API.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.hotplug import disk_causes
from turtles.api.kinds.vmi.rules import disks, volumes
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.language import INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import Object, get, is_deleted
from turtles.api.rules import Causes

_FIELD = "Status.volumeRequests"
_ADD, _REMOVE = "addVolumeOptions", "removeVolumeOptions"
#: Sources of volumes that can be added.
_SOURCES = ("persistentVolumeClaim", "dataVolume")
#: What a volume that is to be added is in conflict with: one of the template, or of the instance.
_CONFLICTS = (
    "an existing volume of the same name on the vmi template.",
    "an existing volume of the same name on currently running vmi",
)
#: What is judged of the machine that the requests lead to.
_RULES = (*disks.MAPPING, *disks.RULES, *volumes.PATHS)


def request_causes(vm: Object, config: ClusterConfiguration, instance: Callable[[], Object | None]) -> list[Cause]:
    """Return what is wrong with the first request of a VirtualMachine that can't be carried out.

    :param vm: its spec is valid.
    :param instance: returns its instance, or None. It is asked for only if the machine is ready.
    """
    requests = get(vm, "status", "volumeRequests") or ()
    if not isinstance(requests, list) or not requests:
        return []
    vmi = instance() if get(vm, "status", "ready") else None
    if vmi is not None and is_deleted(vmi):
        vmi = None
    template = vm["spec"]["template"]["spec"]
    specs = [copy.deepcopy(template), *([copy.deepcopy(vmi["spec"])] if vmi is not None else ())]
    known = [_by_name(template), _by_name(vmi["spec"]) if vmi is not None else {}]
    seen: dict[str, set[str]] = {_ADD: set(), _REMOVE: set()}
    for request in requests:
        if cause := _cause(request, known, seen):
            return [cause]
        for spec in specs:
            _carry_out(spec, request)
    for spec in specs:
        # KubeVirt has the template's path for the instance as well
        if causes := list(_storage_causes(spec, "spec.template.spec", config)):
            return causes
    if vmi is not None and _is_migrating(vmi):
        message = "Cannot handle volume requests while VMI migration is in progress"
        return [Cause(NOT_SUPPORTED, message, "spec")]
    return []


def _cause(request: Any, known: list[dict[str, Any]], seen: dict[str, set[str]]) -> Cause | None:
    chosen = [key for key in (_ADD, _REMOVE) if isinstance(get(request, key), dict)]
    if len(chosen) != 1:
        message = (
            "VolumeRequests require either addVolumeOptions or removeVolumeOptions to be set, not both"
            if chosen
            else "VolumeRequests require one of either addVolumeOptions or removeVolumeOptions to be set"
        )
        return Cause(INVALID, message, _FIELD)
    (key,) = chosen
    options = request[key]
    name = str(options.get("name") or "")
    words = "AddVolume" if key == _ADD else "RemoveVolume"
    if name in seen[key]:
        return Cause(INVALID, f"{words} request for [{name}] aleady exists", _FIELD)
    seen[key].add(name)
    if key == _REMOVE:
        return None
    disk = options.get("disk")
    for cause in disk_causes(disk if isinstance(disk, dict) else {}, name, "AddVolume request", _FIELD):
        return cause
    wanted = _volume(name, options)
    for there, other in zip(known, _CONFLICTS, strict=True):
        if name in there and there[name] != wanted:
            return Cause(INVALID, f"AddVolume request for [{name}] conflicts with {other}", _FIELD)
    return None


def _volume(name: str, options: Object) -> Object:
    source = options.get("volumeSource")
    source = source if isinstance(source, dict) else {}
    kind = next((kind for kind in _SOURCES if source.get(kind) is not None), None)
    return {"name": name, **({kind: source[kind]} if kind else {})}


def _carry_out(spec: Object, request: Object) -> None:
    """Change a spec as a request asks."""
    devices = spec["domain"].setdefault("devices", {})
    there, disks_ = list(spec.get("volumes") or ()), list(devices.get("disks") or ())
    if (options := request.get(_ADD)) is not None:
        name = str(options.get("name") or "")
        if all(volume.get("name") != name for volume in there):
            there.append(_volume(name, options))
            disks_.append({**options["disk"], "name": name})
    else:
        name = str(request[_REMOVE].get("name") or "")
        there = [volume for volume in there if volume.get("name") != name]
        disks_ = [disk for disk in disks_ if disk.get("name") != name]
    spec["volumes"], devices["disks"] = there, disks_


def _storage_causes(spec: Object, path: str, config: ClusterConfiguration) -> Causes:
    causes: list[Cause] = []
    VMI_SPEC.check(spec, path, causes)
    if causes:
        yield from causes
        return
    for rule in _RULES:
        yield from rule(spec, path, config)


def _is_migrating(vmi: Object) -> bool:
    state = get(vmi, "status", "migrationState") or {}
    return bool(state.get("startTimestamp")) and not state.get("endTimestamp")


def _by_name(spec: Object) -> dict[str, Any]:
    return {volume["name"]: volume for volume in spec.get("volumes") or ()}
