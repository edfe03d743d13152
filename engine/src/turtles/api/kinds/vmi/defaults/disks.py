# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and volumes."""

from __future__ import annotations

import re

from turtles.api.objects import Object

_TAG = re.compile(r":([^/:@]+)$")


def default_disks(spec: Object, domain: Object) -> None:
    """Add a disk for each volume that has none, and set pull policies."""
    devices = domain["devices"]
    disks = devices.get("disks") or []
    named = {disk["name"] for disk in disks}
    disks += [{"name": volume["name"]} for volume in spec.get("volumes") or () if volume["name"] not in named]
    for disk in disks:
        if disk.get("disk") is None and disk.get("cdrom") is None:
            disk["disk"] = {}
        for target in (disk.get("disk"), disk.get("cdrom")):
            if target is not None and not target.get("bus"):
                target.pop("bus", None)
    if disks:
        devices["disks"] = disks
    for volume in spec.get("volumes") or ():
        container = volume.get("containerDisk")
        if container is not None and not container.get("imagePullPolicy"):
            container["imagePullPolicy"] = pull_policy(container["image"])


def pull_policy(image: str) -> str:
    """Return the pull policy of an image that has none set: Always for `latest` and no tag, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = _TAG.search(image)
    return "IfNotPresent" if tag and tag.group(1) != "latest" else "Always"
