# SPDX-License-Identifier: GPL-3.0-or-later
"""How many instances a replica set lacks, which it has too many, and what its status says. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from turtles.api.objects import Object, is_deleted
from turtles.api.phases import is_final, was_running
from turtles.api.times import parse_time
from turtles.controller.scaled import is_ready, replicas_of, scaled_status
from turtles.controller.vmi.status import is_pod_known_to_leave
from turtles.controller.vmi.template import make_vmi

#: Instances created or deleted at once, so that one set doesn't keep the API server from everybody else.
BURST = 250
#: Pause after instances that ended before they ran: base times failures squared, at most the maximum, seconds.
BACKOFF_BASE, BACKOFF_MAX = 10.0, 300.0


@dataclass(frozen=True)
class Backoff:
    """What a controller remembers of a set whose instances end before they run.

    :param failures: times in a row that this was so.
    :param until: no instance is created before this time, in seconds of the caller's clock.
    """

    failures: int = 0
    until: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is to happen.

    :param create: number of instances to create.
    :param delete: those that are too many.
    :param finished: those at their end, to be deleted.
    :param backoff: to be remembered.
    :param wait: seconds until instances may be created, or None.
    """

    create: int = 0
    delete: Sequence[Object] = ()
    finished: Sequence[Object] = ()
    backoff: Backoff = field(default_factory=Backoff)
    wait: float | None = None


def is_active(vmi: Object) -> bool:
    """Tell whether an instance counts: it is neither at its end nor on its way there."""
    return not is_final(vmi) and not is_deleted(vmi) and not is_pod_known_to_leave(vmi)


def plan(replicaset: Object, vmis: Sequence[Object], before: Backoff, now: float) -> Plan:
    """Decide what to create and to delete.

    :param vmis: the set's own.
    :param now: of a clock that only goes forward, in seconds.
    """
    active = [vmi for vmi in vmis if is_active(vmi)]
    finished = [vmi for vmi in vmis if not is_active(vmi) and not is_deleted(vmi)]
    if replicaset["spec"].get("paused") or is_deleted(replicaset):
        return Plan(backoff=before)
    backoff = _backoff(before, active, finished, now)
    missing = replicas_of(replicaset) - len(active)
    if missing <= 0:
        surplus = sorted(active, key=_worth)[: min(-missing, BURST)]
        return Plan(delete=surplus, finished=finished[:BURST], backoff=backoff)
    if backoff.until > now:
        return Plan(finished=finished[:BURST], backoff=backoff, wait=backoff.until - now)
    return Plan(create=min(missing, BURST), finished=finished[:BURST], backoff=backoff)


def replica(replicaset: Object) -> Object:
    """Return a new instance of a replica set, whose name the API server completes."""
    template = replicaset["spec"]["template"]
    metadata = template.get("metadata") or {}
    prefix = metadata.get("name") or metadata.get("generateName") or replicaset["metadata"]["name"]
    return make_vmi(replicaset, template, prefix=prefix)


def status(replicaset: Object, vmis: Sequence[Object], failure: tuple[str, str] | None, now: str) -> Object:
    """Return a replica set's status.

    :param failure: reason and message of what kept instances from being created or deleted.
    :param now: as the API writes it.
    """
    active = [vmi for vmi in vmis if is_active(vmi)]
    ready = sum(is_ready(vmi) for vmi in active)
    return scaled_status(replicaset, len(active), ready, now, failure=failure, paused=_paused(replicaset))


def _paused(replicaset: Object) -> tuple[str, str] | None:
    return ("Paused", "Controller got paused") if replicaset["spec"].get("paused") else None


def _backoff(before: Backoff, active: Sequence[Object], finished: Sequence[Object], now: float) -> Backoff:
    if any(was_running(vmi) for vmi in (*active, *finished)):
        return Backoff()
    if not any(is_final(vmi) for vmi in finished):
        return before
    failures = before.failures + 1
    return Backoff(failures, now + min(BACKOFF_MAX, BACKOFF_BASE * failures**2))


def _worth(vmi: Object) -> tuple[bool, bool, float, str]:
    """Order instances by how little is lost with them: what doesn't run, what isn't ready, what is new."""
    metadata = vmi["metadata"]
    created = parse_time(metadata.get("creationTimestamp"))
    return was_running(vmi), is_ready(vmi), -created.timestamp() if created else -math.inf, str(metadata["name"])
