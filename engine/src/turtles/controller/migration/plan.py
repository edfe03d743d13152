# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VirtualMachineInstanceMigration needs. Pure.

Phases, limits and times are KubeVirt's (KubeVirt API, VirtualMachineInstanceMigrationPhase; user guide, "Live
Migration"): Pending until it may begin, Scheduling while its Pod starts, Scheduled when the guest's nodes are told, and
from then on what they say in the instance's ``status.migrationState``.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from turtles.api import labels, migrations
from turtles.api.conditions import condition_of, conditions_in, has_condition, is_true, set_condition
from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.migration_policy import applied
from turtles.api.language import UNSUPPORTED
from turtles.api.objects import Object, get, is_deleted, labels_of
from turtles.api.phases import is_final, phase_of, set_phase
from turtles.api.times import parse_time, rest_of, rfc3339
from turtles.controller.pod import end

#: Seconds that a Pod may find no node, and that one may take to start for any other reason.
UNSCHEDULABLE_SECONDS, PENDING_SECONDS = 5 * 60, 15 * 60
#: How many migrations of an instance that have ended are kept.
KEPT = 5
#: Seconds after which a migration that waits for others is looked at again.
_TURN = 5.0
#: Seconds that the node agent of the target has to report the guest's addresses there.
_ADDRESS_SECONDS = 10.0
#: Seconds that the source's Pod has to end by itself once the guest has left it.
_SOURCE_SECONDS = 30.0
#: Phases in which a migration takes up one of the places that the configuration gives.
_UNDER_WAY = (migrations.SCHEDULING, *migrations.HANDED_OFF)


@dataclass
class Plan:
    """What is to happen for a migration.

    :param status: as it is to be stored. :param finalizers: likewise; None leaves them.
    :param vmi: the instance as it is to be stored (labels, status.migrationState and status.activePods may differ).
    :param create_pod: make the target's Pod. :param delete_pods: Pods to delete.
    :param events: (type, reason, message) to tell about the migration and its instance.
    :param wait: seconds until the next look, or None.
    """

    status: Object
    finalizers: Sequence[str] | None = None
    vmi: Object | None = None
    create_pod: bool = False
    delete_pods: list[Object] = field(default_factory=list)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    wait: float | None = None


@dataclass(frozen=True)
class Situation:
    """What a plan is made from.

    :param vmi: the instance; None if there is none. :param target: the migration's own Pod; None if there is none.
    :param source: the Pod that the guest is in, or left. :param others: all other migrations.
    :param policy: the policy for the instance; None if there is none.
    :param nodes: where the instances of others are that can be migrated, by namespace and name.
    """

    vmi: Object | None
    target: Object | None
    source: Object | None
    others: Sequence[Object]
    cluster: ClusterConfiguration
    policy: Object | None = None
    nodes: Mapping[tuple[str, str], str] = field(default_factory=dict)


def plan(migration: Object, situation: Situation, now: datetime) -> Plan:
    """Decide what a migration needs.

    :param migration: as stored; it is not changed.
    """
    draft = Plan(copy.deepcopy(migration.get("status") or {}), wait=None)
    phase = phase_of(migration)
    if phase in migrations.FINAL:
        _clean_up(draft, migration, situation, now)
    elif phase in migrations.HANDED_OFF:
        _follow(draft, migration, situation, now)
    elif phase == migrations.SCHEDULING:
        _schedule(draft, migration, situation, now)
    else:
        _admit(draft, migration, situation, now)
    return draft


def fail(draft: Plan, reason: str, now: datetime) -> None:
    """Let a migration fail."""
    set_phase(draft.status, migrations.FAILED, rfc3339(now))
    draft.events.append(("Warning", "FailedMigration", reason))


