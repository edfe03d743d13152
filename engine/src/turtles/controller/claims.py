# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumeClaims that a VirtualMachineInstance uses. Pure."""

from collections.abc import Mapping
from typing import Any

from turtles.api.objects import Object


def claim_names(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the PersistentVolumeClaims that a VMI's spec uses."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in spec.get("volumes") or ()
        if (volume.get("persistentVolumeClaim") or {}).get("claimName")
    ]


def claim_status(spec: Mapping[str, Any], pvcs: Mapping[str, Object | None]) -> list[Object]:
    """Return the entries of ``status.volumeStatus`` for the volumes on PersistentVolumeClaims."""
    entries: list[Object] = []
    for volume in spec.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if not claim or (pvc := pvcs.get(claim)) is None:
            continue
        asked, status = pvc.get("spec") or {}, pvc.get("status") or {}
        info = {
            "claimName": claim,
            "accessModes": asked.get("accessModes"),
            "volumeMode": asked.get("volumeMode") or "Filesystem",
            "capacity": status.get("capacity"),
            "requests": (asked.get("resources") or {}).get("requests"),
        }
        known = {key: value for key, value in info.items() if value}
        entries.append({"name": volume["name"], "target": "", "persistentVolumeClaimInfo": known})
    return entries
