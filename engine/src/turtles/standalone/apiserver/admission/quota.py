# SPDX-License-Identifier: GPL-3.0-or-later
"""ResourceQuotas: what a namespace may have, what it has, and the refusal of more.

Source: the Kubernetes documentation "Resource Quotas"; messages of the admission plugin ResourceQuota.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from decimal import Decimal

from turtles.standalone.apiserver.builtin import limit_ranges
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import Object, forbidden
from turtles.standalone.pods import has_ended

RESOURCE = "/resourcequotas"
Usage = dict[str, Decimal]
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
#: Constrained resources that every container must say something of.
_DEMANDED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_COUNTED = (
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
)
_STORAGE = ".storageclass.storage.k8s.io/"


# -- what an object uses


def usage(resource: str, obj: Object) -> Usage:
    """Return what an object of a resource (``group/plural``) uses."""
    group, _, plural = resource.partition("/")
    amounts: Usage = {f"count/{plural}.{group}" if group else f"count/{plural}": Decimal(1)}
    if group:
        return amounts
    if plural in _COUNTED and plural != "pods":
        amounts[plural] = Decimal(1)
    spec = obj.get("spec") or {}
    if plural == "services":
        kind = spec.get("type")
        ports = sum(bool(port.get("nodePort")) for port in spec.get("ports") or ())
        if kind == "LoadBalancer":
            amounts["services.loadbalancers"] = Decimal(1)
        if kind == "NodePort" or ports:
            amounts["services.nodeports"] = Decimal(ports or len(spec.get("ports") or ()))
    elif plural == "persistentvolumeclaims":
        request = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
        amount = quantities.value(request) if request else Decimal(0)
        amounts["requests.storage"] = amount
        name = spec.get("storageClassName")
        if name:
            amounts[f"{name}{_STORAGE}requests.storage"] = amount
            amounts[f"{name}{_STORAGE}persistentvolumeclaims"] = Decimal(1)
    elif plural == "pods" and not _is_over(obj):
        amounts["pods"] = Decimal(1)
        for name, value in limit_ranges.total(spec, "requests").items():
            amounts[f"requests.{name}"] = quantities.value(value)
            if name in _COMPUTE or name.startswith("hugepages-"):
                amounts[name] = quantities.value(value)
        for name, value in limit_ranges.total(spec, "limits").items():
            amounts[f"limits.{name}"] = quantities.value(value)
    return amounts


def _is_over(pod: Object) -> bool:
    """Say whether a Pod uses nothing any more: it ended, or should have."""
    if has_ended(pod):
        return True
    meta = pod["metadata"]
    when, grace = meta.get("deletionTimestamp"), meta.get("deletionGracePeriodSeconds")
    return bool(when) and grace is not None and time.time() > datetime.fromisoformat(when).timestamp()


def _in_scope(quota: Object, resource: str, obj: Object) -> bool:
    spec = quota["spec"]
    scopes = [{"scopeName": one, "operator": "Exists"} for one in spec.get("scopes") or ()]
    scopes += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    if not scopes:
        return True
    return resource == "/pods" and all(_matches(one, obj) for one in scopes)


def _matches(scope: Object, pod: Object) -> bool:
    spec, name = pod.get("spec") or {}, scope.get("scopeName")
    if name in ("Terminating", "NotTerminating"):
        return bool((spec.get("activeDeadlineSeconds") is not None) == (name == "Terminating"))
    if name in ("BestEffort", "NotBestEffort"):
        everything = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        best = not any(
            (one.get("resources") or {}).get(field) for one in everything for field in ("requests", "limits")
        )
        return bool(best == (name == "BestEffort"))
    if name == "CrossNamespacePodAffinity":
        return "namespaces" in str(spec.get("affinity") or "")
    if name == "PriorityClass":
        class_name, values = spec.get("priorityClassName") or "", scope.get("values") or ()
        operator = scope.get("operator")
        if operator == "Exists":
            return bool(class_name)
        if operator == "DoesNotExist":
            return not class_name
        return bool((class_name in values) == (operator == "In"))
    return False


def constrained(quota: Object) -> dict[str, str]:
    """Return what a quota constrains, with the limits."""
    hard: dict[str, str] = quota["spec"].get("hard") or {}
    return hard


def used(store: Store, quota: Object, namespace: str) -> Usage:
    """Return what a namespace uses of what a quota constrains."""
    hard = constrained(quota)
    amounts: Usage = dict.fromkeys(hard, Decimal(0))
    for resource in store.resources():
        if not counts(resource, hard):
            continue
        for entry in store.entries(resource, namespace):
            obj = entry.object()
            if _in_scope(quota, resource, obj):
                for name, amount in usage(resource, obj).items():
                    if name in amounts:
                        amounts[name] += amount
    return amounts


def counts(resource: str, hard: Iterable[str]) -> bool:
    """Say whether what is constrained may be used by objects of a resource."""
    group, _, plural = resource.partition("/")
    if (f"count/{plural}.{group}" if group else f"count/{plural}") in hard:
        return True
    if group:
        return False
    if plural == "pods":
        return any(name == "pods" or name in _COMPUTE or name.startswith(("requests.", "limits.")) for name in hard)
    if plural == "persistentvolumeclaims" and any("storage" in name for name in hard):
        return True
    return any(name == plural or name.startswith(f"{plural}.") for name in hard)


# -- admission


class Quotas:
    """Refuses what would go beyond a namespace's quotas."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def guard(self, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> AsyncIterator[None]:
        """Hold a namespace's quotas while an object is written.

        :param obj: the object as it is to become.
        :param old: the object as it is, None if it is created.
        :raises StatusError: 403 when it would go beyond one.
        """
        quotas = [entry.object() for entry in self._store.entries(RESOURCE, namespace)] if namespace else []
        concerned = [one for one in quotas if counts(kind.resource, constrained(one))]
        if not concerned:
            yield
            return
        # Two writes at once must not both take what is left for one.
        lock = self._locks.setdefault(namespace, asyncio.Lock())
        async with lock:
            for quota in concerned:
                self._check(quota, kind, namespace, obj, old)
            yield

    def _check(self, quota: Object, kind: Kind, namespace: str, obj: Object, old: Object | None) -> None:
        if not _in_scope(quota, kind.resource, obj):
            return
        name, hard = quota["metadata"]["name"], constrained(quota)
        object_name = obj["metadata"].get("name", "")
        if kind.resource == "/pods" and old is None:
            missing = _unspecified(obj, hard)
            if missing:
                raise forbidden(kind.group, kind.plural, object_name, f"failed quota: {name}: must specify {missing}")
        before = usage(kind.resource, old) if old is not None else {}
        wanted = {
            one: amount - before.get(one, Decimal(0))
            for one, amount in usage(kind.resource, obj).items()
            if one in hard and amount > before.get(one, Decimal(0))
        }
        if not wanted:
            return
        have = used(self._store, quota, namespace)
        over = sorted(one for one in wanted if have[one] + wanted[one] > quantities.value(hard[one]))
        if over:
            shown = [
                ",".join(f"{one}={limit_ranges.show(amounts[one], hard[one])}" for one in over)
                for amounts in (wanted, have)
            ]
            limited = ",".join(f"{one}={hard[one]}" for one in over)
            why = f"exceeded quota: {name}, requested: {shown[0]}, used: {shown[1]}, limited: {limited}"
            raise forbidden(kind.group, kind.plural, object_name, why)


def _unspecified(pod: Object, hard: Iterable[str]) -> str:
    """Return which containers say nothing of what a quota constrains, '' when all do."""
    missing: dict[str, set[str]] = {}
    for container in (pod.get("spec") or {}).get("containers") or ():
        resources = container.get("resources") or {}
        known = {f"limits.{name}" for name in resources.get("limits") or ()}
        for name in resources.get("requests") or ():
            known |= {name, f"requests.{name}"}
        for name in _DEMANDED:
            if name in hard and name not in known:
                missing.setdefault(name, set()).add(container.get("name", ""))
    return "; ".join(f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing))
