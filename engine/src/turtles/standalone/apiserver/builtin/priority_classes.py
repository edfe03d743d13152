# SPDX-License-Identifier: GPL-3.0-or-later
"""PriorityClasses.

Source: Kubernetes' pkg/apis/scheduling/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, column, created, name_of
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE, enum
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.wire.errors import Cause, Object, field_forbidden, invalid_value

#: Highest priority of classes that aren't Kubernetes' own.
MAX_PRIORITY = 1_000_000_000


class PriorityClasses(Strategy):
    """PriorityClasses."""

    columns = (
        NAME, column("Value", "@scheduling.v1.PriorityClass.value", "integer"),
        column("Global-Default", "@scheduling.v1.PriorityClass.globalDefault", "boolean"), AGE,
        column("PreemptionPolicy", "@scheduling.v1.PriorityClass.preemptionPolicy"),
    )  # fmt: skip

    def cells(self, obj: Object) -> list[Any]:
        return [
            name_of(obj), obj.get("value", 0), bool(obj.get("globalDefault")), created(obj),
            obj.get("preemptionPolicy", ""),
        ]  # fmt: skip

    def default(self, obj: Object) -> None:
        obj.setdefault("preemptionPolicy", "PreemptLowerPriority")

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        causes, name, value = [], obj["metadata"].get("name", ""), obj["value"]
        system = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
        if name.startswith("system-"):
            if system.get(name) != value:
                wanted = f"value of {name} PriorityClass must be {system[name]}" if name in system else (
                    f"{name} is not a known system priority class"
                )  # fmt: skip
                text = "priority class names with 'system-' prefix are reserved for system use only. error: "
                causes.append(field_forbidden("metadata.name", text + wanted))
        elif value > MAX_PRIORITY:
            text = f"maximum allowed value of a user defined priority is {MAX_PRIORITY}"
            causes.append(field_forbidden("value", text))
        causes += enum(obj.get("preemptionPolicy"), ["PreemptLowerPriority", "Never"], "preemptionPolicy")
        if old is not None:
            if value != old["value"]:
                causes.append(field_forbidden("value", "may not be changed in an update."))
            if obj.get("preemptionPolicy") != old.get("preemptionPolicy"):
                causes.append(invalid_value("preemptionPolicy", obj.get("preemptionPolicy"), IMMUTABLE))
        return causes
