# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows for a clone. Pure.

A clone of a machine is a snapshot of it that is restored to a new machine; one of a snapshot is the second half of it.
Snapshot and restore belong to the clone, and go when the copy has its disks.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from turtles.api.clones import FAILED, RESTORE_IN_PROGRESS, SNAPSHOT, SNAPSHOT_IN_PROGRESS, SUCCEEDED, kept
from turtles.api.clones import VM as MACHINE
from turtles.api.conditions import conditions_in, set_condition
from turtles.api.kinds import snapshot as kinds
from turtles.api.labels import LAST_APPLIED
from turtles.api.objects import Object, get, is_deleted, owner_reference
from turtles.api.phases import phase_of
from turtles.api.snapshots import OWNED_BY_VM, is_ready
from turtles.api.times import rfc3339


@dataclass(frozen=True)
class Situation:
    """What a clone depends on.

    :param source: the machine that is cloned, if it is one. :param target: the copy, None if there is none.
    :param snapshot: the one that is made, or cloned. :param content: what is in it. :param restore: of it.
    :param pvcs: claims of the copy that exist.
    """

    source: Object | None = None
    target: Object | None = None
    snapshot: Object | None = None
    content: Object | None = None
    restore: Object | None = None
    pvcs: Sequence[Object] = field(default_factory=tuple)


@dataclass
class Plan:
    """What is to happen, in this order.

    :param status: of the clone. :param create: a snapshot or a restore to create.
    :param delete: snapshot and restore are not needed any more.
    """

    status: Object
    create: Object | None = None
    delete: Sequence[Object] = ()
    event: tuple[str, str, str] | None = None


def snapshot_name(clone: Object) -> str:
    """Return the name of the snapshot that a clone is made from."""
    source = clone["spec"]["source"]
    if source["kind"] == SNAPSHOT[1]:
        return str(source["name"])
    return f"tmp-snapshot-{clone['metadata']['uid']}"


def restore_name(clone: Object) -> str:
    """Return the name of the restore that makes a copy."""
    return f"tmp-restore-{clone['metadata']['uid']}"


def plan(clone: Object, situation: Situation, now: datetime) -> Plan:
    """Decide about a clone."""
    decided = Plan(copy.deepcopy(clone.get("status") or {}))
    phase, stamp = decided.status.get("phase"), rfc3339(now)
    if is_deleted(clone) or phase == FAILED:
        return decided
    if phase == SUCCEEDED:
        if all(phase_of(pvc) == "Bound" for pvc in situation.pvcs):
            decided.delete = _own(clone, situation)
        return decided
    is_of_machine = clone["spec"]["source"]["kind"] != SNAPSHOT[1]
    if situation.restore is not None:
        _follow(clone, situation.restore, situation, decided, stamp)
    elif situation.target is not None:
        name = situation.target["metadata"]["name"]
        _fail(decided, stamp, f"VirtualMachine {name} already exists; choose another target")
    elif situation.snapshot is None and is_of_machine:
        if situation.source is None:
            _fail(decided, stamp, f"VirtualMachine {clone['spec']['source']['name']} does not exist")
            return decided
        decided.create = _snapshot(clone)
        decided.status["snapshotName"] = snapshot_name(clone)
        _progress(decided, SNAPSHOT_IN_PROGRESS, stamp)
    elif situation.snapshot is None:
        _fail(decided, stamp, f"VirtualMachineSnapshot {snapshot_name(clone)} does not exist")
    elif phase_of(situation.snapshot) == FAILED:
        _fail(decided, stamp, str(get(situation.snapshot, "status", "error", "message") or "the snapshot failed"))
    elif not is_ready(situation.snapshot) or situation.content is None:
        _progress(decided, SNAPSHOT_IN_PROGRESS, stamp)
    else:
        decided.create = _restore(clone, situation.content)
        decided.status["restoreName"] = restore_name(clone)
        decided.status["targetName"] = clone["spec"]["target"]["name"]
        _progress(decided, RESTORE_IN_PROGRESS, stamp)
    return decided


def _follow(clone: Object, restore: Object, situation: Situation, decided: Plan, stamp: str) -> None:
    """See how far the restore is."""
    conditions = get(restore, "status", "conditions") or ()
    failure = next((each for each in conditions if each["type"] == "Failure" and each["status"] == "True"), None)
    if failure is not None:
        _fail(decided, stamp, str(failure.get("message") or "the restore failed"))
        decided.delete = _own(clone, situation)
    elif not get(restore, "status", "complete"):
        _progress(decided, RESTORE_IN_PROGRESS, stamp)
    else:
        decided.status.update({"phase": SUCCEEDED, "creationTime": stamp})
        _conditions(decided, "True", "False", "Operation complete", "", stamp)
        name = clone["spec"]["target"]["name"]
        decided.event = ("Normal", "VirtualMachineCloneComplete", f"VirtualMachine {name} is a clone")


