# SPDX-License-Identifier: GPL-3.0-or-later
"""Live migrations: their phases, and what a VirtualMachineInstance's ``status.migrationState`` says.

Names are KubeVirt's (KubeVirt API, VirtualMachineInstanceMigrationState). Three write it: virt-controller names both
ends, the target's virt-handler says when it is ready, and the source's how the transfer goes and ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object, get
from turtles.api.phases import FAILED, PENDING, RUNNING, SCHEDULED, SCHEDULING, SUCCEEDED

__all__ = ("FAILED", "PENDING", "RUNNING", "SCHEDULED", "SCHEDULING", "SUCCEEDED")

PREPARING_TARGET, TARGET_READY = "PreparingTarget", "TargetReady"
#: Phases that are never left.
FINAL = (SUCCEEDED, FAILED)
#: Phases in which the guest's memory is, or is about to be, on its way.
HANDED_OFF = (SCHEDULED, PREPARING_TARGET, TARGET_READY, RUNNING)

#: Labels and the finalizer of migrations.
VMI_NAME_LABEL = "kubevirt.io/vmi-name"
FINALIZER = "kubevirt.io/migrationJobFinalize"
#: Annotation of a target Pod: the name of its migration.
JOB_NAME = "kubevirt.io/migrationJobName"

#: Conditions of a migration.
ABORT_REQUESTED = "migrationAbortRequested"
REJECTED_BY_QUOTA = "migrationRejectedByResourceQuota"

#: ``spec.priority``: nodes are emptied and engines upgraded; users wait for what they asked for; things are tidied up.
SYSTEM_CRITICAL, USER_TRIGGERED, SYSTEM_MAINTENANCE = "system-critical", "user-triggered", "system-maintenance"
_PRIORITIES = (SYSTEM_MAINTENANCE, USER_TRIGGERED, SYSTEM_CRITICAL)

#: ``migrationState.mode``: until all memory is there, the guest runs on the source, runs on the target, stands still.
PRE_COPY, POST_COPY, PAUSED = "PreCopy", "PostCopy", "Paused"
#: ``migrationState.abortStatus``.
ABORTING, ABORT_SUCCEEDED = "Aborting", "Succeeded"


def priority_of(migration: Mapping[str, Any]) -> int:
    """Return a number that is higher for migrations which come first; 0 for those without a priority that is known."""
    priority = get(dict(migration), "spec", "priority")
    return _PRIORITIES.index(priority) + 1 if priority in _PRIORITIES else 0


def state_of(vmi: Mapping[str, Any]) -> Object:
    """Return what a VMI says of its last migration; empty if there was none."""
    return get(dict(vmi), "status", "migrationState") or {}


def is_in_progress(state: Mapping[str, Any]) -> bool:
    """Say whether a migration was handed to the nodes and has not ended."""
    return bool(state.get("migrationUid")) and not has_ended(state)


def has_ended(state: Mapping[str, Any]) -> bool:
    """Say whether a migration is over, one way or the other."""
    return bool(state.get("completed") or state.get("failed"))


def is_source(vmi: Mapping[str, Any], node: str) -> bool:
    """Say whether a VMI is on its way away from a node."""
    state = state_of(vmi)
    return is_in_progress(state) and state.get("sourceNode") == node


def is_target(vmi: Mapping[str, Any], node: str) -> bool:
    """Say whether a VMI is on its way to a node."""
    state = state_of(vmi)
    return is_in_progress(state) and state.get("targetNode") == node


def configuration(cluster: ClusterConfiguration) -> Object:
    """Return ``migrationState.migrationConfiguration``: the settings that a migration keeps until its end."""
    settings = cluster.migrations
    return {
        "allowAutoConverge": settings.allow_auto_converge,
        "allowPostCopy": settings.allow_post_copy,
        "allowWorkloadDisruption": settings.allow_workload_disruption,
        "bandwidthPerMigration": str(settings.bandwidth),
        "completionTimeoutPerGiB": settings.completion_timeout_per_gib,
        "progressTimeout": settings.progress_timeout,
        "maxDowntimeMs": settings.max_downtime,
        "parallelMigrationsPerCluster": settings.parallel_per_cluster,
        "parallelOutboundMigrationsPerNode": settings.parallel_outbound_per_node,
        "unsafeMigrationOverride": settings.unsafe,
    }
