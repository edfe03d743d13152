# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineSnapshot: a machine and its disks, as they are at one moment."""

from __future__ import annotations

from typing import Any

from turtles.api import durations
from turtles.api.core import CONDITIONS
from turtles.api.kind import DEFAULT_CONTEXT, MANAGED_BY_USERS, Column, Context, Kind, validators
from turtles.api.kinds.snapshot.common import ERROR, VERSIONS, reference, reference_causes, spec_stays
from turtles.api.language import BOOLEAN, INVALID, STRING, TIME, Cause, Choice, ListOf, Struct, field, group, group_list
from turtles.api.rules import schema_causes
from turtles.api.snapshots import DELETE, GROUP, RETAIN

SPEC = Struct(
    "What the snapshot is of.",
    field("source", reference("The machine."), "The machine.", required=True),
    field(
        "deletionPolicy",
        Choice(DELETE, RETAIN),
        "Whether its content goes with it: Delete (the default) or Retain.",
        absent=DELETE,
    ),
    field(
        "failureDeadline",
        STRING,
        "How long it may take, such as 5m (the default), before it fails; 0s is no limit.",
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("phase", STRING, "InProgress, Succeeded, Failed or Deleting."),
    field("readyToUse", BOOLEAN, "Whether it can be restored."),
    field("creationTime", TIME, "When it was whole."),
    field("sourceUID", STRING, "The machine's uid."),
    field("virtualMachineSnapshotContentName", STRING, "The object that says what is in it."),
    field("error", ERROR, "What went wrong last."),
    field("conditions", CONDITIONS, "Ready, Progressing and Failure."),
    field(
        "indications",
        ListOf(STRING, kind="set"),
        "How the guest was: Online, GuestAgent, NoGuestAgent, QuiesceFailed, Paused. See sourceIndications.",
    ),
    group_list(
        "sourceIndications",
        "The indications with what they mean.",
        field("indication", STRING, "One of the indications.", required=True),
        field("message", STRING, "What it means.", required=True),
    ),
    group(
        "snapshotVolumes",
        "The machine's volumes.",
        field("includedVolumes", ListOf(STRING, kind="set"), "Those that the snapshot has."),
        field("excludedVolumes", ListOf(STRING, kind="set"), "Those that it can't have, or needn't."),
    ),
)


def validate(snapshot: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new snapshot."""
    if causes := schema_causes(snapshot, SPEC):
        return causes
    spec = snapshot["spec"]
    causes = [*reference_causes(spec["source"], "spec.source")]
    if spec.get("failureDeadline") is not None:
        try:
            if durations.parse(spec["failureDeadline"]).total_seconds() < 0:
                causes.append(Cause(INVALID, "must not be negative", "spec.failureDeadline"))
        except durations.DurationError as error:
            causes.append(Cause(INVALID, str(error), "spec.failureDeadline"))
    return causes


SNAPSHOT = Kind(
    kind="VirtualMachineSnapshot",
    plural="virtualmachinesnapshots",
    group=GROUP,
    versions=VERSIONS,
    short_names=("vmsnapshot", "vmsnapshots"),
    schema=Struct(
        "A machine and its disks, as they are at one moment.",
        field("spec", SPEC, "What the snapshot is of.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(
        Column("SourceKind", "string", ".spec.source.kind"),
        Column("SourceName", "string", ".spec.source.name"),
        Column("Phase", "string", ".status.phase"),
        Column("ReadyToUse", "boolean", ".status.readyToUse"),
        Column("CreationTime", "date", ".status.creationTime"),
        Column("Error", "string", ".status.error.message"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=validators("virtualmachinesnapshot", "/virtualmachinesnapshots-validate"),
    validate=validate,
    validate_update=spec_stays,
)