def _own(clone: Object, situation: Situation) -> list[Object]:
    """Return snapshot and restore, as far as they exist and were made for the clone."""
    uid = clone["metadata"]["uid"]
    return [
        obj
        for obj in (situation.restore, situation.snapshot)
        if obj is not None
        and not is_deleted(obj)
        and any(each.get("uid") == uid for each in obj["metadata"].get("ownerReferences") or ())
    ]


def _snapshot(clone: Object) -> Object:
    return {
        "apiVersion": kinds.SNAPSHOT.api_version,
        "kind": kinds.SNAPSHOT.kind,
        "metadata": _metadata(clone, snapshot_name(clone)),
        "spec": {"source": _machine(clone["spec"]["source"])},
    }


def _restore(clone: Object, content: Object) -> Object:
    spec: Object = {
        "target": _machine(clone["spec"]["target"]),
        "virtualMachineSnapshotName": snapshot_name(clone),
        "volumeOwnershipPolicy": OWNED_BY_VM,
        "patches": patches(clone, content["spec"]["source"]["virtualMachine"]),
    }
    if policy := clone["spec"].get("volumeNamePolicy"):
        spec["volumeRestorePolicy"] = policy
    return {
        "apiVersion": kinds.RESTORE.api_version,
        "kind": kinds.RESTORE.kind,
        "metadata": _metadata(clone, restore_name(clone)),
        "spec": spec,
    }


def _machine(reference: Object) -> Object:
    """Return a reference to a machine, of which a clone needn't say the group rightly."""
    group, kind = MACHINE
    return {"apiGroup": group, "kind": kind, "name": reference["name"]}


def _metadata(clone: Object, name: str) -> Object:
    return {
        "name": name,
        "namespace": clone["metadata"]["namespace"],
        "ownerReferences": [owner_reference(clone)],
    }


def patches(clone: Object, vm: Object) -> list[str]:
    """Return the patches that make a restored machine the copy that is wanted.

    :param vm: the machine as the snapshot has it.
    """
    spec, template = clone["spec"], vm["spec"]["template"]
    operations = [
        *_filtered("/metadata", vm["metadata"], spec),
        *_filtered("/spec/template/metadata", template.get("metadata") or {}, spec.get("template") or {}),
    ]
    domain, path = template["spec"].get("domain") or {}, "/spec/template/spec/domain"
    for index, interface in enumerate(get(domain, "devices", "interfaces") or ()):
        if mac := (spec.get("newMacAddresses") or {}).get(interface["name"]):
            operations.append({"op": "add", "path": f"{path}/devices/interfaces/{index}/macAddress", "value": mac})
    if serial := spec.get("newSMBiosSerial"):
        # The rest of the firmware stays; a new machine has no identity to keep
        rest = {key: value for key, value in (domain.get("firmware") or {}).items() if key not in ("uuid", "serial")}
        operations.append({"op": "add", "path": f"{path}/firmware", "value": {**rest, "serial": serial}})
    return [*(json.dumps(each, sort_keys=True) for each in operations), *(spec.get("patches") or ())]


def _filtered(path: str, metadata: Mapping[str, Any], filters: Mapping[str, Sequence[str]]) -> Iterable[Object]:
    """Yield the operations that leave out labels and annotations."""
    for key, name in (("labels", "labelFilters"), ("annotations", "annotationFilters")):
        values = {k: v for k, v in (metadata.get(key) or {}).items() if k != LAST_APPLIED}
        left = kept(values, filters.get(name) or ())
        for gone in sorted(values.keys() - left.keys()):
            yield {"op": "remove", "path": f"{path}/{key}/{gone.replace('~', '~0').replace('/', '~1')}"}


def _progress(decided: Plan, phase: str, stamp: str) -> None:
    decided.status["phase"] = phase
    _conditions(decided, "False", "True", phase, "", stamp)


def _fail(decided: Plan, stamp: str, message: str) -> None:
    decided.status["phase"] = FAILED
    _conditions(decided, "False", "False", "Operation failed", message, stamp)
    decided.event = ("Warning", "VirtualMachineCloneFailed", message)


def failed(decided: Plan, message: str, now: datetime) -> None:
    """Turn a plan into what follows if the server refuses what is to be created."""
    _fail(decided, rfc3339(now), message)


def _conditions(decided: Plan, ready: str, progressing: str, reason: str, message: str, stamp: str) -> None:
    conditions: list[Object] = conditions_in(decided.status)
    set_condition(conditions, "Ready", ready, reason, message, now=stamp)
    set_condition(conditions, "Progressing", progressing, reason, message, now=stamp)
