# SPDX-License-Identifier: GPL-3.0-or-later
"""DataImportCron: a DataSource that leads to the newest image of a registry, or the newest copy of a claim (CDI user
guide, "OS image poll and update").
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from turtles.api import cdi
from turtles.api.constant import constant_spec, name_causes
from turtles.api.core import METADATA
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    UPDATE,
    Column,
    Context,
    Kind,
    Version,
    Webhook,
)
from turtles.api.kinds.data_volume import validation as data_volumes
from turtles.api.kinds.data_volume.schema import CONDITIONS, PVC
from turtles.api.kinds.data_volume.schema import SPEC as DATA_VOLUME_SPEC
from turtles.api.language import (
    INT32,
    INVALID,
    OPEN_OBJECT,
    STRING,
    TIME,
    Cause,
    Struct,
    field,
    group,
    group_list,
)
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, Spec, schema_causes
from turtles.api.schedules import ScheduleError, next_time
from turtles.api.texts import from_json

# What becomes of imports that aren't the newest, and of everything with the DataImportCron
OUTDATED, NEVER = "Outdated", "Never"
RETAIN_ALL, RETAIN_NONE = "All", "None"
#: Imports that are kept, if nobody says how many.
KEPT = 3
_TEMPLATE = "The DataVolumes to create, one for each import."

SPEC = Struct(
    "What to import, and when. Immutable.",
    group(
        "template",
        _TEMPLATE,
        field("metadata", METADATA, "Labels and annotations. Names are the DataSource's, with a part of a digest."),
        field("spec", DATA_VOLUME_SPEC, "What they are: the source is a registry or a claim.", required=True),
        field("status", OPEN_OBJECT, "Ignored."),
        required=True,
    ),
    field("schedule", STRING, "When to check for a newer image, in the format of crontab(5), in UTC; never if empty."),
    field("managedDataSource", STRING, "Name of the DataSource that refers to the newest import.", required=True),
    field("importsToKeep", INT32, "How many imports to keep, including the newest.", absent=KEPT),
    field("garbageCollect", STRING, "Outdated: delete older imports. Never: keep them.", absent=OUTDATED),
    field(
        "retentionPolicy",
        STRING,
        "Whether imports and DataSource outlive the DataImportCron: All of them do, or None.",
        absent=RETAIN_ALL,
    ),
    field(
        "createdBy",
        STRING,
        "The user whose permission to copy from other namespaces counts. Written by the engine.",
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    group_list(
        "currentImports",
        "The current or newest import.",
        field("DataVolumeName", STRING, "The DataVolume, and its claim.", required=True),
        field("Digest", STRING, "The digest of the image, or uid: and that of the claim.", required=True),
    ),
    field("lastImportedPVC", PVC, "The claim with the newest complete import."),
    field("lastImportTimestamp", TIME, "When that was complete."),
    field("lastExecutionTimestamp", TIME, "When the source was last checked."),
    field("sourceFormat", STRING, "What imports are: pvc."),
    field("conditions", CONDITIONS, "Progressing: an import is in progress. UpToDate: the newest image is imported."),
)


def default(cron: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return a new DataImportCron with the user who creates it, as CDI notes one."""
    if not isinstance(cron.get("spec"), dict):
        return cron
    spec = {key: value for key, value in cron["spec"].items() if key != "createdBy"}
    if context.user:
        spec["createdBy"] = json.dumps(context.user, sort_keys=True)
    return {**cron, "spec": spec}


def default_update(cron: Object, old: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return an updated DataImportCron with the user who created it: whoever replaces it needn't name them."""
    if not isinstance(cron.get("spec"), dict):
        return cron
    spec = {key: value for key, value in cron["spec"].items() if key != "createdBy"}
    if (creator := get(old, "spec", "createdBy")) is not None:
        spec["createdBy"] = creator
    return {**cron, "spec": spec}


def creator(cron: Object) -> Object | None:
    """Return the user who created a DataImportCron, as an AdmissionReview names one; None if nobody knows."""
    try:
        user = from_json(get(cron, "spec", "createdBy") or "null")
    except ValueError:
        return None
    return user if isinstance(user, dict) and user.get("username") else None


def validate(cron: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a DataImportCron; the first cause, as CDI does, unless its shape is wrong."""
    if causes := schema_causes(cron, SPEC):
        return causes
    return list(_causes(cron, cron["spec"]))[:1]


#: Returns what is wrong with an updated DataImportCron: its spec can't be changed.
validate_update = constant_spec("DataImportCron", SPEC)


def _causes(cron: Any, spec: Spec) -> Causes:
    yield from name_causes(cron)
    template = spec["template"]["spec"]
    registry = get(template, "source", "registry")
    if registry is None and get(template, "source", "pvc") is None:
        yield Cause(INVALID, "Missing registry or pvc source", "spec.Template")
        return
    if template.get("sourceRef") is not None or template.get("contentType"):
        message = "Unsettable fields: SourceRef, ContentType, Checkpoints, FinalCheckpoint"
        yield Cause(INVALID, message, "spec.Template")
    for cause in data_volumes.validate({"spec": template}):
        yield Cause(cause.type, cause.message, f"spec.template.{cause.field}")
    if registry is not None:
        yield from _registry_causes(registry)
    if spec.get("schedule"):
        try:
            next_time(spec["schedule"], datetime(2026, 1, 1, tzinfo=UTC))
        except ScheduleError as error:
            yield Cause(INVALID, f"Illegal cron schedule: {error}", "spec.Schedule")
    if (kept := spec.get("importsToKeep")) is not None and kept < 0:
        yield Cause(INVALID, "Illegal ImportsToKeep value", "spec.ImportsToKeep")
    for name, known in (("garbageCollect", (OUTDATED, NEVER)), ("retentionPolicy", (RETAIN_ALL, RETAIN_NONE))):
        if spec.get(name) and spec[name] not in known:
            words = f"{name[0].upper()}{name[1:]}"
            yield Cause(INVALID, f"Illegal {words} value", f"spec.{words}")
    if not spec["managedDataSource"]:
        yield Cause(INVALID, "Illegal ManagedDataSource value", "spec.ManagedDataSource")
    yield from name_causes(cron, spec["managedDataSource"], "spec.ManagedDataSource")


def _registry_causes(registry: Spec) -> Causes:
    here, url = "spec.template.spec.source.registry.url", registry["url"]
    if not url.startswith("docker:"):
        yield Cause(INVALID, f"{here} {url!r} has no digest to ask for; use docker://", here)
    if "@" in url:
        message = f"{here} {url!r} names a digest, which always stands for the same image; name a tag"
        yield Cause(INVALID, message, here)


DATA_IMPORT_CRON = Kind(
    kind="DataImportCron",
    plural="dataimportcrons",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    short_names=("dic", "dics"),
    schema=Struct(
        "Keeps a DataSource up to date with the newest image in a registry, or the newest copy of a claim.",
        field("spec", SPEC, "What to import, and when.", required=True),
        field("status", _STATUS, "How far it is."),
    ),
    columns=(Column("Format", "string", ".status.sourceFormat", description="What imports are"), AGE),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=(
        Webhook("dataimportcron-mutate.cdi", "/dataimportcron-mutate", (CREATE, UPDATE), mutating=True),
        Webhook("dataimportcron-validate.cdi", "/dataimportcron-validate", (CREATE, UPDATE)),
    ),
    default=default,
    default_update=default_update,
    validate=validate,
    validate_update=validate_update,
    check="data_import_cron",
)

KINDS = (DATA_IMPORT_CRON,)
