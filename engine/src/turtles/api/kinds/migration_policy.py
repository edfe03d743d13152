# SPDX-License-Identifier: GPL-3.0-or-later
"""MigrationPolicy: how some machines are migrated, in place of what the KubeVirt object says of all.

Names and rules are those of the KubeVirt API and of its user guide, "Migration Policies".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api import quantity
from turtles.api.feature_gates import MIGRATION_DOWNTIME, MIGRATION_STALLS
from turtles.api.kind import (
    AGE,
    CREATE,
    DEFAULT_CONTEXT,
    MANAGED_BY_USERS,
    READ,
    UPDATE,
    Context,
    Kind,
    Version,
    Webhook,
)
from turtles.api.language import (
    BOOLEAN,
    DOWNTIME,
    INT64,
    INVALID,
    QUANTITY,
    STRING_MAP,
    Cause,
    Choice,
    Struct,
    field,
    group,
    idle,
)
from turtles.api.objects import Object, get
from turtles.api.rules import Causes, idle_warnings, schema_causes

#: Settings that a policy has, by the names that `migrationState.migrationConfiguration` has for them as well.
SETTINGS = (
    "allowAutoConverge",
    "bandwidthPerMigration",
    "completionTimeoutPerGiB",
    "allowPostCopy",
    "allowWorkloadDisruption",
    "maxDowntimeMs",
)

_STALLS = Struct(
    "How a stalled migration is detected.",
    idle("stallMargin", "Per cent by which what remains has to shrink.", INT64),
    idle("stallProgressTimeout", "Seconds in which it has to.", INT64),
    idle("switchoverTimeout", "Seconds that the end of a migration may take.", INT64),
    idle("searchLocalMinima", "Whether a good moment is waited for.", BOOLEAN),
    idle("ewmaAlpha", "Weight of the latest measurement, more than 0, at most 1.", QUANTITY),
    idle("precopyPossibleFactor", "Factor of at least 1.", QUANTITY),
    idle("patienceWindowDecayFactor", "Factor from 0 to 1.", QUANTITY),
    idle("completionTimeoutFactor", "Factor of at least 1.", QUANTITY),
)
_DOWNTIME = Struct(
    "How long guests may be paused at the end, during a migration.",
    idle("initialMs", "Milliseconds at first.", INT64),
    idle("steps", "Steps from there to maxDowntimeMs.", INT64),
    idle("startAfterIteration", "Rounds through the guest's memory before the first step.", INT64),
    idle("cooldownSeconds", "Seconds between two steps.", INT64),
)
_EXPERIMENTAL = Struct(
    "Experimental settings of KubeVirt.",
    idle(
        "compression", "How memory is compressed on its way: none or zstd.", Choice("none", "zstd"), neutral=("none",)
    ),
    field("downtimeTuning", _DOWNTIME, "How long guests may be paused at the end, during a migration."),
    field("stallDetector", _STALLS, "How a stalled migration is detected."),
)
#: Limits of a stall detector's factors: the lowest value, whether it must be more than that, and the highest.
_FACTORS: Mapping[str, tuple[int, bool, int | None]] = {
    "ewmaAlpha": (0, True, 1),
    "precopyPossibleFactor": (1, False, None),
    "patienceWindowDecayFactor": (0, False, 1),
    "completionTimeoutFactor": (1, False, None),
}

_SPEC = Struct(
    "Which machines the policy applies to, and how they are migrated.",
    group(
        "selectors",
        "Which machines the policy applies to; without any label, none.",
        field("namespaceSelector", STRING_MAP, "Labels of its namespace."),
        field("virtualMachineInstanceSelector", STRING_MAP, "Labels of its instance."),
        required=True,
    ),
    field("allowAutoConverge", BOOLEAN, "Slow down guests whose memory changes faster than it is copied."),
    field("bandwidthPerMigration", QUANTITY, "Bytes per second of each migration; 0 is no limit."),
    field("completionTimeoutPerGiB", INT64, "Time limit in seconds per GiB."),
    field("allowPostCopy", BOOLEAN, "Run guests on the target before all of their memory has been copied."),
    field("allowWorkloadDisruption", BOOLEAN, "Pause guests that don't converge."),
    field("maxDowntimeMs", DOWNTIME, "Milliseconds for which guests may be paused at the end."),
    field("experimental", _EXPERIMENTAL, "Experimental settings of KubeVirt."),
)


def validate(policy: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new policy."""
    return validate_update(policy, {}, context)


