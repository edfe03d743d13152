# SPDX-License-Identifier: GPL-3.0-or-later
"""ControllerRevisions: what a pool was when its machines were made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from turtles.api.labels import POOL_REVISION
from turtles.api.objects import Object, is_controlled_by
from turtles.controller.caches import BY_OWNER
from turtles.controller.pool.machine import make_revision, revision_name, revision_of
from turtles.kube.client import AlreadyExists, Client, Conflict, NotFound
from turtles.kube.informer import Informer, index_by_owner
from turtles.kube.manager import Manager
from turtles.kube.resources import CONTROLLERREVISION
from turtles.kube.writer import Writer


class Revisions:
    """Reads revisions from a cache, and writes them."""

    def __init__(self, client: Client, manager: Manager) -> None:
        self._client, self._writer = client, Writer(client)
        # Machines have revisions, too, as many as there are machines; those are nobody's business here
        self.cache: Informer = manager.informer(CONTROLLERREVISION, label_selector=POOL_REVISION)
        self.cache.add_index(BY_OWNER, index_by_owner)

    def get(self, pool: Object, name: str | None) -> Object | None:
        """Return the revision of that name, also if another pool has left it behind; None if there is none."""
        return self.cache.get(pool["metadata"]["namespace"], name) if name else None

    def known(self, pool: Object, objects: Iterable[Object]) -> dict[str, Object]:
        """Return the pool's revisions and those that machines and instances name, by name."""
        own: Sequence[Object] = self.cache.by_index(BY_OWNER, pool["metadata"]["uid"])
        by_name = {revision["metadata"]["name"]: revision for revision in own}
        for name in {revision_of(obj) for obj in objects} - by_name.keys():
            if name and (revision := self.get(pool, name)) is not None:
                by_name[name] = revision
        return by_name

    def ensure(self, pool: Object) -> None:
        """Store the pool's present spec. What another pool of its name has left behind gives way.

        :raises Conflict: something did, and the pool has to be looked at again.
        """
        revision = self.get(pool, revision_name(pool))
        if revision is not None and _is_owned(revision, pool):
            return
        try:
            self._writer.create(self.cache, make_revision(pool))
        except AlreadyExists as error:
            namespace, name = pool["metadata"]["namespace"], revision_name(pool)
            live = self._client.get(CONTROLLERREVISION, namespace, name)
            if _is_owned(live, pool):
                self.cache.observe(live)
                return
            self._client.delete(CONTROLLERREVISION, namespace, name, uid=live["metadata"]["uid"])
            raise Conflict(409, "Conflict", error.message) from error

    def prune(self, pool: Object, names: Iterable[str]) -> None:
        """Delete revisions."""
        for name in names:
            try:
                self._client.delete(CONTROLLERREVISION, pool["metadata"]["namespace"], name)
            except NotFound:
                continue


def _is_owned(revision: Object, pool: Object) -> bool:
    return is_controlled_by(revision, pool)
