# SPDX-License-Identifier: GPL-3.0-or-later
"""The scale subresource of custom resources: autoscaling/v1 Scale, seen through the paths that a definition names.

Source: the Kubernetes documentation "Extend the Kubernetes API with CustomResourceDefinitions" (subresources), and
ScaleREST of k8s.io/apiextensions-apiserver; of who owns the replicas, ScaleHandler of apimachinery's managedfields.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from turtles.standalone.apiserver.apply import fieldsets
from turtles.standalone.apiserver.schema.kinds import Kind, Scale
from turtles.standalone.apiserver.wire.errors import Cause, Object, bad_request, invalid_value, path_not_found

SCALE = Kind("autoscaling", "v1", "Scale", "scale")
_MAX = 2**31 - 1
_REPLICAS: fieldsets.Set = {"f:spec": {"f:replicas": {}}}
_SHOWN = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


class _Unreadable(ValueError):
    """A field that isn't of the type that a Scale needs; tells the value that is taken instead."""


def kind_of(scaled: Kind) -> Kind:
    """Return the kind of the Scales of a kind."""
    return replace(SCALE, namespaced=scaled.namespaced)


def paths_of(scaled: Kind) -> Scale:
    """Return where objects of a kind keep what their Scales show.

    :raises StatusError: 404 for a kind without Scales.
    """
    if scaled.scale is None:
        raise path_not_found()
    return scaled.scale


def _value(obj: Object, path: str) -> Any:
    """Return what is at a dotted path, None for nothing."""
    value: Any = obj
    for name in path.split("."):
        if not isinstance(value, dict):
            raise _Unreadable(f".{path} accessor error: {_go(value)}, expected map[string]interface {{}}")
        value = value.get(name)
        if value is None:
            return None
    return value


def _number(obj: Object, path: str) -> int | None:
    value = _value(obj, path)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _Unreadable(f".{path} accessor error: {_go(value)}, expected int64")


def _text(obj: Object, path: str) -> str:
    value = _value(obj, path) if path else None
    if value is None or isinstance(value, str):
        return value or ""
    raise _Unreadable(f".{path} accessor error: {_go(value)}, expected string")


def _go(value: Any) -> str:
    if isinstance(value, dict):
        return "it is of the type map[string]interface {}"
    if isinstance(value, list):
        return "it is of the type []interface {}"
    if isinstance(value, bool):
        return f"{str(value).lower()} is of the type bool"
    return f"{value:g} is of the type float64" if isinstance(value, float) else f"{value} is of the type string"


def of(obj: Object, paths: Scale, required: bool = True) -> Object:
    """Return an object's Scale.

    :param required: whether the object must say how many replicas it wants.
    :raises StatusError: 400 when it doesn't, or when it says what is no number.
    """
    try:
        wanted = _number(obj, paths.spec_replicas)
        current, selector = _number(obj, paths.status_replicas), _text(obj, paths.selector)
    except _Unreadable as error:
        raise bad_request(str(error)) from None
    if wanted is None and required:
        raise bad_request(f'the spec replicas field ".{paths.spec_replicas}" does not exist')
    return {
        "kind": SCALE.kind,
        "apiVersion": SCALE.api_version,
        "metadata": {name: obj["metadata"][name] for name in _SHOWN if name in obj["metadata"]},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": current or 0, **({"selector": selector} if selector else {})},
    }


def put(obj: Object, scale: Object, paths: Scale) -> None:
    """Set an object's replicas to those of a Scale.

    :raises StatusError: 400 where there is something else on the way to them.
    """
    *parents, last = paths.spec_replicas.split(".")
    for name in parents:
        obj = obj.setdefault(name, {})
        if not isinstance(obj, dict):
            raise bad_request(f"value cannot be set because .{paths.spec_replicas} leads through what is no object")
    obj[last] = (scale.get("spec") or {}).get("replicas") or 0


def validate(obj: Object, paths: Scale, subresource: str) -> list[Cause]:
    """Return what is wrong with the fields of a custom resource that its Scale shows."""
    causes = []
    numbers = (paths.spec_replicas, paths.status_replicas) if subresource != "status" else (paths.status_replicas,)
    for path in numbers:
        try:
            number = _number(obj, path) or 0
        except _Unreadable as error:
            causes.append(invalid_value(f".{path}", 0, str(error)))
            continue
        if number < 0:
            causes.append(invalid_value(f".{path}", number, "should be a non-negative integer"))
        elif number > _MAX:
            causes.append(invalid_value(f".{path}", number, f"should be less than or equal to {_MAX}"))
    try:
        _text(obj, paths.selector)
    except _Unreadable as error:
        causes.append(invalid_value(f".{paths.selector}", "", str(error)))
    return causes


# -- who owns the replicas


def _identity(entry: Object) -> tuple[str, ...]:
    return tuple(entry.get(name, "") for name in ("manager", "operation", "subresource"))


def _owned(paths: Scale) -> fieldsets.Set:
    fields: dict[str, Any] = {}
    for name in reversed(paths.spec_replicas.split(".")):
        fields = {f"f:{name}": fields}
    return fields


def entries(parent: Iterable[Object], versions: Mapping[str, Scale]) -> list[Object]:
    """Return the managedFields of a Scale: the entries of its object that own the replicas.

    :param versions: where the replicas are, by apiVersion.
    """
    return [
        {**entry, "apiVersion": SCALE.api_version, "fieldsV1": _REPLICAS}
        for entry in parent
        if entry.get("apiVersion") in versions
        and fieldsets.intersection(entry["fieldsV1"], _owned(versions[entry["apiVersion"]]))
    ]


def to_parent(
    parent: Iterable[Object], scaled: Iterable[Object], versions: Mapping[str, Scale], api_version: str
) -> list[Object]:
    """Return an object's managedFields after those of its Scale changed.

    :param parent: the object's entries before.
    :param scaled: the Scale's entries now.
    :param api_version: the one in which the Scale was written.
    """
    owners = {_identity(entry): entry for entry in scaled if fieldsets.intersection(entry["fieldsV1"], _REPLICAS)}
    result = []
    for entry in parent:
        if entry.get("apiVersion") not in versions:
            continue
        replicas = _owned(versions[entry["apiVersion"]])
        stays = owners.pop(_identity(entry), None) is not None
        if stays or not fieldsets.intersection(entry["fieldsV1"], replicas):
            result.append(entry)
        elif left := fieldsets.difference(entry["fieldsV1"], replicas):
            result.append({**entry, "fieldsV1": left})
    for entry in owners.values():
        result.append({**entry, "apiVersion": api_version, "fieldsV1": _owned(versions[api_version])})
    return result