def validate_update(policy: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with an updated policy."""
    if causes := schema_causes(policy, _SPEC):
        return causes
    spec = policy["spec"]
    timeout, bandwidth = spec.get("completionTimeoutPerGiB"), spec.get("bandwidthPerMigration")
    if timeout is not None and timeout < 0:
        causes.append(Cause(INVALID, "must not be negative", "spec.completionTimeoutPerGiB"))
    causes += _gated(spec, get(old, "spec") or {}, context)
    causes += _factors(spec)
    if bandwidth is not None and quantity.to_int(bandwidth) < 0:
        causes.append(Cause(INVALID, "must not be negative", "spec.bandwidthPerMigration"))
    return causes


def _gated(spec: Mapping[str, Any], old: Mapping[str, Any], context: Context) -> Causes:
    for path, gates in (
        ("maxDowntimeMs", (MIGRATION_STALLS, MIGRATION_DOWNTIME)),
        ("experimental.downtimeTuning", (MIGRATION_DOWNTIME,)),
        ("experimental.stallDetector", (MIGRATION_STALLS,)),
    ):
        value = get(spec, *path.split("."))
        changes = value is not None and value != get(old, *path.split("."))
        if changes and not any(context.config.has_gate(gate) for gate in gates):
            message = f"{path} cannot be modified without enabling the {' or '.join(gates)} feature gate"
            yield Cause(INVALID, message, f"spec.{path}")


def _factors(spec: Mapping[str, Any]) -> Causes:
    for name, (low, more, high) in _FACTORS.items():
        given = get(spec, "experimental", "stallDetector", name)
        if given is None:
            continue
        here, number = f"spec.experimental.stallDetector.{name}", quantity.parse(given)
        if number < 0:
            message = f'invalid scalar "{quantity.canonical(given)}": must not be negative'
            yield Cause(INVALID, message, here)
        elif more and number <= low:
            yield Cause(INVALID, f"must be greater than {low}", here)
        elif number < low:
            yield Cause(INVALID, f"must be greater than or equal to {low}", here)
        elif high is not None and number > high:
            yield Cause(INVALID, f"must be less than or equal to {high}", here)


def warn(policy: Any) -> list[str]:
    """Return the warnings about what has no effect in a policy that is admitted."""
    return idle_warnings(policy.get("spec"), _SPEC)


def matching(
    policies: Iterable[Object], labels: Mapping[str, str], namespace_labels: Mapping[str, str]
) -> Object | None:
    """Return the policy for a machine, None if there is none: the one that matches most labels.

    Among several, the one that matches most of the instance's labels counts, then the one whose name is first.

    :param labels: of the instance.
    :param namespace_labels: of its namespace.
    """
    ranked = []
    for policy in policies:
        selectors = get(policy, "spec", "selectors") or {}
        of_instance = selectors.get("virtualMachineInstanceSelector") or {}
        of_namespace = selectors.get("namespaceSelector") or {}
        count = len(of_instance) + len(of_namespace)
        if count and _has(labels, of_instance) and _has(namespace_labels, of_namespace):
            ranked.append((-count, -len(of_instance), policy["metadata"]["name"], policy))
    return min(ranked, key=lambda entry: entry[:3])[3] if ranked else None


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def applied(settings: Object, policy: Mapping[str, Any] | None) -> Object:
    """Return the settings of a migration with those of its policy.

    :param settings: as `turtles.api.migrations.configuration` returns them.
    """
    spec = (policy or {}).get("spec") or {}
    own = {name: spec[name] for name in SETTINGS if spec.get(name) is not None}
    if own.get("allowPostCopy") and "allowWorkloadDisruption" not in own:
        own["allowWorkloadDisruption"] = True
    if "bandwidthPerMigration" in own:
        own["bandwidthPerMigration"] = str(own["bandwidthPerMigration"])
    return {**settings, **own}


MIGRATION_POLICY = Kind(
    kind="MigrationPolicy",
    plural="migrationpolicies",
    group="migrations.kubevirt.io",
    versions=(Version("v1alpha1", storage=True),),
    namespaced=False,
    categories=(),
    schema=Struct(
        "Migration settings for some machines, which override those in the KubeVirt object.",
        field("spec", _SPEC, "Which machines the policy applies to, and how they are migrated.", required=True),
        group("status", "Empty."),
    ),
    columns=(AGE,),
    rights={**dict.fromkeys(MANAGED_BY_USERS, READ), "default": READ},
    webhooks=(Webhook("migration-policy-validator", "/migration-policy-validate", (CREATE, UPDATE)),),
    validate=validate,
    validate_update=validate_update,
    warn=warn,
)

KINDS = (MIGRATION_POLICY,)
