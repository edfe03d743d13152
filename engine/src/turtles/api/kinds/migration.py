# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachineInstanceMigration: the move of a running guest to another node.

Names, rules and messages are those of the KubeVirt API and of its user guide, "Live Migration". Deleting one that has
not ended cancels it.
"""

from __future__ import annotations

from typing import Any

from turtles.api import migrations
from turtles.api.conditions import get_condition
from turtles.api.core import CONDITIONS, FREE
from turtles.api.feature_gates import DECENTRALIZED_MIGRATION
from turtles.api.kind import (
    CREATE,
    DEFAULT_CONTEXT,
    READ,
    UPDATE,
    WRITE,
    Column,
    Context,
    Kind,
    Missing,
    Refusal,
    Webhook,
)
from turtles.api.language import (
    INT32,
    INVALID,
    NOT_SUPPORTED,
    REQUIRED,
    STRING,
    STRING_MAP,
    UNSUPPORTED,
    Cause,
    Struct,
    field,
    group,
    group_list,
)
from turtles.api.objects import Object, add_finalizer, get, is_deleted
from turtles.api.phases import is_final, phase_of
from turtles.api.rules import is_well_formed, schema_causes

_VMI = "VirtualMachineInstance"
_LONGEST_LABEL = 63
#: What makes a migration one of two controllers.
_DECENTRALIZED = ("sendTo", "receive")

MIGRATION_SPEC = Struct(
    "Which guest to migrate, and where to.",
    field("vmiName", STRING, "The VirtualMachineInstance, in the same namespace."),
    field(
        "addedNodeSelector",
        STRING_MAP,
        "Labels that the target must have, in addition to the instance's own selector.",
    ),
    field(
        "priority",
        STRING,
        "Which migrations come first: system-critical (nodes being emptied, upgrades), user-triggered (larger Pods), "
        "system-maintenance, and those without. For virt-controller only.",
    ),
    group(
        "sendTo",
        "Another namespace or cluster to migrate to, behind the gate DecentralizedLiveMigration, which is on. Such a "
        "migration fails: there is no synchronization controller.",
        field("migrationID", STRING, "What the migration is called on both sides.", required=True),
        field("connectURL", STRING, "The synchronization controller there.", required=True),
    ),
    group(
        "receive",
        "A migration to take from another namespace or cluster. It fails likewise.",
        field("migrationID", STRING, "What the migration is called on both sides.", required=True),
    ),
)

_STATUS = Struct(
    "Observed state. Only written by the engine.",
    field(
        "phase",
        STRING,
        "Pending, Scheduling, Scheduled, PreparingTarget, TargetReady, Running, and in the end Succeeded or Failed.",
    ),
    group_list(
        "phaseTransitionTimestamps",
        "When each phase began.",
        field("phase", STRING, "The phase."),
        field("phaseTransitionTimestamp", STRING, "When it began."),
    ),
    field("conditions", CONDITIONS, "Aspects of the state."),
    field("migrationState", FREE, "The instance's migration state, final once the migration has ended."),
    field("priority", INT32, "Its priority."),
)


def default(migration: Object, context: Context = DEFAULT_CONTEXT) -> Object:
    """Return a migration with its finalizer, and a label with the instance's name."""
    if not is_well_formed(migration, MIGRATION_SPEC):
        return migration
    changed: Object = {**migration, "metadata": dict(migration.get("metadata") or {})}
    add_finalizer(changed, migrations.FINALIZER)
    name = str(migration["spec"].get("vmiName") or "")
    if 0 < len(name) <= _LONGEST_LABEL:
        changed["metadata"]["labels"] = {
            **(changed["metadata"].get("labels") or {}),
            migrations.VMI_NAME_LABEL: name,
        }
    return changed


