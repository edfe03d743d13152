# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses in a KubeVirt object. Pure functions that take any JSON value and never raise.

The model's check comes first: shape, and nothing the engine doesn't honour. The rules here may rely on the shape.
"""

from __future__ import annotations

import fnmatch
from typing import Any

from turtles.api import model_kubevirt, quantity
from turtles.api.configuration import from_kubevirt
from turtles.api.rules.common import Causes, Spec, get
from turtles.api.schema import INVALID, NOT_SUPPORTED, Cause

UNINSTALL_STRATEGIES = ("BlockUninstallIfWorkloadsExist", "RemoveWorkloads")
_CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("uninstallStrategy", UNINSTALL_STRATEGIES),
    ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
    ("configuration.imagePullPolicy", ("Always", "IfNotPresent", "Never")),
    ("configuration.network.defaultNetworkInterface", ("bridge", "masquerade")),
    ("configuration.evictionStrategy", ("None", "LiveMigrate", "LiveMigrateIfPossible", "External")),
    ("configuration.vmRolloutStrategy", ("Stage", "LiveUpdate")),
    ("configuration.architectureConfiguration.defaultArchitecture", ("amd64",)),
)
_POSITIVE = (
    ("configuration.developerConfiguration.cpuAllocationRatio", "1 means a CPU for each virtual processor"),
    ("configuration.developerConfiguration.memoryOvercommit", "100 requests as much memory as guests have"),
)


def validate_kubevirt(kubevirt: Any) -> list[Cause]:
    """Give what is wrong with a KubeVirt object, created or updated."""
    causes: list[Cause] = []
    if not isinstance(kubevirt, dict):
        return [Cause(INVALID, "the object is not a JSON object")]
    spec = kubevirt.get("spec")
    model_kubevirt.KUBEVIRT_SPEC.check(spec, "spec", causes)
    if causes:
        return causes
    assert isinstance(spec, dict)
    causes += _choices(spec)
    causes += _numbers(spec)
    if not causes:
        causes += _machine(kubevirt)
    return causes


def _choices(spec: Spec) -> Causes:
    for path, allowed in _CHOICES:
        value = get(spec, *path.split("."))
        if value and value not in allowed:
            message = f"spec.{path} is {value!r}, but must be one of {', '.join(allowed)}"
            yield Cause(NOT_SUPPORTED, message, f"spec.{path}")


def _numbers(spec: Spec) -> Causes:
    for path, hint in _POSITIVE:
        value = get(spec, *path.split("."))
        if value is not None and value <= 0:
            yield Cause(INVALID, f"spec.{path} must be greater than 0, not {value}; {hint}", f"spec.{path}")
    request = get(spec, "configuration", "cpuRequest")
    if request is not None and quantity.parse(request) < 0:
        field = "spec.configuration.cpuRequest"
        yield Cause(INVALID, f"{field} must not be negative: {request}", field)


def _machine(kubevirt: dict[str, Any]) -> Causes:
    found = from_kubevirt(kubevirt)
    if any(fnmatch.fnmatchcase(found.machine_type, pattern) for pattern in found.emulated_machines):
        return
    amd64 = get(kubevirt, "spec", "configuration", "architectureConfiguration", "amd64", "machineType")
    field = f"spec.configuration.{'architectureConfiguration.amd64.' if amd64 else ''}machineType"
    allowed = " ".join(found.emulated_machines)
    message = f"{field} is not supported: {found.machine_type} (allowed values: [{allowed}])"
    yield Cause(NOT_SUPPORTED, message, field)
