# SPDX-License-Identifier: GPL-3.0-or-later
"""The types whose values consist of others: lists, maps, and objects with named fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from turtles.api.language.causes import INVALID, NOT_SUPPORTED, REQUIRED, UNSUPPORTED, Cause
from turtles.api.language.types import STRING, Field, Type, wrong_type


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
            causes.append(wrong_type(path, "array", value))
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
            causes.append(wrong_type(path, "object", value))
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

    empty_is_a_choice = True

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
            causes.append(wrong_type(path, "object", value))
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


STRINGS = ListOf(STRING)
STRING_MAP = MapOf(STRING)
