# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of aggregated ClusterRoles, written into the roles so that clients can read them.

Source: the Kubernetes documentation "Using RBAC Authorization", "Aggregated ClusterRoles".
"""

from collections.abc import Iterable

from turtles.standalone.apiserver.controllers.internal import modify_if_exists
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema.kinds import RBAC
from turtles.standalone.apiserver.storage.entries import Event, Key
from turtles.standalone.apiserver.wire.errors import Object

RESOURCE = f"{RBAC}/clusterroles"


class RoleAggregation:
    """Keeps the rules of ClusterRoles with an aggregationRule: those of the roles that it selects."""

    resources: frozenset[str] | None = frozenset({RESOURCE})

    def __init__(self, resources: Resources) -> None:
        self._resources, self._store = resources, resources.store

    def initial(self) -> Iterable[Key]:
        """Return every aggregated role."""
        return [entry.key for entry in self._store.entries(RESOURCE) if b'"aggregationRule":{' in entry.raw]

    def concerned(self, event: Event) -> Iterable[Key]:
        """Return every aggregated role: any may select what changed."""
        return self.initial()

    async def reconcile(self, key: Key) -> None:
        """Write a role's rules."""
        if self._store.get(key) is None:
            return
        rules: list[Object] = []
        for rule in self._resources.authorizer.role("ClusterRole", key.name, "") or ():
            if rule not in rules:
                rules.append(rule)

        async def written(old: Object) -> Object:
            return {**old, "rules": rules} if old.get("aggregationRule") else old

        await modify_if_exists(self._resources, key, written)
