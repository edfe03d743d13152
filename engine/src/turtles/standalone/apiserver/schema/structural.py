# SPDX-License-Identifier: GPL-3.0-or-later
"""What a definition's schema may be: structural, and made of what the API server understands.

Source: the Kubernetes documentation "Specifying a structural schema", and k8s.io/apiextensions-apiserver for messages.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from turtles.standalone.apiserver.schema import validation as values
from turtles.standalone.apiserver.schema.formats import pattern_error
from turtles.standalone.apiserver.wire.errors import Cause, field_forbidden, invalid_value, not_supported, required

Schema = Mapping[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_SCALARS = ("boolean", "integer", "number", "string")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
#: What schemas within allOf, anyOf, oneOf and not may not say, and how a message asks for its absence.
_OUTSIDE = {
    "type": "must be empty to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "default": "must be undefined to be structural",
    "additionalProperties": "must be undefined to be structural",
    "nullable": "must be false to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}
_REFUSED = {
    "$ref": "$ref is not supported",
    "definitions": "definitions is not supported",
    "dependencies": "dependencies is not supported",
    "patternProperties": "patternProperties is not supported",
    "additionalItems": "additionalItems is not supported",
    "id": "id is not supported",
}


def check(schema: Any, path: str) -> list[Cause]:
    """Return what is wrong with a version's schema.

    :param path: of the schema in the definition.
    """
    if not isinstance(schema, Mapping):
        return [invalid_value(path, schema, "must be a schema object")]
    causes: list[Cause] = []
    _generic(schema, path, causes)
    _structural(schema, path, "root", causes)
    if not causes:
        _defaults(schema, path, causes)
    return causes


def _shape(schema: Schema, path: str, causes: list[Cause]) -> bool:
    """Whether the fields that hold schemas hold such."""
    before = len(causes)
    properties = schema.get("properties")
    if properties is not None and not isinstance(properties, Mapping):
        causes.append(invalid_value(f"{path}.properties", properties, "must be a map of schemas"))
    for name in _JUNCTORS:
        if not isinstance(schema.get(name, []), list):
            causes.append(invalid_value(f"{path}.{name}", schema[name], "must be a list of schemas"))
    for name in ("required", "enum", "x-kubernetes-list-map-keys", "x-kubernetes-validations"):
        if not isinstance(schema.get(name) or [], list):
            causes.append(invalid_value(f"{path}.{name}", schema[name], "must be a list"))
    for inner, below in _inner(schema, path):
        if not isinstance(inner, Mapping):
            causes.append(invalid_value(below, inner, "must be a schema object"))
    return len(causes) == before


def _inner(schema: Schema, path: str) -> Iterator[tuple[Any, str]]:
    """Yield the schemas that a schema holds, with their paths."""
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        yield inner, f"{path}.properties[{name}]"
    additional = schema.get("additionalProperties")
    if additional is not None and not isinstance(additional, bool):
        yield additional, f"{path}.additionalProperties"
    if "items" in schema and not isinstance(schema["items"], list):
        yield schema["items"], f"{path}.items"
    for name in _JUNCTORS:
        value = schema.get(name)
        for index, inner in enumerate(value if isinstance(value, list) else ()):
            yield inner, f"{path}.{name}[{index}]"
    if "not" in schema:
        yield schema["not"], f"{path}.not"


def _generic(schema: Schema, path: str, causes: list[Cause]) -> None:
    if not _shape(schema, path, causes):
        return
    for name, text in _REFUSED.items():
        if schema.get(name):
            causes.append(field_forbidden(f"{path}.{name}", text))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(field_forbidden(f"{path}.uniqueItems", text))
    additional = schema.get("additionalProperties")
    if additional and schema.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        causes.append(field_forbidden(f"{path}.additionalProperties", text))
    kind = schema.get("type")
    if kind and kind not in _TYPES:
        causes.append(not_supported(f"{path}.type", kind, list(_TYPES)))
    if kind == "null":
        text = "type cannot be set to null, use nullable as an alternative"
        causes.append(field_forbidden(f"{path}.type", text))
    if isinstance(schema.get("items"), list):
        causes.append(field_forbidden(f"{path}.items", "items must be a schema object and not an array"))
    elif kind == "array" and "items" not in schema:
        causes.append(required(f"{path}.items", "must be specified"))
    if "x-kubernetes-preserve-unknown-fields" in schema and schema["x-kubernetes-preserve-unknown-fields"] is not True:
        value = schema["x-kubernetes-preserve-unknown-fields"]
        causes.append(invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", value, "must be true or undefined"))
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (error := pattern_error(pattern)):
        text = f"must be a valid regular expression, but isn't: {error}"
        causes.append(invalid_value(f"{path}.pattern", pattern, text))
    for name in ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"):
        if name in schema and (isinstance(schema[name], bool) or not isinstance(schema[name], int)):
            causes.append(invalid_value(f"{path}.{name}", schema[name], "must be an integer"))
    for name in ("minimum", "maximum", "multipleOf"):
        if name in schema and (isinstance(schema[name], bool) or not isinstance(schema[name], int | float)):
            causes.append(invalid_value(f"{path}.{name}", schema[name], "must be a number"))
    _extensions(schema, path, causes)
    for inner, below in _inner(schema, path):
        _generic(inner, below, causes)


def _extensions(schema: Schema, path: str, causes: list[Cause]) -> None:
    kind = schema.get("type")
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None:
        if kind != "object":
            text = "must be object if x-kubernetes-map-type is specified"
            causes.append(invalid_value(f"{path}.type", kind or "", text) if kind else required(f"{path}.type", text))
        if map_type not in ("atomic", "granular"):
            causes.append(not_supported(f"{path}.x-kubernetes-map-type", map_type, ["atomic", "granular"]))
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if list_type is not None:
        if kind != "array":
            text = "must be array if x-kubernetes-list-type is specified"
            causes.append(invalid_value(f"{path}.type", kind, text) if kind else required(f"{path}.type", text))
        if list_type not in ("atomic", "set", "map"):
            causes.append(not_supported(f"{path}.x-kubernetes-list-type", list_type, ["atomic", "set", "map"]))
    if keys and list_type != "map":
        text = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.x-kubernetes-list-type"
        causes.append(required(where, text) if list_type is None else invalid_value(where, list_type, text))
    items = schema.get("items")
    if list_type == "map":
        _map_list(items, keys, path, causes)
    elif list_type == "set" and isinstance(items, Mapping):
        for part, wanted in (("object", "map"), ("array", "list")):
            name = f"x-kubernetes-{wanted}-type"
            if items.get("type") == part and items.get(name) != "atomic":
                text = "must be atomic as item of a list with x-kubernetes-list-type=set"
                where = f"{path}.items.{name}"
                causes.append(invalid_value(where, items.get(name), text))


def _map_list(items: Any, keys: list[Any], path: str, causes: list[Cause]) -> None:
    where = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        causes.append(required(where, "must not be empty if x-kubernetes-list-type is map"))
    if not isinstance(items, Mapping):
        causes.append(required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map"))
        return
    if items.get("type") != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        causes.append(invalid_value(f"{path}.items.type", items.get("type", ""), text))
    properties = items.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    for index, key in enumerate(keys):
        key_schema = properties.get(key) if isinstance(key, str) else None
        if not isinstance(key_schema, Mapping):
            causes.append(invalid_value(where, keys, "entries must all be names of item properties"))
            break
        inner = f"{path}.items.properties[{key}]"
        if key_schema.get("type") not in _SCALARS:
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            causes.append(invalid_value(f"{inner}.type", key_schema.get("type", ""), text))
        if key not in (items.get("required") or ()) and "default" not in key_schema:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            causes.append(required(f"{inner}.default", text))
        if key in keys[:index]:
            causes.append(invalid_value(where, keys, "must not contain duplicate entries"))


def _structural(schema: Schema, path: str, level: str, causes: list[Cause]) -> None:
    if not isinstance(schema, Mapping):
        return
    kind = schema.get("type")
    either, embedded = schema.get("x-kubernetes-int-or-string"), schema.get("x-kubernetes-embedded-resource")
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    properties = schema.get("properties")
    if embedded and not keeps and not properties:
        text = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        causes.append(required(f"{path}.properties", text))
    if embedded and kind != "object":
        text = "must be object if x-kubernetes-embedded-resource is true"
        causes.append(invalid_value(f"{path}.type", kind, text) if kind else required(f"{path}.type", text))
    elif not kind and not either and not (keeps and level != "root"):
        where = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
        causes.append(required(f"{path}.type", f"must not be empty {where[level]}"))
    elif kind and level == "root" and kind != "object":
        causes.append(invalid_value(f"{path}.type", kind, "must be object at the root"))
    if embedded and schema.get("additionalProperties"):
        text = "must not be used if x-kubernetes-embedded-resource is set"
        causes.append(field_forbidden(f"{path}.additionalProperties", text))
    if isinstance(properties, Mapping):
        if level == "root" or embedded:
            _implied(properties, path, causes)
        for name, inner in properties.items():
            _structural(inner, f"{path}.properties[{name}]", "field", causes)
    additional, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(additional, Mapping):
        _structural(additional, f"{path}.additionalProperties", "field", causes)
    if isinstance(items, Mapping):
        _structural(items, f"{path}.items", "item", causes)
    before = len(causes)
    for inner, below in _inner(_only(schema, *_JUNCTORS, "not"), path):
        if isinstance(inner, Mapping):
            _nested(inner, below, bool(schema.get("x-kubernetes-int-or-string")), causes)
            # What is missing outside is reported once the inside is right.
            if len(causes) == before:
                _complete(inner, schema, below, path, causes)


def _only(schema: Schema, *names: str) -> Schema:
    return {name: schema[name] for name in names if name in schema}


def _implied(properties: Schema, path: str, causes: list[Cause]) -> None:
    """Check what a schema says of the fields that every object has."""
    for name, wanted in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        implied = properties.get(name)
        if isinstance(implied, Mapping) and implied.get("type") != wanted:
            where = f"{path}.properties[{name}].type"
            causes.append(invalid_value(where, implied.get("type", ""), f"must be {wanted}"))
    metadata = properties.get("metadata")
    if isinstance(metadata, Mapping):
        inner = metadata.get("properties")
        known = set(inner) if isinstance(inner, Mapping) else set()
        if set(metadata) - {"type", "description", "properties"} or known - {"name", "generateName"}:
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            causes.append(field_forbidden(f"{path}.properties[metadata]", text))


def _nested(schema: Schema, path: str, either: bool, causes: list[Cause]) -> None:
    """Check that a schema within a junctor constrains values, and declares nothing.

    :param either: whether it is about an integer or a string: then alone junctors name types.
    """
    for name, text in sorted(_OUTSIDE.items()):
        if (schema.get(name) and not (either and name == "type")) or (name == "default" and name in schema):
            causes.append(field_forbidden(f"{path}.{name}", text))
    for inner, below in _inner(_only(schema, "properties", "items", *_JUNCTORS, "not"), path):
        if isinstance(inner, Mapping):
            _nested(inner, below, either, causes)


def _complete(schema: Schema, outer: Schema, path: str, outside: str, causes: list[Cause]) -> None:
    """Check that what a schema within a junctor names is declared by the schema around it.

    :param outer: the schema around it.
    :param outside: its path.
    """
    properties = schema.get("properties")
    known = outer.get("properties")
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        found = known.get(name) if isinstance(known, Mapping) else None
        if not isinstance(found, Mapping):
            text = f"because it is defined in {path}.properties[{name}]"
            causes.append(required(f"{outside}.properties[{name}]", text))
        elif isinstance(inner, Mapping):
            _complete(inner, found, f"{path}.properties[{name}]", f"{outside}.properties[{name}]", causes)
    items, found = schema.get("items"), outer.get("items")
    if isinstance(items, Mapping):
        if not isinstance(found, Mapping):
            causes.append(required(f"{outside}.items", f"because it is defined in {path}.items"))
        else:
            _complete(items, found, f"{path}.items", f"{outside}.items", causes)
    for inner, below in _inner(_only(schema, *_JUNCTORS, "not"), path):
        if isinstance(inner, Mapping):
            _complete(inner, outer, below, outside, causes)


def _defaults(schema: Schema, path: str, causes: list[Cause]) -> None:
    """Check that defaults are what their own schema allows."""
    if "default" in schema:
        default = copy.deepcopy(schema["default"])
        where = f"{path}.default"
        embedded = bool(schema.get("x-kubernetes-embedded-resource"))
        dropped = values.prune(copy.deepcopy(default), schema, "", embedded)
        if dropped and not values.preserves_unknown(schema):
            causes.append(invalid_value(where, default, "must not have unknown fields"))
        for cause in values.validate(default, schema):
            below = cause.field if cause.field.startswith("[") or not cause.field else f".{cause.field}"
            causes.append(Cause(cause.reason, cause.message, f"{where}{below}"))
    for inner, below in _inner(_only(schema, "properties", "additionalProperties", "items"), path):
        if isinstance(inner, Mapping):
            _defaults(inner, below, causes)
