# SPDX-License-Identifier: GPL-3.0-or-later
"""CustomResourceDefinitions; crd.py has what they mean, crd_rules.py what they must look like."""

from turtles.standalone.apiserver.builtin import crd, crd_rules
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Cause, Object, invalid, invalid_value


class CustomResourceDefinitions(Strategy):
    """CustomResourceDefinitions. Their status tells which names they got; they end after their objects."""

    needs_version = True

    def default(self, obj: Object) -> None:
        crd.prepare(obj)

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        return crd_rules.validate(obj, old)

    def settle_create(self, cluster: Cluster, obj: Object) -> None:
        """Refuse a group of the server's own; accept the names."""
        group = obj["spec"]["group"]
        if any(kind.group == group and not kind.custom for kind in cluster.registry.all()):
            cause = invalid_value("spec.group", group, "is served by the API server itself")
            raise invalid("apiextensions.k8s.io", "CustomResourceDefinition", obj["metadata"]["name"], [cause])
        self.settle_update(cluster, obj)

    def settle_update(self, cluster: Cluster, obj: Object) -> None:
        """Accept the names that are free."""
        crd.set_status(obj, siblings(cluster.store, obj))

    def mark_deleted(self, obj: Object, again: bool) -> None:
        """Make the definition wait for the end of its objects."""
        if not again:
            crd.mark_deleted(obj)


def siblings(store: Store, definition: Object) -> list[Object]:
    """Return the other CustomResourceDefinitions of a definition's group."""
    group, name = definition["spec"]["group"], definition["metadata"]["name"]
    others = (entry.object() for entry in store.entries(crd.RESOURCE) if entry.key.name != name)
    return [one for one in others if one["spec"]["group"] == group]
