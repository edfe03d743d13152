# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object, get

#: Buses of disks that name none, where it isn't SATA: these architectures have no such controller.
_USUAL_BUSES = {"arm64": "virtio", "s390x": "virtio"}
_TARGETS = ("disk", "cdrom", "lun")


def declare_disks(spec: Object) -> None:
    """Add a disk for each volume that has none."""
    disks: list[Object] = with_default_disks(spec)
    for disk in disks:
        if all(disk.get(kind) is None for kind in _TARGETS):
            disk["disk"] = {}
    if disks:
        spec["domain"]["devices"]["disks"] = disks


def default_buses(spec: Object, config: ClusterConfiguration) -> None:
    """Set the buses of disks that name none."""
    usual = _USUAL_BUSES.get(spec.get("architecture") or config.architecture, "sata")
    for disk in spec["domain"]["devices"].get("disks") or ():
        for kind in _TARGETS:
            if disk.get(kind) is not None and not disk[kind].get("bus"):
                disk[kind]["bus"] = usual


def default_disks(spec: Object) -> None:
    """Add a disk for each volume that has none, set pull policies and capacities."""
    declare_disks(spec)
    for volume in spec.get("volumes") or ():
        container = volume.get("containerDisk")
        if container is not None and not container.get("imagePullPolicy"):
            container["imagePullPolicy"] = pull_policy(container["image"])
        if volume.get("hostDisk") is not None and not volume["hostDisk"].get("capacity"):
            # Objects that KubeVirt has written have it, as a number that isn't there is zero.
            volume["hostDisk"]["capacity"] = "0"


def with_default_disks(spec: Mapping[str, Any]) -> list[Any]:
    """Return the disks of a spec, along with one for each volume that no disk and no filesystem uses."""
    devices = get(spec, "domain", "devices") or {}
    disks = list(devices.get("disks") or ())
    used = {device["name"] for device in (*disks, *(devices.get("filesystems") or ()))}
    return disks + [{"name": volume["name"]} for volume in spec.get("volumes") or () if volume["name"] not in used]


def pull_policy(image: str) -> str:
    """Return the pull policy of an image that has none set.

    As in KubeVirt, whatever has a colon counts as having a tag, be it a registry's port. One that isn't in a registry
    (``oci:/path``, which KubeVirt doesn't know) has it after its path.
    """
    name = image.removeprefix("oci:")
    if name.endswith(":latest") or not any(mark in name for mark in ":@"):
        return "Always"
    return "IfNotPresent"
