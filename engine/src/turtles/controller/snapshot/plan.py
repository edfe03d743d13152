# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for a snapshot of a machine. Pure.

The way of a snapshot: the machine is locked (``status.snapshotInProgress``), its content is stored, the guest's file
systems are frozen, VolumeSnapshots are created, the guest goes on once they have a time, and when all are ready the
snapshot is. Each step is stored before the next one begins, so another virt-controller can go on from there.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from turtles.api.conditions import conditions_in, remove_condition, set_condition
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import is_final
from turtles.api.snapshots import (
    DELETE,
    DELETING,
    FAILED,
    GUEST_AGENT,
    IN_PROGRESS,
    INDICATIONS,
    QUIESCE_FAILED,
    SNAPSHOT_FINALIZER,
    SUCCEEDED,
    failure_deadline,
)
from turtles.api.times import parse_time, rest_of, rfc3339
from turtles.controller.snapshot import content as contents

#: Seconds after which what isn't possible now is tried again.
AGAIN = 5.0
_COMPLETE = "Operation complete"


@dataclass(frozen=True)
class Situation:
    """What a snapshot depends on.

    :param vm: the machine, None if there is none. :param vmi: its instance.
    :param content: the snapshot's. :param volume_snapshots: those of them that exist, by name.
    :param pvcs: claims that the machine names. :param snapshot_classes: by name of a StorageClass.
    :param state_claim: the claim with the state of the machine's TPM and variables of EFI, if there is one.
    """

    vm: Object | None = None
    vmi: Object | None = None
    content: Object | None = None
    volume_snapshots: Mapping[str, Object] = field(default_factory=dict)
    pvcs: Mapping[str, Object | None] = field(default_factory=dict)
    snapshot_classes: Mapping[str, str] = field(default_factory=dict)
    state_claim: str | None = None

    @property
    def running(self) -> Object | None:
        """The instance, unless it has ended."""
        return None if self.vmi is None or is_final(self.vmi) else self.vmi


@dataclass
class Plan:
    """What is to happen, in this order.

    :param finalizers: of the snapshot, if they change.
    :param lock: the machine's ``status.snapshotInProgress`` becomes the snapshot, or (False) isn't it any more.
    :param create_content: the content to create.
    :param freeze: seconds after which the guest's file systems thaw by themselves; None if they aren't frozen now.
    :param create: VolumeSnapshots to create. :param thaw: the guest's file systems.
    :param content_status: of the content, if it changes. :param status: of the snapshot.
    :param delete_content: it goes.
    :param wait: seconds after which to look again.
    """

    status: Object
    finalizers: Sequence[str] | None = None
    lock: bool | None = None
    create_content: Object | None = None
    freeze: float | None = None
    create: Sequence[Object] = ()
    thaw: bool = False
    content_status: Object | None = None
    delete_content: bool = False
    event: tuple[str, str, str] | None = None
    wait: float | None = None


def plan(snapshot: Object, situation: Situation, now: datetime) -> Plan:
    """Decide about a snapshot."""
    decided = Plan(copy.deepcopy(snapshot.get("status") or {}))
    if is_deleted(snapshot):
        _end(snapshot, situation, decided)
        return decided
    phase = decided.status.get("phase")
    if phase in (SUCCEEDED, FAILED):
        _tidy(snapshot, situation, decided)
        return decided
    stamp = rfc3339(now)
    finalizers = snapshot["metadata"].get("finalizers") or []
    if SNAPSHOT_FINALIZER not in finalizers:
        decided.finalizers = [*finalizers, SNAPSHOT_FINALIZER]
    decided.status.update({"phase": IN_PROGRESS, "readyToUse": False})
    left = _time_left(snapshot, now)
    if left is not None and left <= 0:
        _fail(situation, decided, stamp)
        return decided
    _advance(snapshot, situation, decided, stamp, left)
    if left is not None and decided.status["phase"] == IN_PROGRESS:
        decided.wait = min(left + 0.1, decided.wait or left + 0.1)
    return decided


