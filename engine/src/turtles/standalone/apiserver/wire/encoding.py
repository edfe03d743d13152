# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as it is stored and sent."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


#: From here on, and below its inverse, Go writes numbers with an exponent.
_LARGE = 1e21


def plain_numbers(value: Any) -> Any:
    """Return a value with numbers as Go's encoding/json writes them: ``1e3`` and ``1.0`` are 1000 and 1.

    Objects and lists are changed in place.
    """
    if type(value) is float:
        return int(Decimal(repr(value))) if value.is_integer() and abs(value) < _LARGE else value
    if type(value) is dict:
        for name, item in value.items():
            if type(item) in (float, dict, list):
                value[name] = plain_numbers(item)
    elif type(value) is list:
        for at, item in enumerate(value):
            if type(item) in (float, dict, list):
                value[at] = plain_numbers(item)
    return value


def encode(obj: Mapping[str, Any]) -> bytes:
    """Return an object's JSON, starting with apiVersion, kind and metadata."""
    head = {name: obj[name] for name in ("apiVersion", "kind", "metadata") if name in obj}
    return _encode({**head, **obj})
