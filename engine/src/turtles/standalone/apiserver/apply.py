# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-side apply: merging what a manager wants, and who owns which field.

Source: the Kubernetes documentation "Server-Side Apply". Ownership is kept for managers that apply; updates and
patches of others change values without taking fields over.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from turtles.standalone.apiserver.errors import Object, StatusError, bad_request, invalid, required
from turtles.standalone.apiserver.kinds import Kind
from turtles.standalone.apiserver.metadata import now
from turtles.standalone.apiserver.patch import MERGE_KEYS, MERGE_SETS

#: A field: steps as FieldsV1 writes them, ``f:name``, ``k:{"name":"a"}``, ``v:"x"``; ``.`` for an item itself.
FieldPath = tuple[str, ...]
_NONE: Mapping[str, Any] = {}
_METADATA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set"},
        "ownerReferences": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            "items": {"type": "object", "x-kubernetes-map-type": "atomic"},
        },
    },
}  # fmt: skip
_OWN = ("labels", "annotations", "finalizers", "ownerReferences")


class _Schema:
    """What merging needs to know of a value: how its list is keyed, what is atomic."""

    def __init__(self, data: Mapping[str, Any] | None, name: str = "") -> None:
        #: None for built-in kinds, whose lists are known by name.
        self.data, self.name = data, name

    def field(self, name: str) -> "_Schema":
        if self.data is None:
            return _Schema(None, name)
        properties = self.data.get("properties", _NONE)
        inner = properties.get(name, self.data.get("additionalProperties"))
        return _Schema(inner if isinstance(inner, Mapping) else _NONE, name)

    def items(self) -> "_Schema":
        if self.data is None:
            return _Schema(None, "")
        inner = self.data.get("items")
        return _Schema(inner if isinstance(inner, Mapping) else _NONE)

    @property
    def atomic(self) -> bool:
        return self.data is not None and self.data.get("x-kubernetes-map-type") == "atomic"

    def list_keys(self, items: list[Any]) -> tuple[str, ...] | None:
        """Return the keys of a list of objects, () for a set, None for an atomic list."""
        if self.data is not None:
            kind = self.data.get("x-kubernetes-list-type")
            if kind == "map":
                return tuple(self.data.get("x-kubernetes-list-map-keys", ()))
            return () if kind == "set" else None
        if self.name in MERGE_SETS:
            return ()
        for key in MERGE_KEYS.get(self.name, ()):
            if items and all(isinstance(item, dict) and key in item for item in items):
                return (key,)
        return None

    def step(self, item: Any, keys: tuple[str, ...]) -> str:
        """Return the step to a list's item."""
        if not keys:
            return "v:" + json.dumps(item, separators=(",", ":"))
        if not isinstance(item, dict):
            raise bad_request(f"failed to create typed patch object: an item of {self.name} must be an object")
        properties = (self.items().data or _NONE).get("properties", _NONE)
        found = {key: item.get(key, properties.get(key, _NONE).get("default")) for key in sorted(keys)}
        return "k:" + json.dumps(found, separators=(",", ":"))


def root_schema(kind: Kind) -> _Schema:
    """Return the schema by which objects of a kind are merged."""
    if kind.schema is None:
        return _Schema(None)
    properties = {**kind.schema.get("properties", {}), "metadata": _METADATA}
    return _Schema({**kind.schema, "properties": properties})


def fields_of(value: Any, schema: _Schema, path: FieldPath = ()) -> set[FieldPath]:
    """Return the fields that a configuration names."""
    found: set[FieldPath] = set()
    if isinstance(value, dict) and value and not schema.atomic:
        for name, item in value.items():
            found |= fields_of(item, schema.field(name), (*path, f"f:{name}"))
        return found
    if isinstance(value, list) and value:
        keys = schema.list_keys(value)
        if keys is not None:
            for item in value:
                step = schema.step(item, keys)
                found.add((*path, step, "."))
                if isinstance(item, dict):
                    found |= fields_of(item, schema.items(), (*path, step))
            return found
    return {path} if path else found


def merge(live: Any, wanted: Any, schema: _Schema) -> Any:
    """Return ``live`` with everything that ``wanted`` names set to its value."""
    if isinstance(live, dict) and isinstance(wanted, dict) and not schema.atomic:
        result = dict(live)
        for name, item in wanted.items():
            result[name] = merge(live.get(name), item, schema.field(name)) if name in live else copy.deepcopy(item)
        return result
    if isinstance(live, list) and isinstance(wanted, list):
        keys = schema.list_keys(wanted or live)
        if keys is not None:
            items = list(live)
            known = [(at, item) for at, item in enumerate(live) if not keys or isinstance(item, dict)]
            positions = {schema.step(item, keys): at for at, item in known}
            for item in wanted:
                at = positions.get(schema.step(item, keys))
                if at is None:
                    items.append(copy.deepcopy(item))
                else:
                    items[at] = merge(items[at], item, schema.items())
            return items
    return copy.deepcopy(wanted)


def _find(value: Any, path: FieldPath, schema: _Schema) -> tuple[bool, Any]:
    for step in path:
        if step == ".":
            break
        if step.startswith("f:"):
            if not isinstance(value, dict) or step[2:] not in value:
                return False, None
            value, schema = value[step[2:]], schema.field(step[2:])
            continue
        at = _position(value, step, schema)
        if at is None:
            return False, None
        value, schema = value[at], schema.items()
    return True, value