def _advance(snapshot: Object, situation: Situation, decided: Plan, stamp: str, left: float | None) -> None:
    name, vm = snapshot["metadata"]["name"], situation.vm
    if situation.content is not None:
        _take(situation.content, situation, decided, stamp, left)
        return
    if vm is None or is_deleted(vm):
        _progress(decided, "Source does not exist", stamp)
        return
    holder = get(vm, "status", "snapshotInProgress")
    if restore := get(vm, "status", "restoreInProgress"):
        _progress(decided, f"Waiting for restore {restore} of the machine", stamp)
        decided.wait = AGAIN
        return
    if holder not in (None, name):
        _progress(decided, f"Waiting for snapshot {holder} of the machine", stamp)
        decided.wait = AGAIN
        return
    if holder is None:
        decided.lock = True
    try:
        decided.create_content = contents.make(
            snapshot, vm, situation.pvcs, situation.snapshot_classes, situation.state_claim
        )
    except contents.NotPossible as error:
        decided.status["error"] = {"time": stamp, "message": str(error)}
        _progress(decided, "In error state", stamp, str(error))
        decided.wait = AGAIN
        return
    decided.status["sourceUID"] = vm["metadata"]["uid"]
    decided.status["virtualMachineSnapshotContentName"] = contents.name_of(snapshot)
    decided.status["snapshotVolumes"] = contents.volumes_lists(vm, decided.create_content, situation.state_claim)
    indications = contents.indications_of(vm, situation.running, decided.create_content, situation.state_claim)
    _indicate(decided.status, indications)
    decided.status.pop("error", None)
    _progress(decided, "Source locked and operation in progress", stamp)


def _take(content: Object, situation: Situation, decided: Plan, stamp: str, left: float | None) -> None:
    """Have the VolumeSnapshots made, and see how far they are."""
    wanted = contents.volume_snapshots(content, situation.snapshot_classes)
    missing = [each for each in wanted if each["metadata"]["name"] not in situation.volume_snapshots]
    by_agent = GUEST_AGENT in (decided.status.get("indications") or ()) and situation.running is not None
    if missing:
        if by_agent and get(situation.vmi, "status", "fsFreezeStatus") != "frozen":
            decided.freeze = left or 0.0
        decided.create = missing
        return
    states = [_state(situation.volume_snapshots[each["metadata"]["name"]]) for each in wanted]
    old = content.get("status") or {}
    new: Object = {**old, "volumeSnapshotStatus": states, "readyToUse": all(each["readyToUse"] for each in states)}
    taken = all(each.get("creationTime") for each in states)
    if taken and not old.get("creationTime"):
        new["creationTime"] = stamp
        decided.thaw = by_agent
    error = next((each["error"] for each in states if each.get("error")), None)
    for status in (new, decided.status):
        if error:
            status["error"] = {"time": error.get("time") or stamp, "message": error.get("message") or ""}
        else:
            status.pop("error", None)
    if new != old:
        decided.content_status = new
    if error:
        _progress(decided, "In error state", stamp, str(error.get("message") or ""))
    elif new["readyToUse"] and new.get("creationTime"):
        _succeed(decided, new["creationTime"], stamp)
    else:
        _progress(decided, "Source locked and operation in progress", stamp)


def _state(volume_snapshot: Object) -> Object:
    status = volume_snapshot.get("status") or {}
    state: Object = {
        "volumeSnapshotName": volume_snapshot["metadata"]["name"],
        "readyToUse": bool(status.get("readyToUse")),
    }
    return {**state, **{key: status[key] for key in ("creationTime", "error") if status.get(key)}}


