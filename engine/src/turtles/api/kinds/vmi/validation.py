# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses in a VirtualMachineInstance. Takes any JSON value and never raises.

First comes the schema's check: shape, required fields, and nothing the engine doesn't implement. The rules run only
where it finds nothing wrong, so they may rely on the shape. Rules and texts are those of the KubeVirt API, so that
clients that know KubeVirt's messages know these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api import hook_sidecars, labels
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.feature_gates import IGNITION, NODE_RESTRICTION, SIDECAR
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.vmi.defaults import completed
from turtles.api.kinds.vmi.hotplug import change_causes
from turtles.api.kinds.vmi.presets import preset_warnings
from turtles.api.kinds.vmi.rules import (
    compute,
    credentials,
    devices,
    disks,
    dns,
    machine,
    network,
    placement,
    probes,
    volumes,
)
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.kinds.vmi.schema import VMI_SPEC
from turtles.api.language import INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, Spec, check_metadata, idle_warnings, schema_causes

#: Where the volumes and disks of a VirtualMachineInstance are.
_STORAGE = (("spec", "volumes"), ("spec", "domain", "devices", "disks"))

#: In KubeVirt's order, which is the order of the causes that clients read. What only this engine refuses comes last.
_RULES: tuple[Rule, ...] = (
    machine.names,
    *compute.MEMORY,
    machine.machine_type,
    machine.identity,
    machine.acpi_tables,
    *compute.PROCESSORS,
    machine.start_strategy,
    compute.realtime,
    *placement.RULES,
    *network.RULES,
    *devices.CLAIMED,
    *disks.MAPPING,
    *devices.FIRST,
    compute.io_threads,
    *probes.RULES,
    *disks.RULES,
    machine.firmware,
    *volumes.RULES,
    *credentials.RULES,
    *dns.DNS,
    machine.eviction_strategy,
    *devices.ASSIGNED,
    placement.launch_security,
    *devices.GATED,
    *disks.LAST,
    *devices.LAST,
    *volumes.LAST,
    machine.reboot_policy,
    compute.reserved_overhead,
    compute.too_many,
    *machine.OWN,
    *network.OWN,
)
#: What is wrong with a machine that KubeVirt admits all the same. It isn't started.
_FUTILE: tuple[Rule, ...] = (
    *compute.FUTILE,
    *machine.FUTILE,
    *placement.FUTILE,
    *network.FUTILE,
    *disks.FUTILE,
    *devices.FUTILE,
    *volumes.FUTILE,
    *credentials.FUTILE,
)
#: What is judged of a new instance before everything else. KubeVirt's rules about networks, disks and paths of
#: containerDisks have their turn among the others as well, so that clients find their causes twice.
_CREATION_RULES: tuple[Rule, ...] = (
    *network.CREATION,
    *network.RULES,
    *volumes.PATHS,
    *volumes.CREATION,
    *disks.RULES,
)


