# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks grow while the guest runs, when their claims have (KubeVirt user guide, "Disks and volumes")."""

import logging
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from turtles.api import quantity
from turtles.api.objects import Object
from turtles.domain import paths
from turtles.domain.live_domain import Live
from turtles.handler.domain import Domain
from turtles.handler.errors import LibvirtError
from turtles.handler.launcher import Launcher

log = logging.getLogger(__name__)

_MIB = 2**20


class DiskGrowth:
    """Makes disks as large as their claims."""

    def __init__(self) -> None:
        #: The capacities that disks were last made to fit, by the machine's UID and the volume's name.
        self._fitted: dict[tuple[str, str], int] = {}

    def grow(self, vmi: Object, launcher: Launcher, domain: Domain, live: Live) -> None:
        """Make the disks of a running guest as large as their claims are now. No disk becomes smaller.

        What goes wrong is logged; it is tried again when the claim changes.
        """
        targets, uid = {name: disk.target for name, disk in live.disks.items()}, vmi["metadata"]["uid"]
        for volume, capacity in _growing(vmi):
            name = volume["name"]
            if name not in targets or self._fitted.get((uid, name)) == capacity:
                continue
            self._fitted[uid, name] = capacity
            try:
                _fit(launcher, domain, targets[name], _disk(vmi, volume), capacity)
            except (LibvirtError, OSError) as error:
                log.warning(
                    "a disk can't grow: %s", error, extra={"vmi": vmi["metadata"]["name"], "uid": uid, "volume": name}
                )

    def forget(self, uid: str) -> None:
        """Forget a machine."""
        self._fitted = {key: value for key, value in self._fitted.items() if key[0] != uid}


def _growing(vmi: Object) -> list[tuple[Mapping[str, Any], int]]:
    """Return the volumes whose disks grow with their claims, and how large they may be.

    That is what was asked for or is there, whichever is less, without what the file system keeps for itself.
    """
    growing = []
    entries = {entry["name"]: entry for entry in vmi["status"].get("volumeStatus") or ()}
    for volume in vmi["spec"].get("volumes") or ():
        info = (entries.get(volume["name"]) or {}).get("persistentVolumeClaimInfo") or {}
        amounts = [amount for key in ("requests", "capacity") if (amount := (info.get(key) or {}).get("storage"))]
        overhead = info.get("filesystemOverhead")
        writable = ("persistentVolumeClaim" in volume or "dataVolume" in volume) and not paths.is_read_only(volume)
        if amounts and overhead is not None and writable:
            growing.append((volume, int(min(map(quantity.to_int, amounts)) * (1 - float(overhead)))))
    return growing


def _disk(vmi: Object, volume: Mapping[str, Any]) -> PurePosixPath:
    is_block = volume["name"] in paths.block_volumes(vmi)
    return paths.claim_device(volume["name"]) if is_block else paths.claim_disk(volume["name"])


def _fit(launcher: Launcher, domain: Domain, target: str, path: PurePosixPath, capacity: int) -> None:
    size = min(capacity, launcher.disks.room(path)) // _MIB * _MIB
    if size > domain.disk_size(target):
        domain.resize_disk(target, size)
        log.info("a disk has grown", extra={"target": target, "bytes": size})
