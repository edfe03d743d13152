# SPDX-License-Identifier: GPL-3.0-or-later
"""MigrationPolicy: how some machines are migrated, in place of what the KubeVirt object says of all.

Names and rules are those of the KubeVirt API and of its user guide, "Migration Policies".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from turtles.api import quantity
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
from turtles.api.language import BOOLEAN, INT64, INVALID, QUANTITY, STRING_MAP, Cause, Struct, field, group
from turtles.api.objects import Object, get
from turtles.api.rules import schema_causes

#: Settings that a policy has, by the names that `migrationState.migrationConfiguration` has for them as well.
SETTINGS = (
    "allowAutoConverge",
    "bandwidthPerMigration",
    "completionTimeoutPerGiB",
    "allowPostCopy",
    "allowWorkloadDisruption",
)

_SPEC = Struct(
    "Which machines the policy is for, and how they are migrated.",
    group(
        "selectors",
        "Labels that a machine must have, of both kinds if both are given; without any label, the policy is for none.",
        field("namespaceSelector", STRING_MAP, "Labels of its namespace."),
        field("virtualMachineInstanceSelector", STRING_MAP, "Labels of its instance."),
        required=True,
    ),
    field("allowAutoConverge", BOOLEAN, "Slow guests down whose memory changes faster than it is copied."),
    field("bandwidthPerMigration", QUANTITY, "Bytes per second of each migration; 0 is no limit."),
    field("completionTimeoutPerGiB", INT64, "Seconds that each GiB may take."),
    field("allowPostCopy", BOOLEAN, "Have guests run on the target before all of their memory is there."),
    field("allowWorkloadDisruption", BOOLEAN, "Pause guests that don't converge."),
)


def validate(policy: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a policy, created or updated."""
    if causes := schema_causes(policy, _SPEC):
        return causes
    spec = policy["spec"]
    timeout, bandwidth = spec.get("completionTimeoutPerGiB"), spec.get("bandwidthPerMigration")
    if timeout is not None and timeout < 0:
        causes.append(Cause(INVALID, "must not be negative", "spec.completionTimeoutPerGiB"))
    if bandwidth is not None and quantity.to_int(bandwidth) < 0:
        causes.append(Cause(INVALID, "must not be negative", "spec.bandwidthPerMigration"))
    return causes


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
        "How some machines are migrated, in place of what the KubeVirt object says of all.",
        field("spec", _SPEC, "Which machines the policy is for, and how they are migrated.", required=True),
        group("status", "Empty."),
    ),
    columns=(AGE,),
    rights={**dict.fromkeys(MANAGED_BY_USERS, READ), "default": READ},
    webhooks=(Webhook("migration-policy-validator", "/migration-policy-validate", (CREATE, UPDATE)),),
    validate=validate,
)

KINDS = (MIGRATION_POLICY,)