def _admit(draft: Plan, migration: Object, situation: Situation, now: datetime) -> None:
    """Pending: it begins when it is its turn."""
    set_phase(draft.status, migrations.PENDING, rfc3339(now))
    vmi = situation.vmi
    if is_deleted(migration):
        fail(draft, "the migration was cancelled before it started", now)
        return
    for side in ("sendTo", "receive"):
        if migration["spec"].get(side) is not None:
            fail(draft, f"spec.{side} is {UNSUPPORTED}: there is no synchronization controller", now)
            return
    if vmi is None or is_final(vmi) or is_deleted(vmi):
        fail(draft, f"the VMI {migration['spec']['vmiName']} is no longer running", now)
        return
    condition = condition_of(vmi, "LiveMigratable") or {}
    if condition.get("status") == "False":
        fail(draft, f"Cannot migrate VMI, Reason: {condition.get('reason')}, Message: {condition.get('message')}", now)
        return
    if phase_of(vmi) != migrations.RUNNING or not condition:
        return  # its change calls for the next look
    if _has_to_wait(migration, vmi, situation):
        draft.wait = _TURN
        return
    draft.create_pod = True
    set_phase(draft.status, migrations.SCHEDULING, rfc3339(now))


def _has_to_wait(migration: Object, vmi: Object, situation: Situation) -> bool:
    """Say whether others come first: of the same instance, or as many as the configuration allows at once."""
    active = [other for other in situation.others if phase_of(other) in _UNDER_WAY]
    of_instance = [
        other
        for other in situation.others
        if _instance(other) == _instance(migration)
        and phase_of(other) not in migrations.FINAL
        and (phase_of(other) in _UNDER_WAY or _age(other) < _age(migration))
    ]
    if of_instance or migrations.is_in_progress(migrations.state_of(vmi)):
        return True
    return not _has_a_place(migration, str(vmi["status"].get("nodeName")), active, situation)


def _has_a_place(migration: Object, node: str, active: Sequence[Object], found: Situation) -> bool:
    """Say whether there is a place for a migration that none takes which comes first: of a higher priority, or older.

    :param node: where its instance is. :param active: those that have begun.
    """
    settings = found.cluster.migrations
    nodes, busy = {**found.nodes, _instance(migration): node}, {_instance(each) for each in active}
    leaving = Counter(_source_node(each) or found.nodes.get(_instance(each)) for each in active)
    places = settings.parallel_per_cluster - len(active)
    queue = [migration, *(other for other in found.others if _is_ready(other))]
    for each in sorted(queue, key=_turn_of):
        instance = _instance(each)
        source = nodes.get(instance)
        if source is None or instance in busy or leaving[source] >= settings.parallel_outbound_per_node:
            continue
        if places <= 0 or each is migration:
            return places > 0
        places -= 1
        leaving[source] += 1
        busy.add(instance)
    return False


def _is_ready(migration: Object) -> bool:
    """Say whether a migration waits for nothing but its turn."""
    refused = has_condition(migration, migrations.REJECTED_BY_QUOTA)
    return phase_of(migration) in ("", migrations.PENDING) and not refused and not is_deleted(migration)


def _turn_of(migration: Mapping[str, Any]) -> tuple[int, str, str]:
    return -migrations.priority_of(migration), *_age(migration)


def _instance(migration: Mapping[str, Any]) -> tuple[str, str]:
    return migration["metadata"]["namespace"], str(migration["spec"].get("vmiName"))


def node_of(vmi: Mapping[str, Any]) -> str:
    """Return the node of an instance that can be migrated; empty if it can't be."""
    status = vmi.get("status") or {}
    can_move = phase_of(vmi) == migrations.RUNNING and is_true(status.get("conditions"), "LiveMigratable")
    return str(status.get("nodeName") or "") if can_move and not is_deleted(vmi) else ""


def _age(migration: Mapping[str, Any]) -> tuple[str, str]:
    return str(migration["metadata"].get("creationTimestamp")), migration["metadata"]["name"]


def _source_node(migration: Mapping[str, Any]) -> str:
    return str(get(dict(migration), "status", "migrationState", "sourceNode") or "")


