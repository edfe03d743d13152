# SPDX-License-Identifier: GPL-3.0-or-later
"""ControllerRevisions.

Source: Kubernetes' pkg/apis/apps/validation.
"""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, column, created, name_of
from turtles.standalone.apiserver.builtin.fields import IMMUTABLE, NOT_NEGATIVE
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, required


class ControllerRevisions(Strategy):
    """ControllerRevisions."""

    columns = (
        NAME,
        column("Controller", "Controller of the object"),
        column("Revision", "@apps.v1.ControllerRevision.revision"),
        AGE,
    )

    def cells(self, obj: Object) -> list[Any]:
        owners = (one for one in as_list(obj["metadata"].get("ownerReferences")) if one.get("controller"))
        owner = next(owners, None)
        shown = "<none>"
        if owner is not None:
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            shown = f"{str(owner['kind']).lower()}{'.' + group if group else ''}/{owner['name']}"
        return [name_of(obj), shown, obj.get("revision", 0), created(obj)]

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        causes = []
        if obj.get("data") is None:
            causes.append(required("data", "data is mandatory"))
        if obj["revision"] < 0:
            causes.append(invalid_value("revision", obj["revision"], NOT_NEGATIVE))
        if old is not None and obj.get("data") != old.get("data"):
            causes.append(invalid_value("data", obj.get("data"), IMMUTABLE))
        return causes
