# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for a restore. Pure.

The way of a restore: its target is locked (``status.restoreInProgress``) and has stopped, the names of the claims are
stored, the claims are created, the machine gets its spec in one write that also says by what, and is let go. Each step
is stored before the next one begins, so another virt-controller can go on from there.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from turtles.api.conditions import conditions_in, set_condition
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import is_final, phase_of
from turtles.api.run_strategies import HALTED, run_strategy
from turtles.api.snapshots import (
    FAIL_IMMEDIATE,
    GRACE_PERIOD,
    IN_PLACE,
    LAST_RESTORE,
    OWNED_BY_VM,
    RESTORE_FINALIZER,
    STOP_TARGET,
    WAIT_EVENTUALLY,
    WAIT_GRACE_PERIOD,
    is_ready,
    restored_by,
)
from turtles.api.times import parse_time, rest_of, rfc3339
from turtles.controller.restore import machine
from turtles.controller.state_claims import LABEL, current_claim, is_of

#: Seconds after which what isn't possible now is tried again.
AGAIN = 5.0
_COMPLETE = "Operation complete"


@dataclass(frozen=True)
class Situation:
    """What a restore depends on.

    :param target: the machine, None if there is none. :param vmi: its instance.
    :param snapshot: what is restored. :param content: what is in that.
    :param volume_snapshots: by name. :param pvcs: claims of the names in ``status.restores`` that exist, by name.
    :param users: by claim, the names of the machines and instances that have it, without the target.
    :param immediate: StorageClasses that don't wait for a consumer.
    :param state_claims: those that are labelled as what the target keeps beside its disks.
    """

    target: Object | None = None
    vmi: Object | None = None
    snapshot: Object | None = None
    content: Object | None = None
    volume_snapshots: Mapping[str, Object] = field(default_factory=dict)
    pvcs: Mapping[str, Object] = field(default_factory=dict)
    users: Mapping[str, Sequence[str]] = field(default_factory=dict)
    immediate: frozenset[str] = frozenset()
    state_claims: Sequence[Object] = ()


@dataclass
class Plan:
    """What is to happen, in this order.

    :param finalizers: of the restore, if they change.
    :param lock: the target's ``status.restoreInProgress`` becomes the restore, or (False) isn't it any more.
    :param stop: the target is to be halted. :param status: of the restore.
    :param delete: claims to delete. :param create: claims to create.
    :param machine: the target as it is to be. :param own: claims that are to go with it.
    :param release: claims whose state isn't that of the target any more.
    :param wait: seconds after which to look again.
    """

    status: Object
    finalizers: Sequence[str] | None = None
    lock: bool | None = None
    stop: bool = False
    delete: Sequence[Object] = ()
    create: Sequence[Object] = ()
    machine: Object | None = None
    own: Sequence[Object] = ()
    release: Sequence[Object] = ()
    event: tuple[str, str, str] | None = None
    wait: float | None = None


def has_ended(restore: Object) -> bool:
    """Say whether a restore is complete, or has failed."""
    failed = any(
        each["type"] == "Failure" and each["status"] == "True" for each in get(restore, "status", "conditions") or ()
    )
    return bool(get(restore, "status", "complete")) or failed


def plan(restore: Object, situation: Situation, now: datetime) -> Plan:
    """Decide about a restore."""
    decided = Plan(copy.deepcopy(restore.get("status") or {}))
    stamp, finalizers = rfc3339(now), restore["metadata"].get("finalizers") or []
    is_holder = get(situation.target, "status", "restoreInProgress") == restore["metadata"]["name"]
    if is_deleted(restore) or has_ended(restore):
        decided.lock = False if is_holder else None
        if is_deleted(restore) and RESTORE_FINALIZER in finalizers:
            decided.delete = _leftovers(restore, situation)
            decided.finalizers = [each for each in finalizers if each != RESTORE_FINALIZER]
        return decided
    if RESTORE_FINALIZER not in finalizers:
        decided.finalizers = [*finalizers, RESTORE_FINALIZER]
    decided.status.setdefault("complete", False)
    if _is_restored(restore, situation.target):
        _finish(restore, situation, decided, stamp)
    elif situation.target is not None and not _is_free(restore, situation, decided, now):
        pass
    elif (why := _missing(restore, situation)) is not None:
        _progress(decided, "In error state", stamp, why)
        decided.wait = AGAIN
    else:
        _restore_volumes(restore, situation, decided, stamp)
    return decided


