# SPDX-License-Identifier: GPL-3.0-or-later
"""VolumeCloneSource: what claims that name it are copies of (CDI's document "CDI Volume Populators")."""

from __future__ import annotations

from typing import Any

from turtles.api import cdi
from turtles.api.constant import constant_spec, name_causes
from turtles.api.data_sources import CLAIM, SNAPSHOT, CopySource
from turtles.api.kind import CREATE, DEFAULT_CONTEXT, MANAGED_BY_USERS, UPDATE, Context, Kind, Version, Webhook
from turtles.api.language import BOOLEAN, EMPTY_OR_STRING, INVALID, OPEN_OBJECT, STRING, Cause, Struct, field, group
from turtles.api.objects import Object
from turtles.api.populators import CLONE
from turtles.api.rules import schema_causes

#: Kinds that can be copied, by group and name.
_COPIED = {
    ("", "PersistentVolumeClaim"): CLAIM,
    ("snapshot.storage.k8s.io", "VolumeSnapshot"): SNAPSHOT,
}

SPEC = Struct(
    "What is copied. It can't be changed.",
    group(
        "source",
        "What is copied.",
        field("apiGroup", EMPTY_OR_STRING, "Empty for a claim, snapshot.storage.k8s.io for a VolumeSnapshot."),
        field("kind", STRING, "PersistentVolumeClaim or VolumeSnapshot.", required=True),
        field("name", STRING, "Its name.", required=True),
        required=True,
    ),
    field("preallocation", BOOLEAN, "Preallocate the disk's storage."),
    field("priorityClassName", STRING, "Priority class of the Pod that copies."),
)


def copied(source: Object) -> CopySource:
    """Return what a VolumeCloneSource, which admission has judged, has copied."""
    named = source["spec"]["source"]
    kind = _COPIED[named.get("apiGroup") or "", named["kind"]]
    return CopySource(kind, source["metadata"]["namespace"], named["name"])


def validate(source: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a VolumeCloneSource."""
    if causes := schema_causes(source, SPEC):
        return causes
    if causes := list(name_causes(source)):
        return causes
    named, here = source["spec"]["source"], "spec.source"
    if (named.get("apiGroup") or "", named["kind"]) not in _COPIED:
        what = "/".join(filter(None, (named.get("apiGroup"), named["kind"])))
        message = f"{here} {what!r} can't be copied; name a PersistentVolumeClaim, without apiGroup, or a "
        return [Cause(INVALID, f"{message}VolumeSnapshot of snapshot.storage.k8s.io", here)]
    if not named["name"]:
        return [Cause(INVALID, f"{here}.name is empty; name what is to be copied", f"{here}.name")]
    return []


VOLUME_CLONE_SOURCE = Kind(
    kind=CLONE,
    plural="volumeclonesources",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    schema=Struct(
        "What claims that name it are copies of.",
        field("spec", SPEC, "What is copied.", required=True),
        field("status", OPEN_OBJECT, "Nothing so far."),
    ),
    columns=(),
    rights=MANAGED_BY_USERS,
    webhooks=(Webhook("populator-validate-clone.cdi", "/populator-validate-clone", (CREATE, UPDATE)),),
    validate=validate,
    validate_update=constant_spec(CLONE, SPEC),
)

KINDS = (VOLUME_CLONE_SOURCE,)
