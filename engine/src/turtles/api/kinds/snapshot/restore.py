# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineRestore: a machine becomes again what it was when a snapshot was made, or another one becomes that."""

from __future__ import annotations

from typing import Any

from turtles.api.core import CONDITIONS
from turtles.api.kind import CREATE, DEFAULT_CONTEXT, MANAGED_BY_USERS, UPDATE, Column, Context, Kind, Missing, Webhook
from turtles.api.kinds.snapshot.common import VERSIONS, patch_causes, reference, reference_causes, spec_stays
from turtles.api.language import (
    BOOLEAN,
    INVALID,
    REQUIRED,
    STRING,
    STRING_MAP,
    STRINGS,
    TIME,
    Cause,
    Choice,
    ListOf,
    Struct,
    field,
)
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, schema_causes
from turtles.api.snapshots import (
    FAIL_IMMEDIATE,
    FAILED,
    GROUP,
    IN_PLACE,
    OWNED_BY_NONE,
    OWNED_BY_VM,
    PREFIX_TARGET_NAME,
    RANDOMIZE_NAMES,
    STOP_TARGET,
    WAIT_EVENTUALLY,
    WAIT_GRACE_PERIOD,
    is_ready,
)

_VM, _SNAPSHOT = "VirtualMachine", "VirtualMachineSnapshot"

SPEC = Struct(
    "What is restored, and how.",
    field("target", reference("The machine; one that doesn't exist is created."), "The machine.", required=True),
    field("virtualMachineSnapshotName", STRING, "The snapshot, in the same namespace.", required=True),
    field(
        "targetReadinessPolicy",
        Choice(STOP_TARGET, WAIT_GRACE_PERIOD, FAIL_IMMEDIATE, WAIT_EVENTUALLY),
        "What happens if the machine runs: it is stopped, it has five minutes to stop (the default), the restore "
        "fails, or waits for as long as it takes.",
        absent=WAIT_GRACE_PERIOD,
    ),
    field(
        "volumeRestorePolicy",
        Choice(RANDOMIZE_NAMES, IN_PLACE, PREFIX_TARGET_NAME),
        "How the restored claims are called: by a name of their own (the default), as before, in which case those "
        "that the machine has are deleted, or by machine and volume.",
        absent=RANDOMIZE_NAMES,
    ),
    field(
        "volumeRestoreOverrides",
        ListOf(
            Struct(
                "How the claim of one volume differs from the policy.",
                field("volumeName", STRING, "The volume, as it is called in the machine.", required=True),
                field("restoreName", STRING, "Name of the claim."),
                field("labels", STRING_MAP, "Labels of the claim, in addition to those that it had."),
                field("annotations", STRING_MAP, "Annotations of the claim, in addition to those that it had."),
            )
        ),
        "How claims differ from the policy.",
    ),
    field(
        "volumeOwnershipPolicy",
        Choice(OWNED_BY_VM, OWNED_BY_NONE),
        "Whether restored claims go with the machine: Vm (the default) or None.",
        absent=OWNED_BY_VM,
    ),
    field("patches", STRINGS, "JSON patches (RFC 6902), each one operation as text, of a new machine's spec."),
)

_STATUS = Struct(
    "How far it is. Written by the engine only.",
    field("complete", BOOLEAN, "Whether the machine is restored."),
    field("restoreTime", TIME, "When it was."),
    field("conditions", CONDITIONS, "Ready, Progressing and Failure."),
    field(
        "restores",
        ListOf(
            Struct(
                "A volume.",
                field("volumeName", STRING, "Its name in the machine.", required=True),
                field("persistentVolumeClaim", STRING, "The restored claim.", required=True),
                field("volumeSnapshotName", STRING, "What it is filled from.", required=True),
                field("dataVolumeName", STRING, "Always empty: a restored claim needs no DataVolume."),
            )
        ),
        "The volumes.",
    ),
    field("deletedDataVolumes", STRINGS, "Always empty."),
)


