# SPDX-License-Identifier: GPL-3.0-or-later
"""PodDisruptionBudgets; controllers/disruption.py counts what they allow.

Source: Kubernetes' pkg/apis/policy/validation.
"""

import re
from typing import Any

from turtles.api.texts import to_number
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.fields import NOT_NEGATIVE
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.metadata import selector_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value

#: A share of Pods.
_SHARE = re.compile(r"[0-9]+%", re.ASCII)
_PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)

#: Fields of the status that are counts.
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


class PodDisruptionBudgets(Strategy):
    """PodDisruptionBudgets."""

    needs_version = True

    columns = (
        NAME,
        column("Min Available", "The minimum number of pods that must be available."),
        column("Max Unavailable", "The maximum number of pods that may be unavailable."),
        column("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time.", "integer"),
        AGE,
    )

    def cells(self, obj: Object) -> list[Any]:
        spec, status = as_map(obj.get("spec")), as_map(obj.get("status"))
        bounds = [str(spec.get(field, "N/A")) for field in ("minAvailable", "maxUnavailable")]
        return [name_of(obj), *bounds, status.get("disruptionsAllowed", 0), created(obj)]

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec, causes = obj["spec"], []
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            text = "minAvailable and maxUnavailable cannot be both set"
            causes.append(invalid_value("spec", _shown(spec), text))
        for field in ("minAvailable", "maxUnavailable"):
            value = spec.get(field)
            if isinstance(value, int) and value < 0:
                causes.append(invalid_value(f"spec.{field}", value, NOT_NEGATIVE))
            elif isinstance(value, str) and not _SHARE.fullmatch(value):
                causes.append(invalid_value(f"spec.{field}", value, _PERCENT))
            elif isinstance(value, str) and to_number(value[:-1], 100) is None:
                causes.append(invalid_value(f"spec.{field}", value, "must not be greater than 100%"))
        causes += selector_causes(spec.get("selector"), "spec.selector")
        for field in _COUNTS:
            value = as_map(obj.get("status")).get(field) or 0
            if old is not None and value < 0:
                causes.append(invalid_value(f"status.{field}", value, NOT_NEGATIVE))
        return causes


def _shown(spec: Object) -> Object:
    """Return a spec as messages show it: by the names of its Go type."""
    fields = ("minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy")
    return {field[0].upper() + field[1:]: spec.get(field) for field in fields}
