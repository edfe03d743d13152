# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes quantities: `64M`, `1Gi`, `100m`, `1e3`, as exact numbers.

Rules: Kubernetes API reference, "Quantity".
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([eE])([+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_MAX_LENGTH = 128
#: No quantity is larger, on either side of zero: whatever says so is this.
_LARGEST = Fraction(2**63 - 1)


class QuantityError(ValueError):
    """The value isn't a quantity. The message names the value."""


def parse(value: Any) -> Fraction:
    """Return the exact value in base units of a quantity as JSON has it (string, integer or float).

    :raises QuantityError: it isn't one.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise QuantityError(f"{value!r} is not a quantity")
    if isinstance(value, int):
        return _capped(Fraction(value))
    text = value if isinstance(value, str) else repr(value)
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        shown = text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…"
        raise QuantityError(f"{shown!r} is not a quantity (examples: 500m, 64M, 1Gi)")
    number, exponent, power, suffix = match.groups()
    if exponent:
        return _capped(Fraction(number) * Fraction(10) ** int(power))
    return _capped(Fraction(number) * _SUFFIXES[suffix or ""])


def _capped(number: Fraction) -> Fraction:
    return max(-_LARGEST, min(_LARGEST, number))


def to_int(value: Any) -> int:
    """Return a quantity in whole base units (bytes, CPUs), rounded up as Kubernetes does."""
    return math.ceil(parse(value))


def to_milli(value: Any) -> int:
    """Return a quantity in thousandths of its base unit, rounded up: milli-CPUs."""
    return math.ceil(parse(value) * 1000)


def canonical(value: Any) -> str:
    """Return a quantity as Kubernetes writes it: `1024Mi` → `1Gi`, `0.5` → `500m`, `2` → `2`.

    :raises QuantityError: it isn't one.
    """
    number = parse(value)
    text = str(value)
    if "i" in text and abs(number) >= 1024 and number.denominator == 1:
        return format_binary(int(number))
    match = _QUANTITY.fullmatch(text)
    if match and match.group(2):
        return _with_exponent(number)
    for suffix in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        scaled = number / _SUFFIXES[suffix]
        if scaled.denominator == 1 and (number or not suffix):
            return f"{scaled}{suffix}"
    return f"{math.ceil(number * 10**9)}n"  # nothing finer can be said


def _with_exponent(number: Fraction) -> str:
    for exponent in (18, 15, 12, 9, 6, 3, 0, -3, -6, -9):
        scaled = number / Fraction(10) ** exponent
        if scaled.denominator == 1 and (number or not exponent):
            return f"{scaled}e{exponent}" if exponent else f"{scaled}"
    return f"{math.ceil(number * 10**9)}e-9"


def format_binary(count: int) -> str:
    """Return a whole number of bytes with the largest binary suffix that keeps it exact: 67108864 → `64Mi`."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        size = int(_SUFFIXES[suffix])
        if count and count % size == 0:
            return f"{count // size}{suffix}"
    return str(count)


def format_like(count: int, example: Any) -> str:
    """Return a whole number as Kubernetes writes quantities, with binary suffixes if the example's suffix is one.

    `1024Mi` is written `1Gi`, and `1500000` as `1500k`.
    """
    if "i" in str(example) and abs(count) >= 1024:
        return format_binary(count)
    for suffix in ("E", "P", "T", "G", "M", "k"):
        size = int(_SUFFIXES[suffix])
        if count and count % size == 0:
            return f"{count // size}{suffix}"
    return str(count)


def format_milli(count: int) -> str:
    """Return a number of thousandths as a quantity: 1500 → `1500m`, 2000 → `2`."""
    return f"{count // 1000}" if count % 1000 == 0 else f"{count}m"
