# SPDX-License-Identifier: GPL-3.0-or-later
"""What a type and a field are, and the types whose values have no parts the schema knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from turtles.api import quantity
from turtles.api.language.causes import INVALID, NOT_SUPPORTED, Cause

#: Characters that XML 1.0 doesn't have.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Type:
    """A type of value. The base class takes any value."""

    has_defaults = False
    #: Whether an empty value can be a choice, as `masquerade: {}` is. An empty map of strings can't.
    empty_is_a_choice = False

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
        return value is False or value in ("", []) or (value == {} and not self.type.empty_is_a_choice)


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
            causes.append(wrong_type(path, self._name, value))


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
            causes.append(wrong_type(path, "integer", value))
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
            causes.append(wrong_type(path, "integer or string", value))


class OpenObject(Type):
    """An object of any content, such as metadata in a template."""

    def openapi(self) -> dict[str, Any]:
        """See `Type.openapi`."""
        return {"type": "object", "nullable": True, "x-kubernetes-preserve-unknown-fields": True}

    def check(self, value: Any, path: str, causes: list[Cause]) -> None:
        """See `Type.check`."""
        if not isinstance(value, dict):
            causes.append(wrong_type(path, "object", value))


def wrong_type(path: str, expected: str, value: Any) -> Cause:
    """Return why a value of another type than the expected is refused."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return Cause(INVALID, f"{path} must be of type {expected}, not {names.get(type(value), 'null')}", path)


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
OPEN_OBJECT = OpenObject()
