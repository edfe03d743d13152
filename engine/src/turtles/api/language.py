# SPDX-License-Identifier: GPL-3.0-or-later
"""The language the model is written in: types and fields, with their documentation, defaults and support.

From one declaration come the OpenAPI schema of a CustomResourceDefinition (`Type.openapi`), the check that a value
has the shape the rest of the engine relies on and asks for nothing the engine can't do (`Type.check`), the static
defaults (`Type.apply_defaults`), the form in which values are stored (`Type.stored`), and the one in which values that
mean the same are equal (`Type.canonical`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from turtles.api import quantity

UNSUPPORTED: Final = "not supported by this engine"

INVALID: Final = "FieldValueInvalid"
REQUIRED: Final = "FieldValueRequired"
NOT_SUPPORTED: Final = "FieldValueNotSupported"
DUPLICATE: Final = "FieldValueDuplicate"
NOT_FOUND: Final = "FieldValueNotFound"
FORBIDDEN: Final = "FieldValueForbidden"


#: Characters that XML 1.0 doesn't have.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Cause:
    """Why an object is refused: an entry of a Status' `details.causes` (Kubernetes API conventions)."""

    type: str
    message: str
    field: str = ""

    def as_dict(self) -> dict[str, str]:
        """Give the cause as the API has it."""
        found = {"reason": self.type, "message": self.message}
        if self.field:
            found["field"] = self.field
        return found


class Type:
    """A type of value. The base class takes any value."""

    has_defaults = False

    def openapi(self) -> dict[str, Any]:
        """Give the type's structural OpenAPI v3 schema."""
        return {"x-kubernetes-preserve-unknown-fields": True}

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """Append to `causes` what is wrong with the shape of `value`, and what in it the engine doesn't implement."""

    def apply_defaults(self, value: Any) -> None:
        """Set, in place, the static defaults of fields that are absent in objects that are there."""

    def stored(self, value: Any) -> Any:
        """Return a value as KubeVirt stores it: quantities as Kubernetes writes them, and nothing that is null.

        :param value: has passed the check.
        """
        return value

    def canonical(self, value: Any) -> Any:
        """Return a value that equals the canonical form of every other value with the same meaning.

        Quantities are numbers, and whatever says no more than its absence is left out. Values of the wrong type are
        returned as they are.
        """
        return value

    def idle(self, value: Any, path: str) -> Iterator[str]:
        """Give the paths of what a value asks for without an effect. Values of the wrong type ask for nothing."""
        yield from ()

    def leaves(self, path: str) -> Iterator[tuple[str, Field]]:
        """Give each field below with its path; `[]` stands for an index. Unsupported ones included."""
        yield from ()


@dataclass(frozen=True)
class Field:
    """A field of an object.

    `refusal` is None for what the engine implements, else the reason given to those who set it. `idle` says that a
    field is taken and has no effect, which those who set it are warned of. `neutral` holds values of both that ask for
    nothing. `absent` is what the engine does where the field isn't given, if no default is set then. `structural` is
    what the API server itself sets then, by the kind's schema.
    """

    name: str
    type: Type
    doc: str
    required: bool = False
    default: Any = None
    refusal: str | None = None
    neutral: tuple[Any, ...] = ()
    absent: Any = None
    idle: bool = False
    structural: Any = None

    def asks_for_nothing(self, value: Any) -> bool:
        """Tell whether a value of a refused or an idle field asks for nothing."""
        return value is None or value == [] or any(value is neutral or value == neutral for neutral in self.neutral)

    def says_nothing(self, value: Any) -> bool:
        """Tell whether a value, in its canonical form, says no more than the field's absence."""
        usual = self.absent if self.default is None else self.default
        if usual is not None:
            return bool(value == self.type.canonical(usual))
        # An empty object can be a choice, as `masquerade: {}` is. An empty map of strings can't.
        return value is False or value in ("", []) or (value == {} and not isinstance(self.type, Struct))


class _Scalar(Type):
    def __init__(self, name: str, python: type, **schema: Any) -> None:
        self._name = name
        self._python = python
        self._schema = {"type": name, **schema}

    def openapi(self) -> dict[str, Any]:
        return dict(self._schema)

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        # bool is an int to Python, not to JSON
        if not isinstance(value, self._python) or (isinstance(value, bool) and self._python is not bool):
            causes.append(_wrong_type(path, self._name, value))


