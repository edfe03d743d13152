# SPDX-License-Identifier: GPL-3.0-or-later
"""Structural schemas of custom resources: pruning, defaulting and validation.

Rules and messages: the Kubernetes documentation "Extend the Kubernetes API with CustomResourceDefinitions" and
k8s.io/kube-openapi's validation.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turtles.standalone.apiserver.schema import embedded
from turtles.standalone.apiserver.schema.formats import FORMATS, matches
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    duplicate,
    invalid_value,
    not_supported,
    required,
    wrong_type,
)

Schema = Mapping[str, Any]
_NONE: Schema = {}


def preserves_unknown(schema: Schema) -> bool:
    """Whether a schema keeps fields it doesn't name."""
    return bool(schema.get("x-kubernetes-preserve-unknown-fields"))


def prune(value: Any, schema: Schema, path: str = "", root: bool = True) -> list[str]:
    """Drop from ``value`` what ``schema`` doesn't name; return the paths dropped.

    :param root: whether ``value`` is a whole object, whose apiVersion, kind and metadata stay.
    """
    dropped: list[str] = []
    _prune(value, schema, path, root or bool(schema.get("x-kubernetes-embedded-resource")), dropped)
    return dropped


def _prune(value: Any, schema: Schema, path: str, embedded: bool, dropped: list[str]) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, Mapping):
            inside = bool(items.get("x-kubernetes-embedded-resource"))
            for index, item in enumerate(value):
                if isinstance(item, dict | list):
                    _prune(item, items, f"{path}[{index}]", inside, dropped)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", _NONE)
    additional = schema.get("additionalProperties")
    keep = preserves_unknown(schema) or additional is True
    for name in list(value):
        if embedded and name in ("apiVersion", "kind", "metadata"):
            continue
        inner = properties.get(name)
        if inner is None and isinstance(additional, Mapping):
            inner = additional
        if inner is None:
            if not keep:
                del value[name]
                dropped.append(f"{path}.{name}" if path else name)
            continue
        child = value[name]
        if isinstance(child, dict | list):
            below = f"{path}.{name}" if path else name
            _prune(child, inner, below, bool(inner.get("x-kubernetes-embedded-resource")), dropped)


def default(value: Any, schema: Schema) -> None:
    """Set the schema's defaults where ``value`` has none.

    An explicit null counts as absent where the field isn't nullable and has a default.
    """
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, Mapping):
            for item in value:
                default(item, items)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", _NONE)
    for name, inner in properties.items():
        if name in value and value[name] is None and not inner.get("nullable") and "default" not in inner:
            # Null is no value of such a field: it counts as not given (Kubernetes' "Defaulting and Nullable").
            del value[name]
        if "default" in inner and (
            name not in value or (value[name] is None and not inner.get("nullable") and inner["default"] is not None)
        ):
            value[name] = copy.deepcopy(inner["default"])
        if name in value:
            default(value[name], inner)
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        for name, item in value.items():
            if name not in properties:
                default(item, additional)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def validate(value: Any, schema: Schema, path: str = "", old: Any = None) -> list[Cause]:
    """Return everything in ``value`` that breaks ``schema``; ``path`` names ``value`` in messages.

    :param old: the value before, None for none: what hasn't changed since isn't held against an update
        (KEP-4008, ratcheting).
    """
    causes: list[Cause] = []
    if old is not None:
        _ratchet(value, old, schema, path, causes)
    else:
        _validate(value, schema, path, causes)
    return causes


def _ratchet(value: Any, old: Any, schema: Schema, path: str, causes: list[Cause]) -> None:
    """Validate what has changed: descend as long as a part can be matched with the one before."""
    if value == old:
        return
    properties, additional = schema.get("properties", _NONE), schema.get("additionalProperties")
    if isinstance(value, dict) and isinstance(old, dict):
        changed: list[Cause] = []
        _validate(value, {name: one for name, one in schema.items() if name not in _CONTAINED}, path, changed)
        causes += changed
        for name, item in value.items():
            inner = properties.get(name)
            if inner is None and isinstance(additional, Mapping):
                inner = additional
            if inner is None:
                continue
            below = f"{path}.{name}" if path else name
            if name in old:
                _ratchet(item, old[name], inner, below, causes)
            else:
                _validate(item, inner, below, causes)
        return
    keys = schema.get("x-kubernetes-list-map-keys")
    items = schema.get("items")
    if isinstance(value, list) and isinstance(old, list) and keys and isinstance(items, Mapping):
        _validate(value, {name: one for name, one in schema.items() if name not in _CONTAINED}, path, causes)

        def identity(item: Any) -> str:
            return repr([item.get(key) for key in keys]) if isinstance(item, Mapping) else ""

        before = {identity(item): item for item in old}
        for index, item in enumerate(value):
            if identity(item) in before:
                _ratchet(item, before[identity(item)], items, f"{path}[{index}]", causes)
            else:
                _validate(item, items, f"{path}[{index}]", causes)
        return
    _validate(value, schema, path, causes)


