# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses in a KubeVirt object. Takes any JSON value and never raises.

The schema's check comes first: shape, and nothing the engine doesn't honour. The rules may rely on the shape.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from turtles.api import configuration, configuration_reader, durations, feature_gates, quantity
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.kubevirt.schema import KUBEVIRT_SPEC
from turtles.api.language import INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import Object, get, is_deleted
from turtles.api.rules import Causes, Spec, schema_causes

UNINSTALL_STRATEGIES = ("BlockUninstallIfWorkloadsExist", "RemoveWorkloads")
#: Settings of migrations that are taken and change nothing: what passes between nodes is always encrypted.
_IDLE_MIGRATION_SETTINGS = (
    "disableTLS",
    "matchSELinuxLevelOnMigration",
    "network",
    "utilityVolumesTimeout",
)
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
    ("configuration.developerConfiguration.cpuAllocationRatio", "1 means one CPU per virtual processor"),
    ("configuration.developerConfiguration.memoryOvercommit", "100 requests as much memory as guests have"),
)
_ATTACHMENTS = (configuration.TAP, configuration.MANAGED_TAP)
_CERTIFICATES = "certificateRotateStrategy.selfSigned"
_NEW_DURATIONS = ("ca.duration", "ca.renewBefore", "server.duration", "server.renewBefore")
_OLD_DURATIONS = ("caRotateInterval", "caOverlapInterval", "certRotateInterval")
#: Certificates are checked once a minute, and are valid from a few minutes ago on, as clocks differ.
_SHORTEST, _SHORTEST_REST = timedelta(minutes=10), timedelta(minutes=2)


