# SPDX-License-Identifier: GPL-3.0-or-later
"""What admission refuses in a KubeVirt object. Takes any JSON value and never raises.

The schema's check comes first: shape, and nothing the engine doesn't honour. The rules may rely on the shape.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from turtles.api import configuration, configuration_reader, durations, feature_gates, quantity
from turtles.api.configuration_reader import from_kubevirt
from turtles.api.kind import DEFAULT_CONTEXT, Context
from turtles.api.kinds.kubevirt.schema import KUBEVIRT_SPEC
from turtles.api.language import FORBIDDEN, INVALID, NOT_SUPPORTED, Cause
from turtles.api.objects import Object, get, is_deleted
from turtles.api.rules import Causes, Spec, idle_warnings, schema_causes

UNINSTALL_STRATEGIES = ("BlockUninstallIfWorkloadsExist", "RemoveWorkloads")
_CONFIGURATION = "spec.configuration"
#: What TLS 1.2 and earlier have, by the names of Go's package crypto/tls.
_CIPHERS = frozenset(
    (
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        *(
            f"TLS_{key}_WITH_{suite}"
            for key in ("RSA", "ECDHE_RSA", "ECDHE_ECDSA")
            for suite in (
                "AES_128_CBC_SHA",
                "AES_256_CBC_SHA",
                "AES_128_CBC_SHA256",
                "AES_128_GCM_SHA256",
                "AES_256_GCM_SHA384",
            )
        ),
        *(f"TLS_{key}_WITH_{suite}" for key in ("RSA", "ECDHE_RSA") for suite in ("RC4_128_SHA", "3DES_EDE_CBC_SHA")),
    )
)
_CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("uninstallStrategy", UNINSTALL_STRATEGIES),
    ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
    ("configuration.imagePullPolicy", ("Always", "IfNotPresent", "Never")),
    ("configuration.network.defaultNetworkInterface", ("bridge", "masquerade")),
    ("configuration.evictionStrategy", ("None", "LiveMigrate", "LiveMigrateIfPossible", "External")),
    ("configuration.vmRolloutStrategy", ("Stage", "LiveUpdate")),
    ("configuration.architectureConfiguration.defaultArchitecture", ("amd64", "arm64", "s390x")),
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
    for rule in _RULES:
        causes += rule(spec)
    if not causes:
        causes += _machine(kubevirt)
    return causes


def warn(kubevirt: Object) -> list[str]:
    """Return warnings about what has no effect in a KubeVirt object that is admitted."""
    warnings = []
    for key in ("featureGates", "disabledFeatureGates"):
        names = get(kubevirt, "spec", "configuration", "developerConfiguration", key) or ()
        if idle := sorted({name for name in names if name not in feature_gates.EFFECTIVE_GATES}):
            known, where = ", ".join(sorted(feature_gates.EFFECTIVE_GATES)), f"{_CONFIGURATION}.developerConfiguration"
            warnings.append(f"{where}.{key} has no effect for {', '.join(idle)}: this engine honours only {known}")
    return [*warnings, *idle_warnings(kubevirt.get("spec"), KUBEVIRT_SPEC)]


def _patches(spec: Spec) -> Causes:
    for patch in get(spec, "customizeComponents", "patches") or ():
        try:
            json.loads(patch["patch"])
        except (ValueError, RecursionError):
            yield Cause(NOT_SUPPORTED, f"patch {json.dumps(patch['patch'])} is not valid JSON")


def _overhead_ratio(spec: Spec) -> Causes:
    text = get(spec, "configuration", "additionalGuestMemoryOverheadRatio")
    if text is None or configuration_reader.ratio(text) is not None:
        return
    try:
        float(text)
    except ValueError:
        reason = f"cannot be parsed into float: strconv.ParseFloat: parsing {json.dumps(text)}: invalid syntax"
    else:
        reason = "cannot be smaller than 1.0"
    yield Cause(NOT_SUPPORTED, f"ratio provided, {text}, {reason}")


def _tls(spec: Spec) -> Causes:
    tls, field = get(spec, "configuration", "tlsConfiguration") or {}, f"{_CONFIGURATION}.tlsConfiguration"
    ciphers = tls.get("ciphers") or ()
    if tls.get("minTLSVersion") in (None, "VersionTLS13"):
        if ciphers:
            message = f"You cannot specify ciphers when {field}.minTLSVersion is empty or VersionTLS13"
            yield Cause(NOT_SUPPORTED, message, f"{field}.ciphers")
        return
    for index, cipher in enumerate(ciphers):
        if cipher not in _CIPHERS:
            yield Cause(NOT_SUPPORTED, f"{cipher} is not a valid cipher", f"{field}.ciphers#{index}")


def _seccomp(spec: Spec) -> Causes:
    profile = get(spec, "configuration", "seccompConfiguration", "virtualMachineInstanceProfile")
    if profile is None:
        return
    field = f"{_CONFIGURATION}.seccompConfiguration.virtualMachineInstanceProfile.customProfile"
    custom = profile.get("customProfile")
    if custom is None:
        yield Cause(INVALID, f"{field} needs to be set", field)
    elif custom.get("localhostProfile") is not None and custom.get("runtimeDefaultProfile"):
        local, default = f"{field}.localhostProfile", f"{field}.runtimeDefaultProfile"
        for one, other in ((local, default), (default, local)):
            yield Cause(INVALID, f"{one} cannot be set when {other} is set", one)


def _replicas(spec: Spec) -> Causes:
    if get(spec, "infra", "replicas") == 0:
        yield Cause(INVALID, "infra replica count can't be 0")


def _gates(spec: Spec) -> Causes:
    developer = get(spec, "configuration", "developerConfiguration") or {}
    off = developer.get("disabledFeatureGates") or ()
    for gate in developer.get("featureGates") or ():
        if gate in off:
            message = f'feature gate "{gate}" exists on both "FeatureGates" and "DisabledFeatureGates"'
            yield Cause(FORBIDDEN, message, f"{_CONFIGURATION}.developerConfiguration.featureGates")


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
    lifetimes = get(spec, *_CERTIFICATES.split(".")) or {}
    given = {path: get(lifetimes, *path.split(".")) for path in (*_NEW_DURATIONS, *_OLD_DURATIONS)}
    given = {path: value for path, value in given.items() if value}
    new, old = given.keys() & {*_NEW_DURATIONS}, given.keys() & {*_OLD_DURATIONS}
    if new and old:
        message = (
            "caRotateInterval, certRotateInterval and caOverlapInterval are deprecated and conflict with CertConfig "
            "defined rotation parameters"
        )
        yield Cause(NOT_SUPPORTED, message)
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


def _lifetimes(rotation: configuration.Rotation, old: bool) -> Causes:
    authority, authority_rest, serving, serving_rest = (
        f"spec.{_CERTIFICATES}.{path}" for path in ((*_OLD_DURATIONS, "server.renewBefore") if old else _NEW_DURATIONS)
    )
    for name, part, lifetime, lifetime_field, rest, rest_field in (
        ("CA", "ca", rotation.authority, authority, rotation.authority_rest, authority_rest),
        ("Cert", "server", rotation.serving, serving, rotation.serving_rest, serving_rest),
    ):
        if lifetime < rest:
            of = f"spec.certificateRotationStrategy.selfSigned.{part}"
            yield Cause(INVALID, f"{name} RenewBefore cannot exceed Duration ({of}.duration < {of}.renewBefore)")
        elif lifetime < _SHORTEST:
            message = f"{lifetime_field} must be at least {_SHORTEST}: the clocks of machines differ"
            yield Cause(INVALID, message, lifetime_field)
        elif rest == lifetime:
            message = f"{rest_field} ({rest}) must be less than {lifetime_field} ({lifetime}), or none would be used"
            yield Cause(INVALID, message, rest_field)
        elif rest < _SHORTEST_REST:
            message = f"{rest_field} must be at least {_SHORTEST_REST}: certificates are checked once a minute"
            yield Cause(INVALID, message, rest_field)
    if rotation.serving > rotation.authority:
        of = "spec.certificateRotationStrategy.selfSigned"
        yield Cause(INVALID, f"Certificate duration cannot exceed CA ({of}.server.duration > {of}.ca.duration)")


def _machine(kubevirt: dict[str, Any]) -> Causes:
    config = from_kubevirt(kubevirt)
    if any(fnmatch.fnmatchcase(config.machine_type, pattern) for pattern in config.emulated_machines):
        return
    amd64 = get(kubevirt, "spec", "configuration", "architectureConfiguration", "amd64", "machineType")
    field = f"spec.configuration.{'architectureConfiguration.amd64.' if amd64 else ''}machineType"
    allowed = " ".join(config.emulated_machines)
    message = f"{field} is not supported: {config.machine_type} (allowed values: [{allowed}])"
    yield Cause(NOT_SUPPORTED, message, field)


#: In KubeVirt's order, and with its words as far as it has them. What only this engine refuses comes last.
_RULES = (
    _patches,
    _certificates,
    _overhead_ratio,
    _tls,
    _seccomp,
    _replicas,
    _gates,
    _choices,
    _numbers,
    _bindings,
    _workload_updates,
)