#: Parts of a schema that are about what a value contains.
_CONTAINED = ("properties", "additionalProperties", "items")


def _type_matches(actual: str, wanted: str, value: Any) -> bool:
    if actual == wanted or (wanted == "number" and actual == "integer"):
        return True
    return wanted == "integer" and actual == "number" and math.isfinite(value) and value == int(value)


def _validate(value: Any, schema: Schema, path: str, causes: list[Cause]) -> None:
    actual = _type_of(value)
    if value is None and schema.get("nullable"):
        return
    wanted = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string"):
        if actual not in ("integer", "string"):
            message = f'{path} in body must be of type integer,string: "{actual}"'
            causes.append(wrong_type(path, actual, message))
            return
    elif wanted and not _type_matches(actual, wanted, value):
        causes.append(wrong_type(path, actual, f'{path} in body must be of type {wanted}: "{actual}"'))
        if (wanted, actual) == ("integer", "number"):
            text = f"with format {schema['format']}" if "format" in schema else "(default format)"
            causes.append(_nowhere(f"Checked value must be of type integer {text} in {path}"))
        return
    _validate_combinations(value, schema, path, causes)
    if "enum" in schema and value not in schema["enum"]:
        causes.append(not_supported(path, value, [one for one in schema["enum"] if one is not None]))
    if actual == "object":
        _validate_object(value, schema, path, causes)
    elif actual == "array":
        _validate_array(value, schema, path, causes)
    elif actual == "string":
        _validate_string(value, schema, path, causes)
    elif actual in ("integer", "number"):
        _validate_number(value, schema, path, causes)


def _nowhere(why: str) -> Cause:
    """Return a cause that names its field in its message only, as kube-openapi's own errors are passed on."""
    return invalid_value("<nil>", "", why)


def _validate_combinations(value: Any, schema: Schema, path: str, causes: list[Cause]) -> None:
    """Validate against allOf, anyOf, oneOf and not, in the order and words of kube-openapi's validator.

    Where no alternative fits, what is wrong by the nearest one follows.
    """
    if "anyOf" in schema:
        wrong = _alternatives(value, schema["anyOf"], path)
        if all(wrong):
            causes.append(_nowhere(f'"{path}" must validate at least one schema (anyOf)'))
            causes += _nearest(wrong)
    if "oneOf" in schema:
        wrong = _alternatives(value, schema["oneOf"], path)
        fitting = sum(not one for one in wrong)
        if fitting != 1:
            many = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            causes.append(_nowhere(f'"{path}" must validate one and only one schema (oneOf). {many}'))
            if not fitting:
                causes += _nearest(wrong)
    if "allOf" in schema:
        wrong = _alternatives(value, schema["allOf"], path)
        for one in wrong:
            causes += one
        if any(wrong):
            none = ". None validated" if all(wrong) else ""
            causes.append(_nowhere(f'"{path}" must validate all the schemas (allOf){none}'))
    if "not" in schema and not validate(value, schema["not"], path):
        causes.append(_nowhere(f'"{path}" must not validate the schema (not)'))


def _nearest(wrong: list[list[Cause]]) -> list[Cause]:
    """Return what is wrong by the alternative that fits best; the first, where several do."""
    return sorted(wrong, key=len)[0] if wrong else []


def _alternatives(value: Any, schemas: Sequence[Schema], path: str) -> list[list[Cause]]:
    """Return what is wrong by each of several schemas."""
    return [validate(value, inner, path) for inner in schemas]


