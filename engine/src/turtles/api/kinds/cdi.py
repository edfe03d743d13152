# SPDX-License-Identifier: GPL-3.0-or-later
"""CDI: how the part of the engine that imports disks is set up (CDI API reference, CDI).

There may be one. Its `spec.config` becomes the spec of the CDIConfig. What is about the installation of upstream's
components is declared `idle`: there are none.
"""

from __future__ import annotations

from typing import Any

from turtles.api.cdi import GROUP
from turtles.api.core import CONDITIONS
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    DELETE,
    UPDATE,
    Column,
    Context,
    Kind,
    Version,
    Webhook,
)
from turtles.api.kinds.cdi_config import SPEC as SETTINGS
from turtles.api.kinds.cdi_config import setting_causes
from turtles.api.language import STRING, Cause, Choice, Struct, field, idle
from turtles.api.objects import Object
from turtles.api.rules import idle_warnings, schema_causes

#: Values of spec.uninstallStrategy.
REMOVE, BLOCK = "RemoveWorkloads", "BlockUninstallIfWorkloadsExist"
#: Phases.
DEPLOYED, ERROR = "Deployed", "Error"

SPEC = Struct(
    "How imports are set up.",
    field("config", SETTINGS, "Settings of all imports, as in the spec of the CDIConfig, which gets them."),
    field(
        "uninstallStrategy",
        Choice(REMOVE, BLOCK),
        "BlockUninstallIfWorkloadsExist: the object can't be deleted while there are DataVolumes.",
        absent=REMOVE,
    ),
    idle("imagePullPolicy", "When the images of CDI's components are pulled."),
    idle("infra", "Nodes of CDI's components."),
    idle("workload", "Nodes of importers."),
    idle("cloneStrategyOverride", "How disks are copied."),
    idle("certConfig", "How long certificates are valid."),
    idle("priorityClass", "Priority class of CDI's components."),
    idle("customizeComponents", "Customizations of CDI's components."),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field("phase", STRING, "Deployed; Error if another one exists already."),
    field("conditions", CONDITIONS, "Available, Progressing and Degraded."),
    field("operatorVersion", STRING, "Version of the engine."),
    field("targetVersion", STRING, "Version of the engine."),
    field("observedVersion", STRING, "Version of the engine."),
)


def validate(cdi: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a CDI object."""
    if causes := schema_causes(cdi, SPEC):
        return causes
    return list(setting_causes(cdi["spec"].get("config") or {}, "spec.config"))


def warn(cdi: Object) -> list[str]:
    """Return warnings about what has no effect in a CDI object that is admitted."""
    return idle_warnings(cdi.get("spec"), SPEC)


CDI = Kind(
    kind="CDI",
    plural="cdis",
    group=GROUP,
    versions=(Version("v1beta1", storage=True),),
    namespaced=False,
    categories=(),
    schema=Struct(
        "How imports are set up.",
        field("spec", SPEC, "How imports are set up.", required=True),
        field("status", _STATUS, "How it is."),
    ),
    columns=(AGE, Column("Phase", "string", ".status.phase")),
    status_subresource=True,
    rights={"default": ("get", "list")},
    webhooks=(Webhook("cdi-validate.cdi", "/cdi-validate", (CREATE, UPDATE, DELETE)),),
    validate=validate,
    warn=warn,
    check="cdi",
)

KINDS = (CDI,)