def _schedule(draft: Plan, migration: Object, situation: Situation, now: datetime) -> None:
    """Scheduling: its Pod finds a node, and starts."""
    vmi, pod = situation.vmi, situation.target
    reason = ""
    if is_deleted(migration):
        reason = "the migration was cancelled before it started"
    elif vmi is None or phase_of(vmi) != migrations.RUNNING or is_deleted(vmi):
        reason = f"the VMI {migration['spec']['vmiName']} is no longer running"
    elif pod is None:
        reason = "the target's virt-launcher Pod is gone"
    elif end.has_ended(pod) or is_deleted(pod):
        reason = f"the target's virt-launcher Pod ended: {end.why(pod)[1]}"
    if reason or vmi is None or pod is None:
        fail(draft, reason, now)
        return
    if late := _is_late(pod, now):
        fail(draft, late, now)
        return
    if not _is_up(pod):
        draft.wait = _rest(pod, now)
        return
    node = pod["spec"]["nodeName"]
    state = {
        "migrationUid": migration["metadata"]["uid"],
        "sourceNode": vmi["status"]["nodeName"],
        "sourcePod": (situation.source or {"metadata": {}})["metadata"].get("name", ""),
        "targetNode": node,
        "targetPod": pod["metadata"]["name"],
        "migrationConfiguration": applied(migrations.configuration(situation.cluster), situation.policy),
    }
    if situation.policy is not None:
        state["migrationPolicyName"] = situation.policy["metadata"]["name"]
    draft.vmi = _changed(vmi)
    draft.vmi["status"]["migrationState"] = state
    draft.vmi["status"]["activePods"] = {**(vmi["status"].get("activePods") or {}), pod["metadata"]["uid"]: node}
    draft.vmi["metadata"]["labels"][labels.MIGRATION_TARGET_NODE_NAME] = node
    draft.status["migrationState"] = state
    set_phase(draft.status, migrations.SCHEDULED, rfc3339(now))
    words = f"Migration target pod {pod['metadata']['name']} on node {node} is ready for preparation by virt-handler."
    draft.events.append(("Normal", "SuccessfulHandOver", words))


def _changed(vmi: Object) -> Object:
    """Return a copy of a VMI that may be changed."""
    metadata = {**vmi["metadata"], "labels": dict(labels_of(vmi))}
    return {**vmi, "metadata": metadata, "status": copy.deepcopy(vmi["status"])}


def _is_up(pod: Object) -> bool:
    """Say whether the Pod's containers run; whether it is ready depends on its guest."""
    statuses = get(pod, "status", "containerStatuses") or ()
    return (
        bool(pod["spec"].get("nodeName"))
        and bool(statuses)
        and all("running" in (each.get("state") or {}) for each in statuses)
    )


