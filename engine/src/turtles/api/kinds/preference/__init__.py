# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachinePreference and VirtualMachineClusterPreference: what a kind of guest likes, for machines that name it.

Names, versions and messages are those of the KubeVirt API. VirtualMachines name them as their `preference`.
"""

from __future__ import annotations

from typing import Any

from turtles.api.choices import chosen_kind
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.preference import topology
from turtles.api.kinds.preference.schema import PREFERENCE_SPEC
from turtles.api.language import INVALID, Cause
from turtles.api.objects import get, is_deleted
from turtles.api.rules import schema_causes


def validate(preference: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a preference, created or updated. One that is being deleted may be anything."""
    if is_deleted(preference):
        return []
    if causes := schema_causes(preference, PREFERENCE_SPEC):
        return causes
    spec = preference["spec"]
    chosen = get(spec, "cpu", "preferredCPUTopology")
    if chosen is not None and chosen not in (*topology.TOPOLOGIES, *topology.DEPRECATED):
        return [Cause(INVALID, f"unknown preferredCPUTopology {chosen}", "spec.cpu.preferredCPUTopology")]
    if chosen is None or topology.preferred_topology(spec) != topology.SPREAD:
        return []
    ratio, across = topology.spread_options(spec)
    if across not in topology.SPREADS:
        return [Cause(INVALID, f"across {across} is not supported", "spec.cpu.spreadOptions.across")]
    if across == topology.CORES_THREADS and ratio != 2:
        message = "only a ratio of 2 (1 core 2 threads) is allowed when spreading vCPUs over cores and threads"
        return [Cause(INVALID, message, "spec.cpu.spreadOptions.ratio")]
    return []


def warn(preference: Any) -> list[str]:
    """Return the warnings about a preference that is admitted."""
    chosen = get(preference, "spec", "cpu", "preferredCPUTopology")
    if chosen not in topology.DEPRECATED:
        return []
    return [
        f"PreferredCPUTopology {chosen} is deprecated for removal in a future release, please use "
        f"{topology.DEPRECATED[chosen]} instead"
    ]


PREFERENCE = chosen_kind(
    "VirtualMachinePreference",
    "Defaults and requirements of a kind of guest, for machines in the same namespace.",
    ("vmpref", "vmprefs", "vmp", "vmps"),
    PREFERENCE_SPEC,
    namespaced=True,
    validate=validate,
    warn=warn,
)
CLUSTER_PREFERENCE = chosen_kind(
    "VirtualMachineClusterPreference",
    "Defaults and requirements of a kind of guest, for machines in all namespaces.",
    ("vmcp", "vmcps"),
    PREFERENCE_SPEC,
    namespaced=False,
    validate=validate,
    warn=warn,
)

KINDS = (PREFERENCE, CLUSTER_PREFERENCE)
