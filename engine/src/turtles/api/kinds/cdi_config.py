# SPDX-License-Identifier: GPL-3.0-or-later
"""CDIConfig: where uploads are sent (CDI API reference, CDIConfig). There is one, `config`, which virt-api writes."""

from __future__ import annotations

from turtles.api import cdi
from turtles.api.kind import AGE, MANAGED_BY_USERS, READ, Kind, Version
from turtles.api.language import STRING, Struct, field

#: Name of the one object.
NAME = "config"

_SPEC = Struct(
    "What an administrator says.",
    field("uploadProxyURLOverride", STRING, "Address of the upload proxy, such as an Ingress has it."),
)
_STATUS = Struct(
    "What is in force. Written by the engine only.",
    field("uploadProxyURL", STRING, "Address of the upload proxy."),
    field("uploadProxyCA", STRING, "Authorities of the upload proxy's certificate, in PEM."),
)

CDI_CONFIG = Kind(
    kind="CDIConfig",
    plural="cdiconfigs",
    group=cdi.GROUP,
    versions=(Version("v1beta1", storage=True),),
    namespaced=False,
    categories=(),
    schema=Struct(
        "Where uploads are sent.",
        field("spec", _SPEC, "What an administrator says."),
        field("status", _STATUS, "What is in force."),
    ),
    columns=(AGE,),
    rights={**dict.fromkeys(MANAGED_BY_USERS, READ), "default": READ},
)

KINDS = (CDI_CONFIG,)
