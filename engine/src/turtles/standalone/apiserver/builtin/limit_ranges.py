# SPDX-License-Identifier: GPL-3.0-or-later
"""LimitRanges: what they may say, what Pods get that say nothing, and what Pods and claims may not go beyond.

Source: the Kubernetes documentation "Limit Ranges"; messages of the admission plugin LimitRanger; rules of
pkg/apis/core/validation.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from turtles.api.objects import annotations_of
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin.fields import set_missing
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import qualified_causes
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    duplicate,
    field_forbidden,
    forbidden,
    invalid_value,
    required,
)

RESOURCE = "/limitranges"
ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, Any]
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")


class LimitRanges(Strategy):
    """LimitRanges."""

    def default(self, obj: Object) -> None:
        for item in obj["spec"].get("limits") or ():
            if item.get("type") == "Container":
                for target, source in (("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")):
                    if item.get(source):
                        set_missing(item.setdefault(target, {}), item[source])

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
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
            bounded = any("storage" in (item.get(one) or {}) for one in ("min", "max"))
            if kind == "PersistentVolumeClaim" and not bounded:
                text = "either minimum or maximum storage value is required, but neither was provided"
                causes.append(required(f"{path}.limits", text))
            fields = ("min", "max", "maxLimitRequestRatio", *(() if kind == "Pod" else ("default", "defaultRequest")))
            bounds = {field: item.get(field) or {} for field in fields}
            for name in sorted(set().union(*bounds.values())):
                causes += _in_order({field: amounts.get(name) for field, amounts in bounds.items()}, path, name)
        return causes


#: Lower and upper bound, where a violation is reported and with which value, and what messages call the two.
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


# -- what they do to other objects


def of_namespace(store: Store, namespace: str) -> list[Object]:
    """Return a namespace's LimitRanges."""
    return [entry.object() for entry in store.entries(RESOURCE, namespace)]


def refuse(context: Context, obj: Object, violations: list[str]) -> None:
    """Refuse an object that is outside of its namespace's ranges.

    :param violations: in which ways it is; none lets it pass.
    :raises StatusError: 403 with all of them.
    """
    if violations:
        why = violations[0] if len(violations) == 1 else f"[{', '.join(violations)}]"
        raise forbidden(context.kind.group, context.kind.plural, obj["metadata"].get("name", ""), why)


def set_defaults(pod: Object, ranges: list[Object]) -> None:
    """Set the requests and limits that a new Pod's containers don't have; an annotation records it."""
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for item in _items(ranges, "Container"):
        requests |= item.get("defaultRequest") or {}
        limits |= item.get("default") or {}
    notes = []
    for what, container in _containers(pod["spec"]):
        resources = container.get("resources") or {}
        for name, defaults in (("request", requests), ("limit", limits)):
            field = f"{name}s"
            missing = sorted(set(defaults) - set(resources.get(field) or {}))
            if missing:
                resources[field] = {**(resources.get(field) or {}), **{one: defaults[one] for one in missing}}
                notes.append(f"{', '.join(missing)} {name} for {what} {container.get('name', '')}")
        if resources:
            container["resources"] = resources
    if notes:
        annotations = annotations_of(pod)
        pod["metadata"]["annotations"] = {**annotations, ANNOTATION: f"LimitRanger plugin set: {'; '.join(notes)}"}


def claim_violations(claim: Object, ranges: list[Object]) -> list[str]:
    """Return what of a PersistentVolumeClaim is outside of its namespace's ranges."""
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    kind = "PersistentVolumeClaim"
    return list(dict.fromkeys(text for item in _items(ranges, kind) for text in _requested(kind, item, requests)))


def pod_violations(pod: Object, ranges: list[Object]) -> list[str]:
    """Return what of a Pod is outside of its namespace's ranges."""
    violations: list[str] = []
    spec = pod.get("spec") or {}
    for item in _items(ranges, "Container"):
        for _, container in _containers(spec):
            resources = container.get("resources") or {}
            violations += _outside("Container", item, resources.get("requests") or {}, resources.get("limits") or {})
    for item in _items(ranges, "Pod"):
        violations += _outside("Pod", item, total(spec, "requests"), total(spec, "limits"))
    return list(dict.fromkeys(violations))


def total(spec: Object, field: str) -> dict[str, str]:
    """Return what a Pod's containers request, or are limited to, in all."""
    amounts: dict[str, Decimal] = {}
    shown: dict[str, str] = {}
    for container in spec.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get(field) or {}).items():
            amounts[name] = amounts.get(name, Decimal(0)) + quantities.value(value)
            shown.setdefault(name, value)
    for container in spec.get("initContainers") or ():
        for name, value in ((container.get("resources") or {}).get(field) or {}).items():
            amounts[name] = max(amounts.get(name, Decimal(0)), quantities.value(value))
            shown.setdefault(name, value)
    return {name: show(value, shown[name]) for name, value in amounts.items()}


def show(value: Decimal, like: Any = "") -> str:
    """Return an amount in canonical form, with the suffixes that ``like`` has."""
    if str(like).endswith("i") and value == int(value):
        for power, suffix in ((6, "Ei"), (5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
            if value and not int(value) % 1024**power:
                return f"{int(value) // 1024**power}{suffix}"
    return quantities.canonical(format(value, "f"))


def _items(ranges: Iterable[Object], kind: str) -> Iterator[Object]:
    for one in ranges:
        for item in one["spec"].get("limits") or ():
            if item.get("type") == kind:
                yield item


def _containers(spec: Object) -> Iterator[tuple[str, Object]]:
    for container in spec.get("containers") or ():
        yield "container", container
    for container in spec.get("initContainers") or ():
        yield "init container", container


def _requested(kind: str, item: Object, requests: Amounts) -> Iterator[str]:
    for word, bounds, sign in (("minimum", item.get("min"), -1), ("maximum", item.get("max"), 1)):
        for name, bound in sorted((bounds or {}).items()):
            base = f"{word} {name} usage per {kind} is {bound}"
            if name not in requests:
                yield f"{base}.  No request is specified"
            elif sign * (quantities.value(requests[name]) - quantities.value(bound)) > 0:
                yield f"{base}, but request is {requests[name]}"


def _outside(kind: str, item: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, bound in sorted((item.get("min") or {}).items()):
        base, least = f"minimum {name} usage per {kind} is {bound}", quantities.value(bound)
        if name not in requests:
            yield f"{base}.  No request is specified"
        elif quantities.value(requests[name]) < least:
            yield f"{base}, but request is {requests[name]}"
        elif name in limits and quantities.value(limits[name]) < least:
            yield f"{base}, but limit is {limits[name]}"
    for name, bound in sorted((item.get("max") or {}).items()):
        base, most = f"maximum {name} usage per {kind} is {bound}", quantities.value(bound)
        if name not in limits:
            yield f"{base}.  No limit is specified"
        elif quantities.value(limits[name]) > most:
            yield f"{base}, but limit is {limits[name]}"
        elif name in requests and quantities.value(requests[name]) > most:
            yield f"{base}, but request is {requests[name]}"
    for name, bound in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        base = f"{name} max limit to request ratio per {kind} is {bound}"
        request = quantities.value(requests.get(name, 0))
        limit = quantities.value(limits.get(name, 0))
        if not request:
            yield f"{base}, but no request is specified or request is 0"
        elif not limit:
            yield f"{base}, but no limit is specified or limit is 0"
        elif limit / request > quantities.value(bound):
            yield f"{base}, but provided ratio is {float(limit / request):f}"
