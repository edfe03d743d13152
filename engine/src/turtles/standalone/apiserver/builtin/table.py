# SPDX-License-Identifier: GPL-3.0-or-later
"""Table output: what kubectl prints."""

import json
import re
from typing import Any

from turtles.standalone.apiserver.builtin import printers
from turtles.standalone.apiserver.builtin.printers import Cells
from turtles.standalone.apiserver.schema import types
from turtles.standalone.apiserver.schema.kinds import Column, Kind
from turtles.standalone.apiserver.wire.errors import Object

# -- JSONPath of additionalPrinterColumns

_STEP = re.compile(
    r"\.([A-Za-z0-9_-]+|\*)|\['([^']*)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.-]+)\s*==\s*(?:\"([^\"]*)\"|'([^']*)'|(\w+))\)\]"
)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def json_path(obj: Any, path: str) -> list[Any]:
    """Return the values a simple JSONPath finds.

    Known are fields, indices, ``*`` and filters such as ``[?(@.type=="Ready")]``.
    """
    path = path.replace("\\.", "\x00")
    found, position = [obj], 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return []
        position = match.end()
        name, quoted, index, field, *values = match.groups()
        found = [inner for value in found for inner in _step(value, name, quoted, index, field, values)]
    return found


def _step(
    value: Any, name: str | None, quoted: str | None, index: str | None, field: str | None, values: Any
) -> list[Any]:
    if field is not None:
        wanted = next(one for one in values if one is not None)
        return [one for one in _list(value) if [str(inner) for inner in json_path(one, f".{field}")] == [wanted]]
    if index == "*" or name == "*":
        return list(value.values()) if isinstance(value, dict) else _list(value)
    if index is not None:
        items = _list(value)
        return items[int(index) : int(index) + 1]
    key = (quoted if quoted is not None else name or "").replace("\x00", ".")
    return [value[key]] if isinstance(value, dict) and key in value else []


def _cell(column: Column, obj: Object) -> Any:
    values = json_path(obj, column.path)
    if not values:
        return None
    value = values[0]
    if column.type == "date":
        return printers.age(value)
    if column.type == "integer":
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if column.type == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if column.type == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return None if value is None else str(value)


def _custom(kind: Kind) -> tuple[tuple[Column, ...], Cells]:
    extra = kind.columns or (Column("Age", "date", "", printers.CREATED, 0, ".metadata.creationTimestamp"),)
    return (printers.NAME, *extra), lambda obj: [printers.name(obj), *(_cell(column, obj) for column in extra)]


def _description(column: Column) -> str:
    if column.description.startswith(printers.FIELD):
        return types.documentation(*column.description[1:].rsplit(".", 1))
    if not column.description and column.path:
        return f"Custom resource definition column (in JSONPath format): {column.path}"
    return column.description


def table(kind: Kind, objects: list[Object], meta: Object, include: str = "Metadata", headers: bool = True) -> Object:
    """Return a meta.k8s.io/v1 Table.

    :param include: what a row carries of its object: None, Metadata or Object.
    :param headers: whether to define the columns (a watch does so in its first event only).
    """
    columns, cells = _custom(kind) if kind.custom else printers.TABLES.get(kind.resource, printers.GENERIC)
    result: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    definitions = [
        {
            "name": column.name, "type": column.type,
            "format": column.format, "description": _description(column), "priority": column.priority,
        }
        for column in columns
    ]  # fmt: skip
    result["columnDefinitions"] = definitions if headers else None
    # Kubernetes' printers make an empty list, what serves the others none.
    rows = [_row(kind, obj, _cells(kind, obj, cells, len(columns)), include) for obj in objects]
    result["rows"] = rows if rows or cells is not printers.GENERIC[1] else None
    return result


def _cells(kind: Kind, obj: Object, cells: Cells, width: int) -> list[Any]:
    try:
        return cells(obj if kind.convert is None else kind.convert(obj, kind.storage_api_version))
    except (AttributeError, TypeError, KeyError, ValueError):
        # One object with an odd field must not hide the others from a list.
        return [printers.name(obj), *[None] * (width - 1)]


def _row(kind: Kind, obj: Object, cells: list[Any], include: str) -> Object:
    row: Object = {"cells": cells}
    conditions = printers.CONDITIONS.get(kind.resource)
    if conditions is not None and (found := conditions(obj)):
        row["conditions"] = found
    if include == "Object":
        row["object"] = obj
    else:
        row["object"] = None if include == "None" else partial(obj)
    return row


def partial(obj: Object) -> Object:
    """Return an object's PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
