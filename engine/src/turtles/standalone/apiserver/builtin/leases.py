# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases.

Source: Kubernetes' pkg/apis/coordination/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value


class Leases(Strategy):
    """Leases."""

    needs_version = True

    columns = (NAME, column("Holder", "@coordination.v1.LeaseSpec.holderIdentity"), AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), as_map(obj.get("spec")).get("holderIdentity") or "", created(obj)]

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        spec, causes = obj["spec"], []
        duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if duration is not None and duration <= 0:
            causes.append(invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            causes.append(invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        return causes
