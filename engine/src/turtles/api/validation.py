# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses. Pure functions that take any JSON value and never raise.

First the model's check: shape, required fields, and nothing the engine doesn't implement. Only where that finds
nothing do the rules below run, which may thus rely on the shape. Rules and texts are those of the KubeVirt API, so
that clients which know KubeVirt's messages know these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api import labels, model
from turtles.api.configuration import DEFAULT, ClusterConfiguration
from turtles.api.language import INVALID, NOT_SUPPORTED, REQUIRED, UNSUPPORTED, Cause
from turtles.api.objects import get
from turtles.api.rules import machine, network, volumes
from turtles.api.rules.common import Causes, Spec
from turtles.api.run_strategies import RUN_STRATEGIES, WAIT_AS_RECEIVER

RUNNING_WARNING = "spec.running is deprecated, please use spec.runStrategy instead."

_SIDECARS = "hooks.kubevirt.io/hookSidecars"
_IGNITION = "kubevirt.io/ignitiondata"

_RULES = (*machine.RULES, *network.RULES, *volumes.RULES)


def validate_vmi(vmi: Any, config: ClusterConfiguration = DEFAULT, *, privileged: bool = False) -> list[Cause]:
    """Give what is wrong with a new VirtualMachineInstance whose defaults have been set.

    `privileged`: it is written by one of the engine's own service accounts, which may set reserved labels.
    """
    causes: list[Cause] = []
    if not isinstance(vmi, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    model.VMI_SPEC.check(vmi.get("spec"), "spec", causes)
    _check_metadata(vmi.get("metadata"), "metadata", causes)
    if causes:
        return causes
    spec = vmi["spec"]
    causes += validate_vmi_spec(spec, "spec", config)
    causes += volumes.volumes_without_disk(spec, "spec")
    causes += machine.no_memory(spec, "spec")
    causes += _metadata(vmi.get("metadata") or {}, "metadata", privileged)
    return causes


def validate_vmi_update(old: Any, new: Any, *, privileged: bool = False) -> list[Cause]:
    """Give what is wrong with an update of a VirtualMachineInstance: spec and reserved labels aren't for users."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    causes: list[Cause] = []
    _check_metadata(new.get("metadata"), "metadata", causes)
    if privileged or causes:
        return causes
    if old.get("spec") != new.get("spec"):
        return [Cause(NOT_SUPPORTED, "update of VMI object is restricted", "spec")]
    if _reserved(old.get("metadata")) != _reserved(new.get("metadata")):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        return [Cause(NOT_SUPPORTED, message, "metadata.labels")]
    return []


def validate_vm(vm: Any, config: ClusterConfiguration = DEFAULT, *, privileged: bool = False) -> list[Cause]:
    """Give what is wrong with a VirtualMachine, created or updated."""
    causes: list[Cause] = []
    if not isinstance(vm, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    vm_spec = vm.get("spec")
    if isinstance(vm_spec, dict) and vm_spec.get("template") is None:
        return [Cause(REQUIRED, "missing virtual machine template.", "spec.template")]
    model.VM_SPEC.check(vm_spec, "spec", causes)
    if isinstance(vm_spec, dict) and isinstance(vm_spec.get("template"), dict):
        template = vm_spec["template"]
        _check_metadata(template.get("metadata"), "spec.template.metadata", causes)
        if template.get("spec") is None:
            causes.append(Cause(REQUIRED, "spec.template.spec is a required field", "spec.template.spec"))
    if causes:
        return causes
    assert isinstance(vm_spec, dict)
    template = vm_spec["template"]
    causes += _metadata(template.get("metadata") or {}, "spec.template.metadata", privileged)
    causes += validate_vmi_spec(template["spec"], "spec.template.spec", config)
    # Nothing but the template can say how much memory there is, so it is better told here than when the machine starts
    causes += machine.no_memory(template["spec"], "spec.template.spec")
    causes += _run_strategy(vm_spec)
    return causes


def warnings_vm(vm: Any) -> list[str]:
    """Give the warnings about a VirtualMachine that is accepted."""
    return [RUNNING_WARNING] if get(vm, "spec", "running") is not None else []


def validate_vmi_spec(spec: Spec, path: str, config: ClusterConfiguration = DEFAULT) -> Causes:
    """Give what is wrong with the spec of a VirtualMachineInstance, or of a template of one, at `path`.

    The spec has passed the model's check.
    """
    for rule in _RULES:
        yield from rule(spec, path, config)


def _check_metadata(metadata: Any, path: str, causes: list[Cause]) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        causes.append(Cause(INVALID, f"{path} must be of type object", path))
        return
    for key in ("labels", "annotations"):
        values = metadata.get(key)
        if values is None:
            continue
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            causes.append(Cause(INVALID, f"{path}.{key} must be an object whose values are strings", f"{path}.{key}"))


def _reserved(metadata: Any) -> dict[str, Any]:
    found = get(metadata, "labels") or {}
    return {key: found[key] for key in labels.RESERVED_VMI_LABELS if key in found} if isinstance(found, dict) else {}


def _metadata(metadata: Mapping[str, Any], path: str, privileged: bool) -> Causes:
    if not privileged and _reserved(metadata):
        message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        yield Cause(NOT_SUPPORTED, message, f"{path}.labels")
    annotations = metadata.get("annotations") or {}
    for key, gate in ((_IGNITION, "ExperimentalIgnitionSupport"), (_SIDECARS, "sidecar")):
        if annotations.get(key):
            message = f"{gate} feature gate is not enabled in kubevirt-config, invalid entry {path}.annotations.{key}"
            yield Cause(INVALID, message, f"{path}.annotations")


def _run_strategy(spec: Spec) -> Causes:
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy is not None:
        message = (
            "Running and RunStrategy are mutually exclusive. "
            "Note that Running is deprecated, please use RunStrategy instead"
        )
        yield Cause(INVALID, message, "spec.running")
    elif running is None and strategy is None:
        yield Cause(REQUIRED, "RunStrategy must be specified", "spec.runStrategy")
    elif strategy == WAIT_AS_RECEIVER:
        yield Cause(NOT_SUPPORTED, f"RunStrategy ({WAIT_AS_RECEIVER}) is {UNSUPPORTED}", "spec.runStrategy")
    elif strategy is not None and strategy not in RUN_STRATEGIES:
        yield Cause(INVALID, f"Invalid RunStrategy ({strategy})", "spec.runStrategy")