def validate(kubevirt: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a KubeVirt object, created or updated. One that is being deleted may be anything."""
    if is_deleted(kubevirt):
        return []
    causes = schema_causes(kubevirt, KUBEVIRT_SPEC)
    if causes:
        return causes
    spec = kubevirt["spec"]
    causes += _choices(spec)
    causes += _numbers(spec)
    causes += _bindings(spec)
    causes += _certificates(spec)
    causes += _workload_updates(spec)
    if not causes:
        causes += _machine(kubevirt)
    return causes


def warn(kubevirt: Object) -> list[str]:
    """Return warnings about what has no effect in a KubeVirt object that is admitted."""
    found = []
    for key in ("featureGates", "disabledFeatureGates"):
        names = get(kubevirt, "spec", "configuration", "developerConfiguration", key) or ()
        if idle := sorted({name for name in names if name not in feature_gates.EFFECTIVE_GATES}):
            known, where = ", ".join(sorted(feature_gates.EFFECTIVE_GATES)), "spec.configuration.developerConfiguration"
            found.append(f"{where}.{key} has no effect for {', '.join(idle)}: this engine honours only {known}")
    settings = get(kubevirt, "spec", "configuration", "migrations") or {}
    if idle := sorted(set(settings) & set(_IDLE_MIGRATION_SETTINGS)):
        found.append(f"spec.configuration.migrations: {', '.join(idle)} has no effect in this engine")
    return found


def _choices(spec: Spec) -> Causes:
    for path, allowed in _CHOICES:
        value = get(spec, *path.split("."))
        if value and value not in allowed:
            message = f"spec.{path} is {value!r}, but must be one of {', '.join(allowed)}"
            yield Cause(NOT_SUPPORTED, message, f"spec.{path}")


def _bindings(spec: Spec) -> Causes:
    for name, plugin in (get(spec, "configuration", "network", "binding") or {}).items():
        here = f"spec.configuration.network.binding.{name}"
        attachment = plugin.get("domainAttachmentType")
        if attachment and attachment not in _ATTACHMENTS:
            message = f"{here}.domainAttachmentType is {attachment!r}, but must be one of {', '.join(_ATTACHMENTS)}"
            yield Cause(NOT_SUPPORTED, message, f"{here}.domainAttachmentType")
        elif not attachment and not plugin.get("sidecarImage"):
            message = f"{here} has neither domainAttachmentType nor sidecarImage: nothing would add the interface"
            yield Cause(INVALID, message, here)


def _numbers(spec: Spec) -> Causes:
    for path, hint in _POSITIVE:
        value = get(spec, *path.split("."))
        if value is not None and value <= 0:
            yield Cause(INVALID, f"spec.{path} must be greater than 0, not {value}; {hint}", f"spec.{path}")
    if get(spec, "infra", "replicas") == 0:
        field = "spec.infra.replicas"
        yield Cause(INVALID, f"{field}: infra replica count can't be 0; without virt-api nobody could undo it", field)
    text = get(spec, "configuration", "additionalGuestMemoryOverheadRatio")
    if text and configuration_reader.ratio(text) is None:
        field = "spec.configuration.additionalGuestMemoryOverheadRatio"
        yield Cause(NOT_SUPPORTED, f"{field} is {text!r}, but must be a number such as 1.5, not less than 1", field)
    request = get(spec, "configuration", "cpuRequest")
    if request is not None and quantity.parse(request) < 0:
        field = "spec.configuration.cpuRequest"
        yield Cause(INVALID, f"{field} must not be negative: {request}", field)


def _workload_updates(spec: Spec) -> Causes:
    strategy, where = spec.get("workloadUpdateStrategy") or {}, "spec.workloadUpdateStrategy"
    for index, method in enumerate(strategy.get("workloadUpdateMethods") or ()):
        if method not in configuration.UPDATE_METHODS:
            field = f"{where}.workloadUpdateMethods[{index}]"
            allowed = ", ".join(configuration.UPDATE_METHODS)
            yield Cause(NOT_SUPPORTED, f"{field} is {method!r}, but must be one of {allowed}", field)
    size = strategy.get("batchEvictionSize")
    if size is not None and size < 0:
        field = f"{where}.batchEvictionSize"
        yield Cause(INVALID, f"{field} must not be negative: {size}; 0 evicts nothing", field)
    if interval := strategy.get("batchEvictionInterval"):
        field = f"{where}.batchEvictionInterval"
        try:
            if durations.parse(interval) < timedelta():
                yield Cause(INVALID, f"{field} must not be negative: {interval}", field)
        except durations.DurationError as error:
            yield Cause(INVALID, f"{field}: {error}", field)


def _certificates(spec: Spec) -> Causes:
    found = get(spec, *_CERTIFICATES.split(".")) or {}
    given = {path: get(found, *path.split(".")) for path in (*_NEW_DURATIONS, *_OLD_DURATIONS)}
    given = {path: value for path, value in given.items() if value}
    new, old = given.keys() & {*_NEW_DURATIONS}, given.keys() & {*_OLD_DURATIONS}
    if new and old:
        message = (
            f"{', '.join(sorted(old))} of spec.{_CERTIFICATES} are deprecated and conflict with ca and server: "
            "leave them out"
        )
        yield Cause(NOT_SUPPORTED, message, f"spec.{_CERTIFICATES}")
        return
    wrong = list(_unreadable(given))
    yield from wrong
    if not wrong and given:
        yield from _lifetimes(configuration_reader.rotation(spec), bool(old))


def _unreadable(given: dict[str, Any]) -> Iterator[Cause]:
    for path, text in given.items():
        field = f"spec.{_CERTIFICATES}.{path}"
        try:
            durations.parse(text)
        except durations.DurationError as error:
            yield Cause(INVALID, f"{field}: {error}", field)


def _lifetimes(found: configuration.Rotation, old: bool) -> Causes:
    authority, authority_rest, serving, serving_rest = (
        f"spec.{_CERTIFICATES}.{path}" for path in ((*_OLD_DURATIONS, "server.renewBefore") if old else _NEW_DURATIONS)
    )
    for lifetime, lifetime_field, rest, rest_field in (
        (found.authority, authority, found.authority_rest, authority_rest),
        (found.serving, serving, found.serving_rest, serving_rest),
    ):
        if lifetime < _SHORTEST:
            message = f"{lifetime_field} must be at least {_SHORTEST}: the clocks of machines differ"
            yield Cause(INVALID, message, lifetime_field)
        elif rest >= lifetime:
            message = f"{rest_field} ({rest}) must be less than {lifetime_field} ({lifetime}), or none would be used"
            yield Cause(INVALID, message, rest_field)
        elif rest < _SHORTEST_REST:
            message = f"{rest_field} must be at least {_SHORTEST_REST}: certificates are checked once a minute"
            yield Cause(INVALID, message, rest_field)
    if found.serving > found.authority:
        message = f"{serving} ({found.serving}) must not be more than {authority} ({found.authority})"
        yield Cause(INVALID, message, serving)


def _machine(kubevirt: dict[str, Any]) -> Causes:
    found = from_kubevirt(kubevirt)
    if any(fnmatch.fnmatchcase(found.machine_type, pattern) for pattern in found.emulated_machines):
        return
    amd64 = get(kubevirt, "spec", "configuration", "architectureConfiguration", "amd64", "machineType")
    field = f"spec.configuration.{'architectureConfiguration.amd64.' if amd64 else ''}machineType"
    allowed = " ".join(found.emulated_machines)
    message = f"{field} is not supported: {found.machine_type} (allowed values: [{allowed}])"
    yield Cause(NOT_SUPPORTED, message, field)
