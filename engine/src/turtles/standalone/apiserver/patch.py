# SPDX-License-Identifier: GPL-3.0-or-later
"""The patch types: JSON patch (RFC 6902), merge patch (RFC 7386), and Kubernetes' strategic merge patch."""

import copy
from typing import Any

import jsonpatch
import jsonpointer
import msgspec

from turtles.standalone.apiserver.bodies import json_type
from turtles.standalone.apiserver.errors import StatusError, bad_request

JSON, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
MAX_OPERATIONS = 10_000


def types(custom: bool) -> list[str]:
    """Return the media types of patches of a built-in or a custom kind."""
    return [JSON, MERGE, *([] if custom else [STRATEGIC]), APPLY]


#: Bytes that a JSON patch's copies may have in all: a few that double each other fill any memory.
MAX_COPIED = 3 * 1024 * 1024

#: Lists of built-in kinds that strategic merge patches merge by an item's key, and the key. Everywhere else a list
#: is replaced. A Service's ports have another key than a container's.
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "resourceClaims": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "addresses": ("type", "ip"),
    "taints": ("key",),
    "podIPs": ("ip",),
    "hostIPs": ("ip",),
    "webhooks": ("name",),
}
#: Lists of plain values that are merged as sets.
MERGE_SETS = frozenset({"finalizers", "podCIDRs"})


def json_patch(document: Any, patch: Any) -> Any:
    """Return ``document`` with a JSON patch applied.

    :raises StatusError: 400 for what is no patch, 413 for one that is too large, 422 for one that can't be applied.
    """
    if not isinstance(patch, list):
        raise bad_request(f"json: cannot unmarshal {json_type(patch)} into Go value of type jsonpatch.Patch")
    if len(patch) > MAX_OPERATIONS:
        text = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        raise StatusError(413, "RequestEntityTooLarge", text)
    copied = 0
    try:
        for one in patch:
            if not isinstance(one, dict):
                raise bad_request(f"json: cannot unmarshal {json_type(one)} into Go value of type jsonpatch.Operation")
            if one.get("op") == "copy":
                copied += len(msgspec.json.encode(jsonpointer.resolve_pointer(document, one["from"])))
                if copied > MAX_COPIED:
                    text = f"the copies of a JSON patch may not have more than {MAX_COPIED} bytes in all"
                    raise StatusError(413, "RequestEntityTooLarge", text)
            document = _operation(document, one)
        return document
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError, IndexError):
        text = "the server rejected our request due to an error in our request"
        raise StatusError(422, "Invalid", text, {}) from None


def _operation(document: Any, operation: dict[str, Any]) -> Any:
    if not operation.get("path"):
        raise jsonpatch.InvalidJsonPatch("the whole object can't be the target")
    if operation.get("op") in ("add", "replace", "test"):
        # No value is null, and a test for null holds for what isn't there, as the server's library has it.
        operation = {"value": None, **operation}
        if operation["op"] == "test" and operation["value"] is None:
            return _test_null(document, operation["path"])
    return jsonpatch.apply_patch(document, [operation])


def _test_null(document: Any, path: str) -> Any:
    if jsonpointer.resolve_pointer(document, path, None) is not None:
        raise jsonpatch.JsonPatchTestFailed(f"{path} is not null")
    return document


def merge_patch(document: Any, patch: Any) -> Any:
    """Return ``document`` with a merge patch applied; ``document`` may be changed."""
    if not isinstance(patch, dict):
        return patch
    result = document if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merge_patch(result.get(name), value)
        else:
            result[name] = value
    return result


def strategic_merge_patch(document: Any, patch: Any) -> Any:
    """Return ``document`` with a strategic merge patch applied; ``document`` may be changed."""
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch must be an object")
    return _merge_map(document if isinstance(document, dict) else {}, patch)


def _merge_map(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        for name in [name for name in original if name not in retained]:
            del original[name]
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            if isinstance(original.get(field), list) and isinstance(value, list):
                original[field] = [item for item in original[field] if item not in value]
    orders = {name.partition("/")[2]: value for name, value in patch.items() if name.startswith("$setElementOrder/")}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            original.pop(name, None)
        elif isinstance(value, dict):
            found = original.get(name)
            original[name] = _merge_map(found if isinstance(found, dict) else {}, value)
        elif isinstance(value, list):
            original[name] = _merge_list(name, original.get(name), value)
        else:
            original[name] = value
    for name, order in orders.items():
        if isinstance(original.get(name), list) and isinstance(order, list):
            original[name] = _ordered(name, original[name], order)
    return original


def _key_of(name: str, items: list[Any]) -> str:
    for key in MERGE_KEYS.get(name, ()):
        if items and all(isinstance(item, dict) and (key in item or "$patch" in item) for item in items):
            return key
    return ""


def _merge_list(name: str, original: Any, patch: list[Any]) -> list[Any]:
    found: list[Any] = list(original) if isinstance(original, list) else []
    if name in MERGE_SETS:
        return found + [item for item in patch if item not in found]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    key = _key_of(name, patch)
    if not key:
        return copy.deepcopy(patch)
    for item in patch:
        position = next(
            (at for at, one in enumerate(found) if isinstance(one, dict) and one.get(key) == item.get(key)), None
        )
        if item.get("$patch") == "delete":
            if position is not None:
                del found[position]
        elif position is None:
            found.append(_merge_map({}, item))
        else:
            found[position] = _merge_map(found[position], item)
    return found


def _ordered(name: str, items: list[Any], order: list[Any]) -> list[Any]:
    key = _key_of(name, order)

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [identity(item) for item in order]
    ranked = [item for item in items if identity(item) in wanted]
    ranked.sort(key=lambda item: wanted.index(identity(item)))
    return ranked + [item for item in items if identity(item) not in wanted]
