# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumeClaims that a VirtualMachineInstance uses. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from turtles.api import quantity
from turtles.api.import_settings import ImportSettings, share_text
from turtles.api.objects import Object
from turtles.domain import paths


def claim_names(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the PersistentVolumeClaims that a VMI's spec uses."""
    return [claim for volume in spec.get("volumes") or () if (claim := paths.claim_of(volume))]


def data_volume_names(spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the DataVolumes, and so of the claims, that a VMI's spec uses."""
    return {name for volume in spec.get("volumes") or () if (name := (volume.get("dataVolume") or {}).get("name"))}


def refreshed(
    entries: Sequence[Mapping[str, Any]] | None, spec: Mapping[str, Any], pvcs: Mapping[str, Object | None]
) -> list[Object]:
    """Return ``status.volumeStatus`` with what is known of the claims now; everything else in it is kept."""
    now = {entry["name"]: entry for entry in claim_status(spec, pvcs)}
    keys = ("persistentVolumeClaimInfo", "size")
    return [
        {**entry, **{key: now[entry["name"]][key] for key in keys if key in now.get(entry["name"], {})}}
        for entry in entries or ()
    ]


def note_overheads(
    entries: Sequence[Mapping[str, Any]], pvcs: Mapping[str, Object | None], settings: ImportSettings
) -> None:
    """Note in entries of ``status.volumeStatus`` which share of each claim's file system its disk leaves free."""
    for entry in entries:
        info = entry.get("persistentVolumeClaimInfo")
        if info and (pvc := pvcs.get(info.get("claimName", ""))) is not None:
            is_block = info.get("volumeMode") == "Block"
            share = 0.0 if is_block else settings.overhead_of(pvc["spec"].get("storageClassName"))
            info["filesystemOverhead"] = share_text(share)


def claim_status(spec: Mapping[str, Any], pvcs: Mapping[str, Object | None]) -> list[Object]:
    """Return the entries of ``status.volumeStatus`` for the volumes on PersistentVolumeClaims."""
    entries: list[Object] = []
    for volume in spec.get("volumes") or ():
        claim = paths.claim_of(volume)
        if not claim or (pvc := pvcs.get(claim)) is None:
            continue
        asked, status = pvc.get("spec") or {}, pvc.get("status") or {}
        info: dict[str, Any] = {
            "claimName": claim,
            "accessModes": asked.get("accessModes"),
            "volumeMode": asked.get("volumeMode") or "Filesystem",
            "capacity": status.get("capacity"),
            "requests": (asked.get("resources") or {}).get("requests"),
        }
        known = {key: value for key, value in info.items() if value}
        entry: Object = {"name": volume["name"], "target": "", "persistentVolumeClaimInfo": known}
        if storage := (info["capacity"] or info["requests"] or {}).get("storage"):
            entry["size"] = quantity.to_int(storage)
        if "memoryDump" in volume:
            entry["memoryDumpVolume"] = {"claimName": claim}
        entries.append(entry)
    return entries
