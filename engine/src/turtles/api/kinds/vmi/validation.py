# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses in a VirtualMachineInstance. Takes any JSON value and never raises.

First comes the schema's check: shape, required fields, and nothing the engine doesn't implement. The rules run only
where it finds nothing wrong, so they may rely on the shape. Rules and texts are those of the KubeVirt API, so that
clients that know KubeVirt's messages know these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api import labels
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.vmi.rules import compute, devices, disks, machine, network, volumes
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.language import INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec, check_metadata, schema_causes

_SIDECARS = "hooks.kubevirt.io/hookSidecars"
_IGNITION = "kubevirt.io/ignitiondata"

# In the order in which KubeVirt has its causes.
_RULES = (
    *machine.RULES,
    *compute.RULES,
    *network.RULES,
    *disks.MAPPING,
    *devices.RULES,
    *disks.RULES,
    *volumes.RULES,
    *disks.LAST,
    *volumes.LAST,
)


def validate(vmi: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new VirtualMachineInstance whose defaults have been set."""
    causes = schema_causes(vmi, VMI_SPEC)
    check_metadata(get(vmi, "metadata"), "metadata", causes)
    if causes:
        return causes
    spec = vmi["spec"]
    causes += spec_causes(spec, "spec", context.config)
    causes += disks.volumes_without_disk(spec, "spec")
    causes += compute.no_memory(spec, "spec")
    causes += metadata_causes(vmi.get("metadata") or {}, "metadata", context)
    return causes


def validate_update(new: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an update of a VirtualMachineInstance: spec and reserved labels aren't for users."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    causes: list[Cause] = []
    check_metadata(new.get("metadata"), "metadata", causes)
    if context.privileged or causes:
        return causes
    if old.get("spec") != new.get("spec"):
        return [Cause(NOT_SUPPORTED, "update of VMI object is restricted", "spec")]
    if _reserved(old.get("metadata")) != _reserved(new.get("metadata")):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        return [Cause(NOT_SUPPORTED, message, "metadata.labels")]
    return []


def spec_causes(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Return what is wrong with the spec at `path` of a VirtualMachineInstance or a template of one.

    :param spec: has passed the schema's check.
    """
    for rule in _RULES:
        yield from rule(spec, path, config)


def _reserved(metadata: Any) -> dict[str, Any]:
    found = get(metadata, "labels") or {}
    return {key: found[key] for key in labels.RESERVED_VMI_LABELS if key in found} if isinstance(found, dict) else {}


def metadata_causes(metadata: Mapping[str, Any], path: str, context: Context) -> Causes:
    """Return which labels and annotations at `path` a user may not set."""
    if not context.privileged and _reserved(metadata):
        message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        yield Cause(NOT_SUPPORTED, message, f"{path}.labels")
    annotations = metadata.get("annotations") or {}
    for key, gate in ((_IGNITION, "ExperimentalIgnitionSupport"), (_SIDECARS, "sidecar")):
        if annotations.get(key):
            message = f"{gate} feature gate is not enabled in kubevirt-config, invalid entry {path}.annotations.{key}"
            yield Cause(INVALID, message, f"{path}.annotations")