class _String(_Scalar):
    """A string of characters that XML has, too: what users write may get into a domain's definition."""

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        super().check(value, path, causes)
        if isinstance(value, str) and _CONTROL.search(value):
            causes.append(Cause(INVALID, f"{path} must not contain control characters", path))


class _Integer(_Scalar):
    def __init__(self, format_: str, low: int, high: int) -> None:
        super().__init__("integer", int, format=format_)
        self._low = low
        self._high = high
        if low >= 0:
            self._schema["minimum"] = low

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            causes.append(_wrong_type(path, "integer", value))
        elif not self._low <= value <= self._high:
            causes.append(Cause(INVALID, f"{path} must be between {self._low} and {self._high}", path))


class Choice(_Scalar):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        super().__init__("string", str, enum=list(words))
        self._words = words

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """See `Type.check`."""
        if value not in self._words:
            words = ", ".join(f'"{word}"' for word in self._words)
            message = f'{path}: Unsupported value: "{value}": supported values: {words}'
            causes.append(Cause(NOT_SUPPORTED, message, path))


class _Quantity(Type):
    def openapi(self) -> dict[str, Any]:
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|"
            r"([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
            "x-kubernetes-int-or-string": True,
        }

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        try:
            quantity.parse(value)
        except quantity.QuantityError as error:
            causes.append(Cause(INVALID, f"{path}: {error}", path))

    def stored(self, value: Any) -> Any:
        return quantity.canonical(value)

    def canonical(self, value: Any) -> Any:
        try:
            return quantity.parse(value)
        except quantity.QuantityError:
            return value


