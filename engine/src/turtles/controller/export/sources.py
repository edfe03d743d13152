# SPDX-License-Identifier: GPL-3.0-or-later
"""What an export is of: the claims of a machine or a snapshot, or a single one, and whether they can be read. Pure.

Reasons and messages are KubeVirt's where it has some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from turtles.api import cdi, exports, labels, uploads
from turtles.api.objects import Object, annotations_of, controller_of, get, is_controlled_by, is_deleted
from turtles.api.phases import is_final, phase_of
from turtles.api.snapshots import is_ready
from turtles.controller import state_claims
from turtles.controller.restored_claims import own_annotations, restored_spec

#: Reasons of the condition Ready.
INITIALIZING, IN_USE, NOT_POPULATED = "Initializing", "InUse", "VolumesNotPopulated"
MACHINE_NOT_FOUND, NO_VOLUMES = "VMNotFound", "VMNoVolumes"
SNAPSHOT_NOT_FOUND, NO_SNAPSHOTS = "VMSnapshotNotFound", "VMSnapshotNoVolumes"
#: Reasons of the condition PVCReady.
CLAIM_NOT_FOUND, CLAIM_BOUND, CLAIM_PENDING, UNKNOWN = "PVCNotFound", "PVCBound", "PVCPending", "Unknown"
#: Reasons of the condition VolumesCreated.
ALL_READY, NOT_ALL_READY, NOT_ALL_CREATED = "AllPVCsReady", "NotAllPVCsReady", "NotAllPVCsCreated"

#: Sources of a machine's volumes that are claims, and hold its disks.
_DISKS = ("persistentVolumeClaim", "dataVolume")


@dataclass(frozen=True)
class Situation:
    """What there is of a source; None for what doesn't exist.

    :param claims: by name; those that the source names. :param data_volumes: by name; those that control claims.
    :param users: by claim, who has it: "VirtualMachineInstance web".
    :param disks: the claims that machines of the namespace have as disks.
    :param vm: the machine. :param vmi: its instance.
    :param state_claim: the claim with what the machine keeps beside its disks, whether or not there is one.
    :param snapshot: of a machine. :param content: what is in it. :param volume_snapshots: by name.
    """

    claims: Mapping[str, Object] = field(default_factory=dict)
    data_volumes: Mapping[str, Object] = field(default_factory=dict)
    users: Mapping[str, Sequence[str]] = field(default_factory=dict)
    disks: frozenset[str] = frozenset()
    vm: Object | None = None
    vmi: Object | None = None
    snapshot: Object | None = None
    content: Object | None = None
    volume_snapshots: Mapping[str, Object] = field(default_factory=dict)
    state_claim: str = ""


@dataclass(frozen=True)
class Volume:
    """A volume of an export.

    :param name: as it is offered. :param claim: the claim that is served. :param is_disk: it is a disk, and not files.
    :param is_block: the claim is a device.
    """

    name: str
    claim: str
    is_disk: bool
    is_block: bool = False


@dataclass(frozen=True)
class Source:
    """What an export is of.

    :param volumes: all that is to be served.
    :param obstacle: reason and message of why it can't be served now; None if it can.
    :param condition: type, status, reason and message of what is said of its claims.
    :param create: claims that are made for it.
    :param machine: the machine as it is to be made again, with its metadata.
    :param machine_name: its name.
    :param is_empty: there is nothing to serve, and there won't be.
    """

    condition: tuple[str, str, str, str]
    volumes: tuple[Volume, ...] = ()
    obstacle: tuple[str, str] | None = None
    create: tuple[Object, ...] = ()
    machine: Object | None = None
    machine_name: str = ""
    is_empty: bool = False


def of(export: Object, situation: Situation) -> Source:
    """Return what an export is of."""
    kind = export["spec"]["source"]["kind"]
    if kind == exports.CLAIM:
        return _of_claim(export, situation)
    return _of_machine(export, situation) if kind == exports.MACHINE else _of_snapshot(export, situation)


def claims_of(vm: Object, state_claim: str) -> list[str]:
    """Return the names of the claims that an export of a machine has: those of its volumes, and that with its state.

    :param state_claim: what that is called, if there is one.
    """
    template = vm["spec"]["template"]["spec"]
    names = [name for volume in template.get("volumes") or () if (name := _claim_of(volume))]
    return list(dict.fromkeys([*names, *([state_claim] if state_claims.is_wanted(template) else [])]))


def disks_of(vm: Object) -> set[str]:
    """Return the names of the claims that a machine has as disks, and not as folders."""
    template = vm["spec"]["template"]["spec"]
    shared = {each["name"] for each in get(template, "domain", "devices", "filesystems") or ()}
    return {
        name
        for volume in template.get("volumes") or ()
        if volume["name"] not in shared and any(key in volume for key in _DISKS) and (name := _claim_of(volume))
    }


def backups_of(content: Object | None) -> Sequence[Object]:
    """Return the volumes in the content of a snapshot."""
    return get(content, "spec", "volumeBackups") or ()


def restored_name(export: Object, backup: Object) -> str:
    """Return the name of the claim that is made for a volume of a snapshot (KubeVirt)."""
    return f"{export['metadata']['name']}-{backup['persistentVolumeClaim']['metadata']['name']}"


def _claim_of(volume: Object) -> str | None:
    claim = volume.get("persistentVolumeClaim") or volume.get("memoryDump") or {}
    return claim.get("claimName") or get(volume, "dataVolume", "name") or None


def _of_claim(export: Object, situation: Situation) -> Source:
    name, namespace = export["spec"]["source"]["name"], export["metadata"]["namespace"]
    called = f"PersistentVolumeClaim {namespace}/{name}"
    claim = situation.claims.get(name)
    if claim is None:
        condition = (exports.CLAIM_CONDITION, "False", CLAIM_NOT_FOUND, f"{called} not found")
        return Source(condition, obstacle=(INITIALIZING, f"{called} not found"))
    volume = _volume(situation, name, name)
    obstacle = None
    if not _is_populated(claim, situation):
        obstacle = (CLAIM_PENDING, f"{called} is not populated")
    elif users := situation.users.get(name):
        obstacle = (IN_USE, f"{called} is in use by {', '.join(users)}")
    return Source(_bound([claim]), (volume,), obstacle or _lost([claim]))


def _of_machine(export: Object, situation: Situation) -> Source:
    name, namespace = export["spec"]["source"]["name"], export["metadata"]["namespace"]
    called, vm = f"Virtual Machine {namespace}/{name}", situation.vm
    if vm is None:
        message = f"{called} not found"
        condition = (exports.CLAIM_CONDITION, "False", UNKNOWN, "")
        return Source(condition, obstacle=(MACHINE_NOT_FOUND, message), machine_name=name)
    disks, wanted = disks_of(vm), claims_of(vm, situation.state_claim)
    # That with the state is there once the machine has been started
    volumes = tuple(
        _volume(
            situation,
            # Called the same whatever claim a restore has given it
            state_claims.claim_name(vm) if each == situation.state_claim and each not in disks else each,
            each,
            is_disk=each in disks,
        )
        for each in wanted
        if each in situation.claims or each != situation.state_claim
    )
    claims = [claim for each in volumes if (claim := situation.claims.get(each.claim)) is not None]
    if not volumes:
        return Source(
            _bound(()),
            obstacle=(NO_VOLUMES, f"{called} has no volumes"),
            machine=vm,
            machine_name=name,
            is_empty=True,
        )
    users = [user for each in volumes for user in situation.users.get(each.claim) or ()]
    if len(claims) < len(volumes) or not all(_is_populated(claim, situation) for claim in claims):
        obstacle = (NOT_POPULATED, f"Not all volumes in the {called} are populated")
    elif situation.vmi is not None and not is_final(situation.vmi):
        obstacle = (IN_USE, f"{called} is running")
    elif users:
        obstacle = (IN_USE, f"{called} has disks that are in use by {', '.join(dict.fromkeys(users))}")
    else:
        return Source(_bound(claims), volumes, _lost(claims), machine=vm, machine_name=name)
    return Source(_bound(claims), volumes, obstacle, machine=vm, machine_name=name)


def _of_snapshot(export: Object, situation: Situation) -> Source:
    name, namespace = export["spec"]["source"]["name"], export["metadata"]["namespace"]
    called, snapshot = f"VirtualMachineSnapshot {namespace}/{name}", situation.snapshot
    machine_name = str(get(snapshot, "spec", "source", "name") or "")

    def without(reason: str, message: str, *, is_empty: bool = False, why: str = INITIALIZING) -> Source:
        condition = (exports.VOLUMES_CONDITION, "False", reason, message)
        return Source(condition, obstacle=(why, message), machine_name=machine_name, is_empty=is_empty)

    if snapshot is None:
        return without(NO_SNAPSHOTS, f"{called} not found", why=SNAPSHOT_NOT_FOUND)
    if is_deleted(snapshot) or not is_ready(snapshot):
        return without(NOT_ALL_CREATED, f"{called} is not ready to use")
    content, backups = situation.content, backups_of(situation.content)
    if content is None:
        return without(NOT_ALL_CREATED, f"the content of {called} does not exist")
    if not backups:
        return without(NO_SNAPSHOTS, f"{called} does not contain any volume snapshots", is_empty=True)
    machine = content["spec"]["source"]["virtualMachine"]
    disks, create, volumes, claims = disks_of(machine), [], [], []
    for backup in backups:
        before, claim = backup["persistentVolumeClaim"], situation.claims.get(restored_name(export, backup))
        original = before["metadata"]["name"]
        if claim is None:
            volume_snapshot = situation.volume_snapshots.get(backup["volumeSnapshotName"])
            if volume_snapshot is None or not get(volume_snapshot, "status", "readyToUse"):
                return without(NOT_ALL_CREATED, f"VolumeSnapshot {backup['volumeSnapshotName']} is not ready to use")
            claim = _restored(export, backup, volume_snapshot, is_disk=original in disks)
            create.append(claim)
        elif not is_controlled_by(claim, export):
            theirs = claim["metadata"]["name"]
            return without(
                NOT_ALL_CREATED, f"PersistentVolumeClaim {theirs} exists and does not belong to this export; delete it"
            )
        else:
            claims.append(claim)
        is_block = before["spec"].get("volumeMode") == "Block"
        name = backup["volumeName"] if state_claims.is_in_backup(machine, backup) else original
        volumes.append(Volume(name, claim["metadata"]["name"], is_block or original in disks, is_block))
    bound = len(claims) == len(backups) and all(phase_of(claim) == "Bound" for claim in claims)
    condition = (
        (exports.VOLUMES_CONDITION, "True", ALL_READY, "")
        if bound
        else (exports.VOLUMES_CONDITION, "False", NOT_ALL_READY, "Not all PVCs are ready")
    )
    return Source(condition, tuple(volumes), _lost(claims), tuple(create), machine, machine_name)


def _restored(export: Object, backup: Object, volume_snapshot: Object, *, is_disk: bool) -> Object:
    """Return the claim for a volume of a snapshot. It goes with the export."""
    metadata = backup["persistentVolumeClaim"]["metadata"]
    annotations = own_annotations(metadata)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": restored_name(export, backup),
            "namespace": export["metadata"]["namespace"],
            "labels": {labels.APP: exports.APP},
            "annotations": {**annotations, **({cdi.CONTENT_TYPE: "kubevirt"} if is_disk else {})},
            "ownerReferences": [exports.reference(export)],
        },
        "spec": restored_spec(backup, volume_snapshot),
    }


def _volume(situation: Situation, name: str, claim: str, *, is_disk: bool = False) -> Volume:
    obj = situation.claims.get(claim)
    is_block = get(obj, "spec", "volumeMode") == "Block"
    known = obj is not None and exports.is_disk(obj, _filler(obj, situation))
    return Volume(name, claim, is_disk or known or claim in situation.disks, is_block)


def _filler(claim: Object, situation: Situation) -> Object | None:
    """Return the DataVolume that controls a claim."""
    owner = controller_of(claim) or {}
    data_volume = situation.data_volumes.get(claim["metadata"]["name"])
    return data_volume if data_volume is not None and owner.get("uid") == data_volume["metadata"]["uid"] else None


def _is_populated(claim: Object, situation: Situation) -> bool:
    data_volume = _filler(claim, situation)
    if data_volume is not None:
        return cdi.is_populated(data_volume)
    annotations = annotations_of(claim)
    return uploads.TARGET not in annotations or annotations.get(cdi.POD_PHASE) == cdi.SUCCEEDED


def _bound(claims: Sequence[Object]) -> tuple[str, str, str, str]:
    phases = {get(claim, "status", "phase") for claim in claims}
    if "Lost" in phases:
        return exports.CLAIM_CONDITION, "False", UNKNOWN, "The volume of a PersistentVolumeClaim is lost"
    if not claims:
        return exports.CLAIM_CONDITION, "False", UNKNOWN, ""
    if phases - {"Bound"}:
        return exports.CLAIM_CONDITION, "False", CLAIM_PENDING, ""
    return exports.CLAIM_CONDITION, "True", CLAIM_BOUND, ""


def _lost(claims: Sequence[Object]) -> tuple[str, str] | None:
    for claim in claims:
        if phase_of(claim) == "Lost":
            return UNKNOWN, f"the volume of PersistentVolumeClaim {claim['metadata']['name']} is lost"
    return None
