# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines a pool lacks, which it has too many, and which an update reaches next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from turtles.api import durations
from turtles.api.conditions import get_condition, has_condition
from turtles.api.kinds.pool import DISABLED
from turtles.api.labels import POOL_FINALIZER
from turtles.api.objects import Object, controller_of, get, is_deleted
from turtles.api.phases import RUNNING, phase_of
from turtles.api.run_strategies import STOP
from turtles.api.times import parse_time
from turtles.controller.pool.machine import (
    has_same_disks,
    index_of,
    indexes,
    is_same_machine,
    revision_name,
    revision_of,
    template_in,
    template_of,
)
from turtles.controller.pool.selection import chosen, selected
from turtles.controller.scaled import is_ready, replicas_of

#: Machines created or deleted at once, so that one pool doesn't keep the API server from everybody else.
BURST = 250
#: When a machine that fails to start is replaced, unless the pool says otherwise.
FAILURES, FAILING_FOR = 3, timedelta(minutes=5)
#: What a machine's status says if it can't start.
_ERRORS = (
    "CrashLoopBackOff",
    "ErrorUnschedulable",
    "DataVolumeError",
    "ErrorPvcNotFound",
    "ErrImagePull",
    "ImagePullBackOff",
)


@dataclass(frozen=True)
class Observed:
    """What else a plan depends on.

    :param names: of all machines in the namespace.
    :param instances: the instances of the pool's machines, by name.
    :param revisions: ControllerRevisions by name: the pool's, and those that its machines and instances name.
    :param now: the time.
    :param random: gives 0…1, for an order by chance.
    """

    names: Sequence[str]
    instances: Mapping[str, Object]
    revisions: Mapping[str, Object]
    now: datetime
    random: Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """What is to happen.

    :param release: machines that are being deleted, for which the pool has nothing left to do.
    :param preserve: claims that these own are to outlive them.
    :param create: indexes of new machines.
    :param delete: machines that are too many, or fail to start.
    :param update: machines to be brought to the pool's template.
    :param restart: machines whose instances are to be replaced, so that they become what the machines are.
    :param relabel: machines whose instances are what they should be, and only don't have the name of the revision.
    :param replace: machines to be deleted, because they need other DataVolumes.
    :param prune: names of revisions that nothing refers to.
    :param wait: seconds after which to look again, or None.
    """

    release: Sequence[Object] = ()
    preserve: bool = False
    create: Sequence[int] = ()
    delete: Sequence[Object] = ()
    update: Sequence[Object] = ()
    restart: Sequence[Object] = ()
    relabel: Sequence[Object] = ()
    replace: Sequence[Object] = ()
    prune: Sequence[str] = ()
    wait: float | None = None


@dataclass
class _Update:
    """The part of a plan that is about updates."""

    update: list[Object] = field(default_factory=list)
    restart: list[Object] = field(default_factory=list)
    relabel: list[Object] = field(default_factory=list)
    replace: list[Object] = field(default_factory=list)


def plan(pool: Object, machines: Sequence[Object], observed: Observed) -> Plan:
    """Decide what happens to a pool's machines.

    One thing after the other: a pool that grows or shrinks is updated afterwards, and old revisions go last. A machine
    on its way out still counts, so that the next one gets its name.

    :param pool: not being deleted.
    :param machines: the pool's own.
    :raises SelectionError: a selection policy can't be followed.
    """
    there = [each for each in machines if not is_deleted(each)]
    release = [each for each in machines if is_deleted(each) and POOL_FINALIZER in each["metadata"]["finalizers"]]
    preserve = _state_preservation(pool) != DISABLED
    if pool["spec"].get("paused"):
        return Plan(release, preserve)
    failing, wait = _failing(pool, there, observed.now)
    surplus = len(machines) - replicas_of(pool)
    if failing:
        return Plan(release, preserve, delete=failing[:BURST], wait=wait)
    if surplus < 0:
        return Plan(release, preserve, indexes(pool, observed.names, min(-surplus, BURST)), wait=wait)
    if surplus > 0:
        return Plan(release, preserve, delete=_surplus(pool, machines, surplus, observed)[:BURST], wait=wait)
    update = _update(pool, there, observed)
    prune = [] if update.update or release else _unused(pool, machines, observed)
    return Plan(
        release,
        preserve,
        update=update.update,
        restart=update.restart,
        relabel=update.relabel,
        replace=update.replace,
        prune=prune,
        wait=wait,
    )


# Scaling in


def _surplus(pool: Object, machines: Sequence[Object], surplus: int, observed: Observed) -> list[Object]:
    strategy = pool["spec"].get("scaleInStrategy") or {}
    if strategy.get("unmanaged") is not None or strategy.get("opportunistic") is not None:
        return []
    there = [each for each in machines if not is_deleted(each)]
    policy = get(strategy, "proactive", "selectionPolicy") or {}
    count = surplus - (len(machines) - len(there))
    return selected(pool, there, policy, observed.random)[: max(0, count)]


