# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of machines and their restores: phases, indications, policies, names.

All are KubeVirt's (KubeVirt API, group snapshot.kubevirt.io; user guide, "Snapshot Restore API").
"""

from __future__ import annotations

from typing import Any

from turtles.api import durations
from turtles.api.objects import Object, get

GROUP = "snapshot.kubevirt.io"

#: ``status.phase`` of a snapshot.
IN_PROGRESS, SUCCEEDED, FAILED, DELETING = "InProgress", "Succeeded", "Failed", "Deleting"

#: ``status.indications``: how the guest was while its disks were copied, and whether all were that could be.
ONLINE, NO_GUEST_AGENT, GUEST_AGENT = "Online", "NoGuestAgent", "GuestAgent"
QUIESCE_FAILED, PAUSED, PARTIAL = "QuiesceFailed", "Paused", "PartialSnapshot"
INDICATIONS = {
    ONLINE: "the machine ran while its disks were copied",
    NO_GUEST_AGENT: "no guest agent froze its file systems: the disks are as after a loss of power",
    GUEST_AGENT: "its guest agent froze its file systems",
    QUIESCE_FAILED: "its guest agent failed to freeze its file systems, once at least",
    PAUSED: "it was paused: what its memory had not written is not on the disks",
    PARTIAL: "some of its claims are not in the snapshot: see excludedVolumes",
}

#: Seconds after which a snapshot that isn't ready fails, and after which a restore gives up waiting for its target.
FAILURE_DEADLINE, GRACE_PERIOD = 300.0, 300.0

#: ``spec.deletionPolicy`` of a snapshot: what becomes of its content.
DELETE, RETAIN = "Delete", "Retain"

#: ``spec.targetReadinessPolicy`` of a restore: what it does about a target that runs.
STOP_TARGET, WAIT_GRACE_PERIOD, FAIL_IMMEDIATE, WAIT_EVENTUALLY = (
    "StopTarget",
    "WaitGracePeriod",
    "FailImmediate",
    "WaitEventually",
)
#: ``spec.volumeRestorePolicy``: how claims are called that it creates.
RANDOMIZE_NAMES, IN_PLACE, PREFIX_TARGET_NAME = "RandomizeNames", "InPlace", "PrefixTargetName"
#: ``spec.volumeOwnershipPolicy``: whether they go with the machine.
OWNED_BY_VM, OWNED_BY_NONE = "Vm", "None"

SNAPSHOT_FINALIZER = "snapshot.kubevirt.io/vmsnapshot-protection"
RESTORE_FINALIZER = "snapshot.kubevirt.io/vmrestore-protection"
#: Annotations of a claim: the restore that created it, and its uid.
RESTORE_NAME, RESTORE_UID = "restore.kubevirt.io/name", "restore.kubevirt.io/uid"
#: Annotation of a machine: what it was restored by last.
LAST_RESTORE = "restore.kubevirt.io/lastRestoreUID"


def is_ready(snapshot: Object) -> bool:
    """Say whether a snapshot, or a content, is whole."""
    return bool(get(snapshot, "status", "readyToUse"))


def failure_deadline(snapshot: Object) -> float:
    """Return after how many seconds a snapshot fails that isn't ready; 0 means never."""
    deadline: Any = snapshot["spec"].get("failureDeadline")
    return FAILURE_DEADLINE if deadline is None else durations.parse(deadline).total_seconds()


def restored_by(restore: Object) -> str:
    """Return what a machine says that this restore has restored."""
    metadata = restore["metadata"]
    return f"{metadata['name']}-{metadata['uid']}"


def restored_for(pvc: Object) -> str | None:
    """Return what a machine says whose restore has created a claim; None for other claims."""
    annotations = pvc["metadata"].get("annotations") or {}
    uid = annotations.get(RESTORE_UID)
    return f"{annotations.get(RESTORE_NAME)}-{uid}" if uid else None
