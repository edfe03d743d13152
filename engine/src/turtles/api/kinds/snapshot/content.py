# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineSnapshotContent: what is in a snapshot. The engine writes it."""

from __future__ import annotations

from turtles.api.core import FREE
from turtles.api.kind import MANAGED_BY_USERS, Column, Kind
from turtles.api.kinds.snapshot.common import ERROR, VERSIONS
from turtles.api.language import BOOLEAN, STRING, TIME, Struct, field, group, group_list
from turtles.api.snapshots import GROUP

_SPEC = Struct(
    "What is in the snapshot.",
    field("virtualMachineSnapshotName", STRING, "The snapshot."),
    group(
        "source",
        "What it is of.",
        field("virtualMachine", FREE, "The VirtualMachine, with its metadata and spec."),
        required=True,
    ),
    group_list(
        "volumeBackups",
        "The machine's volumes that it has.",
        field("volumeName", STRING, "Its name in the machine.", required=True),
        field("diskName", STRING, "The disk that it is in the machine."),
        field("persistentVolumeClaim", FREE, "Its claim, with metadata and spec.", required=True),
        field("volumeSnapshotName", STRING, "The VolumeSnapshot."),
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("readyToUse", BOOLEAN, "Whether all of it is there."),
    field("creationTime", TIME, "When it was whole."),
    field("error", ERROR, "What went wrong last."),
    group_list(
        "volumeSnapshotStatus",
        "The VolumeSnapshots.",
        field("volumeSnapshotName", STRING, "Its name.", required=True),
        field("readyToUse", BOOLEAN, "Whether a claim can be filled from it."),
        field("creationTime", TIME, "When the volume was as it is in the snapshot."),
        field("error", ERROR, "What went wrong last."),
    ),
)

CONTENT = Kind(
    kind="VirtualMachineSnapshotContent",
    plural="virtualmachinesnapshotcontents",
    group=GROUP,
    versions=VERSIONS,
    short_names=("vmsnapshotcontent", "vmsnapshotcontents"),
    schema=Struct(
        "What is in a snapshot of a machine.",
        field("spec", _SPEC, "What is in the snapshot.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(
        Column("ReadyToUse", "boolean", ".status.readyToUse"),
        Column("CreationTime", "date", ".status.creationTime"),
        Column("Error", "string", ".status.error.message"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
)
