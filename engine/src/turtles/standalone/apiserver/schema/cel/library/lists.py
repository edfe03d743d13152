# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions on lists, and on lists as sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from turtles.standalone.apiserver.schema.cel.library.function import (
    Function,
    free,
    items_of,
    member,
    plain,
)

_SCALARS = ("int", "uint", "double", "bool", "string", "bytes")
_ORDERED = ("int", "uint", "double", "bool", "string", "bytes", "google.protobuf.Timestamp", "google.protobuf.Duration")


def _is_sorted(values: Sequence[Any]) -> bool:
    items = items_of(values)
    return all(one <= other for one, other in pairwise(items))


def _sum(values: Sequence[Any]) -> Any:
    return sum(items_of(values))


def _extreme(choose: Callable[[Iterable[Any]], Any], name: str) -> Callable[[Sequence[Any]], Any]:
    def call(values: Sequence[Any]) -> Any:
        items = items_of(values)
        if not items:
            raise ValueError(f"{name} called on empty list")
        return choose(items)

    return call


def _list_index(values: Sequence[Any], wanted: Any) -> int:
    items = items_of(values)
    return items.index(plain(wanted)) if plain(wanted) in items else -1


def _list_last_index(values: Sequence[Any], wanted: Any) -> int:
    items = items_of(values)[::-1]
    return len(items) - 1 - items.index(plain(wanted)) if plain(wanted) in items else -1


def _contains(values: Sequence[Any], wanted: Sequence[Any]) -> bool:
    items = items_of(values)
    return all(one in items for one in items_of(wanted))


def _equivalent(values: Sequence[Any], others: Sequence[Any]) -> bool:
    return _contains(values, others) and _contains(others, values)


def _intersects(values: Sequence[Any], others: Sequence[Any]) -> bool:
    items = items_of(values)
    return any(one in items for one in items_of(others))


FUNCTIONS: tuple[Function, ...] = (
    *(member("isSorted", "bool", _is_sorted, f"list({kind})") for kind in _ORDERED),
    *(member("sum", kind, _sum, f"list({kind})") for kind in ("int", "uint", "double")),
    *(member("min", kind, _extreme(min, "min"), f"list({kind})") for kind in _ORDERED),
    *(member("max", kind, _extreme(max, "max"), f"list({kind})") for kind in _ORDERED),
    *(member("indexOf", "int", _list_index, f"list({kind})", kind) for kind in _SCALARS),
    *(member("lastIndexOf", "int", _list_last_index, f"list({kind})", kind) for kind in _SCALARS),
    free("sets.contains", "bool", _contains, "list(dyn)", "list(dyn)"),
    free("sets.equivalent", "bool", _equivalent, "list(dyn)", "list(dyn)"),
    free("sets.intersects", "bool", _intersects, "list(dyn)", "list(dyn)"),
)
