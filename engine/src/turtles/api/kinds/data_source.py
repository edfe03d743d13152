# SPDX-License-Identifier: GPL-3.0-or-later
"""DataSource: a name for the disk that others are copied from (CDI user guide, "DataSources")."""

from __future__ import annotations

from typing import Any

from turtles.api import cdi
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    UPDATE,
    Context,
    Kind,
    Version,
    Webhook,
)
from turtles.api.kinds.data_volume.schema import CONDITIONS, PVC, SNAPSHOT
from turtles.api.language import INVALID, STRING, Cause, Struct, field, group
from turtles.api.rules import schema_causes

_OTHER = Struct(
    "Another DataSource of the namespace.",
    field("namespace", STRING, "Its namespace, which is this one's."),
    field("name", STRING, "Its name.", required=True),
)

_FIELDS = (
    field("pvc", PVC, "A claim."),
    field("snapshot", SNAPSHOT, "A VolumeSnapshot."),
    field("dataSource", _OTHER, "Another DataSource, which names a claim or a VolumeSnapshot."),
)

SPEC = Struct(
    "Which disk it is.",
    group("source", "The disk: one of these fields, or none yet.", *_FIELDS, required=True),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    group("source", "What it leads to.", *_FIELDS),
    field("conditions", CONDITIONS, "Ready: whether it can be copied."),
)


def validate(data_source: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a DataSource."""
    if causes := schema_causes(data_source, SPEC):
        return causes
    source = data_source["spec"]["source"]
    sources = [name for name, value in source.items() if value is not None]
    if len(sources) > 1:
        message = f"spec.source: {' and '.join(sorted(sources))} are given; name one disk"
        return [Cause(INVALID, message, "spec.source")]
    for name in sources:
        if not source[name]["name"]:
            return [Cause(INVALID, f"spec.source.{name}.name is empty; name the disk", f"spec.source.{name}.name")]
    return []


DATA_SOURCE = Kind(
    kind="DataSource",
    plural="datasources",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    short_names=("das",),
    schema=Struct(
        "A name for a disk that others are copied from.",
        field("spec", SPEC, "Which disk it is.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(AGE,),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=(Webhook("datasource-validate.cdi", "/datasource-validate", (CREATE, UPDATE)),),
    validate=validate,
)

KINDS = (DATA_SOURCE,)
