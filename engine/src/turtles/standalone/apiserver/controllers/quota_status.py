# SPDX-License-Identifier: GPL-3.0-or-later
"""What ResourceQuotas say is used."""

from collections.abc import Iterable, Iterator

from turtles.standalone.apiserver.admission import quota
from turtles.standalone.apiserver.builtin import limit_ranges
from turtles.standalone.apiserver.controllers.internal import modify_if_exists
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.storage.entries import DELETED, Event, Key
from turtles.standalone.apiserver.wire.errors import Object


class QuotaStatus:
    """Keeps status.hard and status.used of ResourceQuotas up to date."""

    resources: frozenset[str] | None = None

    def __init__(self, resources: Resources) -> None:
        self._resources, self._store = resources, resources.store

    def initial(self) -> Iterable[Key]:
        """Return every quota."""
        return [entry.key for entry in self._store.entries(quota.RESOURCE)]

    def concerned(self, event: Event) -> Iterator[Key]:
        """Return the quotas that count an object that came, went or changed."""
        key = event.entry.key
        if not key.namespace:
            return
        if key.resource == quota.RESOURCE and event.type != DELETED:
            yield key
        for entry in self._store.entries(quota.RESOURCE, key.namespace):
            if entry.key != key and quota.counts(key.resource, quota.constrained(entry.object())):
                yield entry.key

    async def reconcile(self, key: Key) -> None:
        """Count again."""
        entry = self._store.get(key)
        if entry is None or entry.metadata.deletion_timestamp:
            return
        obj = entry.object()
        hard = quota.constrained(obj)
        have = quota.used(self._store, obj, key.namespace)
        wanted = {"hard": dict(hard), "used": {name: limit_ranges.show(have[name], hard[name]) for name in hard}}
        if obj.get("status") == wanted:
            return

        async def counted(old: Object) -> Object:
            return {**old, "status": wanted}

        await modify_if_exists(self._resources, key, counted, "status")
