# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstance: a machine that runs, is about to, or did."""

from turtles.api.kind import AGE, CREATE, MANAGED_BY_USERS, UPDATE, Column, Kind, Webhook
from turtles.api.kinds.vmi.defaults import default, default_update
from turtles.api.kinds.vmi.presets import PRESET
from turtles.api.kinds.vmi.schema import SCHEMA
from turtles.api.kinds.vmi.validation import validate, validate_update, warn

# There is no status subresource: the engine's components write labels and status in one request. When anyone else
# writes, `default_update` restores the status.
VMI = Kind(
    kind="VirtualMachineInstance",
    plural="virtualmachineinstances",
    short_names=("vmi", "vmis"),
    schema=SCHEMA,
    columns=(
        AGE,
        Column("Phase", "string", ".status.phase"),
        Column("IP", "string", ".status.interfaces[0].ipAddress"),
        Column("NodeName", "string", ".status.nodeName"),
        Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Live-Migratable", "string", ".status.conditions[?(@.type=='LiveMigratable')].status", priority=1),
        Column("Paused", "string", ".status.conditions[?(@.type=='Paused')].status", priority=1),
    ),
    rights=MANAGED_BY_USERS,
    webhooks=(
        Webhook("virtualmachineinstances-mutator", "/virtualmachineinstances-mutate", (CREATE,), mutating=True),
        Webhook("virtualmachineinstances-update-mutator", "/virtualmachineinstances-mutate", (UPDATE,), mutating=True),
        Webhook("virtualmachineinstances-create-validator", "/virtualmachineinstances-validate-create", (CREATE,)),
        Webhook("virtualmachineinstances-update-validator", "/virtualmachineinstances-validate-update", (UPDATE,)),
    ),
    reads=(PRESET,),
    default=default,
    default_update=default_update,
    validate=validate,
    validate_update=validate_update,
    warn=warn,
)

KINDS = (VMI,)
