# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource quantities of the Kubernetes API."""

from decimal import Decimal, InvalidOperation
from typing import Any

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(1 << 10),
    "Mi": Decimal(1 << 20),
    "Gi": Decimal(1 << 30),
    "Ti": Decimal(1 << 40),
    "Pi": Decimal(1 << 50),
    "Ei": Decimal(1 << 60),
}


def parse(value: Any) -> Decimal:
    """Return a quantity such as ``100m``, ``1Gi``, ``1e3`` or 2 as a number of base units.

    :raises ValueError: it is none.
    """
    text = str(value).strip()
    for size in (2, 1, 0):
        suffix = text[len(text) - size :] if size else ""
        if suffix in _SUFFIXES and len(text) > size:
            try:
                number = Decimal(text[: len(text) - size]) * _SUFFIXES[suffix]
            except InvalidOperation:
                continue
            if number.is_finite():  # Python's decimals know NaN and Infinity
                return number
    raise ValueError(f"{value!r} is not a quantity")


def pod_requests(spec: dict[str, Any]) -> dict[str, Decimal]:
    """Return what a Pod asks of a node: the larger of its containers' sum and its largest init container."""
    total: dict[str, Decimal] = {}
    for container in spec.get("containers") or []:
        for name, value in _requests(container).items():
            total[name] = total.get(name, Decimal(0)) + value
    for container in spec.get("initContainers") or []:
        for name, value in _requests(container).items():
            total[name] = max(total.get(name, Decimal(0)), value)
    for name, value in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, Decimal(0)) + parse(value)
    return total


def _requests(container: dict[str, Any]) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    merged = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {name: parse(value) for name, value in merged.items()}
