# SPDX-License-Identifier: GPL-3.0-or-later
"""ConfigMaps, and what an immutable one of them or of Secrets may not change.

Source: Kubernetes' pkg/apis/core/validation.
"""

import base64
from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import validate_keys
from turtles.standalone.apiserver.wire.errors import Cause, Object, field_forbidden, invalid_value, too_long

MAX_DATA = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"


class ConfigMaps(Strategy):
    """ConfigMaps."""

    columns = (NAME, column("Data", "@core.v1.ConfigMap.data"), AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), len(as_map(obj.get("data"))) + len(as_map(obj.get("binaryData"))), created(obj)]

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        causes = validate_keys(data, "data")
        for key in sorted(set(data) & set(binary)):
            causes.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
        causes += validate_keys(binary, "binaryData")
        size = sum(len(value.encode()) for value in data.values())
        size += sum(len(base64.b64decode(value)) for value in binary.values())
        if size > MAX_DATA:
            causes.append(too_long("", MAX_DATA))
        return causes + frozen_causes(obj, old, "data", "binaryData")


def frozen_causes(obj: Object, old: Object | None, *fields: str) -> list[Cause]:
    """Return what an update changes of an object that is immutable."""
    if old is None or not old.get("immutable"):
        return []
    causes = [] if obj.get("immutable") else [field_forbidden("immutable", _FROZEN)]
    causes += [field_forbidden(one, _FROZEN) for one in fields if (obj.get(one) or {}) != (old.get(one) or {})]
    return causes
