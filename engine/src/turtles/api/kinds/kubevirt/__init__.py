# SPDX-License-Identifier: GPL-3.0-or-later
"""KubeVirt: how the engine itself is set up. There is one, in the engine's own namespace."""

from turtles.api.kind import AGE, CREATE, DELETE, UPDATE, Column, Kind, Webhook
from turtles.api.kinds.kubevirt.schema import SCHEMA
from turtles.api.kinds.kubevirt.validation import validate, warn

KUBEVIRT = Kind(
    kind="KubeVirt",
    plural="kubevirts",
    short_names=("kv", "kvs"),
    schema=SCHEMA,
    columns=(AGE, Column("Phase", "string", ".status.phase")),
    status_subresource=True,
    # Everyone may see how the engine is set up
    rights={"default": ("get", "list")},
    webhooks=(
        Webhook("kubevirt-validator", "/kubevirt-validate", (CREATE, DELETE)),
        Webhook("kubevirt-update-validator", "/kubevirt-validate", (UPDATE,)),
    ),
    validate=validate,
    warn=warn,
    check="kubevirt",
)

KINDS = (KUBEVIRT,)