def _validate_object(value: Mapping[str, Any], schema: Schema, path: str, causes: list[Cause]) -> None:
    for name in schema.get("required", ()):
        if name not in value:
            causes.append(required(f"{path}.{name}" if path else name))
    properties = schema.get("properties", _NONE)
    additional = schema.get("additionalProperties")
    for name, item in value.items():
        inner = properties.get(name)
        if inner is None and isinstance(additional, Mapping):
            inner = additional
        if inner is not None:
            _validate(item, inner, f"{path}.{name}" if path else name, causes)
    if schema.get("x-kubernetes-embedded-resource"):
        causes += embedded.causes(value, path)
    if len(value) < schema.get("minProperties", 0):
        why = f"{path} in body should have at least {schema['minProperties']} properties"
        causes.append(invalid_value(path, value, why))
    if len(value) > schema.get("maxProperties", math.inf):
        limit = schema["maxProperties"]
        message = f"Too many: {len(value)}: must have at most {limit} items"
        causes.append(Cause("FieldValueTooMany", message, path))


def _validate_array(value: list[Any], schema: Schema, path: str, causes: list[Cause]) -> None:
    items = schema.get("items")
    if isinstance(items, Mapping):
        for index, item in enumerate(value):
            _validate(item, items, f"{path}[{index}]", causes)
    if len(value) < schema.get("minItems", 0):
        why = f"{path} in body should have at least {schema['minItems']} items"
        causes.append(invalid_value(path, len(value), why))
    if len(value) > schema.get("maxItems", math.inf):
        limit = schema["maxItems"]
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items", path))
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if kind == "set" or schema.get("uniqueItems"):
        _validate_unique(value, lambda item: item, path, causes)
    elif kind == "map":
        defaults = {key: (items or {}).get("properties", {}).get(key, {}).get("default") for key in keys}
        _validate_unique(
            value,
            lambda item: (
                {key: item.get(key, defaults[key]) for key in keys if item.get(key, defaults[key]) is not None}
                if isinstance(item, Mapping)
                else item
            ),
            path,
            causes,
        )


def _validate_unique(value: list[Any], identity: Callable[[Any], Any], path: str, causes: list[Cause]) -> None:
    seen: set[str] = set()
    for index, item in enumerate(value):
        key = identity(item)
        text = repr(sorted(key.items(), key=str)) if isinstance(key, Mapping) else repr(key)
        if text in seen:
            causes.append(duplicate(f"{path}[{index}]", key))
        seen.add(text)


def _validate_string(value: str, schema: Schema, path: str, causes: list[Cause]) -> None:
    if "minLength" in schema and len(value) < schema["minLength"]:
        why = f"{path} in body should be at least {schema['minLength']} chars long"
        causes.append(invalid_value(path, value, why))
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        limit = schema["maxLength"]
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", path))
    if "pattern" in schema and not matches(schema["pattern"], value):
        causes.append(invalid_value(path, value, f"{path} in body should match '{schema['pattern']}'"))
    check = FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        text = f'{path} in body must be of type {schema["format"]}: "{value}"'
        causes.append(wrong_type(path, value, text))


def _is_multiple(value: float, of: float) -> bool:
    """Whether a number is a multiple; that of a fraction has to be one that JSON can say (go-openapi's MultipleOf)."""
    if isinstance(value, int) and of == int(of):
        return value % int(of) == 0
    ratio = value / of
    return abs(ratio) < 2**53 and math.isclose(ratio, round(ratio), abs_tol=1e-9)


def _validate_number(value: float, schema: Schema, path: str, causes: list[Cause]) -> None:
    minimum, maximum = schema.get("minimum"), schema.get("maximum")
    if minimum is not None and (value < minimum or (schema.get("exclusiveMinimum") and value == minimum)):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(invalid_value(path, value, f"{path} in body should be {word} {minimum}"))
    if maximum is not None and (value > maximum or (schema.get("exclusiveMaximum") and value == maximum)):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        causes.append(invalid_value(path, value, f"{path} in body should be {word} {maximum}"))
    multiple = schema.get("multipleOf")
    if multiple and not _is_multiple(value, multiple):
        causes.append(invalid_value(path, value, f"{path} in body should be a multiple of {multiple}"))
    width = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if width is not None and not -(2**width) <= value < 2**width:
        text = f'{path} in body must be of type {schema["format"]}: "{value}"'
        causes.append(invalid_value(path, value, text))