def _is_restored(restore: Object, target: Object | None) -> bool:
    return bool(get(target, "metadata", "annotations", LAST_RESTORE) == restored_by(restore))


def _missing(restore: Object, situation: Situation) -> str | None:
    name = restore["spec"]["virtualMachineSnapshotName"]
    if situation.snapshot is None:
        return f"VirtualMachineSnapshot {name} does not exist"
    if not is_ready(situation.snapshot) or situation.content is None:
        return f"VirtualMachineSnapshot {name} is not ready to use"
    for backup in situation.content["spec"].get("volumeBackups") or ():
        if not is_ready(situation.volume_snapshots.get(backup["volumeSnapshotName"]) or {}):
            return f"VolumeSnapshot {backup['volumeSnapshotName']} does not exist, or is not ready to use"
    return None


def _is_free(restore: Object, situation: Situation, decided: Plan, now: datetime) -> bool:
    """Say whether the target is locked and has stopped; otherwise decide what happens until it is."""
    target, stamp, name = situation.target, rfc3339(now), restore["metadata"]["name"]
    assert target is not None
    if is_deleted(target):
        _progress(decided, "Waiting for target to be ready", stamp, "the target is being deleted")
        return False
    source = get(situation.snapshot, "status", "sourceUID")
    if source is not None and target["metadata"]["uid"] != source:
        _fail(decided, stamp, "restore source and restore target are different but restore target already exists")
        return False
    runs = situation.vmi is not None and not (is_final(situation.vmi) and is_deleted(situation.vmi))
    policy = restore["spec"].get("targetReadinessPolicy") or WAIT_GRACE_PERIOD
    if runs and policy == FAIL_IMMEDIATE:
        _fail(decided, stamp, f"the target is running and targetReadinessPolicy is {FAIL_IMMEDIATE}: stop it first")
        return False
    for key, what in (("snapshotInProgress", "snapshot"), ("restoreInProgress", "restore")):
        if get(target, "status", key) not in (None, name):
            _progress(
                decided, "Waiting for target to be ready", stamp, f"{what} {target['status'][key]} is in progress"
            )
            decided.wait = AGAIN
            return False
    decided.lock = True if get(target, "status", "restoreInProgress") is None else None
    if not runs:
        return True
    _progress(decided, "Waiting for target to be ready", stamp, "the target runs")
    if policy == STOP_TARGET:
        decided.stop = run_strategy(target) != HALTED
    elif policy == WAIT_EVENTUALLY:
        return False
    created = parse_time(restore["metadata"].get("creationTimestamp")) or now
    left = rest_of(GRACE_PERIOD, created, now)
    if left <= 0:
        _fail(decided, stamp, f"the target still ran after {int(GRACE_PERIOD)} seconds; stop it and restore again")
        decided.lock, decided.stop = False, False
        return False
    decided.wait = left + 0.1
    return False


def _restore_volumes(restore: Object, found: Situation, decided: Plan, stamp: str) -> None:
    """Have the claims created, then the machine."""
    content = found.content
    assert content is not None
    entries = decided.status.get("restores")
    if entries is None:
        decided.status["restores"] = entries = machine.volumes(restore, content)
        _progress(decided, "Creating new PVCs", stamp)
        decided.wait = 0.0
        return
    create, delete, waiting = [], [], []
    for entry in entries:
        name = entry["persistentVolumeClaim"]
        pvc = found.pvcs.get(name)
        if pvc is None:
            volume_snapshot = found.volume_snapshots[entry["volumeSnapshotName"]]
            create.append(machine.claim(restore, content, entry, volume_snapshot))
        elif not machine.is_own(restore, pvc):
            if why := _is_kept(restore, found, name):
                _fail(decided, stamp, f"volume {entry['volumeName']}: PersistentVolumeClaim {name} exists, and {why}")
                return
            delete.append(pvc)
        elif phase_of(pvc) == "Lost":
            _fail(decided, stamp, f"PersistentVolumeClaim {name} has lost its volume")
            return
        elif phase_of(pvc) != "Bound" and pvc["spec"].get("storageClassName") in found.immediate:
            waiting.append(name)
    decided.create, decided.delete = create, [pvc for pvc in delete if not is_deleted(pvc)]
    if create or delete or waiting:
        _progress(decided, "Creating new PVCs", stamp)
        decided.wait = 0.0 if create else None
        return
    try:
        decided.machine = machine.restored(restore, content, entries, found.target)
    except machine.NotPossible as error:
        _fail(decided, stamp, str(error))
        return
    _progress(decided, "Updating target spec", stamp)


