# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineRestore: a machine becomes again what it was when a snapshot was made, or another one becomes that."""

from __future__ import annotations

from typing import Any

from turtles.api.core import CONDITIONS
from turtles.api.kind import DEFAULT_CONTEXT, MANAGED_BY_USERS, Column, Context, Kind, Missing, validators
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
    Struct,
    field,
    group_list,
)
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, schema_causes
from turtles.api.snapshots import (
    FAIL_IMMEDIATE,
    GROUP,
    IN_PLACE,
    OWNED_BY_NONE,
    OWNED_BY_VM,
    PREFIX_TARGET_NAME,
    RANDOMIZE_NAMES,
    STOP_TARGET,
    WAIT_EVENTUALLY,
    WAIT_GRACE_PERIOD,
)

_VM, _SNAPSHOT = "VirtualMachine", "VirtualMachineSnapshot"
#: How the paths begin, in JSON, that patches may change.
_PATCHED = ('"/spec/', '"/metadata/labels/', '"/metadata/annotations/')
#: Below a machine's domain: what keeps something that no snapshot has.
_PERSISTENT = (("devices", "tpm", "persistent"), ("firmware", "bootloader", "efi", "persistent"))
_POLICIES = {
    "volumeRestorePolicy": ("volume restore policy", (RANDOMIZE_NAMES, IN_PLACE, PREFIX_TARGET_NAME)),
    "volumeOwnershipPolicy": ("volume ownership policy", (OWNED_BY_VM, OWNED_BY_NONE)),
}

SPEC = Struct(
    "What to restore, and how.",
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
        STRING,
        "How the restored claims are called: by a name of their own (the default), as before, in which case those "
        "that the machine has are deleted, or by machine and volume: RandomizeNames, InPlace or PrefixTargetName.",
        absent=RANDOMIZE_NAMES,
    ),
    group_list(
        "volumeRestoreOverrides",
        "How claims differ from the policy.",
        field("volumeName", STRING, "The volume, as it is called in the machine.", required=True),
        field("restoreName", STRING, "Name of the claim."),
        field("labels", STRING_MAP, "Labels of the claim, in addition to those that it had."),
        field("annotations", STRING_MAP, "Annotations of the claim, in addition to those that it had."),
    ),
    field(
        "volumeOwnershipPolicy",
        STRING,
        "Whether restored claims go with the machine: Vm (the default) or None.",
        absent=OWNED_BY_VM,
    ),
    field("patches", STRINGS, "JSON patches (RFC 6902), each one operation as text, of a new machine's spec."),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("complete", BOOLEAN, "Whether the machine is restored."),
    field("restoreTime", TIME, "When it was."),
    field("conditions", CONDITIONS, "Ready, Progressing and Failure."),
    group_list(
        "restores",
        "The volumes.",
        field("volumeName", STRING, "Its name in the machine.", required=True),
        field("persistentVolumeClaim", STRING, "The restored claim.", required=True),
        field("volumeSnapshotName", STRING, "What it is filled from.", required=True),
        field("dataVolumeName", STRING, "Always empty: a restored claim needs no DataVolume."),
    ),
    field("deletedDataVolumes", STRINGS, "Always empty."),
)


