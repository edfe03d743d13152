# SPDX-License-Identifier: GPL-3.0-or-later
"""LimitRanges: what Pods get that say nothing, and what they and claims may not go beyond.

Source: the Kubernetes documentation "Limit Ranges"; messages of the admission plugin LimitRanger.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from turtles.standalone.apiserver.wire import quantities
from turtles.standalone.apiserver.wire.errors import Object

RESOURCE = "/limitranges"
ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, Any]


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


def set_defaults(pod: Object, ranges: list[Object]) -> None:
    """Give a new Pod's containers the requests and limits they don't have; an annotation tells so."""
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
        annotations = pod["metadata"].get("annotations") or {}
        pod["metadata"]["annotations"] = {**annotations, ANNOTATION: f"LimitRanger plugin set: {'; '.join(notes)}"}


def violations(plural: str, obj: Object, ranges: list[Object]) -> list[str]:
    """Return what of an object is outside of its namespace's ranges.

    :param plural: ``pods`` or ``persistentvolumeclaims``; others have none.
    """
    found: list[str] = []
    spec = obj.get("spec") or {}
    if plural == "persistentvolumeclaims":
        requests = (spec.get("resources") or {}).get("requests") or {}
        for item in _items(ranges, "PersistentVolumeClaim"):
            found += _requested("PersistentVolumeClaim", item, requests)
    elif plural == "pods":
        for item in _items(ranges, "Container"):
            for _, container in _containers(spec):
                resources = container.get("resources") or {}
                found += _outside("Container", item, resources.get("requests") or {}, resources.get("limits") or {})
        for item in _items(ranges, "Pod"):
            found += _outside("Pod", item, total(spec, "requests"), total(spec, "limits"))
    return list(dict.fromkeys(found))


def total(spec: Object, field: str) -> dict[str, str]:
    """Return what a Pod's containers request, or are limited to, in all."""
    found: dict[str, Decimal] = {}
    shown: dict[str, str] = {}
    for container in spec.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get(field) or {}).items():
            found[name] = found.get(name, Decimal(0)) + quantities.value(value)
            shown.setdefault(name, value)
    for container in spec.get("initContainers") or ():
        for name, value in ((container.get("resources") or {}).get(field) or {}).items():
            found[name] = max(found.get(name, Decimal(0)), quantities.value(value))
            shown.setdefault(name, value)
    return {name: show(value, shown[name]) for name, value in found.items()}


def show(value: Decimal, like: Any = "") -> str:
    """Return an amount in canonical form, with the suffixes that ``like`` has."""
    if str(like).endswith("i") and value == int(value):
        for power, suffix in ((6, "Ei"), (5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
            if value and not int(value) % 1024**power:
                return f"{int(value) // 1024**power}{suffix}"
    return quantities.canonical(format(value, "f"))


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