def validate(vmi: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new VirtualMachineInstance whose defaults have been set."""
    causes = schema_causes(vmi, VMI_SPEC)
    check_metadata(get(vmi, "metadata"), "metadata", causes)
    if causes:
        return causes
    spec = vmi["spec"]
    for rule in (*_CREATION_RULES, *_RULES):
        causes += rule(spec, "spec", context.config)
    causes += disks.volumes_without_disk(spec, "spec")
    causes += compute.no_memory(spec, "spec")
    causes += metadata_causes(vmi.get("metadata") or {}, "metadata", context)
    causes += machine.hyperv_dependencies(spec, "spec")
    causes += machine.architecture(spec, "spec")
    causes += devices.watchdog_of_architecture(spec, "spec")
    causes += devices.sound_of_architecture(spec, "spec")
    causes += devices.video_of_architecture(spec, "spec")
    return causes


def validate_update(new: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an update of a VirtualMachineInstance: spec and reserved labels aren't for users."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    causes: list[Cause] = []
    check_metadata(new.get("metadata"), "metadata", causes)
    if causes:
        return causes
    if causes := [*_node_causes(new, old, context)]:
        return causes
    if context.privileged:
        return _storage_causes(new, old, context)
    if old.get("spec") != new.get("spec"):
        return [Cause(NOT_SUPPORTED, "update of VMI object is restricted")]
    if _annotation(old, hook_sidecars.ANNOTATION) != _annotation(new, hook_sidecars.ANNOTATION):
        message = f"{hook_sidecars.ANNOTATION} can't be changed: the machine's Pod is made by it"
        return [Cause(NOT_SUPPORTED, message, "metadata.annotations")]
    if _reserved(old.get("metadata")) != _reserved(new.get("metadata")):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        return [Cause(NOT_SUPPORTED, message)]
    return []


def _node_causes(new: Object, old: Object, context: Context) -> Causes:
    """Refuse a virt-handler to change what isn't on its node and doesn't come there, and to make it come there."""
    if context.node is None or not context.config.has_gate(NODE_RESTRICTION):
        return
    target, wanted = (get(vmi, "status", "migrationState", "targetNode") for vmi in (old, new))
    if context.node not in (get(old, "status", "nodeName"), target):
        yield Cause(INVALID, "Node restriction, virt-handler is only allowed to modify VMIs it owns")
    elif not target and wanted:
        yield Cause(INVALID, "Node restriction, virt-handler is not allowed to set target node")


def _storage_causes(new: Object, old: Object, context: Context) -> list[Cause]:
    """Return what is wrong with how the engine itself changes a running machine's volumes and disks, if it does."""
    if all(get(new, *path) == get(old, *path) for path in _STORAGE):
        return []
    causes = schema_causes(new, VMI_SPEC)
    for rule in () if causes else (*_RULES, *_FUTILE):
        causes += rule(new["spec"], "spec", context.config)
    return causes or list(change_causes(new["spec"], old["spec"]))


def removed_causes(spec: Spec, config: ClusterConfiguration) -> Causes:
    """Return what a VirtualMachine's template asks for that KubeVirt had once. Its fields' names begin with `spec`.

    :param spec: has passed the schema's check.
    """
    for rule in network.CREATION:
        yield from rule(spec, "spec", config)


def spec_causes(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    """Return what is wrong with the spec at `path` of a template of VirtualMachineInstances.

    It is judged with the defaults that its instances get, and stored without them.

    :param spec: has passed the schema's check.
    """
    spec = completed(spec, config)
    for rule in _RULES:
        yield from rule(spec, path, config)


def futile_causes(spec: Spec, path: str = "spec") -> list[str]:
    """Return why a machine with the spec at `path`, which has been admitted, can't be started on any node."""
    return [cause.message for rule in _FUTILE for cause in rule(spec, path, DEFAULT)]


def spec_warnings(spec: Any, path: str) -> list[str]:
    """Return the warnings about the spec at `path` of an instance that is admitted, or of a template of instances."""
    futile = [] if schema_causes({"spec": spec}, VMI_SPEC) else futile_causes(spec, path)
    return [
        *(f"{message.rstrip('.')}; this is admitted, and never started" for message in futile),
        *idle_warnings(spec, VMI_SPEC, path),
    ]


def warn(vmi: Object) -> list[str]:
    """Return the warnings about a VirtualMachineInstance that is admitted."""
    warnings = [*preset_warnings(vmi), *spec_warnings(vmi.get("spec"), "spec")]
    return [*warnings, *sidecar_warnings(vmi.get("metadata"), "metadata")]


def _annotation(vmi: Any, name: str) -> Any:
    found = get(vmi, "metadata", "annotations")
    return found.get(name) if isinstance(found, dict) else None


def _reserved(metadata: Any) -> dict[str, Any]:
    found = get(metadata, "labels") or {}
    return {key: found[key] for key in labels.RESERVED_VMI_LABELS if key in found} if isinstance(found, dict) else {}


def label_causes(metadata: Mapping[str, Any], path: str, context: Context) -> Causes:
    """Return which labels at `path` a user may not set."""
    if not context.privileged and _reserved(metadata):
        message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        yield Cause(NOT_SUPPORTED, message, f"{path}.labels")


def metadata_causes(metadata: Mapping[str, Any], path: str, context: Context) -> Causes:
    """Return which labels and annotations at `path` a user may not set."""
    yield from label_causes(metadata, path, context)
    annotations = metadata.get("annotations") or {}
    gates = ((labels.IGNITION, IGNITION, IGNITION), (hook_sidecars.ANNOTATION, SIDECAR, "sidecar"))
    for key, required, gate in gates:
        if annotations.get(key) and not context.config.has_gate(required):
            message = f"{gate} feature gate is not enabled in kubevirt-config, invalid entry {path}.annotations.{key}"
            yield Cause(INVALID, message, f"{path}.annotations")


def sidecar_warnings(metadata: Any, path: str) -> list[str]:
    """Return what is wrong with the hook sidecars that the metadata at `path` asks for. There will be no Pod."""
    if not isinstance(get(metadata, "annotations"), dict):
        return []
    try:
        hook_sidecars.read(metadata)
    except hook_sidecars.HookSidecarError as error:
        return [f"{path}.annotations.{hook_sidecars.ANNOTATION} {error}; this is admitted, and never started"]
    return []
