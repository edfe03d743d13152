# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces.

Source: Kubernetes' pkg/apis/core/validation and pkg/registry/core/namespace.
"""

import copy
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_map, column, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.metadata import finalizer_causes
from turtles.standalone.apiserver.wire.errors import Cause, Object, forbidden, invalid_value
from turtles.standalone.apiserver.wire.options import DeleteOptions

#: Namespaces that can't be deleted.
IMMORTAL = ("default", "kube-system", "kube-public")


class Namespaces(Strategy):
    """Namespaces end when what is in them is gone: the finalizers in their spec say who empties them."""

    subresources = (("finalize", ("update",), "Namespace", "", "v1"),)
    columns = (NAME, column("Status", "The status of the namespace"), AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), as_map(obj.get("status")).get("phase", ""), created(obj)]

    def default(self, obj: Object) -> None:
        metadata = obj["metadata"]
        if metadata.get("name"):
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
        obj["status"].setdefault("phase", "Active")

    def prepare_create(self, obj: Object, kind: Kind) -> None:
        """Set the first status and the finalizer."""
        super().prepare_create(obj, kind)
        obj["spec"].setdefault("finalizers", ["kubernetes"])

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        """Keep the finalizers, which only the subresource finalize changes."""
        if subresource != "finalize":
            new["spec"] = copy.deepcopy(old.get("spec", {}))

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        causes: list[Cause] = []
        for index, one in enumerate(obj["spec"].get("finalizers") or ()):
            causes += finalizer_causes(one, f"spec.finalizers[{index}]")
        if old is None:
            return causes
        ending = bool(obj["metadata"].get("deletionTimestamp"))
        phase, wanted = obj["status"].get("phase"), "Terminating" if ending else "Active"
        if phase != wanted:
            is_so = "not empty" if ending else "empty"
            text = f"may only be '{wanted}' if `deletionTimestamp` is {is_so}"
            causes.append(invalid_value("status.Phase", phase, text))
        return causes

    def check_delete(self, context: Context) -> None:
        """Refuse the deletion of namespaces that every cluster has."""
        if context.name in IMMORTAL:
            raise forbidden("", "namespaces", context.name, "this namespace may not be deleted")

    def grace_period(self, obj: Object, options: DeleteOptions) -> int | None:
        """Return None: a namespace's end has no time limit."""
        return None

    def mark_deleted(self, obj: Object, again: bool) -> None:
        """Say that the namespace is ending."""
        obj.setdefault("status", {})["phase"] = "Terminating"

    def is_held(self, obj: Object) -> bool:
        """Say whether the namespace has still to be emptied."""
        return bool((obj.get("spec") or {}).get("finalizers"))
