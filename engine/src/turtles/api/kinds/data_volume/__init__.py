# SPDX-License-Identifier: GPL-3.0-or-later
"""DataVolume: a PersistentVolumeClaim, and where its content comes from (CDI user guide, "DataVolumes")."""

from __future__ import annotations

from turtles.api import cdi
from turtles.api.data_sources import KIND as DATA_SOURCE
from turtles.api.kind import AGE, CREATE, MANAGED_BY_USERS, UPDATE, Column, Kind, Version, Webhook
from turtles.api.kinds.data_volume.defaults import default, default_update
from turtles.api.kinds.data_volume.schema import SPEC, STATUS
from turtles.api.kinds.data_volume.validation import validate, validate_update
from turtles.api.language import Struct, field

DATA_VOLUME = Kind(
    kind="DataVolume",
    plural="datavolumes",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    short_names=("dv", "dvs"),
    schema=Struct(
        "A PersistentVolumeClaim and the source of its content.",
        field("spec", SPEC, "The claim and the source of its content.", required=True),
        field("status", STATUS, "How far it is."),
    ),
    columns=(
        Column("Phase", "string", ".status.phase", description="The phase the data volume is in"),
        Column("Progress", "string", ".status.progress", description="Transfer progress in percentage if known"),
        Column("Restarts", "integer", ".status.restartCount", description="The number of times the transfer restarted"),
        AGE,
    ),
    status_subresource=True,
    rights=MANAGED_BY_USERS,
    webhooks=(
        Webhook("datavolume-mutate.cdi", "/datavolume-mutate", (CREATE, UPDATE), mutating=True),
        Webhook("datavolume-validate.cdi", "/datavolume-validate", (CREATE, UPDATE)),
    ),
    looks_up=(DATA_SOURCE,),
    default=default,
    default_update=default_update,
    validate=validate,
    validate_update=validate_update,
    check="data_volume",
)

KINDS = (DATA_VOLUME,)