def quiesce_failed(decided: Plan, message: str, now: datetime) -> None:
    """Turn a plan into what follows if the guest's file systems couldn't be frozen: another try."""
    stamp = rfc3339(now)
    decided.freeze, decided.create = None, ()
    _indicate(decided.status, list(dict.fromkeys([*decided.status.get("indications", []), QUIESCE_FAILED])))
    decided.status["error"] = {"time": stamp, "message": f"can't freeze the guest's file systems: {message}"}
    _progress(decided, "In error state", stamp, decided.status["error"]["message"])
    decided.wait = AGAIN


def _succeed(decided: Plan, taken: str, stamp: str) -> None:
    decided.status.update({"phase": SUCCEEDED, "readyToUse": True, "creationTime": taken})
    conditions = conditions_in(decided.status)
    set_condition(conditions, "Ready", "True", _COMPLETE, now=stamp)
    set_condition(conditions, "Progressing", "False", _COMPLETE, now=stamp)
    remove_condition(conditions, "Failure")
    decided.lock = False
    decided.event = ("Normal", "VirtualMachineSnapshotComplete", "the snapshot is ready to use")


def _fail(situation: Situation, decided: Plan, stamp: str) -> None:
    why = (decided.status.get("error") or {}).get("message") or "it was not ready before the deadline"
    message = f"snapshot deadline exceeded: {why}"
    decided.status.update({"phase": FAILED, "readyToUse": False, "error": {"time": stamp, "message": message}})
    conditions = conditions_in(decided.status)
    set_condition(conditions, "Ready", "False", "Operation failed", now=stamp)
    set_condition(conditions, "Progressing", "False", "Operation failed", now=stamp)
    set_condition(conditions, "Failure", "True", "Operation failed", message, now=stamp)
    decided.thaw = situation.content is not None and GUEST_AGENT in (decided.status.get("indications") or ())
    decided.lock = False
    decided.delete_content = situation.content is not None
    decided.event = ("Warning", "VirtualMachineSnapshotFailed", message)


def _tidy(snapshot: Object, situation: Situation, decided: Plan) -> None:
    """Finish what was left undone when a snapshot came to its end."""
    if get(situation.vm, "status", "snapshotInProgress") == snapshot["metadata"]["name"]:
        decided.lock = False
    decided.delete_content = decided.status["phase"] == FAILED and situation.content is not None


def _end(snapshot: Object, situation: Situation, decided: Plan) -> None:
    """Let a deleted snapshot go, with its content unless that is to be kept."""
    finalizers = snapshot["metadata"].get("finalizers") or []
    if SNAPSHOT_FINALIZER not in finalizers:
        return
    status = decided.status
    if status.get("phase") == IN_PROGRESS and situation.content is not None:
        decided.thaw = GUEST_AGENT in (status.get("indications") or ())
    if get(situation.vm, "status", "snapshotInProgress") == snapshot["metadata"]["name"]:
        decided.lock = False
    whole = status.get("phase") == SUCCEEDED or bool(get(situation.content, "status", "readyToUse"))
    kept = snapshot["spec"].get("deletionPolicy", DELETE) != DELETE and whole
    decided.status = {**status, "phase": DELETING}
    if situation.content is not None and not kept:
        decided.delete_content = True
        return
    decided.finalizers = [each for each in finalizers if each != SNAPSHOT_FINALIZER]


def _time_left(snapshot: Object, now: datetime) -> float | None:
    """Return the seconds until a snapshot fails that isn't ready; None if it may take forever."""
    limit, created = failure_deadline(snapshot), parse_time(snapshot["metadata"].get("creationTimestamp"))
    return rest_of(limit, created, now) if limit > 0 and created else None


def _indicate(status: Object, indications: list[str]) -> None:
    if indications:
        status["indications"] = indications
        status["sourceIndications"] = [{"indication": each, "message": INDICATIONS[each]} for each in indications]


def _progress(decided: Plan, reason: str, stamp: str, message: str = "") -> None:
    conditions = conditions_in(decided.status)
    going = "True" if "operation in progress" in reason else "False"
    set_condition(conditions, "Progressing", going, reason, message, now=stamp)
    set_condition(conditions, "Ready", "False", "Not ready", now=stamp)
