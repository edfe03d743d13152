# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a snapshot of a machine: the VirtualMachineSnapshotContent and its VolumeSnapshots. Pure."""

import copy
from collections.abc import Mapping, Sequence

from turtles.api.conditions import is_true
from turtles.api.kinds.snapshot import CONTENT
from turtles.api.objects import Object, get, owner_reference
from turtles.api.phases import phase_of
from turtles.api.snapshots import GUEST_AGENT, NO_GUEST_AGENT, ONLINE, PARTIAL, PAUSED
from turtles.controller.state_claims import claim_name
from turtles.domain import paths

_STORAGE = "snapshot.storage.k8s.io"
#: What of a machine's metadata a restored one gets.
_KEPT = ("name", "namespace", "uid", "labels", "annotations")
#: Sources of volumes that outlive the guest, by which a snapshot without them is noticed.
_LASTING = {"persistentVolumeClaim", "dataVolume", "memoryDump"}


class NotPossible(Exception):
    """There can't be a snapshot of the machine as things are; the message says why and what to do."""


def name_of(snapshot: Object) -> str:
    """Return the name of a snapshot's content."""
    return f"vmsnapshot-content-{snapshot['metadata']['uid']}"


def make(
    snapshot: Object,
    vm: Object,
    pvcs: Mapping[str, Object | None],
    snapshot_classes: Mapping[str, str],
    state_claim: str | None = None,
) -> Object:
    """Return the content of a snapshot, with all the machine's volumes that there can be snapshots of.

    :param pvcs: the claims that the machine's volumes name; None for one that doesn't exist.
    :param snapshot_classes: by name of a StorageClass, the VolumeSnapshotClass for its volumes.
    :param state_claim: the claim with the state of its TPM and variables of EFI, if it has one.
    :raises NotPossible: a claim doesn't exist, or has no volume yet.
    """
    spec = vm["spec"]["template"]["spec"]
    disks = {disk["name"] for disk in get(spec, "domain", "devices", "disks") or ()}
    backups = []
    for volume in volumes_of(vm, state_claim):
        claim = _claim_of(volume)
        if claim is None:
            continue
        pvc = pvcs.get(claim)
        if pvc is None:
            raise NotPossible(f"volume {volume['name']}: PersistentVolumeClaim {claim} does not exist")
        if (pvc["spec"].get("storageClassName") or "") not in snapshot_classes:
            continue
        if phase_of(pvc) != "Bound":
            raise NotPossible(
                f"volume {volume['name']}: PersistentVolumeClaim {claim} is not bound; start the machine once"
            )
        backup: Object = {
            "volumeName": volume["name"],
            "persistentVolumeClaim": {"metadata": _metadata(pvc), "spec": copy.deepcopy(pvc["spec"])},
            "volumeSnapshotName": f"vmsnapshot-{snapshot['metadata']['uid']}-volume-{volume['name']}",
        }
        backups.append({**backup, "diskName": volume["name"]} if volume["name"] in disks else backup)
    metadata = snapshot["metadata"]
    return {
        "apiVersion": CONTENT.api_version,
        "kind": CONTENT.kind,
        "metadata": {"name": name_of(snapshot), "namespace": metadata["namespace"]},
        "spec": {
            "virtualMachineSnapshotName": metadata["name"],
            "source": {"virtualMachine": {"metadata": _metadata(vm), "spec": copy.deepcopy(vm["spec"])}},
            "volumeBackups": backups,
        },
    }


def volumes_of(vm: Object, state_claim: str | None) -> list[Object]:
    """Return a machine's volumes, with the one that has the state of its TPM and variables of EFI (KubeVirt)."""
    volumes = list(vm["spec"]["template"]["spec"].get("volumes") or ())
    if state_claim is not None:
        volumes.append({"name": claim_name(vm), "persistentVolumeClaim": {"claimName": state_claim}})
    return volumes


def claims_of(vm: Object) -> list[str]:
    """Return the claims of a machine's disks that a snapshot needs to know about."""
    return [claim for volume in volumes_of(vm, None) if (claim := _claim_of(volume))]


def _claim_of(volume: Object) -> str | None:
    """Return the claim of a volume that the machine keeps: not of one that is thrown away, or of a memory dump."""
    return None if "ephemeral" in volume or "memoryDump" in volume else paths.claim_of(volume)


def _metadata(obj: Object) -> Object:
    return {key: copy.deepcopy(value) for key in _KEPT if (value := obj["metadata"].get(key))}


def backups_of(content: Object) -> Sequence[Object]:
    """Return the volumes in a content."""
    return content["spec"].get("volumeBackups") or ()


def volume_snapshots(content: Object, snapshot_classes: Mapping[str, str]) -> list[Object]:
    """Return the VolumeSnapshots of a content. They go with it."""
    metadata = content["metadata"]
    snapshots = []
    for backup in backups_of(content):
        claim = backup["persistentVolumeClaim"]
        snapshots.append(
            {
                "apiVersion": f"{_STORAGE}/v1",
                "kind": "VolumeSnapshot",
                "metadata": {
                    "name": backup["volumeSnapshotName"],
                    "namespace": metadata["namespace"],
                    "ownerReferences": [owner_reference(content)],
                },
                "spec": {
                    "source": {"persistentVolumeClaimName": claim["metadata"]["name"]},
                    "volumeSnapshotClassName": snapshot_classes.get(claim["spec"].get("storageClassName") or ""),
                },
            }
        )
    return snapshots


def volumes_lists(vm: Object, content: Object, state_claim: str | None = None) -> Object:
    """Return a snapshot's ``status.snapshotVolumes``."""
    included = [backup["volumeName"] for backup in backups_of(content)]
    names = [volume["name"] for volume in volumes_of(vm, state_claim)]
    lists = {"includedVolumes": included, "excludedVolumes": [name for name in names if name not in included]}
    return {key: value for key, value in lists.items() if value}


def indications_of(vm: Object, vmi: Object | None, content: Object, state_claim: str | None = None) -> list[str]:
    """Return how a guest is while its disks are copied, and whether some of its claims aren't."""
    included = {backup["volumeName"] for backup in backups_of(content)}
    volumes = volumes_of(vm, state_claim)
    partial = any(volume["name"] not in included and _LASTING & volume.keys() for volume in volumes)
    return [*_of_guest(vmi), *([PARTIAL] if partial else [])]


def _of_guest(vmi: Object | None) -> list[str]:
    if vmi is None:
        return []
    conditions = get(vmi, "status", "conditions")
    if is_true(conditions, "Paused"):
        return [ONLINE, PAUSED]
    return [ONLINE, GUEST_AGENT if is_true(conditions, "AgentConnected") else NO_GUEST_AGENT]
