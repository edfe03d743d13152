# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstancetype and VirtualMachineClusterInstancetype: the size of the machines that name it.

Names, versions and messages are those of the KubeVirt API. VirtualMachines name them as their `instancetype`.
"""

from __future__ import annotations

from typing import Any

from turtles.api.choices import chosen_kind
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.instancetype.schema import INSTANCETYPE_SPEC
from turtles.api.language import INVALID, Cause
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


INSTANCETYPE = chosen_kind(
    "VirtualMachineInstancetype",
    "A size for machines in the same namespace.",
    ("vminstancetype", "vminstancetypes", "vmf", "vmfs"),
    INSTANCETYPE_SPEC,
    namespaced=True,
    validate=validate,
    warn=warn,
)
CLUSTER_INSTANCETYPE = chosen_kind(
    "VirtualMachineClusterInstancetype",
    "A size for machines in all namespaces.",
    ("vmclusterinstancetype", "vmclusterinstancetypes", "vmcf", "vmcfs"),
    INSTANCETYPE_SPEC,
    namespaced=False,
    validate=validate,
    warn=warn,
)

KINDS = (INSTANCETYPE, CLUSTER_INSTANCETYPE)
