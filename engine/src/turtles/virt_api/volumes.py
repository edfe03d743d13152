# SPDX-License-Identifier: GPL-3.0-or-later
"""What adding a volume to a machine and removing one does to the spec of its instances. Pure.

Rules and messages: KubeVirt API, AddVolumeOptions and RemoveVolumeOptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.feature_gates import HOTPLUG_VOLUMES, HOTPLUG_VOLUMES_FORMER
from turtles.api.kinds.vmi import hotplug
from turtles.api.objects import Object, get

_SOURCES = ("persistentVolumeClaim", "dataVolume")


class WrongOptions(Exception):
    """The options of a request aren't complete, or not allowed."""


class NotPossible(Exception):
    """The machine has such a volume already, or none."""


def check_enabled(what: str, configuration: ClusterConfiguration) -> None:
    """Check that volumes may come and go.

    :param what: Add or Remove.
    :raises WrongOptions: neither feature gate is on.
    """
    if not any(configuration.has_gate(gate) for gate in (HOTPLUG_VOLUMES, HOTPLUG_VOLUMES_FORMER)):
        raise WrongOptions(f"Unable to {what} Volume because {HOTPLUG_VOLUMES} feature gate is not enabled.")


def check_add(options: Object) -> None:
    """Check the options of a request to add a volume.

    :raises WrongOptions: something is missing, or can't be.
    """
    if not options:
        raise WrongOptions("Request with no body, a new name is expected as the request body")
    if not isinstance(options.get("name"), str) or not options["name"]:
        raise WrongOptions("AddVolumeOptions requires name to be set")
    if not isinstance(options.get("disk"), dict):
        raise WrongOptions("AddVolumeOptions requires disk to not be nil")
    source = options.get("volumeSource")
    if not isinstance(source, dict):
        raise WrongOptions("AddVolumeOptions requires VolumeSource to not be nil")
    if not hotplug.source_name(source):
        raise WrongOptions("AddVolumeOptions requires VolumeSource to name a persistentVolumeClaim or a dataVolume")
    disk = options["disk"]
    if any(disk.get(kind) is not None and not isinstance(disk[kind], dict) for kind in ("disk", "lun", "cdrom")):
        raise WrongOptions("AddVolumeOptions requires the disk's disk or lun to be an object")
    for cause in hotplug.disk_causes(disk, options["name"], "AddVolume request"):
        raise WrongOptions(cause.message)


def check_remove(options: Object) -> None:
    """Check the options of a request to remove a volume.

    :raises WrongOptions: something is missing.
    """
    if not options:
        raise WrongOptions("Request with no body, a new name is expected as the request body")
    if not isinstance(options.get("name"), str) or not options["name"]:
        raise WrongOptions("RemoveVolumeOptions requires name to be set")


def added(spec: Mapping[str, Any], options: Object) -> Object:
    """Return the changes of an instance's spec that add a volume and its disk.

    :raises NotPossible: it is there already.
    """
    name, source = options["name"], dict(options["volumeSource"])
    wanted = hotplug.source_name(source)
    for volume in _volumes(spec):
        if volume.get("name") == name:
            raise NotPossible(f"Unable to add volume [{name}] because volume with that name already exists")
        if hotplug.source_name(volume) == wanted:
            raise NotPossible(f"Unable to add volume source [{wanted}] because it already exists")
    for kind in _SOURCES:
        if isinstance(source.get(kind), dict):
            source[kind] = {**source[kind], "hotpluggable": True}
    return _changes([*_volumes(spec), {"name": name, **source}], [*_disks(spec), {**options["disk"], "name": name}])


def removed(spec: Mapping[str, Any], options: Object) -> Object:
    """Return the changes of an instance's spec that remove a volume, by its name or its source's, and its disk.

    :raises NotPossible: there is none, or it may not go.
    """
    wanted = options["name"]
    for volume in _volumes(spec):
        if wanted not in (volume.get("name"), hotplug.source_name(volume)):
            continue
        name = volume.get("name")
        if not hotplug.source_name(volume) or not hotplug.is_hotpluggable(volume):
            raise NotPossible(f"Unable to remove volume [{name}] because it is not hotpluggable")
        return _changes(
            [other for other in _volumes(spec) if other is not volume],
            [disk for disk in _disks(spec) if disk.get("name") != name],
        )
    raise NotPossible(f"Unable to remove volume [{wanted}] because it does not exist")


def only_of_instance(machine: Mapping[str, Any], after: Object) -> str | None:
    """Return the annotation with the names of the volumes that an instance has and its VirtualMachine hasn't.

    :param machine: the spec of the VirtualMachine's template. :param after: the changes of the instance's spec.
    """
    own = {volume.get("name") for volume in _volumes(machine)}
    names = {volume["name"]: volume for volume in after["volumes"]}
    return hotplug.mark([name for name, each in names.items() if hotplug.is_hotpluggable(each) and name not in own])


def _changes(volumes: list[Object], disks: list[Object]) -> Object:
    return {"volumes": volumes, "domain": {"devices": {"disks": disks}}}


def _volumes(spec: Mapping[str, Any]) -> list[Object]:
    return list(get(spec, "volumes") or ())


def _disks(spec: Mapping[str, Any]) -> list[Object]:
    return list(get(spec, "domain", "devices", "disks") or ())
