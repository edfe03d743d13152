# SPDX-License-Identifier: GPL-3.0-or-later
"""What ResourceQuotas and LimitRanges must look like.

Source: Kubernetes' pkg/apis/core/validation.
"""

from collections.abc import Iterator
from typing import Any

from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import Cause, Object, duplicate, field_forbidden, invalid_value, required

_SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")
_OPPOSITES = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_COUNTED = ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
            "persistentvolumeclaims", "services.nodeports", "services.loadbalancers")  # fmt: skip
#: What Pods use of a node.
_COMPUTED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_MEASURED = (*_COMPUTED, "ephemeral-storage", "requests.storage", "requests.ephemeral-storage",
             "limits.ephemeral-storage")  # fmt: skip
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_NOT_NEGATIVE = "must be greater than or equal to 0"


def validate_quota(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a ResourceQuota."""
    spec: Object = obj["spec"]
    causes: list[Cause] = []
    for name, amount in (spec.get("hard") or {}).items():
        path = f"spec.hard[{name}]"
        causes += _quota_name(name, path)
        value = quantities.value(amount)
        if value < 0:
            causes.append(invalid_value(path, amount, _NOT_NEGATIVE))
        if (name in _COUNTED or name.startswith("count/")) and value != value.to_integral_value():
            causes.append(invalid_value(path, amount, "must be an integer"))
    causes += _scopes(spec.get("scopes") or [], spec.get("hard") or {})
    if old is not None and (spec.get("scopes") or []) != (old["spec"].get("scopes") or []):
        causes.append(invalid_value("spec.scopes", spec.get("scopes"), "field is immutable"))
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


def validate_limit_range(obj: Object, old: Object | None) -> list[Cause]:
    """Return what is wrong with a LimitRange."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate(obj["spec"].get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type") or ""
        wrong = qualified_causes(f"{path}.type", kind)
        if not wrong and "/" not in kind and kind not in _TYPES:
            wrong = [invalid_value(f"{path}.type", kind, "must be a standard limit type or fully qualified")]
        causes += wrong
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        if kind == "Pod":
            for field in ("default", "defaultRequest"):
                if item.get(field):
                    causes.append(field_forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'"))
        if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(one) or {}) for one in ("min", "max")):
            text = "either minimum or maximum storage value is required, but neither was provided"
            causes.append(required(f"{path}.limits", text))
        fields = ("min", "max", "maxLimitRequestRatio", *(() if kind == "Pod" else ("default", "defaultRequest")))
        bounds = {field: item.get(field) or {} for field in fields}
        for name in sorted(set().union(*bounds.values())):
            causes += _in_order({field: amounts.get(name) for field, amounts in bounds.items()}, path, name)
    return causes


#: What may not be above what, where a fault is told, with whose value, and how the two are called.
_ORDER = (
    ("min", "max", "min", "min", "min", "max"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min", "default request"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request", "max"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request", "default limit"),
    ("min", "default", "default", "min", "min", "default"),
    ("default", "max", "default", "max", "default", "max"),
)


def _in_order(bounds: dict[str, Any], path: str, name: str) -> Iterator[Cause]:
    for low, high, where, whose, small, big in _ORDER:
        one, other = bounds.get(low), bounds.get(high)
        if one is not None and other is not None and quantities.value(one) > quantities.value(other):
            text = f"{small} value {one} is greater than {big} value {other}"
            yield invalid_value(f"{path}.{where}[{name}]", bounds[whose], text)
    ratio, least, most = bounds.get("maxLimitRequestRatio"), bounds.get("min"), bounds.get("max")
    place = f"{path}.maxLimitRequestRatio[{name}]"
    if ratio is not None and quantities.value(ratio) < 1:
        yield invalid_value(place, ratio, f"ratio {ratio} is less than 1")
    if ratio is not None and least is not None and most is not None and quantities.value(least):
        limit = float(quantities.value(most) / quantities.value(least))
        if float(quantities.value(ratio)) > limit:
            yield invalid_value(place, ratio, f"ratio {ratio} is greater than max/min = {limit:f}")
