# SPDX-License-Identifier: GPL-3.0-or-later
"""Which running machines get the launcher of a new version, or a larger Pod, now, and how. Pure.

Rules are KubeVirt's (user guide, "Updating KubeVirt", workloadUpdateStrategy): machines are migrated live where they
can be, as many at once as may migrate in the cluster; others are evicted in batches. Nothing happens before the engine
runs everywhere in its new version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from turtles.api import migrations
from turtles.api.conditions import MIGRATION_REQUIRED, has_condition
from turtles.api.configuration import ClusterConfiguration
from turtles.api.objects import Object, get, is_deleted
from turtles.api.phases import RUNNING, phase_of
from turtles.controller.backoff import pause_after
from turtles.controller.kubevirt.plan import DEPLOYED

#: Seconds after which it is looked again, while there are machines to update.
LOOK = 30.0


@dataclass
class Plan:
    """What is to happen.

    :param outdated: how many running machines have another launcher than new ones.
    :param migrate: machines to migrate. :param evict: machines to evict.
    :param wait: seconds until the next look, or None.
    """

    outdated: int
    migrate: list[Object] = field(default_factory=list)
    evict: list[Object] = field(default_factory=list)
    wait: float | None = None


def plan(
    kubevirt: Mapping[str, Any],
    vmis: Sequence[Object],
    moves: Sequence[Object],
    cluster: ClusterConfiguration,
    image: str,
    now: datetime,
    since_batch: float,
) -> Plan:
    """Decide which machines are updated.

    :param kubevirt: the KubeVirt object. :param vmis: all instances. :param moves: all migrations.
    :param cluster: the configuration in force. :param image: of new launchers.
    :param since_batch: seconds since machines were last evicted for this.
    """
    outdated = [vmi for vmi in vmis if is_running(vmi) and is_outdated(vmi, image)]
    decided, updates = Plan(len(outdated)), cluster.workload_updates
    due = [vmi for vmi in vmis if is_running(vmi) and (is_outdated(vmi, image) or needs_larger_pod(vmi))]
    if not due or not (updates.migrate or updates.evict) or not _is_deployed(kubevirt):
        return decided
    of_instance = defaultdict(list)
    for move in moves:
        of_instance[move["metadata"]["namespace"], move["spec"].get("vmiName")].append(move)
    under_way = sum(phase_of(move) not in migrations.FINAL for move in moves)
    room, evictable = max(0, cluster.migrations.parallel_per_cluster - under_way), []
    # Those that were updated least recently first, so that one which can't be doesn't keep others from it
    for vmi in sorted(due, key=lambda vmi: _last_attempt(of_instance[_key(vmi)])):
        own = of_instance[_key(vmi)]
        if any(phase_of(move) not in migrations.FINAL for move in own) or migrations.is_in_progress(
            migrations.state_of(vmi)
        ):
            continue
        if not updates.migrate or not has_condition(vmi, "LiveMigratable"):
            if is_outdated(vmi, image):
                evictable.append(vmi)
        elif len(decided.migrate) < room and not pause_after(own, now):
            decided.migrate.append(vmi)
    decided.wait = LOOK
    if updates.evict and evictable:
        if since_batch >= updates.batch_interval:
            decided.evict, since_batch = evictable[: updates.batch_size], 0.0
        decided.wait = min(LOOK, max(1.0, updates.batch_interval - since_batch))
    return decided


def is_running(vmi: Mapping[str, Any]) -> bool:
    """Say whether a machine runs, and is to go on running."""
    return phase_of(vmi) == RUNNING and not is_deleted(vmi)


def is_outdated(vmi: Mapping[str, Any], image: str) -> bool:
    """Say whether an instance has another launcher than new ones get.

    :param image: of new launchers.
    """
    own = get(dict(vmi), "status", "launcherContainerImageVersion")
    return bool(own) and own != image


def needs_larger_pod(vmi: Mapping[str, Any]) -> bool:
    """Say whether a guest can't have what it is to have in its Pod."""
    return has_condition(vmi, MIGRATION_REQUIRED)


def priority_of(vmi: Mapping[str, Any], image: str) -> str:
    """Return the priority of an instance's migration: a larger Pod is what a user waits for."""
    return migrations.SYSTEM_CRITICAL if is_outdated(vmi, image) else migrations.USER_TRIGGERED


def _is_deployed(kubevirt: Mapping[str, Any]) -> bool:
    status = kubevirt.get("status") or {}
    deployed = status.get("observedDeploymentID") == status.get("targetDeploymentID")
    return status.get("phase") == DEPLOYED and deployed and not is_deleted(kubevirt)


def _key(vmi: Mapping[str, Any]) -> tuple[str, str]:
    return vmi["metadata"]["namespace"], vmi["metadata"]["name"]


def _last_attempt(moves: Sequence[Mapping[str, Any]]) -> str:
    return max((str(move["metadata"].get("creationTimestamp")) for move in moves), default="")
