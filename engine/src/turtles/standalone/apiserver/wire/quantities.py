# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities as the API stores them: in the canonical form of k8s.io/apimachinery's resource.Quantity."""

import functools
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

_NUMBER = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?[0-9]{1,3}))\Z")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_EXACT = Context(prec=400)
_MAX = 2**63 - 1
MESSAGE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@functools.lru_cache(maxsize=4096)
def _taken_apart(text: str) -> tuple[Decimal, str]:
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(MESSAGE)
    sign, number, binary, decimal, exponent = match.groups()
    value = Decimal(number)
    form = "decimal"
    if binary:
        value, form = _EXACT.multiply(value, Decimal(1024 ** _BINARY.index(binary))), "binary"
    elif exponent is not None:
        value, form = _EXACT.multiply(value, Decimal(10) ** int(exponent)), "exponent"
    else:
        value = _EXACT.multiply(value, Decimal(10) ** _DECIMAL[decimal])
    # Nothing is smaller than a billionth; what can't be said exactly is rounded up, and capped.
    value = min(value, Decimal(_MAX)).quantize(Decimal("1e-9"), ROUND_CEILING, _EXACT)
    return (-value if sign == "-" else value), form


def value(quantity: str | int | float) -> Decimal:
    """Return a quantity's value.

    :raises ValueError: for what is none.
    """
    return _taken_apart(str(quantity))[0]


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """Return a quantity in its canonical form: ``1000m`` is ``1``, ``1024Mi`` is ``1Gi``.

    :raises ValueError: for what is none.
    """
    amount, form = _taken_apart(text)
    if not amount:
        return "0"
    if form == "binary" and abs(amount) >= 1024:
        whole = int(amount.to_integral_value(ROUND_CEILING if amount > 0 else ROUND_FLOOR))
        power = 0
        while whole % 1024 == 0 and power < 6:
            whole, power = whole // 1024, power + 1
        return f"{whole}{_BINARY[power]}"
    count, exponent = int(_EXACT.multiply(amount, Decimal(10**9))), -9
    while count % 1000 == 0 and exponent < 18:
        count, exponent = count // 1000, exponent + 3
    if form == "exponent":
        return f"{count}e{exponent}" if exponent else str(count)
    return f"{count}{_SUFFIX[exponent]}"
