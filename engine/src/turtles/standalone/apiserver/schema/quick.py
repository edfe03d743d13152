# SPDX-License-Identifier: GPL-3.0-or-later
"""Schemas made ready for the usual case: an object that is as it should be.

A schema is compiled once into functions that answer one question each, whether a value is certainly valid, and whether
it has anything to prune or to default. Only where the answer isn't a clear yes does schema.py walk the object to
say what is wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

from turtles.standalone.apiserver.schema import validation as slow

Check = Callable[[Any], bool]

#: What a compiled node knows of by itself; with any other keyword it asks schema.py.
_KNOWN = {
    "type",
    "properties",
    "additionalProperties",
    "items",
    "required",
    "description",
    "title",
    "default",
    "nullable",
    "example",
    "externalDocs",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-map-type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-validations",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
}
#: Schemas with their compiled form, by identity; the schema is held so that its identity stays its own.
_compiled: dict[int, tuple[Mapping[str, Any], "Node"]] = {}
_MOST = 100


class Node:
    """A compiled schema."""

    __slots__ = ("clean", "complete", "valid")

    def __init__(self, valid: Check, clean: Check, complete: Check) -> None:
        #: Whether a value certainly breaks no rule.
        self.valid = valid
        #: Whether a value below the root certainly has nothing that the schema doesn't name.
        self.clean = clean
        #: Whether a value certainly lacks no default, and has no null that counts as not given.
        self.complete = complete


def compiled(schema: Mapping[str, Any]) -> Node:
    """Return a schema's compiled form. The schema must not change afterwards."""
    cached = _compiled.get(id(schema))
    if cached is None:
        if len(_compiled) >= _MOST:
            _compiled.clear()
        cached = _compiled[id(schema)] = (schema, _compile(schema))
    return cached[1]


def _yes(_: Any) -> bool:
    return True


def _compile(schema: Mapping[str, Any]) -> Node:
    properties = {
        name: _compile(inner) for name, inner in schema.get("properties", {}).items() if isinstance(inner, Mapping)
    }
    additional = schema.get("additionalProperties")
    others = _compile(additional) if isinstance(additional, Mapping) else None
    items = schema.get("items")
    item = _compile(items) if isinstance(items, Mapping) else None
    return Node(
        _valid(schema, properties, others, item),
        _clean(schema, properties, others, item),
        _complete(schema, properties, others, item),
    )


def _valid(schema: Mapping[str, Any], properties: dict[str, Node], others: Node | None, item: Node | None) -> Check:
    def asked(value: Any) -> bool:
        return not slow.validate(value, schema)

    kind = schema.get("type")
    if kind == "string" and set(schema) <= {*_KNOWN, "enum"} and "enum" in schema:
        allowed = frozenset(one for one in schema["enum"] if isinstance(one, str))
        return lambda value: (type(value) is str and value in allowed) or asked(value)
    if not set(schema) <= _KNOWN or schema.get("x-kubernetes-int-or-string"):
        return asked
    if kind == "object":
        checks = {name: node.valid for name, node in properties.items()}
        rest = others.valid if others is not None else None
        needed = tuple(schema.get("required", ()))

        def valid_object(value: Any) -> bool:
            if type(value) is not dict:
                return asked(value)
            for name in needed:
                if name not in value:
                    return False
            for name, inner in value.items():
                check = checks.get(name, rest)
                if check is not None and not check(inner):
                    return False
            return True

        return valid_object
    if kind == "array":
        each = item.valid if item is not None else _yes
        unique = _unique(schema)
        return lambda value: all(map(each, value)) and unique(value) if type(value) is list else asked(value)
    if kind == "string":
        return lambda value: type(value) is str or asked(value)
    if kind == "boolean":
        return lambda value: type(value) is bool or asked(value)
    if kind == "integer":
        return lambda value: type(value) is int or asked(value)
    return asked


def _unique(schema: Mapping[str, Any]) -> Check:
    """Return the check that a list's items are certainly there once each, if they have to be."""
    kind, keys = schema.get("x-kubernetes-list-type"), tuple(schema.get("x-kubernetes-list-map-keys", ()))
    if kind == "set":
        return lambda value: all(type(one) is str for one in value) and len(set(value)) == len(value)
    if kind != "map":
        return _yes

    def unique(value: Any) -> bool:
        seen = set()
        for one in value:
            if type(one) is not dict:
                return False
            identity = tuple(one.get(key) for key in keys)
            if not all(type(part) is str for part in identity):
                return False
            seen.add(identity)
        return len(seen) == len(value)

    return unique


def _clean(schema: Mapping[str, Any], properties: dict[str, Node], others: Node | None, item: Node | None) -> Check:
    if schema.get("x-kubernetes-embedded-resource"):
        return lambda value: not isinstance(value, dict | list)
    checks = {name: node.clean for name, node in properties.items()}
    rest = others.clean if others is not None else None
    keep = slow.preserves_unknown(schema) or schema.get("additionalProperties") is True
    if keep and rest is None:
        rest = _yes
    each = item.clean if item is not None else _yes

    def clean(value: Any) -> bool:
        if type(value) is dict:
            for name, inner in value.items():
                check = checks.get(name, rest)
                if check is None or not check(inner):
                    return False
            return True
        return type(value) is not list or all(map(each, value))

    return clean


def _complete(schema: Mapping[str, Any], properties: dict[str, Node], others: Node | None, item: Node | None) -> Check:
    set_here = tuple(name for name, inner in schema.get("properties", {}).items() if "default" in inner)
    never_null = frozenset(name for name, inner in schema.get("properties", {}).items() if not inner.get("nullable"))
    checks = {name: node.complete for name, node in properties.items() if node.complete is not _yes}
    rest = others.complete if others is not None else _yes
    each = item.complete if item is not None else _yes
    if not (set_here or never_null or checks) and rest is each is _yes:
        return _yes

    def complete(value: Any) -> bool:
        if type(value) is dict:
            for name in set_here:
                if value.get(name) is None:
                    return False
            for name, inner in value.items():
                if inner is None and name in never_null:
                    return False
                check = checks.get(name)
                if check is None:
                    check = _yes if name in properties else rest
                if not check(inner):
                    return False
            return True
        return type(value) is not list or all(map(each, value))

    return complete