def _limit(pod: Object) -> tuple[float, str]:
    scheduled = condition_of(pod, "PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return UNSCHEDULABLE_SECONDS, f"no node can take the guest: {scheduled.get('message')}"
    return PENDING_SECONDS, "the target's virt-launcher Pod does not start"


def _rest(pod: Object, now: datetime) -> float:
    return rest_of(_limit(pod)[0], parse_time(pod["metadata"].get("creationTimestamp")) or now, now)


def _is_late(pod: Object, now: datetime) -> str:
    """Return why a Pod that isn't ready in time isn't; empty while there is time."""
    if _is_up(pod) or _rest(pod, now) > 0:
        return ""
    seconds, why = _limit(pod)
    return f"{why} (gave up after {seconds / 60:.0f} minutes)"


def _follow(draft: Plan, migration: Object, situation: Situation, now: datetime) -> None:
    """Say what the guest's nodes have said."""
    vmi, uid = situation.vmi, migration["metadata"]["uid"]
    if vmi is None or is_final(vmi):
        fail(draft, f"the VMI {migration['spec']['vmiName']} ended during its migration", now)
        return
    state = migrations.state_of(vmi)
    if state.get("migrationUid") != uid:
        # The nodes were never told, or another one has begun since
        fail(draft, "the VMI is not migrated by this migration", now)
        return
    draft.status["migrationState"] = copy.deepcopy(state)
    if state.get("failed"):
        fail(draft, f"source node reported migration failed: {state.get('failureReason')}", now)
        return
    if state.get("completed"):
        draft.wait = _wait_for_addresses(vmi, situation.target, state, now)
        if draft.wait is not None:
            return
        set_phase(draft.status, migrations.SUCCEEDED, rfc3339(now))
        draft.events.append(("Normal", "SuccessfulMigration", "Source node reported migration succeeded"))
        return
    if state.get("startTimestamp"):
        phase = migrations.RUNNING
    else:
        phase = migrations.TARGET_READY if state.get("targetNodeAddress") else migrations.PREPARING_TARGET
    set_phase(draft.status, phase, rfc3339(now))
    if is_deleted(migration):
        words = "the migration was deleted before it finished"
        set_condition(conditions_in(draft.status), migrations.ABORT_REQUESTED, "True", "", words, rfc3339(now))
        if not state.get("abortRequested"):
            draft.vmi = _changed(vmi)
            draft.vmi["status"]["migrationState"]["abortRequested"] = True
        return
    if not state.get("startTimestamp"):
        _watch_target(draft, situation, vmi, state, now)


def _wait_for_addresses(vmi: Object, target: Object | None, state: Object, now: datetime) -> float | None:
    """Return for how long the instance's new addresses may be waited for: who waits for a migration, then uses them."""
    pods = {str(entry.get("ip")) for entry in get(target, "status", "podIPs") or ()}
    interfaces = vmi["status"].get("interfaces") or ()
    addresses = {str(address) for entry in interfaces for address in entry.get("ipAddresses") or ()}
    if not pods or not addresses or pods & addresses:
        return None
    left = rest_of(_ADDRESS_SECONDS, parse_time(state.get("endTimestamp")) or now, now)
    return left if left > 0 else None


def _watch_target(draft: Plan, situation: Situation, vmi: Object, state: Object, now: datetime) -> None:
    """A target that goes before the guest is on its way ends the migration."""
    pod, reason = situation.target, ""
    if pod is None:
        reason = "the target's virt-launcher Pod is gone"
    elif end.has_ended(pod) or is_deleted(pod):
        reason = f"the target's virt-launcher Pod ended: {end.why(pod)[1]}"
    else:
        draft.wait = rest_of(PENDING_SECONDS, parse_time(pod["metadata"].get("creationTimestamp")) or now, now)
        if draft.wait <= 0:
            reason = f"virt-handler on node {state['targetNode']} did not prepare the target"
    if reason:
        draft.vmi = _changed(vmi)
        draft.vmi["status"]["migrationState"] |= {
            "completed": True,
            "failed": True,
            "failureReason": reason,
            "endTimestamp": rfc3339(now),
        }
        draft.wait = 0.1


def _clean_up(draft: Plan, migration: Object, situation: Situation, now: datetime) -> None:
    """Succeeded and Failed: what is left of it goes."""
    vmi, pod, uid = situation.vmi, situation.target, migration["metadata"]["uid"]
    succeeded = phase_of(migration) == migrations.SUCCEEDED
    ours = vmi is not None and migrations.state_of(vmi).get("migrationUid") == uid
    if not succeeded and pod is not None and not _has_guest(vmi, pod):
        if not is_deleted(pod):
            draft.delete_pods.append(pod)
        if vmi is not None and pod["metadata"]["uid"] in (vmi["status"].get("activePods") or {}):
            draft.vmi = _changed(vmi)
            del draft.vmi["status"]["activePods"][pod["metadata"]["uid"]]
    if vmi is not None and ours and labels.MIGRATION_TARGET_NODE_NAME in labels_of(vmi):
        draft.vmi = draft.vmi or _changed(vmi)
        del draft.vmi["metadata"]["labels"][labels.MIGRATION_TARGET_NODE_NAME]
    source = situation.source
    if succeeded and source is not None and not end.has_ended(source) and not is_deleted(source):
        ended = parse_time(get(migration, "status", "migrationState", "endTimestamp")) or now
        draft.wait = rest_of(_SOURCE_SECONDS, ended, now)
        if draft.wait <= 0 and not (vmi is not None and _has_guest(vmi, source)):
            draft.delete_pods.append(source)
            draft.wait = None
    finalizers = migration["metadata"].get("finalizers") or []
    if migrations.FINALIZER in finalizers:
        draft.finalizers = [name for name in finalizers if name != migrations.FINALIZER]


def _has_guest(vmi: Object | None, pod: Object) -> bool:
    """Say whether a VMI's guest runs in a Pod."""
    if vmi is None:
        return False
    status = vmi["status"]
    return bool((status.get("activePods") or {}).get(pod["metadata"]["uid"]) == status.get("nodeName"))


def superfluous(migration: Object, others: Sequence[Object]) -> list[Object]:
    """Return the oldest migrations of an instance that have ended, beyond those that are kept.

    :param migration: one of them, which has ended.
    """
    of_instance = [
        each
        for each in (migration, *others)
        if _instance(each) == _instance(migration) and phase_of(each) in migrations.FINAL and not is_deleted(each)
    ]
    return sorted(of_instance, key=_age)[:-KEPT]
