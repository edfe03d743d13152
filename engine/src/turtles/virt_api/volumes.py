# SPDX-License-Identifier: GPL-3.0-or-later
"""What adding a volume to a VirtualMachine and removing one does to its template. Pure.

Only of a machine that doesn't run: this engine doesn't plug volumes into a running guest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from turtles.api.objects import Object, get

_SOURCES = {"persistentVolumeClaim": "claimName", "dataVolume": "name"}
#: Completes "Unable to Add Volume because …".
NO_HOTPLUG = (
    "this engine does not plug volumes into a running guest. Stop the VirtualMachine first, or change its template: "
    "the volume is there after a restart"
)


class WrongOptions(Exception):
    """The options of a request aren't complete."""


class NotPossible(Exception):
    """The machine has such a volume already, or none."""


def check_add(options: Object) -> None:
    """Check the options of a request to add a volume.

    :raises WrongOptions: something is missing.
    """
    if not options:
        raise WrongOptions("Request with no body, a new name is expected as the request body")
    if not isinstance(options.get("name"), str) or not options["name"]:
        raise WrongOptions("AddVolumeOptions requires name to be set")
    if not isinstance(options.get("disk"), dict):
        raise WrongOptions("AddVolumeOptions requires disk to not be nil")
    if not isinstance(options.get("volumeSource"), dict):
        raise WrongOptions("AddVolumeOptions requires VolumeSource to not be nil")


def check_remove(options: Object) -> None:
    """Check the options of a request to remove a volume.

    :raises WrongOptions: something is missing.
    """
    if not options:
        raise WrongOptions("Request with no body, a new name is expected as the request body")
    if not isinstance(options.get("name"), str) or not options["name"]:
        raise WrongOptions("RemoveVolumeOptions requires name to be set")


def added(spec: Object, options: Object) -> Object:
    """Return the changes of a machine's spec that add a volume and its disk.

    :raises NotPossible: it is there already.
    """
    name, source = options["name"], dict(options["volumeSource"])
    wanted = _source_name(source)
    for volume in _volumes(spec):
        if volume.get("name") == name:
            raise NotPossible(f"Unable to add volume [{name}] because volume with that name already exists")
        if wanted and _source_name(volume) == wanted:
            raise NotPossible(f"Unable to add volume source [{wanted}] because it already exists")
    return _changes([*_volumes(spec), {"name": name, **source}], [*_disks(spec), {**options["disk"], "name": name}])


def removed(spec: Object, options: Object) -> Object:
    """Return the changes of a machine's spec that remove a volume, by its name or its source's, and its disk.

    :raises NotPossible: there is none, or it holds what no claim does.
    """
    wanted = options["name"]
    for volume in _volumes(spec):
        if wanted not in (volume.get("name"), _source_name(volume)):
            continue
        name = volume.get("name")
        if not _source_name(volume):
            raise NotPossible(f"Unable to remove volume [{name}] because it is not hotpluggable")
        return _changes(
            [other for other in _volumes(spec) if other is not volume],
            [disk for disk in _disks(spec) if disk.get("name") != name],
        )
    raise NotPossible(f"Unable to remove volume [{wanted}] because it does not exist")


def _changes(volumes: list[Object], disks: list[Object]) -> Object:
    return {"template": {"spec": {"volumes": volumes, "domain": {"devices": {"disks": disks}}}}}


def _volumes(spec: Object) -> list[Object]:
    return list(get(spec, "template", "spec", "volumes") or ())


def _disks(spec: Object) -> list[Object]:
    return list(get(spec, "template", "spec", "domain", "devices", "disks") or ())


def _source_name(source: Mapping[str, Any]) -> str:
    return next(_names(source), "")


def _names(source: Mapping[str, Any]) -> Iterator[str]:
    for kind, key in _SOURCES.items():
        found = source.get(kind)
        if isinstance(found, dict) and isinstance(found.get(key), str):
            yield found[key]
