# SPDX-License-Identifier: GPL-3.0-or-later
"""Table output: what kubectl prints."""

import json
import re
from typing import Any

from turtles.standalone.apiserver.builtin.columns import CREATED, FIELD, GENERIC, NAME, age, as_list, name_of
from turtles.standalone.apiserver.builtin.strategies import STRATEGIES
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema import types
from turtles.standalone.apiserver.schema.kinds import Column, Kind
from turtles.standalone.apiserver.wire.errors import Object

# -- JSONPath of additionalPrinterColumns

_STEP = re.compile(
    r"\.([A-Za-z0-9_-]+|\*)|\['([^']*)'\]|\[(\d+|\*)\]|\[\?\(@\.([\w.-]+)\s*==\s*(?:\"([^\"]*)\"|'([^']*)'|(\w+))\)\]"
)


def json_path(obj: Any, path: str) -> list[Any]:
    """Return the values a simple JSONPath finds.

    Known are fields, indices, ``*`` and filters such as ``[?(@.type=="Ready")]``.
    """
    path = path.replace("\\.", "\x00")
    nodes, position = [obj], 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return []
        position = match.end()
        name, quoted, index, field, *values = match.groups()
        nodes = [inner for node in nodes for inner in _step(node, name, quoted, index, field, values)]
    return nodes


def _step(
    value: Any, name: str | None, quoted: str | None, index: str | None, field: str | None, values: Any
) -> list[Any]:
    if field is not None:
        wanted = next(one for one in values if one is not None)
        return [one for one in as_list(value) if [str(inner) for inner in json_path(one, f".{field}")] == [wanted]]
    if index == "*" or name == "*":
        return list(value.values()) if isinstance(value, dict) else as_list(value)
    if index is not None:
        items = as_list(value)
        return items[int(index) : int(index) + 1]
    key = (quoted if quoted is not None else name or "").replace("\x00", ".")
    return [value[key]] if isinstance(value, dict) and key in value else []


def _cell(column: Column, obj: Object) -> Any:
    values = json_path(obj, column.path)
    if not values:
        return None
    value = values[0]
    if column.type == "date":
        return age(value)
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


class _Custom(Strategy):
    """What a CustomResourceDefinition shows of its objects."""

    def __init__(self, kind: Kind) -> None:
        self._extra = kind.columns or (Column("Age", "date", "", CREATED, 0, ".metadata.creationTimestamp"),)
        self.columns = (NAME, *self._extra)

    def cells(self, obj: Object) -> list[Any]:
        """Return the cells of a row."""
        return [name_of(obj), *(_cell(column, obj) for column in self._extra)]


def _description(column: Column) -> str:
    if column.description.startswith(FIELD):
        return types.documentation(*column.description[1:].rsplit(".", 1))
    if not column.description and column.path:
        return f"Custom resource definition column (in JSONPath format): {column.path}"
    return column.description


def table(kind: Kind, objects: list[Object], meta: Object, include: str = "Metadata", headers: bool = True) -> Object:
    """Return a meta.k8s.io/v1 Table.

    :param include: what a row carries of its object: None, Metadata or Object.
    :param headers: whether to define the columns (a watch does so in its first event only).
    """
    strategy = STRATEGIES.get(kind.resource) or _Custom(kind)
    result: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": _description(column),
            "priority": column.priority,
        }
        for column in strategy.columns
    ]
    result["columnDefinitions"] = definitions if headers else None
    # Kubernetes' printers make an empty list, what serves the others none.
    rows = [_row(strategy, obj, include) for obj in objects]
    result["rows"] = rows if rows or strategy.columns is not GENERIC else None
    return result


def _cells(strategy: Strategy, obj: Object) -> list[Any]:
    try:
        return strategy.cells(obj)
    except (AttributeError, TypeError, KeyError, ValueError):
        # One object with an odd field must not hide the others from a list.
        return [name_of(obj), *[None] * (len(strategy.columns) - 1)]


def _row(strategy: Strategy, obj: Object, include: str) -> Object:
    row: Object = {"cells": _cells(strategy, obj)}
    conditions = strategy.row_conditions(obj)
    if conditions:
        row["conditions"] = conditions
    if include == "Object":
        row["object"] = obj
    else:
        row["object"] = None if include == "None" else partial(obj)
    return row


def partial(obj: Object) -> Object:
    """Return an object's PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
