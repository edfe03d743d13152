# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachinePreference and VirtualMachineClusterPreference: what a kind of guest likes, for machines that name it.

Names, versions and messages are those of the KubeVirt API. VirtualMachines name them as their `preference`.
"""

from __future__ import annotations

from typing import Any

from turtles.api.kind import CREATE, DEFAULT_CONTEXT, MANAGED_BY_USERS, UPDATE, Context, Kind, Version, Webhook
from turtles.api.kinds.preference import topology
from turtles.api.kinds.preference.schema import PREFERENCE_SPEC
from turtles.api.language import INVALID, Cause, Struct, field
from turtles.api.objects import get, is_deleted
from turtles.api.rules import schema_causes

INSTANCETYPE_GROUP = "instancetype.kubevirt.io"
INSTANCETYPE_VERSIONS = (Version("v1beta1", storage=True),)


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
        schema=Struct(doc, field("spec", PREFERENCE_SPEC, PREFERENCE_SPEC.doc, required=True)),
        rights=MANAGED_BY_USERS,
        webhooks=(Webhook(f"{singular}-validator.instancetype", f"/{singular}s-validate", (CREATE, UPDATE)),),
        validate=validate,
        warn=warn,
    )


PREFERENCE = _kind(
    "VirtualMachinePreference",
    "What a kind of guest likes, for machines of the same namespace that name it.",
    ("vmpref", "vmprefs", "vmp", "vmps"),
    namespaced=True,
)
CLUSTER_PREFERENCE = _kind(
    "VirtualMachineClusterPreference",
    "What a kind of guest likes, for machines of all namespaces that name it.",
    ("vmcp", "vmcps"),
    namespaced=False,
)

KINDS = (PREFERENCE, CLUSTER_PREFERENCE)