def _is_kept(restore: Object, found: Situation, name: str) -> str:
    """Return why a claim that exists may not be replaced, nothing if it may."""
    if restore["spec"].get("volumeRestorePolicy") != IN_PLACE:
        return "doesn't belong to this restore; choose another restoreName in spec.volumeRestoreOverrides"
    if found.target is None:
        return "belonged to a machine that no longer exists; delete it, or use volumeRestorePolicy RandomizeNames"
    if users := found.users.get(name):
        return f"belongs to {', '.join(users)} as well; use volumeRestorePolicy RandomizeNames"
    if name == current_claim(found.target, found.state_claims):
        return ""
    volumes = found.target["spec"]["template"]["spec"].get("volumes") or ()
    if not any(name in (_claim_name(volume)) for volume in volumes):
        return "no longer belongs to the machine; delete it, or use volumeRestorePolicy RandomizeNames"
    return ""


def _claim_name(volume: Object) -> tuple[str | None, str | None]:
    return get(volume, "persistentVolumeClaim", "claimName"), get(volume, "dataVolume", "name")


def _finish(restore: Object, situation: Situation, decided: Plan, stamp: str) -> None:
    """The machine is what it is to be: its claims become its own, and it is let go."""
    target = situation.target
    assert target is not None
    is_owner = (restore["spec"].get("volumeOwnershipPolicy") or OWNED_BY_VM) == OWNED_BY_VM
    uid = target["metadata"]["uid"]
    decided.own = [
        pvc
        for pvc in situation.pvcs.values()
        if machine.is_own(restore, pvc)
        and not is_deleted(pvc)
        # What the machine keeps beside its disks is of no use without it
        and (is_owner or LABEL in (pvc["metadata"].get("labels") or {}))
        and all(each.get("uid") != uid for each in pvc["metadata"].get("ownerReferences") or ())
    ]
    if machine.has_state(situation.content):
        decided.release = [
            pvc for pvc in situation.state_claims if is_of(target, pvc) and not machine.is_own(restore, pvc)
        ]
    if get(target, "status", "restoreInProgress") == restore["metadata"]["name"]:
        decided.lock = False
    conditions = conditions_in(decided.status)
    set_condition(conditions, "Ready", "True", _COMPLETE, now=stamp)
    set_condition(conditions, "Progressing", "False", _COMPLETE, now=stamp)
    decided.status.update({"complete": True, "restoreTime": stamp})
    decided.event = (
        "Normal",
        "VirtualMachineRestoreComplete",
        f"Successfully completed VirtualMachineRestore {restore['metadata']['name']}",
    )


def _leftovers(restore: Object, situation: Situation) -> list[Object]:
    """Return the claims of a restore that didn't get as far as its machine."""
    if (has_ended(restore) and get(restore, "status", "complete")) or _is_restored(restore, situation.target):
        return []
    return [pvc for pvc in situation.pvcs.values() if machine.is_own(restore, pvc) and not is_deleted(pvc)]


def _fail(decided: Plan, stamp: str, message: str) -> None:
    conditions = conditions_in(decided.status)
    set_condition(conditions, "Ready", "False", "Operation failed", message, now=stamp)
    set_condition(conditions, "Progressing", "False", "Operation failed", now=stamp)
    set_condition(conditions, "Failure", "True", "Operation failed", message, now=stamp)
    decided.event = ("Warning", "VirtualMachineRestoreError", f"VirtualMachineRestore encountered error {message}")


def failed(decided: Plan, message: str, now: datetime) -> None:
    """Turn a plan into what follows if the server refuses the restored machine or a claim."""
    _fail(decided, rfc3339(now), message)
    decided.wait = 0.0


def _progress(decided: Plan, reason: str, stamp: str, message: str = "") -> None:
    conditions = conditions_in(decided.status)
    going = "False" if reason == "In error state" or reason.startswith("Waiting") else "True"
    set_condition(conditions, "Progressing", going, reason, message, now=stamp)
    set_condition(conditions, "Ready", "False", reason, message, now=stamp)