def validate(migration: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a new migration.

    :raises Refusal: its instance can't be migrated as things are.
    """
    if causes := schema_causes(migration, MIGRATION_SPEC):
        return causes
    if not migration["spec"].get("vmiName"):
        return [Cause(REQUIRED, "vmiName is missing", "spec.vmiName")]
    if wanted := [migration["spec"][key] for key in _DECENTRALIZED if migration["spec"].get(key) is not None]:
        if not context.config.has_gate(DECENTRALIZED_MIGRATION):
            raise Refusal(f"{DECENTRALIZED_MIGRATION} feature gate is not enabled in kubevirt resource", 400)
        if len({each["migrationID"] for each in wanted}) > 1:
            message = "sendTo and receive must have the same migrationID"
            return [Cause(INVALID, message, "spec.receive.migrationID")]
    if migration["spec"].get("priority") is not None and not context.privileged:
        return [Cause(INVALID, "Migration priority queue, only virt-controller is allowed to set priority field")]
    if message := _obstacle(migration, context):
        raise Refusal(message, 400)
    return []


def _obstacle(migration: Object, context: Context) -> str:
    """Return why an instance can't be migrated as things are; nothing if it can."""
    name, namespace = migration["spec"]["vmiName"], str(get(migration, "metadata", "namespace") or "")
    try:
        vmi = context.find(_VMI, namespace, name)
    except Missing:
        return f'the VMI "{namespace}/{name}" does not exist'
    if is_final(vmi) or is_deleted(vmi):
        return "Cannot migrate VMI in finalized state."
    condition = get_condition(get(vmi, "status", "conditions"), "LiveMigratable") or {}
    if condition.get("status") == "False":
        return f"Cannot migrate VMI, Reason: {condition.get('reason')}, Message: {condition.get('message')}"
    for other in context.others("VirtualMachineInstanceMigration", namespace):
        if get(other, "spec", "vmiName") == name and phase_of(other) not in migrations.FINAL:
            return (
                f"in-flight migration detected. Active migration job ({other['metadata'].get('uid')}) is currently "
                f"already in progress for VMI {name}."
            )
    return ""


def warn(migration: Any) -> list[str]:
    """Return the warnings about a migration that is admitted."""
    return [
        f"spec.{key} is {UNSUPPORTED}; this is admitted, and the migration fails"
        for key in _DECENTRALIZED
        if get(migration, "spec", key) is not None
    ]


def validate_update(migration: Any, old: Any, context: Context = DEFAULT_CONTEXT) -> list[Cause]:
    """Return what is wrong with a changed migration: it moves the instance that it was created for."""
    if get(migration, "spec") != get(old, "spec"):
        return [Cause(NOT_SUPPORTED, "update of Migration object's spec is restricted")]
    labels = get(migration, "metadata", "labels")
    before, after = get(old, "metadata", "labels", migrations.VMI_NAME_LABEL), get(labels, migrations.VMI_NAME_LABEL)
    if before is not None and before != after and phase_of(migration) not in migrations.FINAL:
        done = "modified on" if labels else "removed from"
        return [Cause(NOT_SUPPORTED, f"selector label can't be {done} an in-flight migration")]
    return []


MIGRATION = Kind(
    kind="VirtualMachineInstanceMigration",
    plural="virtualmachineinstancemigrations",
    short_names=("vmim", "vmims"),
    schema=Struct(
        "Migrates a running guest to another node. Deleting it before it finishes cancels it.",
        field("spec", MIGRATION_SPEC, "Which guest to migrate, and where to.", required=True),
        field("status", _STATUS, "Observed state. Only written by the engine."),
    ),
    columns=(
        Column("Phase", "string", ".status.phase", description="The current phase of VM instance migration"),
        Column("VMI", "string", ".spec.vmiName", description="The name of the VMI to perform the migration on"),
    ),
    status_subresource=True,
    rights={"admin": READ, "edit": READ, "view": READ, "migrate": (*READ, *WRITE)},
    webhooks=(
        Webhook("migration-create-mutator", "/migration-mutate-create", (CREATE,), mutating=True),
        Webhook("migration-create-validator", "/migration-validate-create", (CREATE,)),
        Webhook("migration-update-validator", "/migration-validate-update", (UPDATE,)),
    ),
    reads=("VirtualMachineInstanceMigration",),
    looks_up=(_VMI,),
    default=default,
    validate=validate,
    warn=warn,
    validate_update=validate_update,
)

KINDS = (MIGRATION,)
