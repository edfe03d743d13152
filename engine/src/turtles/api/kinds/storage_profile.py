# SPDX-License-Identifier: GPL-3.0-or-later
"""StorageProfile: what the volumes of the StorageClass of its name can be used for (CDI, "Storage profiles")."""

from __future__ import annotations

from typing import Any

from turtles.api import cdi
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    READ,
    UPDATE,
    Column,
    Context,
    Kind,
    Version,
    Webhook,
)
from turtles.api.language import INVALID, STRING, Cause, Choice, ListOf, Struct, field, unsupported
from turtles.api.rules import schema_causes

_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_SETS = ListOf(
    Struct(
        "A way in which volumes can be used.",
        field("accessModes", ListOf(Choice(*_MODES)), "Access modes of claims.", required=True),
        field("volumeMode", Choice("Filesystem", "Block"), "Whether volumes have a file system.", required=True),
    )
)

_SPEC = Struct(
    "What counts in place of what is known of the provisioner.",
    field("claimPropertySets", _SETS, "How volumes can be used, the best first."),
    unsupported("cloneStrategy", "How disks are copied."),
    unsupported("dataImportCronSourceFormat", "What imports that are repeated leave."),
    unsupported("snapshotClass", "The VolumeSnapshotClass of copies."),
)

_STATUS = Struct(
    "What counts. Written by the engine only.",
    field("storageClass", STRING, "The StorageClass."),
    field("provisioner", STRING, "Its provisioner."),
    field("claimPropertySets", _SETS, "How volumes can be used, the best first. Nothing if nobody says."),
)


def validate(profile: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a StorageProfile."""
    if causes := schema_causes(profile, _SPEC):
        return causes
    for index, each in enumerate(profile["spec"].get("claimPropertySets") or ()):
        if not each["accessModes"]:
            here = f"spec.claimPropertySets[{index}].accessModes"
            return [Cause(INVALID, f"{here} is empty; name one at least, such as ReadWriteOnce", here)]
    return []


STORAGE_PROFILE = Kind(
    kind="StorageProfile",
    plural="storageprofiles",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    namespaced=False,
    categories=(),
    schema=Struct(
        "What the volumes of the StorageClass of its name can be used for.",
        field("spec", _SPEC, "What counts in place of what is known of the provisioner.", required=True),
        field("status", _STATUS, "What counts. Written by the engine only."),
    ),
    columns=(Column("Provisioner", "string", ".status.provisioner", description="Who makes the volumes"), AGE),
    status_subresource=True,
    rights={**dict.fromkeys(MANAGED_BY_USERS, READ), "default": READ},
    webhooks=(Webhook("storageprofile-validate.cdi", "/storageprofile-validate", (CREATE, UPDATE)),),
    validate=validate,
)

KINDS = (STORAGE_PROFILE,)
