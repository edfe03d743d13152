# SPDX-License-Identifier: GPL-3.0-or-later
"""The language the model is written in: types and fields, with their documentation, defaults and support.

From one declaration come the OpenAPI schema of a CustomResourceDefinition (`Type.openapi`), the check that a value
has the shape the rest of the engine relies on and asks for nothing the engine can't do (`Type.check`), the static
defaults (`Type.apply_defaults`), the form in which values are stored (`Type.stored`), and the one in which values that
mean the same are equal (`Type.canonical`).
"""

from __future__ import annotations

from typing import Any

from turtles.api.language.causes import (
    DUPLICATE,
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    NOT_SUPPORTED,
    REQUIRED,
    UNSUPPORTED,
    Cause,
)
from turtles.api.language.containers import STRING_MAP, STRINGS, ListOf, MapOf, Struct
from turtles.api.language.types import (
    ANY,
    BOOLEAN,
    COUNT,
    DOWNTIME,
    EMPTY_OR_STRING,
    INT32,
    INT64,
    INT_OR_STRING,
    OPEN_OBJECT,
    POSITIVE,
    POSITIVE_UINT32,
    QUANTITY,
    STRING,
    TEXT,
    TIME,
    UINT8,
    UINT32,
    Choice,
    Field,
    OpenObject,
    Type,
)

__all__ = [
    "ANY",
    "BOOLEAN",
    "COUNT",
    "DOWNTIME",
    "DUPLICATE",
    "EMPTY_OR_STRING",
    "FORBIDDEN",
    "INT32",
    "INT64",
    "INT_OR_STRING",
    "INVALID",
    "NOT_FOUND",
    "NOT_SUPPORTED",
    "OPEN_OBJECT",
    "POSITIVE",
    "POSITIVE_UINT32",
    "QUANTITY",
    "REQUIRED",
    "STRING",
    "STRINGS",
    "STRING_MAP",
    "TEXT",
    "TIME",
    "UINT8",
    "UINT32",
    "UNSUPPORTED",
    "Cause",
    "Choice",
    "Field",
    "ListOf",
    "MapOf",
    "OpenObject",
    "Struct",
    "Type",
    "field",
    "group",
    "group_list",
    "idle",
    "unsupported",
]


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


def group(name: str, doc: str, *fields: Field, required: bool = False, absent: Any = None) -> Field:
    """Declare a field that is an object with these fields; see `field` for the rest."""
    return field(name, Struct(doc, *fields), doc, required=required, absent=absent)


def group_list(
    name: str,
    doc: str,
    *fields: Field,
    kind: str = "atomic",
    keys: tuple[str, ...] = (),
    max_items: int = 0,
    required: bool = False,
) -> Field:
    """Declare a field that is a list of objects with these fields; see `ListOf` and `field` for the rest."""
    return field(name, ListOf(Struct(doc, *fields), kind=kind, keys=keys, max_items=max_items), doc, required=required)


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
