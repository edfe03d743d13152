# SPDX-License-Identifier: GPL-3.0-or-later
"""ResourceQuotas; admission/quota.py applies them.

Source: Kubernetes' pkg/apis/core/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE, NOT_NEGATIVE
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value

_SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")
_OPPOSITES = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_COUNTED = ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
            "persistentvolumeclaims", "services.nodeports", "services.loadbalancers")  # fmt: skip
#: What Pods use of a node.
_COMPUTED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_MEASURED = (*_COMPUTED, "ephemeral-storage", "requests.storage", "requests.ephemeral-storage",
             "limits.ephemeral-storage")  # fmt: skip


class ResourceQuotas(Strategy):
    """ResourceQuotas."""

    returns_deleted = True
    columns = (
        NAME,
        column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
        column("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of "
                "contention on the node."),
        AGE,
    )  # fmt: skip

    def cells(self, obj: Object) -> list[Any]:
        status = as_map(obj.get("status"))
        hard, used = as_map(status.get("hard")), as_map(status.get("used"))
        shown: dict[bool, list[str]] = {True: [], False: []}
        for resource in sorted(hard):
            shown[resource.startswith("limits.")].append(f"{resource}: {used.get(resource, 0)}/{hard[resource]}")
        return [name_of(obj), ", ".join(shown[False]), ", ".join(shown[True]), created(obj)]

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec: Object = obj["spec"]
        causes: list[Cause] = []
        for name, amount in (spec.get("hard") or {}).items():
            path = f"spec.hard[{name}]"
            causes += _quota_name(name, path)
            value = quantities.value(amount)
            if value < 0:
                causes.append(invalid_value(path, amount, NOT_NEGATIVE))
            if (name in _COUNTED or name.startswith("count/")) and value != value.to_integral_value():
                causes.append(invalid_value(path, amount, "must be an integer"))
        causes += _scopes(spec.get("scopes") or [], spec.get("hard") or {})
        if old is not None and (spec.get("scopes") or []) != (old["spec"].get("scopes") or []):
            causes.append(invalid_value("spec.scopes", spec.get("scopes"), IMMUTABLE))
        return causes


def _quota_name(name: str, path: str) -> list[Cause]:
    known = name in _COUNTED + _MEASURED or name.startswith(("hugepages-", "requests."))
    causes = qualified_causes(path, name)
    if "/" in name or known:
        return causes
    if not causes:
        causes.append(invalid_value(path, name, "must be a standard resource type or fully qualified"))
    return [*causes, invalid_value(path, name, "must be a standard resource for quota")]


def _scopes(scopes: list[str], hard: Object) -> list[Cause]:
    causes = []
    for scope in scopes:
        if scope not in _SCOPES:
            causes.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
            continue
        fitting = ("pods",) if scope == "BestEffort" else ("pods", *_COMPUTED)
        for name in sorted(hard):
            if name in _COUNTED + _MEASURED and name not in fitting:
                causes.append(invalid_value("spec.scopes", scopes, "unsupported scope applied to resource"))
    if any(pair <= set(scopes) for pair in _OPPOSITES):
        causes.append(invalid_value("spec.scopes", scopes, "conflicting scopes"))
    return causes
