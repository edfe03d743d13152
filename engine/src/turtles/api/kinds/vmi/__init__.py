# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstance: a machine that runs, is about to, or did."""

from turtles.api.kind import AGE, CREATE, MANAGED_BY_USERS, UPDATE, Column, Kind, Subresource, Webhook
from turtles.api.kinds.vmi.defaults import default, default_update
from turtles.api.kinds.vmi.former import of_instance
from turtles.api.kinds.vmi.presets import PRESET
from turtles.api.kinds.vmi.schema import SCHEMA
from turtles.api.kinds.vmi.validation import validate, validate_update, warn

_EVERYBODY = ("admin", "edit", "view")

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
    subresources=(
        Subresource("pause", "pause_vmi", code=200),
        Subresource("unpause", "unpause_vmi", code=200),
        Subresource("softreboot", "soft_reboot_vmi", code=200),
        Subresource("reset", "reset_vmi", code=200),
        Subresource("freeze", "freeze_vmi", code=200),
        Subresource("unfreeze", "unfreeze_vmi", code=200),
        Subresource("addvolume", "add_volume_vmi"),
        Subresource("removevolume", "remove_volume_vmi"),
        Subresource("evacuate/cancel", "cancel_evacuation_vmi", code=200),
        Subresource("objectgraph", "object_graph_vmi", "get", 200, body=True),
        Subresource("sev/fetchcertchain", "sev_certificates_vmi", "get", 200, body=True, roles=_EVERYBODY),
        Subresource("sev/querylaunchmeasurement", "sev_measurement_vmi", "get", 200, body=True, roles=_EVERYBODY),
        Subresource("sev/setupsession", "sev_session_vmi"),
        Subresource("sev/injectlaunchsecret", "sev_secret_vmi", code=200),
        Subresource("guestosinfo", "guest_info_vmi", "get", 200, body=True, roles=_EVERYBODY),
        Subresource("userlist", "users_vmi", "get", 200, body=True, roles=_EVERYBODY),
        Subresource("filesystemlist", "filesystems_vmi", "get", 200, body=True, roles=_EVERYBODY),
        Subresource("console", "console_vmi", "get", stream=True),
        Subresource("vnc", "vnc_vmi", "get", stream=True),
        Subresource("vnc/screenshot", "screenshot_vmi", "get", stream=True, roles=("admin",)),
        Subresource("portforward", "port_forward_vmi", "get", stream=True, path=True),
        Subresource("usbredir", "usbredir_vmi", "get", stream=True),
        Subresource("vsock", "vsock_vmi", "get", stream=True),
    ),
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
    remedies=of_instance,
)

KINDS = (VMI,)