class _IntOrString(Type):
    def openapi(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            causes.append(_wrong_type(path, "integer or string", value))


class OpenObject(Type):
    """An object of any content, such as metadata in a template."""

    def openapi(self) -> dict[str, Any]:
        """See `Type.openapi`."""
        return {"type": "object", "nullable": True, "x-kubernetes-preserve-unknown-fields": True}

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """See `Type.check`."""
        if not isinstance(value, dict):
            causes.append(_wrong_type(path, "object", value))


class ListOf(Type):
    """A list of one type. `kind` is its x-kubernetes-list-type, `keys` the map keys of kind `map`."""

    def __init__(self, item: Type, *, kind: str = "atomic", keys: tuple[str, ...] = (), max_items: int = 0) -> None:
        self.item = item
        self._kind = kind
        self._keys = keys
        self._max_items = max_items
        self.has_defaults = item.has_defaults

    def openapi(self) -> dict[str, Any]:
        """See `Type.openapi`."""
        schema: dict[str, Any] = {"type": "array", "items": self.item.openapi(), "x-kubernetes-list-type": self._kind}
        if self._keys:
            schema["x-kubernetes-list-map-keys"] = list(self._keys)
        if self._max_items:
            schema["maxItems"] = self._max_items
        return schema

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """See `Type.check`."""
        if not isinstance(value, list):
            causes.append(_wrong_type(path, "array", value))
            return
        if self._max_items and len(value) > self._max_items:
            causes.append(Cause(INVALID, f"{path} must have at most {self._max_items} items", path))
            return
        check = self.item.check
        for index, item in enumerate(value):
            check(item, f"{path}[{index}]", causes)

    def apply_defaults(self, value: Any) -> None:
        """See `Type.apply_defaults`."""
        if self.has_defaults:
            for item in value:
                self.item.apply_defaults(item)

    def stored(self, value: Any) -> Any:
        """See `Type.stored`."""
        return [self.item.stored(item) for item in value]

    def idle(self, value: Any, path: str) -> Iterator[str]:
        """See `Type.idle`."""
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from self.item.idle(item, f"{path}[{index}]")

    def canonical(self, value: Any) -> Any:
        """See `Type.canonical`."""
        return [self.item.canonical(item) for item in value] if isinstance(value, list) else value

    def leaves(self, path: str) -> Iterator[tuple[str, Field]]:
        """See `Type.leaves`."""
        yield from self.item.leaves(f"{path}[]")


class MapOf(Type):
    """An object with free keys and values of one type. If `keys` is given, the engine implements no others."""

    def __init__(self, value: Type, *, keys: tuple[str, ...] = ()) -> None:
        self.value = value
        self._keys = keys

    def openapi(self) -> dict[str, Any]:
        """See `Type.openapi`."""
        return {"type": "object", "additionalProperties": self.value.openapi()}

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """See `Type.check`."""
        if not isinstance(value, dict):
            causes.append(_wrong_type(path, "object", value))
            return
        for key, item in value.items():
            here = f"{path}.{key}"
            if self._keys and key not in self._keys:
                causes.append(Cause(NOT_SUPPORTED, f"{here} is {UNSUPPORTED}", here))
            else:
                self.value.check(item, here, causes)

    def stored(self, value: Any) -> Any:
        """See `Type.stored`."""
        return {key: self.value.stored(item) for key, item in value.items()}

    def canonical(self, value: Any) -> Any:
        """See `Type.canonical`."""
        if not isinstance(value, dict):
            return value
        return {key: self.value.canonical(item) for key, item in value.items() if item is not None}

    def idle(self, value: Any, path: str) -> Iterator[str]:
        """See `Type.idle`."""
        for key, item in value.items() if isinstance(value, dict) else ():
            yield from self.value.idle(item, f"{path}.{key}")

    def leaves(self, path: str) -> Iterator[tuple[str, Field]]:
        """See `Type.leaves`."""
        for key in self._keys:
            yield f"{path}.{key}", Field(key, self.value, "")


class Struct(Type):
    """An object with named fields. Fields it doesn't name are pruned by the API server."""

    def __init__(self, doc: str, *fields: Field) -> None:
        self.doc = doc
        self.fields = {field.name: field for field in fields}
        if len(self.fields) != len(fields):
            raise ValueError(f"a field is declared twice in: {doc}")
        self._required = tuple(field.name for field in fields if field.required)
        self._defaults = tuple((field.name, field.default) for field in fields if field.default is not None)
        self._deeper = tuple(field for field in fields if field.refusal is None and field.type.has_defaults)
        self.has_defaults = bool(self._defaults or self._deeper)

    def openapi(self) -> dict[str, Any]:
        """See `Type.openapi`."""
        schema: dict[str, Any] = {"type": "object"}
        if self.fields:
            schema["properties"] = {
                name: {"description": _description(field), **field.type.openapi(), **_structural(field)}
                for name, field in sorted(self.fields.items())
            }
        if self._required:
            schema["required"] = sorted(self._required)
        return schema

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """See `Type.check`."""
        if not isinstance(value, dict):
            causes.append(_wrong_type(path, "object", value))
            return
        for name in self._required:
            if value.get(name) is None:
                here = f"{path}.{name}"
                causes.append(Cause(REQUIRED, f"{here} is a required field", here))
        fields = self.fields
        for name, item in value.items():
            if item is None:
                continue
            field = fields.get(name)
            if field is None:
                continue
            here = f"{path}.{name}"
            if field.refusal is None:
                field.type.check(item, here, causes)
            elif not field.asks_for_nothing(item):
                causes.append(Cause(NOT_SUPPORTED, field.refusal.format(path=here), here))

    def apply_defaults(self, value: Any) -> None:
        """See `Type.apply_defaults`."""
        for name, default in self._defaults:
            if value.get(name) is None:
                value[name] = default
        for field in self._deeper:
            item = value.get(field.name)
            if item is not None:
                field.type.apply_defaults(item)

    def stored(self, value: Any) -> Any:
        """See `Type.stored`."""
        found = {}
        for name, item in value.items():
            field = self.fields.get(name)
            if item is not None:
                found[name] = item if field is None or field.refusal is not None else field.type.stored(item)
        return found

    def canonical(self, value: Any) -> Any:
        """See `Type.canonical`."""
        if not isinstance(value, dict):
            return value
        found = {}
        for name, item in value.items():
            field = self.fields.get(name)
            if item is None:
                continue
            if field is None:
                found[name] = item
            elif field.refusal is None:
                item = field.type.canonical(item)
                if not field.says_nothing(item):
                    found[name] = item
            elif item != [] and item not in field.neutral:
                found[name] = item
        return found

    def idle(self, value: Any, path: str) -> Iterator[str]:
        """See `Type.idle`."""
        for name, item in value.items() if isinstance(value, dict) else ():
            field = self.fields.get(name)
            if field is None or item is None:
                continue
            if not field.idle:
                yield from field.type.idle(item, f"{path}.{name}")
            elif not field.asks_for_nothing(item):
                yield f"{path}.{name}"

    def leaves(self, path: str) -> Iterator[tuple[str, Field]]:
        """See `Type.leaves`."""
        for name, field in self.fields.items():
            here = f"{path}.{name}" if path else name
            if field.refusal is not None or field.idle:
                yield here, field
                continue
            below = list(field.type.leaves(here))
            # An object whose own fields are all refused, or idle, can still be set
            if all(found.refusal or found.idle for _, found in below):
                yield here, field
            yield from below


ANY = Type()
STRING = _String("string", str)
#: A string of any characters.
TEXT = _Scalar("string", str)
TIME = _Scalar("string", str, format="date-time", nullable=True)
#: In a status, a string that may be empty. Servers with an old go-openapi/validate, built with a new Go, take an
#: empty string in a list for null, such as Debian's Kubernetes 1.20.
EMPTY_OR_STRING = _String("string", str, nullable=True)
BOOLEAN = _Scalar("boolean", bool)
INT32 = _Integer("int32", -(2**31), 2**31 - 1)
INT64 = _Integer("int64", -(2**63), 2**63 - 1)
UINT8 = _Integer("int32", 0, 2**8 - 1)
UINT32 = _Integer("int64", 0, 2**32 - 1)
COUNT = _Integer("int32", 0, 2**31 - 1)
POSITIVE = _Integer("int32", 1, 2**31 - 1)
POSITIVE_UINT32 = _Integer("int64", 1, 2**32 - 1)
#: Milliseconds that QEMU takes for a migration's downtime.
DOWNTIME = _Integer("int64", 1, 2_000_000)
QUANTITY = _Quantity()
INT_OR_STRING = _IntOrString()
STRINGS = ListOf(STRING)
STRING_MAP = MapOf(STRING)
OPEN_OBJECT = OpenObject()


def field(
    name: str,
    type_: Type,
    doc: str,
    *,
    required: bool = False,
    default: Any = None,
    absent: Any = None,
    structural: Any = None,
) -> Field:
    """Declare a field which the engine implements.

    `default` is a scalar, set when the object around it is there; `absent` is a value that isn't set, but has the same
    effect as no value. Without either, an empty value and `false` do nothing. `structural` is what the API server sets.
    """
    return Field(name, type_, doc, required, default, absent=absent, structural=structural)


def unsupported(name: str, doc: str, *, neutral: tuple[Any, ...] = (), refusal: str = "") -> Field:
    """Declare a field of KubeVirt's which the engine doesn't implement. The schema keeps it; admission refuses it.

    `neutral`: values that ask for nothing (a feature switched off). An empty list always asks for nothing.
    """
    return Field(name, ANY, doc, refusal=refusal or "{path} is " + UNSUPPORTED, neutral=neutral)


def idle(name: str, doc: str, type_: Type = ANY, *, neutral: tuple[Any, ...] = ()) -> Field:
    """Declare a field of KubeVirt's which the engine takes and does nothing with. Admission warns of it.

    `neutral`: values that ask for nothing. An empty list always asks for nothing.
    """
    return Field(name, type_, doc, neutral=neutral, idle=True)


def _structural(field_: Field) -> dict[str, Any]:
    return {} if field_.structural is None else {"default": field_.structural}


def _description(field_: Field) -> str:
    text = field_.doc
    if field_.default is not None:
        text += f" Defaults to {str(field_.default).lower() if isinstance(field_.default, bool) else field_.default}."
    if field_.refusal is not None:
        text += f" This field is {UNSUPPORTED}."
    if field_.idle:
        text += " This field has no effect in this engine."
    return text


def _wrong_type(path: str, wanted: str, value: Any) -> Cause:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return Cause(INVALID, f"{path} must be of type {wanted}, not {names.get(type(value), 'null')}", path)