def validate(restore: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new restore."""
    if causes := schema_causes(restore, SPEC):
        return causes
    spec, namespace = restore["spec"], str(get(restore, "metadata", "namespace") or "")
    if causes := [*reference_causes(spec["target"], "spec.target"), *patch_causes(spec, context), *_overrides(spec)]:
        return causes
    return [*_snapshot(spec, namespace, context), *_others(restore, namespace, context)]


def _overrides(spec: Object) -> Causes:
    names = [each["volumeName"] for each in spec.get("volumeRestoreOverrides") or ()]
    for index, override in enumerate(spec.get("volumeRestoreOverrides") or ()):
        here = f"spec.volumeRestoreOverrides[{index}]"
        if not override["volumeName"]:
            yield Cause(REQUIRED, "must provide a volume name", f"{here}.volumeName")
        elif names.count(override["volumeName"]) > 1:
            yield Cause(INVALID, f"volume {override['volumeName']} has several overrides", f"{here}.volumeName")
        if not any(override.get(key) for key in ("restoreName", "labels", "annotations")):
            yield Cause(REQUIRED, "must provide at least one overriding field: restoreName, labels, annotations", here)


def _snapshot(spec: Object, namespace: str, context: Context) -> Causes:
    name, here = spec["virtualMachineSnapshotName"], "spec.virtualMachineSnapshotName"
    try:
        snapshot = context.find(_SNAPSHOT, namespace, name)
    except Missing:
        yield Cause(INVALID, f'VirtualMachineSnapshot "{name}" does not exist', here)
        return
    if get(snapshot, "status", "phase") == FAILED:
        yield Cause(INVALID, f'VirtualMachineSnapshot "{name}" has failed and is invalid to use', here)
        return
    if not is_ready(snapshot):
        yield Cause(INVALID, f'VirtualMachineSnapshot "{name}" is not ready to use', here)
        return
    included = get(snapshot, "status", "snapshotVolumes", "includedVolumes") or []
    for index, override in enumerate(spec.get("volumeRestoreOverrides") or ()):
        if override["volumeName"] not in included:
            message = f"the snapshot has no volume {override['volumeName']}, but: {', '.join(included) or 'none'}"
            yield Cause(INVALID, message, f"spec.volumeRestoreOverrides[{index}].volumeName")
    try:
        target = context.find(_VM, namespace, spec["target"]["name"])
    except Missing:
        if spec.get("volumeRestorePolicy") == IN_PLACE and spec["target"]["name"] != snapshot["spec"]["source"]["name"]:
            message = "a new machine can't take the place of another one's claims; use RandomizeNames"
            yield Cause(INVALID, message, "spec.volumeRestorePolicy")
        return
    if target["metadata"]["uid"] != get(snapshot, "status", "sourceUID"):
        message = (
            "restore source and restore target are different but restore target already exists: restore to the "
            "machine that the snapshot is of, or to a name that no machine has"
        )
        yield Cause(INVALID, message, "spec.target")


def _others(restore: Object, namespace: str, context: Context) -> Causes:
    for other in context.others("VirtualMachineRestore", namespace):
        failed = any(
            each.get("type") == "Failure" and each.get("status") == "True"
            for each in get(other, "status", "conditions") or ()
        )
        if (
            get(other, "spec", "target", "name") == restore["spec"]["target"]["name"]
            and not get(other, "status", "complete")
            and not failed
            and other["metadata"].get("name") != restore["metadata"].get("name")
        ):
            yield Cause(INVALID, f'VirtualMachineRestore "{other["metadata"]["name"]}" in progress', "spec.target")
            return


RESTORE = Kind(
    kind="VirtualMachineRestore",
    plural="virtualmachinerestores",
    group=GROUP,
    versions=VERSIONS,
    short_names=("vmrestore", "vmrestores"),
    schema=Struct(
        "A machine becomes what it was when a snapshot was made.",
        field("spec", SPEC, "What is restored, and how.", required=True),
        field("status", _STATUS, "How far it is. Written by the engine only."),
    ),
    columns=(
        Column("TargetKind", "string", ".spec.target.kind"),
        Column("TargetName", "string", ".spec.target.name"),
        Column("Complete", "boolean", ".status.complete"),
        Column("RestoreTime", "date", ".status.restoreTime"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=(
        Webhook("virtualmachinerestore-validator", "/virtualmachinerestores-validate", (CREATE,)),
        Webhook("virtualmachinerestore-update-validator", "/virtualmachinerestores-validate", (UPDATE,)),
    ),
    reads=("VirtualMachineRestore",),
    looks_up=(_VM, _SNAPSHOT),
    validate=validate,
    validate_update=spec_stays,
)
