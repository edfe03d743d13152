# SPDX-License-Identifier: GPL-3.0-or-later
"""VolumeImportSource: where claims that name it get their content from (CDI's document "CDI Volume Populators")."""

from __future__ import annotations

from typing import Any

from turtles.api import cdi
from turtles.api.constant import constant_spec, name_causes
from turtles.api.kind import CREATE, DEFAULT_CONTEXT, MANAGED_BY_USERS, UPDATE, Context, Kind, Version, Webhook
from turtles.api.kinds.data_volume import validation as data_volumes
from turtles.api.kinds.data_volume.schema import IMPORT_SOURCE
from turtles.api.language import BOOLEAN, OPEN_OBJECT, STRING, Cause, Struct, field, unsupported
from turtles.api.objects import Object
from turtles.api.populators import IMPORT
from turtles.api.rules import schema_causes

#: A claim's form that is sound: what is asked about is the source.
_SOUND = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}

SPEC = Struct(
    "Where the content comes from. It can't be changed.",
    field("source", IMPORT_SOURCE, "The source of the content.", required=True),
    field("contentType", STRING, "What the content is: kubevirt, a disk, or archive.", absent="kubevirt"),
    field("preallocation", BOOLEAN, "Preallocate the disk's storage."),
    field("targetClaim", STRING, "The only claim that it is for."),
    unsupported("checkpoints", "Snapshots of a disk that is imported in several steps."),
    unsupported("finalCheckpoint", "Whether the last of several steps has been given.", neutral=(False,)),
)


def validate(source: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a VolumeImportSource: what would be with a DataVolume's source."""
    if causes := schema_causes(source, SPEC):
        return causes
    spec = source["spec"]
    # What a DataVolume's source has beside is none of its fields
    asked: Object = {"source": {key: spec["source"].get(key) for key in IMPORT_SOURCE.fields}}
    if spec.get("contentType"):
        asked["contentType"] = spec["contentType"]
    return [*name_causes(source), *data_volumes.validate({"spec": {**asked, "pvc": _SOUND}})][:1]


VOLUME_IMPORT_SOURCE = Kind(
    kind=IMPORT,
    plural="volumeimportsources",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    schema=Struct(
        "Where claims that name it get their content from.",
        field("spec", SPEC, "The source of the content.", required=True),
        field("status", OPEN_OBJECT, "Nothing so far."),
    ),
    columns=(),
    rights=MANAGED_BY_USERS,
    webhooks=(Webhook("populator-validate-import.cdi", "/populator-validate-import", (CREATE, UPDATE)),),
    validate=validate,
    validate_update=constant_spec(IMPORT, SPEC),
)

KINDS = (VOLUME_IMPORT_SOURCE,)
