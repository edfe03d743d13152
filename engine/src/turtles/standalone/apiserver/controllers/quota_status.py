# SPDX-License-Identifier: GPL-3.0-or-later
"""What ResourceQuotas say is used."""

from collections.abc import Iterable, Iterator

from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.admission import quota
from turtles.standalone.apiserver.builtin import limit_ranges
from turtles.standalone.apiserver.controllers.bootstrap import kind_of
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.storage.store import DELETED, Event, Key
from turtles.standalone.apiserver.wire.errors import Object, StatusError


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
        found = entry.object()
        hard = quota.constrained(found)
        have = quota.used(self._store, found, key.namespace)
        wanted = {"hard": dict(hard), "used": {name: limit_ranges.show(have[name], hard[name]) for name in hard}}
        if found.get("status") == wanted:
            return

        async def counted(old: Object) -> Object:
            return {**old, "status": wanted}

        kind = kind_of(self._resources, quota.RESOURCE)
        try:
            await modify(self._resources, Context(kind, INTERNAL, key.namespace, key.name, "status"), counted)
        except StatusError as error:
            if error.code != 404:
                raise
