# SPDX-License-Identifier: GPL-3.0-or-later
"""APIServices; controllers/api_services.py keeps them up to date, views/aggregation.py asks who is behind them.

Source: Kubernetes' pkg/apis/apiregistration of kube-aggregator.
"""

import base64
from typing import Any

from turtles.api.times import now
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, conditions_of, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import LABEL_1035, LABEL_1035_MESSAGE, subdomain_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required


class APIServices(Strategy):
    """APIServices."""

    needs_version = True

    columns = (
        NAME,
        column("Service", "The reference to the service that hosts this API endpoint."),
        column("Available", "Whether this service is available."),
        AGE,
    )

    def cells(self, obj: Object) -> list[Any]:
        service = as_map(as_map(obj.get("spec")).get("service"))
        available = conditions_of(obj).get("Available", {})
        text = available.get("status", "Unknown")
        if text != "True" and available.get("reason"):
            text += f" ({available['reason']})"
        where = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
        return [name_of(obj), where, text, created(obj)]

    def default(self, obj: Object) -> None:
        service = obj["spec"].get("service")
        if service is not None:
            service.setdefault("port", 443)
        elif not obj["status"].get("conditions"):
            obj["status"]["conditions"] = [
                {
                    "type": "Available",
                    "status": "True",
                    "lastTransitionTime": now(),
                    "reason": "Local",
                    "message": "Local APIServices are always available",
                }
            ]

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec = as_map(obj.get("spec"))
        name, wanted = obj["metadata"].get("name", ""), f"{spec.get('version') or ''}.{spec.get('group') or ''}"
        causes: list[Cause] = []
        if name != wanted:
            causes.append(invalid_value("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"'))
        if spec.get("group"):
            causes += subdomain_causes(spec["group"], "spec.group")
        elif spec.get("version") != "v1":
            causes.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
        if not LABEL_1035.match(spec.get("version") or ""):
            causes.append(invalid_value("spec.version", spec.get("version") or "", LABEL_1035_MESSAGE))
        for field, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
            if not 0 < (spec.get(field) or 0) <= most:
                text = f"must be positive and less than {most}"
                causes.append(invalid_value(f"spec.{field}", spec.get(field) or 0, text))
        service, insecure = spec.get("service"), bool(spec.get("insecureSkipTLSVerify"))
        if service is None:
            if spec.get("caBundle"):
                size = f"{len(base64.b64decode(spec['caBundle']))} bytes"
                causes.append(invalid_value("spec.caBundle", size, "local APIServices may not have a caBundle"))
            if insecure:
                text = "local APIServices may not have insecureSkipTLSVerify"
                causes.append(invalid_value("spec.insecureSkipTLSVerify", insecure, text))
            return causes
        causes += [required(f"spec.service.{one}") for one in ("namespace", "name") if not service.get(one)]
        if not 0 < service.get("port", 0) < 65536:
            text = "port is not valid: must be between 1 and 65535, inclusive"
            causes.append(invalid_value("spec.service.port", service.get("port", 0), text))
        if insecure and spec.get("caBundle"):
            causes.append(invalid_value("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
        return causes