def validate(restore: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new restore.

    Whether the snapshot can be restored to the target, the controller finds out: it may be made yet.
    """
    if causes := schema_causes(restore, SPEC):
        return causes
    spec, namespace = restore["spec"], str(get(restore, "metadata", "namespace") or "")
    causes = [*reference_causes(spec["target"], "spec.target")]
    if not causes:
        if not context.privileged:
            causes = [*_pairs(spec), *_state(spec, namespace, context)]
        causes = [*causes, *_overrides(spec), *_policies(spec)] or [*patch_causes(spec), *_repeated(spec)]
    return [*causes, *_others(restore, namespace, context)]


def _pairs(spec: Object) -> Causes:
    """Refuse what KubeVirt can't read as a patch: it takes values to be texts or numbers, without colons and commas."""
    for text in spec.get("patches") or ():
        for pair in text.strip("{}").split(","):
            key, *value = (part.strip() for part in pair.split(":"))
            if len(value) != 1:
                message = f'patch format is not valid - one ":" expected in a single key-value json patch: {pair}'
                yield Cause(INVALID, message, "spec.patches")
            elif key == '"path"' and not value[0].startswith(_PATCHED):
                message = f"patching is valid only for elements under /spec/ only: {pair}"
                yield Cause(INVALID, message, "spec.patches")


def _state(spec: Object, namespace: str, context: Context) -> Causes:
    """Refuse a new machine that would have to have what a TPM or EFI variables of another one keep."""
    try:
        snapshot = context.find(_SNAPSHOT, namespace, spec["virtualMachineSnapshotName"])
        if _uid(spec["target"]["name"], namespace, context) == (uid := get(snapshot, "status", "sourceUID")):
            return
        source = context.find(_VM, namespace, str(get(snapshot, "spec", "source", "name")))
    except Missing:
        return
    machine = get(source, "spec", "template", "spec")
    if get(source, "metadata", "uid") == uid and any(get(machine, "domain", *path) for path in _PERSISTENT):
        message = (
            "Restore to a different VM is not supported when snapshotted VM has backend storage (persistent TPM or EFI)"
        )
        yield Cause(INVALID, message, "spec")


def _uid(name: str, namespace: str, context: Context) -> str | None:
    try:
        return str(context.find(_VM, namespace, name)["metadata"]["uid"])
    except Missing:
        return None


def _overrides(spec: Object) -> Causes:
    for index, override in enumerate(spec.get("volumeRestoreOverrides") or ()):
        here = f"spec.volumeRestoreOverrides[{index}]"
        if not override["volumeName"]:
            yield Cause(REQUIRED, "must provide a volume name", f"{here}.volumeName")
        if not override.get("restoreName") and all(override.get(key) is None for key in ("labels", "annotations")):
            yield Cause(REQUIRED, "must provide at least one overriden field", here)


def _repeated(spec: Object) -> Causes:
    names = [each["volumeName"] for each in spec.get("volumeRestoreOverrides") or ()]
    for index, name in enumerate(names):
        if names.count(name) > 1:
            here = f"spec.volumeRestoreOverrides[{index}].volumeName"
            yield Cause(INVALID, f"volume {name} has several overrides", here)


def _policies(spec: Object) -> Causes:
    for name, (words, known) in _POLICIES.items():
        policy = spec.get(name)
        if policy is not None and policy not in known:
            yield Cause(INVALID, f'{words} "{policy}" doesn\'t exist', f"spec.{name}")


def _others(restore: Object, namespace: str, context: Context) -> Causes:
    for other in context.others("VirtualMachineRestore", namespace):
        failed = any(
            each.get("type") == "Failure" and each.get("status") == "True"
            for each in get(other, "status", "conditions") or ()
        )
        if (
            get(other, "spec", "target") == restore["spec"]["target"]
            and not get(other, "status", "complete")
            and not failed
            and other["metadata"].get("name") != restore["metadata"].get("name")
        ):
            yield Cause(INVALID, f'VirtualMachineRestore "{other["metadata"]["name"]}" in progress', "spec.target")


RESTORE = Kind(
    kind="VirtualMachineRestore",
    plural="virtualmachinerestores",
    group=GROUP,
    versions=VERSIONS,
    short_names=("vmrestore", "vmrestores"),
    schema=Struct(
        "A machine becomes what it was when a snapshot was made.",
        field("spec", SPEC, "What to restore, and how.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(
        Column("TargetKind", "string", ".spec.target.kind"),
        Column("TargetName", "string", ".spec.target.name"),
        Column("Complete", "boolean", ".status.complete"),
        Column("RestoreTime", "date", ".status.restoreTime"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=validators("virtualmachinerestore", "/virtualmachinerestores-validate"),
    reads=("VirtualMachineRestore",),
    looks_up=(_VM, _SNAPSHOT),
    validate=validate,
    validate_update=spec_stays,
)
