# SPDX-License-Identifier: GPL-3.0-or-later
"""RoleBindings and ClusterRoleBindings.

Source: Kubernetes' pkg/apis/rbac/validation.
"""

from typing import Any, ClassVar

from turtles.standalone.apiserver.access import escalation
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, as_map, column, created, name_of, wide
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.schema.kinds import RBAC, Column
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid_value, not_supported, required


def _columns(kind: str) -> tuple[Column, ...]:
    where = kind[0].lower() + kind[1:]
    subjects = [wide(one, f"{one} in the {where}") for one in ("Users", "Groups", "ServiceAccounts")]
    return NAME, column("Role", f"@rbac.v1.{kind}.roleRef"), AGE, *subjects


class RoleBindings(Strategy):
    """RoleBindings."""

    #: What may be bound.
    role_kinds: ClassVar[list[str]] = ["Role", "ClusterRole"]
    #: Whether a service account's namespace must be named.
    needs_namespace = False
    columns = _columns("RoleBinding")

    def cells(self, obj: Object) -> list[Any]:
        role = as_map(obj.get("roleRef"))

        def names(kind: str) -> str:
            return ", ".join(
                f"{one['namespace']}/{one.get('name')}" if one.get("namespace") else str(one.get("name"))
                for one in as_list(obj.get("subjects"))
                if one.get("kind") == kind
            )

        cells = [name_of(obj), f"{role.get('kind')}/{role.get('name')}", created(obj)]
        return [*cells, names("User"), names("Group"), names("ServiceAccount")]

    def default(self, obj: Object) -> None:
        if not obj["roleRef"].get("apiGroup"):
            obj["roleRef"]["apiGroup"] = RBAC
        for subject in obj.get("subjects") or ():
            if subject.get("kind") in ("User", "Group"):
                subject.setdefault("apiGroup", RBAC)

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        reference = as_map(obj.get("roleRef"))
        causes: list[Cause] = []
        if reference.get("apiGroup") != RBAC:
            causes.append(not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", [RBAC]))
        if reference.get("kind") not in self.role_kinds:
            causes.append(not_supported("roleRef.kind", reference.get("kind", ""), self.role_kinds))
        if not reference.get("name"):
            causes.append(required("roleRef.name"))
        for index, subject in enumerate(as_list(obj.get("subjects"))):
            if not subject.get("name"):
                causes.append(required(f"subjects[{index}].name"))
            if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
                allowed = ["ServiceAccount", "User", "Group"]
                causes.append(not_supported(f"subjects[{index}].kind", subject.get("kind", ""), allowed))
            elif subject["kind"] == "ServiceAccount" and not subject.get("namespace") and self.needs_namespace:
                causes.append(required(f"subjects[{index}].namespace"))
        if old is not None and old.get("roleRef") != obj.get("roleRef"):
            names = {"APIGroup": "apiGroup", "Kind": "kind", "Name": "name"}
            shown = {name: reference.get(field, "") for name, field in names.items()}
            causes.append(invalid_value("roleRef", shown, "cannot change roleRef"))
        return causes

    def authorize(self, cluster: Cluster, context: Context, obj: Object, old: Object | None) -> None:
        """Refuse a binding that gives more than its author has."""
        escalation.check_binding(cluster.authorizer, context.user, context.kind.plural, context.namespace, obj, old)


class ClusterRoleBindings(RoleBindings):
    """ClusterRoleBindings."""

    role_kinds: ClassVar[list[str]] = ["ClusterRole"]
    needs_namespace = True
    columns = _columns("ClusterRoleBinding")
