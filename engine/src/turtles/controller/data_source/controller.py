# SPDX-License-Identifier: GPL-3.0-or-later
"""DataSource → its status: reads the caches, and writes what there is of the disk.

Where upstream's CDI is installed, nothing is done here.
"""

from __future__ import annotations

import contextlib

from turtles.api import times
from turtles.api.data_sources import CLAIM, KIND, CopySource
from turtles.api.kind import Missing
from turtles.api.objects import Object, get, is_deleted
from turtles.controller.data_source.status import Disk, source_of, status
from turtles.controller.definition import Definition
from turtles.controller.shared import Shared
from turtles.kube.client import NotFound
from turtles.kube.informer import Key, key_of
from turtles.kube.kubevirt import DATA_SOURCE
from turtles.kube.manager import Controller, Trigger, each
from turtles.kube.resources import VOLUMESNAPSHOT

#: Index of DataSources: what they name, as "namespace/name", whatever kind it has.
_BY_NAMED = "named"


class DataSourceController:
    """Reconciles DataSources."""

    def __init__(self, shared: Shared) -> None:
        manager = shared.manager
        self._writer = shared.writer
        self._definition = Definition(manager)
        self._data_sources = manager.informer(DATA_SOURCE, optional=True)
        self._data_sources.add_index(_BY_NAMED, _named)
        self._data_volumes, self._claims = shared.caches.data_volumes, shared.caches.pvcs
        self._snapshots = manager.informer(VOLUMESNAPSHOT, optional=True)

    def controller(self) -> Controller:
        """Return what the manager needs to run it."""
        triggers = (
            each(self._data_sources),
            self._definition.decides_on(self._data_sources),
            *(
                Trigger(informer, self._leading_to)
                for informer in (self._data_sources, self._data_volumes, self._claims, self._snapshots)
            ),
        )
        return Controller("data_source", self.reconcile, triggers, essential=False)

    def _leading_to(self, old: Object | None, new: Object | None) -> list[Key]:
        """Return the DataSources that name an object, and those that name these."""
        direct = self._data_sources.by_index(_BY_NAMED, "/".join(key_of(new or old or {})))
        keys = [key_of(found) for found in direct]
        return keys + [key_of(other) for key in keys for other in self._data_sources.by_index(_BY_NAMED, "/".join(key))]

    def reconcile(self, key: Key) -> None:
        """Say of one DataSource what there is."""
        data_source = self._data_sources.get(*key)
        if data_source is None or is_deleted(data_source) or not self._definition.is_ours():
            return
        source = source_of(data_source, self._find)
        disk = self._disk(source) if isinstance(source, CopySource) else Disk()
        with contextlib.suppress(NotFound):
            self._writer.store_status(self._data_sources, data_source, status(data_source, source, disk, times.now()))

    def _find(self, namespace: str, name: str) -> Object:
        data_source = self._data_sources.get(namespace, name)
        if data_source is None:
            raise Missing(f"{KIND} {namespace}/{name} not found")
        return data_source

    def _disk(self, source: CopySource) -> Disk:
        if source.kind == CLAIM:
            return Disk(
                self._claims.get(source.namespace, source.name), self._data_volumes.get(source.namespace, source.name)
            )
        return Disk(self._snapshots.get(source.namespace, source.name))


def _named(data_source: Object) -> list[str]:
    source, namespace = get(data_source, "spec", "source") or {}, data_source["metadata"]["namespace"]
    return [f"{named.get('namespace') or namespace}/{named.get('name')}" for named in source.values() if named]
