# SPDX-License-Identifier: GPL-3.0-or-later
"""VolumeUploadSource: claims that name it get what a client sends (CDI's document "CDI Volume Populators")."""

from __future__ import annotations

from typing import Any

from turtles.api import cdi
from turtles.api.constant import constant_spec, name_causes
from turtles.api.kind import CREATE, DEFAULT_CONTEXT, MANAGED_BY_USERS, UPDATE, Context, Kind, Version, Webhook
from turtles.api.kinds.data_volume.validation import ARCHIVE, DISK
from turtles.api.language import BOOLEAN, INVALID, OPEN_OBJECT, STRING, Cause, Struct, field
from turtles.api.populators import UPLOAD
from turtles.api.rules import schema_causes

SPEC = Struct(
    "What is sent. It can't be changed.",
    field("contentType", STRING, "What the content is: kubevirt, a disk, or archive.", absent=DISK),
    field("preallocation", BOOLEAN, "Preallocate the disk's storage."),
)


def validate(source: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a VolumeUploadSource."""
    if causes := schema_causes(source, SPEC):
        return causes
    if causes := list(name_causes(source)):
        return causes
    content, here = source["spec"].get("contentType") or DISK, "spec.contentType"
    if content not in (DISK, ARCHIVE):
        return [Cause(INVALID, f"ContentType not one of: {DISK}, {ARCHIVE}", here)]
    return []


VOLUME_UPLOAD_SOURCE = Kind(
    kind=UPLOAD,
    plural="volumeuploadsources",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    schema=Struct(
        "Claims that name it get what a client sends.",
        field("spec", SPEC, "What is sent.", required=True),
        field("status", OPEN_OBJECT, "Nothing so far."),
    ),
    columns=(),
    rights=MANAGED_BY_USERS,
    webhooks=(Webhook("populator-validate-upload.cdi", "/populator-validate-upload", (CREATE, UPDATE)),),
    validate=validate,
    validate_update=constant_spec(UPLOAD, SPEC),
)

KINDS = (VOLUME_UPLOAD_SOURCE,)
