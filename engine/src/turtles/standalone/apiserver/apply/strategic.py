# SPDX-License-Identifier: GPL-3.0-or-later
"""Strategic merge patches: lists of built-in kinds are merged by the keys that their types name.

Source: k8s.io/apimachinery's strategicpatch and the design document "Strategic Merge Patch" of
kubernetes/community. Directives: ``$patch``, ``$retainKeys``, ``$setElementOrder/…``, ``$deleteFromPrimitiveList/…``.
"""

import json
from collections.abc import Callable
from typing import Any

from turtles.standalone.apiserver.schema.types import ANY, Type
from turtles.standalone.apiserver.wire.bodies import json_type
from turtles.standalone.apiserver.wire.errors import Object, StatusError, bad_request, invalid, invalid_value

_PATCH, _RETAIN = "$patch", "$retainKeys"
_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def show(value: Any) -> str:
    """Return a value as Go prints it, which is how messages name parts of a patch."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{name}:{show(value[name])}" for name in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(show(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)


def merge(document: Any, patch: Any, of: Type) -> Any:
    """Return ``document`` with a strategic merge patch applied; ``document`` may be changed.

    :param of: the type of the document.
    :raises StatusError: 400 for a patch that can't be understood.
    """
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch must be an object")
    return _map(document if isinstance(document, dict) else {}, patch, of)


def _map(original: Object, patch: Object, of: Type, fresh: bool = False) -> Object:
    """Merge an object; in a ``fresh`` one nulls have nothing to remove, and mean empty values."""
    of = of.of(original)
    directive = patch.get(_PATCH)
    if _PATCH in patch:
        if directive == "replace":
            return {name: value for name, value in patch.items() if name != _PATCH}
        if directive == "delete":
            return {}
        if directive != "merge":
            raise _unknown(directive, patch)
    _retain(original, patch)
    for name, value in patch.items():
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            if field not in original:
                continue
            if not isinstance(value, list):
                why = f"cannot restore slice from {json_type(value)}"
                raise invalid("", "", "", [invalid_value("patch", json.dumps(patch, separators=(",", ":")), why)])
            if isinstance(original.get(field), list):
                original[field] = [item for item in original[field] if item not in value]
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        inner = of.field(name)
        current = original.get(name)
        if value is None:
            original.pop(name, None)
            if fresh:
                original[name] = None
        elif isinstance(value, dict):
            if isinstance(current, dict):
                original[name] = _map(current, value, inner)
            else:
                original[name] = _map({}, value, inner, fresh=True)
        elif isinstance(value, list):
            _check_order(value, patch.get(_ORDER + name), inner)
            original[name] = _list(current if isinstance(current, list) else [], value, inner)
        else:
            original[name] = value
    for name, order in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if not isinstance(order, list):
                raise bad_request(f"{name}: expected a []interface {{}}, but received a {json_type(order)}")
            if isinstance(original.get(field), list):
                original[field] = _ordered(original[field], order, original[field], of.field(field))
    return original


def _unknown(directive: Any, patch: Any) -> StatusError:
    return bad_request(f"unknown patch type: {show(directive)} in map: {show(patch)}")


def _retain(original: Object, patch: Object) -> None:
    retained = patch.get(_RETAIN)
    if retained is None:
        return
    if not isinstance(retained, list):
        raise bad_request("invalid patch format of retainKeys")
    surplus = [name for name, value in patch.items() if value is not None and not name.startswith("$")]
    if any(name not in retained for name in surplus):
        raise bad_request("$retainKeys doesn't contain all of the fields that are present in the patch")
    for name in [name for name in original if name not in retained]:
        del original[name]


def _check_order(patch: list[Any], order: Any, of: Type) -> None:
    identity = _identity(of)
    named = [item for item in patch if not (isinstance(item, dict) and _PATCH in item)]
    places = [identity(item) for item in order] if isinstance(order, list) else None
    if places is None:
        return
    positions = [places.index(identity(item)) if identity(item) in places else -1 for item in named]
    if -1 in positions or positions != sorted(positions):
        raise bad_request(
            f"The order in patch list:\n{show(named)}\n doesn't match $setElementOrder list:\n{show(order)}\n"
        )


def _identity(of: Type) -> Callable[[Any], Any]:
    """Return what tells a list's items apart."""
    key = of.patch_key

    def found(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    return found


def _list(original: list[Any], patch: list[Any], of: Type) -> list[Any]:
    maps = any(isinstance(item, dict) for item in patch)
    if not of.patch_merge:
        # It is replaced as a whole, and directives have no meaning in it: they are fields that nothing has.
        return patch
    directives = [item[_PATCH] for item in patch if isinstance(item, dict) and _PATCH in item]
    if "replace" in directives:
        for item in patch:
            if isinstance(item, dict) and item.get(_PATCH, "replace") not in ("replace", "delete"):
                raise _unknown(item[_PATCH], item)
        return [_plain(item) for item in patch if not (isinstance(item, dict) and _PATCH in item)]
    if not of.patch_key or not maps:
        merged = list(original)
        merged += [item for at, item in enumerate(patch) if item not in merged and item not in patch[:at]]
        return _ordered(merged, patch, original, of)
    return _keyed(original, patch, of)


def _plain(item: Any) -> Any:
    """Return what is new without directives and nulls."""
    if isinstance(item, dict):
        return {name: _plain(value) for name, value in item.items() if value is not None and not name.startswith("$")}
    return [_plain(one) for one in item] if isinstance(item, list) else item


def _keyed(original: list[Any], patch: list[Any], of: Type) -> list[Any]:
    key, merged, wanted = of.patch_key, list(original), []
    for item in patch:
        if not isinstance(item, dict):
            raise bad_request(f"list element types are not identical: {show(patch)}")
        directive = item.get(_PATCH)
        if directive == "delete":
            if key not in item:
                raise bad_request(f"delete patch type with no merge key defined: map: {show(item)}")
            merged = [one for one in merged if not (isinstance(one, dict) and one.get(key) == item[key])]
        elif directive == "merge":
            raise bad_request("merging lists cannot yet be specified in the patch")
        elif _PATCH in item:
            raise _unknown(directive, item)
        else:
            wanted.append(item)
    for item in wanted:
        if key not in item:
            raise bad_request(f"map: {show(item)} does not contain declared merge key: {key}")
        at = next((n for n, one in enumerate(merged) if isinstance(one, dict) and one.get(key) == item[key]), None)
        if at is None:
            merged.append(_map({}, item, of.element or ANY))
        else:
            merged[at] = _map(merged[at], item, of.element or ANY)
    return _ordered(merged, wanted, original, of)


def _ordered(merged: list[Any], wanted: list[Any], server: list[Any], of: Type) -> list[Any]:
    """Return a list with the items that a patch names in its order, and the others as near as may be to their place."""
    identity = _identity(of)
    order = [identity(item) for item in wanted]
    places = [identity(item) for item in server]
    named = sorted((one for one in merged if identity(one) in order), key=lambda one: order.index(identity(one)))
    others = [one for one in merged if identity(one) not in order]
    result: list[Any] = []
    for item in named:
        where = identity(item)
        while others and where in places and identity(others[0]) in places:
            if places.index(identity(others[0])) > places.index(where):
                break
            result.append(others.pop(0))
        result.append(item)
    return result + others
