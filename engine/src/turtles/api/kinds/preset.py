# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstancePreset: parts of a domain for new VirtualMachineInstances that its selector matches.

`turtles.api.kinds.vmi.presets` applies them. Names, versions and messages are those of the KubeVirt API, which has
deprecated the kind. It is stored in v1alpha3, as in KubeVirt.
"""

from __future__ import annotations

from typing import Any

from turtles.api.core import LABEL_SELECTOR
from turtles.api.kind import CREATE, DEFAULT_CONTEXT, GROUP, MANAGED_BY_USERS, UPDATE, Context, Kind, Version, Webhook
from turtles.api.kinds.vmi.rules import disks, machine
from turtles.api.kinds.vmi.schema import DOMAIN
from turtles.api.language import REQUIRED, Cause, Struct, field
from turtles.api.objects import get, is_deleted
from turtles.api.rules import schema_causes
from turtles.api.selectors import selector_causes

_DEPRECATED = f"{GROUP}/{{}} VirtualMachineInstancePresets is now deprecated and will be removed in v2."

_SPEC = Struct(
    "Which VirtualMachineInstances the preset applies to, and what they get.",
    field("selector", LABEL_SELECTOR, "Labels of VirtualMachineInstances; if empty, all match.", required=True),
    field("domain", DOMAIN, "The parts of a domain that a VirtualMachineInstance gets if it doesn't have them."),
)


def validate(preset: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a preset, created or updated. One that is being deleted may be anything.

    All else is judged where it is in a VirtualMachineInstance.
    """
    if is_deleted(preset):
        return []
    if causes := schema_causes(preset, _SPEC):
        return causes
    spec = preset["spec"]
    if spec.get("domain") is None:
        return [Cause(REQUIRED, "missing domain.", "spec.domain")]
    causes = [*disks.disk_causes(get(spec, "domain", "devices", "disks") or [], "spec.domain.devices.disks")]
    return [*causes, *machine.boot(spec, "spec")]


def warn(preset: Any) -> list[str]:
    """Return the warnings about a preset that is admitted."""
    if is_deleted(preset) or schema_causes(preset, _SPEC):
        return []
    causes = selector_causes(preset["spec"]["selector"], "spec.selector")
    return [f"{cause.message}; this is admitted, and selects nothing" for cause in causes]


PRESET = Kind(
    kind="VirtualMachineInstancePreset",
    plural="virtualmachineinstancepresets",
    short_names=("vmipreset", "vmipresets"),
    versions=(
        Version("v1", deprecation_warning=_DEPRECATED.format("v1")),
        Version("v1alpha3", storage=True, deprecation_warning=_DEPRECATED.format("v1alpha3")),
    ),
    schema=Struct(
        "Parts of a domain for new VirtualMachineInstances of the same namespace that it selects. Deprecated.",
        field("spec", _SPEC, "Which VirtualMachineInstances the preset applies to, and what they get.", required=True),
    ),
    rights=MANAGED_BY_USERS,
    webhooks=(Webhook("virtualmachinepreset-validator", "/vmipreset-validate", (CREATE, UPDATE)),),
    validate=validate,
    warn=warn,
)

KINDS = (PRESET,)
