# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as it is stored and sent."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def encode(obj: Mapping[str, Any]) -> bytes:
    """Return an object's JSON, starting with apiVersion, kind and metadata."""
    head = {name: obj[name] for name in ("apiVersion", "kind", "metadata") if name in obj}
    return _encode({**head, **obj})
