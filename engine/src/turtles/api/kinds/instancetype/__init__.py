# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstancetype and VirtualMachineClusterInstancetype: the size of the machines that name it.

Names, versions and messages are those of the KubeVirt API. VirtualMachines name them as their `instancetype`.
"""

from __future__ import annotations

from typing import Any

from turtles.api.kind import CREATE, DEFAULT_CONTEXT, MANAGED_BY_USERS, UPDATE, Context, Kind, Webhook
from turtles.api.kinds.instancetype.schema import INSTANCETYPE_SPEC
from turtles.api.kinds.preference import INSTANCETYPE_GROUP, INSTANCETYPE_VERSIONS
from turtles.api.language import INVALID, Cause, Struct, field
from turtles.api.objects import get, is_deleted
from turtles.api.rules import schema_causes

_OVERCOMMIT = "spec.memory.overcommitPercent"


def validate(instancetype: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an instance type, created or updated. One that is being deleted may be anything."""
    if is_deleted(instancetype):
        return []
    if causes := schema_causes(instancetype, INSTANCETYPE_SPEC):
        return causes
    memory = instancetype["spec"]["memory"]
    percent = memory.get("overcommitPercent") or 0
    if not 0 <= percent <= 100:
        causes.append(Cause(INVALID, f"{_OVERCOMMIT} '{percent}': must be in range between 0 and 100.", _OVERCOMMIT))
    if percent and memory.get("hugepages") is not None:
        message = f"{_OVERCOMMIT} and spec.memory.hugepages should not be requested together."
        causes.append(Cause(INVALID, message, _OVERCOMMIT))
    return causes


def warn(instancetype: Any) -> list[str]:
    """Return the warnings about an instance type that is admitted."""
    if get(instancetype, "spec", "launchSecurity") is None:
        return []
    return ["launchSecurity is deprecated and will be removed in a future release. Use preference instead."]


def _kind(name: str, doc: str, short_names: tuple[str, ...], *, namespaced: bool) -> Kind:
    singular = name.lower()
    return Kind(
        kind=name,
        plural=f"{singular}s",
        group=INSTANCETYPE_GROUP,
        versions=INSTANCETYPE_VERSIONS,
        namespaced=namespaced,
        short_names=short_names,
        categories=("all",) if namespaced else (),
        schema=Struct(doc, field("spec", INSTANCETYPE_SPEC, INSTANCETYPE_SPEC.doc, required=True)),
        rights=MANAGED_BY_USERS,
        webhooks=(Webhook(f"{singular}-validator.instancetype", f"/{singular}s-validate", (CREATE, UPDATE)),),
        validate=validate,
        warn=warn,
    )


INSTANCETYPE = _kind(
    "VirtualMachineInstancetype",
    "The size of machines of the same namespace that name it.",
    ("vminstancetype", "vminstancetypes", "vmf", "vmfs"),
    namespaced=True,
)
CLUSTER_INSTANCETYPE = _kind(
    "VirtualMachineClusterInstancetype",
    "The size of machines of all namespaces that name it.",
    ("vmclusterinstancetype", "vmclusterinstancetypes", "vmcf", "vmcfs"),
    namespaced=False,
)

KINDS = (INSTANCETYPE, CLUSTER_INSTANCETYPE)
