# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineExport: disks of a claim, a machine or a snapshot that can be downloaded for some time.

Names, rules and messages are those of the KubeVirt API and of its user guide, "Export API".
"""

from __future__ import annotations

from typing import Any

from turtles.api import durations
from turtles.api.core import CONDITIONS
from turtles.api.exports import CLAIM, GROUP, KIND, MACHINE, PLURAL, SNAPSHOT
from turtles.api.kind import DEFAULT_CONTEXT, MANAGED_BY_USERS, Column, Context, Kind, Version, validators
from turtles.api.kind import GROUP as KUBEVIRT
from turtles.api.kinds.snapshot.common import spec_stays
from turtles.api.language import INVALID, STRING, TIME, Cause, Struct, field, group, group_list
from turtles.api.objects import Object
from turtles.api.rules import Causes, schema_causes
from turtles.api.snapshots import GROUP as SNAPSHOTS

_SPEC = Struct(
    "What to export, with which token, and for how long.",
    group(
        "source",
        "What is exported.",
        field("apiGroup", STRING, "The group of the kind; none of a PersistentVolumeClaim."),
        field("kind", STRING, "PersistentVolumeClaim, VirtualMachine or VirtualMachineSnapshot.", required=True),
        field("name", STRING, "Its name.", required=True),
        required=True,
    ),
    field(
        "tokenSecretRef",
        STRING,
        "A Secret whose key token authorizes downloads. By default one is generated; see status.",
    ),
    field("ttlDuration", STRING, "How long after its creation the export is deleted, such as 2h (the default)."),
)

_LINK = Struct(
    "Where to download.",
    field("cert", STRING, "The authorities of the server's certificate, in PEM.", required=True),
    group_list(
        "volumes",
        "The volumes.",
        field("name", STRING, "That of the claim, or of the one that a snapshot is of.", required=True),
        group_list(
            "formats",
            "The available formats.",
            field("format", STRING, "raw, gzip, dir or tar.gz.", required=True),
            field("url", STRING, "Where.", required=True),
            kind="map",
            keys=("format",),
        ),
        kind="map",
        keys=("name",),
    ),
    group_list(
        "manifests",
        "Objects that recreate the machine, with disks from this export.",
        field("type", STRING, "all, or auth-header-secret: the Secret with the token.", required=True),
        field("url", STRING, "Where.", required=True),
        kind="map",
        keys=("type",),
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("phase", STRING, "Pending, Ready, Terminated or Skipped."),
    group(
        "links",
        "Where to download.",
        field("internal", _LINK, "For Pods of the cluster."),
        field("external", _LINK, "For everyone else."),
    ),
    field("tokenSecretRef", STRING, "The Secret with the token."),
    field("ttlExpirationTime", TIME, "When the export will be deleted."),
    field("serviceName", STRING, "The Service of the internal links."),
    field("virtualMachineName", STRING, "The machine."),
    field("conditions", CONDITIONS, "Ready, PVCReady and VolumesCreated."),
)

#: By kind of a source: its group, and how it and its kind are called in messages.
_GROUPS = {SNAPSHOT: (SNAPSHOTS, "VMSnapshot", "VMSnapshot"), MACHINE: (KUBEVIRT, "Virtual Machine", "VM")}


def validate(export: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new export."""
    if causes := schema_causes(export, _SPEC):
        return causes
    spec = export["spec"]
    return [*_source(spec["source"]), *_ttl(spec)]


def _source(source: Object) -> Causes:
    kind, group = source["kind"], source.get("apiGroup")
    if kind == CLAIM:
        if not source["name"]:
            yield Cause(INVALID, "PVC name must not be empty", "spec.source.name")
        if group:
            yield Cause(INVALID, "PVC API group must be missing or blank", "spec.source.APIGroup")
    elif kind in _GROUPS:
        wanted, called, short = _GROUPS[kind]
        if not source["name"]:
            yield Cause(INVALID, f"{called} name must not be empty", "spec.source.name")
        if group != wanted:
            yield Cause(INVALID, f"{short} API group must be {wanted}", "spec.source.APIGroup")
    else:
        yield Cause(INVALID, "invalid kind", "spec.source.kind")


def _ttl(spec: Object) -> Causes:
    if spec.get("ttlDuration") is None:
        return
    try:
        if durations.parse(spec["ttlDuration"]).total_seconds() < 0:
            yield Cause(INVALID, "must not be negative", "spec.ttlDuration")
    except durations.DurationError as error:
        yield Cause(INVALID, str(error), "spec.ttlDuration")


EXPORT = Kind(
    kind=KIND,
    plural=PLURAL,
    group=GROUP,
    versions=(
        Version("v1", storage=True),
        Version(
            "v1beta1",
            deprecation_warning="export.kubevirt.io/v1beta1 is now deprecated and will be removed in a future release.",
        ),
    ),
    short_names=("vmexport", "vmexports"),
    schema=Struct(
        "Offers disks for download for a limited time.",
        field("spec", _SPEC, "What to export, with which token, and for how long.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(
        Column("SourceKind", "string", ".spec.source.kind"),
        Column("SourceName", "string", ".spec.source.name"),
        Column("Phase", "string", ".status.phase"),
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=validators("virtualmachineexport", "/virtualmachineexports-validate"),
    validate=validate,
    validate_update=spec_stays,
)

KINDS = (EXPORT,)
