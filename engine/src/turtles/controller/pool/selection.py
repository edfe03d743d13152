# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a pool's machines something is about, and in which order (KubeVirt API, `selectionPolicy`). Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turtles.api.kinds.pool import ASCENDING, DESCENDING, NEWEST, OLDEST
from turtles.api.objects import Object, get
from turtles.api.selectors import selects
from turtles.api.times import parse_time
from turtles.controller.pool.machine import index_of
from turtles.controller.scaled import is_ready


class SelectionError(ValueError):
    """A selection policy can't be followed; the message says why."""


def chosen(machines: Sequence[Object], policy: Mapping[str, Any]) -> list[Object]:
    """Return the machines that a policy's selectors match.

    :raises SelectionError: they can't be followed.
    """
    selectors = policy.get("selectors") or {}
    labels, on_nodes = selectors.get("labelSelector"), selectors.get("nodeSelectorRequirementMatcher") or ()
    names = []
    for machine in machines:
        template = get(machine, "spec", "template") or {}
        if labels is not None and not selects(labels, get(template, "metadata", "labels") or {}):
            continue
        if all(_holds(each, get(template, "spec", "nodeSelector") or {}) for each in on_nodes):
            names.append(machine)
    return names


def selected(
    pool: Object, machines: Sequence[Object], policy: Mapping[str, Any], random: Callable[[], float]
) -> list[Object]:
    """Return the machines that a policy's selectors match, those it is about first at the beginning.

    :param random: gives 0…1, for an order by chance.
    :raises SelectionError: the selectors can't be followed.
    """
    return sorted(chosen(machines, policy), key=_order(pool, policy.get("sortPolicy"), random))


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    operator, values = requirement["operator"], requirement.get("values") or ()
    if operator in ("In", "NotIn", "Exists", "DoesNotExist"):
        return selects({"matchExpressions": [requirement]}, labels)
    if operator not in ("Gt", "Lt"):
        raise SelectionError(f'"{operator}" is not a valid label selector operator')
    try:
        mine, theirs = int(labels.get(requirement["key"], "")), int([*values, ""][0])
    except ValueError:
        return False
    return mine > theirs if operator == "Gt" else mine < theirs


def _order(pool: Object, policy: str | None, random: Callable[[], float]) -> Callable[[Object], Any]:
    def age(machine: Object) -> float:
        created = parse_time(machine["metadata"].get("creationTimestamp"))
        return created.timestamp() if created else math.inf

    def index(machine: Object) -> int:
        return index_of(pool, machine["metadata"]["name"]) or 0

    orders: dict[str, Callable[[Object], Any]] = {
        ASCENDING: index,
        DESCENDING: lambda machine: -index(machine),
        NEWEST: lambda machine: (-age(machine), -index(machine)),
        OLDEST: lambda machine: (age(machine), index(machine)),
    }
    # By chance among those that do the same work: what isn't ready does none
    return orders.get(policy or "", lambda machine: (is_ready(machine), random()))
