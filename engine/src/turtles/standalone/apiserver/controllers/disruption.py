# SPDX-License-Identifier: GPL-3.0-or-later
"""PodDisruptionBudgets: how many Pods may be taken, and the eviction that asks first.

Source: the Kubernetes documentation "Disruptions", "Specifying a Disruption Budget for your Application",
"API-initiated Eviction"; messages of k8s.io/kubernetes' eviction subresource.
"""

import math
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from turtles.api.texts import to_number
from turtles.api.times import now
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.controllers.internal import context_of, modify_if_exists
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.schema.selectors import match_selector
from turtles.standalone.apiserver.storage.entries import DELETED, Entry, Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Object, StatusError
from turtles.standalone.pods import has_ended

RESOURCE = "policy/poddisruptionbudgets"
#: An eviction counts until its Pod is gone, but not longer than this, in seconds.
PENDING_SECONDS = 120.0


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _scaled(value: Any, total: int) -> int:
    """Return a number, or a percentage of a total rounded up."""
    if isinstance(value, str):
        return math.ceil((to_number(value.rstrip("%")) or 0) * total / 100)
    return int(value)


def selected(store: Store, budget: Object, namespace: str) -> Iterator[Entry]:
    """Yield the Pods that a budget is about."""
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return
    for entry in store.entries("/pods", namespace):
        if match_selector(selector, entry.labels):
            yield entry


def status_of(budget: Object, pods: list[Object], at: float) -> tuple[Object, float | None]:
    """Return a budget's status, and in how many seconds it may be another one by time alone.

    :param pods: the Pods that the budget is about.
    :param at: the time, in seconds since 1970.
    """
    spec, before = budget.get("spec") or {}, budget.get("status") or {}
    living = [pod for pod in pods if not has_ended(pod)]
    names = {pod["metadata"]["name"]: pod for pod in living if not pod["metadata"].get("deletionTimestamp")}
    pending: dict[str, str] = {}
    again: float | None = None
    for name, when in (before.get("disruptedPods") or {}).items():
        left = datetime.fromisoformat(when).timestamp() + PENDING_SECONDS - at
        if name in names and left > 0:
            pending[name] = when
            again = left if again is None else min(again, left)
    healthy = sum(_is_ready(pod) and name not in pending for name, pod in names.items())
    expected = len(living)
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - _scaled(spec["maxUnavailable"], expected))
    else:
        desired = _scaled(spec.get("minAvailable", 1), expected)
    allowed = max(0, healthy - desired) if expected else 0
    status: Object = {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
    }
    if pending:
        status["disruptedPods"] = pending
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "observedGeneration": status["observedGeneration"],
    }
    old = next((one for one in before.get("conditions") or () if one.get("type") == "DisruptionAllowed"), None)
    same = old is not None and old.get("status") == condition["status"]
    changed = old["lastTransitionTime"] if old is not None and same else now()
    status["conditions"] = [{**condition, "lastTransitionTime": changed}]
    return status, again


class Budgets:
    """Keeps the status of PodDisruptionBudgets up to date."""

    resources: frozenset[str] | None = frozenset({RESOURCE, "/pods"})

    def __init__(self, resources: Resources) -> None:
        self._resources, self._store = resources, resources.store

    def initial(self) -> Iterable[Key]:
        """Return every budget."""
        return [entry.key for entry in self._store.entries(RESOURCE)]

    def concerned(self, event: Event) -> Iterable[Key]:
        """Return the budget, or the budgets of a Pod's namespace."""
        key = event.entry.key
        if key.resource == RESOURCE:
            return [key] if event.type != DELETED else []
        return [entry.key for entry in self._store.entries(RESOURCE, key.namespace)]

    async def reconcile(self, key: Key) -> float | None:
        """Count a budget's Pods again."""
        entry = self._store.get(key)
        if entry is None or entry.metadata.deletion_timestamp:
            return None
        again: list[float | None] = []

        async def counted(old: Object) -> Object:
            pods = [one.object() for one in selected(self._store, old, key.namespace)]
            status, seconds = status_of(old, pods, time.time())
            again[:] = [seconds]
            return {**old, "status": status}

        await modify_if_exists(self._resources, key, counted, "status")
        return again[0] if again else None


async def admit_eviction(resources: Resources, context: Context, pod: Entry) -> None:
    """Take an eviction from the Pod's budget, where it has one.

    :raises StatusError: 429 when the budget doesn't allow it; 500 for a Pod with several.
    """
    obj = pod.object()
    phase = (obj.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Pending") or pod.metadata.deletion_timestamp:
        return
    store = resources.store
    budgets = [
        entry
        for entry in store.entries(RESOURCE, context.namespace)
        if (entry.object().get("spec") or {}).get("selector") is not None
        and match_selector(entry.object()["spec"]["selector"], pod.labels)
    ]
    if not budgets:
        return
    if len(budgets) > 1:
        text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise StatusError(500, "", text)
    name = budgets[0].key.name
    ready = _is_ready(obj)

    async def taken(budget: Object) -> Object:
        status = budget.get("status") or {}
        healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        if not ready and (budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or healthy >= desired > 0):
            return budget
        if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 1):
            raise _refused(f"The disruption budget {name} is still being processed by the server.", 10)
        if status.get("disruptionsAllowed", 0) <= 0:
            text = f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
            raise _refused(text)
        status["disruptionsAllowed"] -= 1
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod.key.name: now()}
        return budget

    await modify(resources, context_of(resources, budgets[0].key, "status", context.dry_run), taken)


def _refused(why: str, again: int = 0) -> StatusError:
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    if again:
        details["retryAfterSeconds"] = again
    return StatusError(429, "TooManyRequests", text, details)