def _position(value: Any, step: str, schema: _Schema) -> int | None:
    if not isinstance(value, list):
        return None
    keys = schema.list_keys(value)
    if keys is None:
        return None
    for at, item in enumerate(value):
        if (not keys or isinstance(item, dict)) and schema.step(item, keys) == step:
            return at
    return None


def remove(value: Any, path: FieldPath, schema: _Schema) -> None:
    """Remove a field from ``value``, and maps that become empty by it."""
    if not path:
        return
    step, rest = path[0], path[1:]
    last = not rest or rest == (".",)
    if step.startswith("f:"):
        name = step[2:]
        if not isinstance(value, dict) or name not in value:
            return
        if not last:
            remove(value[name], rest, schema.field(name))
        if last or value[name] in ({}, []):
            del value[name]
        return
    at = _position(value, step, schema)
    if at is not None:
        if last:
            del value[at]
        else:
            remove(value[at], rest, schema.items())


def to_tree(fields: set[FieldPath]) -> Object:
    """Return fields as FieldsV1."""
    tree: Object = {}
    for path in sorted(fields):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def from_tree(tree: Any, path: FieldPath = ()) -> set[FieldPath]:
    """Return the fields of a FieldsV1."""
    if not isinstance(tree, dict) or not tree:
        return {path} if path else set()
    return {one for step, inner in tree.items() for one in from_tree(inner, (*path, step))}


def check(config: Any, kind: Kind, manager: str) -> None:
    """Raise when a configuration can't be applied."""
    if not manager:
        cause = required("fieldManager", "is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    if not isinstance(config, dict) or config.get("apiVersion") != kind.api_version or config.get("kind") != kind.kind:
        raise bad_request(f"an applied configuration must be a {kind.kind} with apiVersion {kind.api_version}")
    metadata = config.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    if (metadata or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")


def apply(live: Object, config: Object, kind: Kind, manager: str, force: bool, subresource: str) -> tuple[Object, Any]:
    """Return the merged object and its managedFields.

    :param live: the current object, or an empty one.
    :raises StatusError: 409 when other managers own fields that would change, unless ``force``.
    """
    schema = root_schema(kind)
    fields = {name: value for name, value in config.items() if name not in ("apiVersion", "kind", "metadata")}
    if subresource == "status":
        fields = {name: value for name, value in fields.items() if name == "status"}
    elif kind.status:
        fields.pop("status", None)
    own = {name: value for name, value in (config.get("metadata") or {}).items() if name in _OWN and value}
    if own:
        fields["metadata"] = own
    wanted = fields_of(fields, schema)
    entries = [dict(one) for one in live.get("metadata", {}).get("managedFields") or () if isinstance(one, dict)]
    mine, others = None, []
    for entry in entries:
        same = entry.get("manager") == manager and entry.get("subresource", "") == subresource
        if same and entry.get("operation") == "Apply":
            mine = entry
        else:
            others.append(entry)
    _settle_conflicts(live, fields, wanted, others, schema, force)
    result: Object = merge(live, {**fields, "metadata": {**own}} if own else fields, schema)
    kept = {path for entry in others for path in from_tree(entry.get("fieldsV1"))} | wanted
    # An item goes before its fields: without its key it could no longer be found.
    dropped = from_tree((mine or {}).get("fieldsV1")) - wanted
    for path in sorted(dropped, key=lambda one: (len(one), one[-1] != ".")):
        prefix = path[:-1] if path[-1] == "." else path
        if not any(one[: len(prefix)] == prefix for one in kept):
            remove(result, path, schema)
    entry = {
        "manager": manager, "operation": "Apply", "apiVersion": kind.api_version, "time": now(),
        "fieldsType": "FieldsV1", "fieldsV1": to_tree(wanted),
    }  # fmt: skip
    if subresource:
        entry["subresource"] = subresource
    if mine is not None and mine.get("fieldsV1") == entry["fieldsV1"]:
        entry["time"] = mine.get("time", entry["time"])
    return result, [*(one for one in others if one.get("fieldsV1")), entry]


def _settle_conflicts(
    live: Object, config: Object, wanted: set[FieldPath], others: list[Object], schema: _Schema, force: bool
) -> None:
    causes = []
    for entry in others:
        owned = from_tree(entry.get("fieldsV1"))
        lost = set()
        for path in sorted(owned & wanted):
            if path[-1] != "." and _find(live, path, schema) != _find(config, path, schema):
                lost.add(path)
                text = f'conflict with "{entry.get("manager")}" using {entry.get("apiVersion")}'
                shown = "".join(f".{one[2:]}" if one.startswith("f:") else f"[{one[2:]}]" for one in path)
                causes.append({"reason": "FieldManagerConflict", "message": text, "field": shown})
        if lost and force:
            entry["fieldsV1"] = to_tree(owned - lost)
    if causes and not force:
        word = "conflict" if len(causes) == 1 else "conflicts"
        texts = "; ".join(f"{one['message']}: {one['field']}" for one in causes)
        message = f"Apply failed with {len(causes)} {word}: {texts}"
        raise StatusError(409, "Conflict", message, {"causes": causes})
