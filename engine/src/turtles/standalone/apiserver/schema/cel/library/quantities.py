# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions on quantities, such as 500m and 1Gi."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from turtles.standalone.apiserver.schema.cel.library.function import (
    Function,
    Tagged,
    can,
    free,
    member,
    tagged_value,
)
from turtles.standalone.apiserver.wire import quantities

QUANTITY = "kubernetes.Quantity"


def _quantity(text: str) -> Tagged:
    return {"@quantity": str(quantities.value(text).normalize())}


def _amount(value: Any) -> Decimal:
    return Decimal(value) if isinstance(value, int) else Decimal(tagged_value(value, "@quantity"))


def _as_integer(value: Tagged) -> int:
    amount = _amount(value)
    if amount != int(amount) or not -(2**63) <= amount < 2**63:
        raise ValueError("cannot convert value to integer")
    return int(amount)


def _is_integer(value: Tagged) -> bool:
    amount = _amount(value)
    return amount == int(amount) and -(2**63) <= amount < 2**63


def _sign(value: Tagged) -> int:
    amount = _amount(value)
    return (amount > 0) - (amount < 0)


def _compare(one: Tagged, other: Tagged) -> int:
    return (_amount(one) > _amount(other)) - (_amount(one) < _amount(other))


def _added(sign: int, one: Tagged, other: Any) -> Tagged:
    return {"@quantity": str((_amount(one) + sign * _amount(other)).normalize())}


FUNCTIONS: tuple[Function, ...] = (
    free("isQuantity", "bool", can(quantities.value), "string"),
    free("quantity", QUANTITY, _quantity, "string"),
    member("sign", "int", _sign, QUANTITY),
    member("isInteger", "bool", _is_integer, QUANTITY),
    member("asInteger", "int", _as_integer, QUANTITY),
    member("asApproximateFloat", "double", lambda value: float(_amount(value)), QUANTITY),
    member("isGreaterThan", "bool", lambda one, other: _compare(one, other) > 0, QUANTITY, QUANTITY),
    member("isLessThan", "bool", lambda one, other: _compare(one, other) < 0, QUANTITY, QUANTITY),
    member("compareTo", "int", _compare, QUANTITY, QUANTITY),
    *(member("add", QUANTITY, partial(_added, 1), QUANTITY, kind) for kind in (QUANTITY, "int")),
    *(member("sub", QUANTITY, partial(_added, -1), QUANTITY, kind) for kind in (QUANTITY, "int")),
)
