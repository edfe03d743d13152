# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets.

Source: Kubernetes' pkg/apis/core/validation.
"""

import base64
import json
from typing import Any

from turtles.api.objects import annotations_of
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.config_maps import MAX_DATA, frozen_causes
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import validate_keys
from turtles.standalone.apiserver.wire import bodies
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required, too_long
from turtles.standalone.well_known import SERVICE_ACCOUNT_NAME, SERVICE_ACCOUNT_TOKEN

#: Type of a Secret -> fields of its data that must be there.
_NEEDED = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


class Secrets(Strategy):
    """Secrets."""

    columns = (NAME, column("Type", "@core.v1.Secret.type"), column("Data", "@core.v1.Secret.data"), AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), obj.get("type", ""), len(as_map(obj.get("data"))), created(obj)]

    def default(self, obj: Object) -> None:
        obj.setdefault("type", "Opaque")
        strings = obj.pop("stringData", None)
        if strings:
            data = obj.setdefault("data", {})
            for name, value in strings.items():
                data[name] = base64.b64encode(value.encode()).decode()

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        data, kind = obj.get("data") or {}, obj.get("type")
        causes = validate_keys(data, "data")
        if sum(len(base64.b64decode(value)) for value in data.values()) > MAX_DATA:
            causes.append(too_long("data", MAX_DATA))
        for field in _NEEDED.get(str(kind), ()):
            if field not in data:
                causes.append(required(f"data[{field}]"))
            elif field.startswith(".docker"):
                try:
                    json.loads(base64.b64decode(data[field]))
                except ValueError as error:
                    why = bodies.describe(base64.b64decode(data[field]), error)
                    causes.append(invalid_value(f"data[{field}]", "<secret contents redacted>", why))
        if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
            causes += [required("data[username]"), required("data[password]")]
        if kind == SERVICE_ACCOUNT_TOKEN and not annotations_of(obj).get(SERVICE_ACCOUNT_NAME):
            causes.append(required(f"metadata.annotations[{SERVICE_ACCOUNT_NAME}]"))
        if old is not None and kind != old.get("type"):
            causes.append(invalid_value("type", kind, IMMUTABLE))
        return causes + frozen_causes(obj, old, "data")