def _state_preservation(pool: Object) -> str:
    strategy = pool["spec"].get("scaleInStrategy") or {}
    way = "opportunistic" if strategy.get("opportunistic") is not None else "proactive"
    return str(get(strategy, way, "statePreservation") or DISABLED)


# Updates


def _update(pool: Object, machines: Sequence[Object], observed: Observed) -> _Update:
    strategy, update = pool["spec"].get("updateStrategy") or {}, _Update()
    if strategy.get("unmanaged") is not None:
        return update
    policy = get(strategy, "proactive", "selectionPolicy") or {}
    current = []
    for machine in chosen(machines, policy):
        if index_of(pool, machine["metadata"]["name"]) is None:
            continue
        if is_outdated(pool, machine, observed.revisions):
            update.update.append(machine)
        else:
            current.append(machine)
    if strategy.get("opportunistic") is None:
        _roll_out(pool, selected(pool, current, policy, observed.random), observed, update)
    return update


def is_outdated(pool: Object, machine: Object, revisions: Mapping[str, Object]) -> bool:
    """Tell whether a machine wasn't made from the pool's present template."""
    before = template_in(revisions.get(revision_of(machine) or ""))
    return before is None or before != template_of(pool)


def _roll_out(pool: Object, machines: Sequence[Object], observed: Observed, update: _Update) -> None:
    """Choose which instances follow their machines now: those that aren't ready, and as many others as may be missing.

    Rule: KubeVirt API, `maxUnavailable`.
    """
    left = _max_unavailable(pool) - sum(not _is_available(each, observed) for each in machines)
    # Most machines are of the same two revisions
    changes: dict[tuple[str | None, str | None], list[Object] | None] = {}
    for machine in machines:
        instance = observed.instances.get(machine["metadata"]["name"])
        if instance is None or _is_leaving(machine, instance):
            continue
        pair = revision_of(machine), revision_of(instance)
        if pair not in changes:
            changes[pair] = _change(*pair, observed, update)
        chosen = changes[pair]
        if chosen is None:
            continue
        if chosen is not update.relabel and is_ready(machine):
            if left <= 0:
                continue
            left -= 1
        chosen.append(machine)


def _change(mine: str | None, theirs: str | None, observed: Observed, update: _Update) -> list[Object] | None:
    """Return in which list of the plan a machine belongs whose instance may be older than itself; None if in none.

    :param mine: the machine's revision. :param theirs: the instance's.
    """
    if mine is None or mine == theirs:
        return None
    now, before = (template_in(observed.revisions.get(name or "")) for name in (mine, theirs))
    if now is None:
        return None
    if before is None:
        return update.restart
    if not has_same_disks(before, now):
        return update.replace
    return update.relabel if is_same_machine(before, now) else update.restart


def _max_unavailable(pool: Object) -> int:
    value = pool["spec"].get("maxUnavailable")
    text = str("100%" if value is None else value)
    part = int(text.removesuffix("%"))
    return max(1, replicas_of(pool) * part // 100 if text.endswith("%") else part)


def _is_leaving(machine: Object, instance: Object) -> bool:
    """Tell whether an instance is deleted, or about to be because somebody asked for that."""
    requests = (machine.get("status") or {}).get("stateChangeRequests") or ()
    stops = {request.get("uid") for request in requests if request.get("action") == STOP}
    return is_deleted(instance) or instance["metadata"].get("uid") in stops


def _is_available(machine: Object, observed: Observed) -> bool:
    instance = observed.instances.get(machine["metadata"]["name"])
    if instance is None or _is_leaving(machine, instance) or phase_of(instance) != RUNNING:
        return False
    return has_condition(instance, "Ready")


def _unused(pool: Object, machines: Sequence[Object], observed: Observed) -> list[str]:
    used = {revision_of(each) for each in (*machines, *observed.instances.values())} | {revision_name(pool)}
    uid = pool["metadata"]["uid"]
    owned = [name for name, each in observed.revisions.items() if (controller_of(each) or {}).get("uid") == uid]
    return sorted(name for name in owned if name not in used)


# Healing


def _failing(pool: Object, machines: Sequence[Object], now: datetime) -> tuple[list[Object], float | None]:
    """Return the machines that fail to start for too long, and after how many seconds the next one may."""
    healing = pool["spec"].get("autohealing")
    if healing is None:
        return [], None
    threshold = healing.get("startUpFailureThreshold") or FAILURES
    text = healing.get("minFailingToStartDuration")
    limit = FAILING_FOR if text is None else durations.parse(text)
    failing, waits = [], []
    for machine in machines:
        status = machine.get("status") or {}
        if ((status.get("startFailure") or {}).get("consecutiveFailCount") or 0) >= threshold:
            failing.append(machine)
            continue
        ready = get_condition(status.get("conditions"), "Ready") or {}
        since = parse_time(ready.get("lastTransitionTime")) if ready.get("status") == "False" else None
        if status.get("printableStatus") not in _ERRORS or since is None:
            continue
        left = (limit - (now - since)).total_seconds()
        if left <= 0:
            failing.append(machine)
        else:
            waits.append(left)
    return failing, min(waits, default=None)
