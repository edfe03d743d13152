# SPDX-License-Identifier: GPL-3.0-or-later
"""What must go: dependents whose owners are gone, and the content of namespaces and definitions that end.

Source: the Kubernetes documentation "Garbage Collection". Works by events, from a queue of keys, so that a restart,
which looks at everything once, loses nothing.
"""

import asyncio
import logging
from typing import Any

from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import crd, service_accounts
from turtles.standalone.apiserver.controllers.dependents import Dependents
from turtles.standalone.apiserver.controllers.endings import end_definition, end_namespace
from turtles.standalone.apiserver.controllers.internal import (
    delete_entry,
    drop_finalizer,
    filter_metadata,
    kind_of,
    stored_kind,
)
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import DELETED, Entry, Event, Key, OwnerReference
from turtles.standalone.apiserver.wire.errors import StatusError

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"


class Collector:
    """Runs beside the server."""

    def __init__(self, resources: Resources) -> None:
        self._resources, self._store = resources, resources.store
        self._dependents = Dependents()
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Look at every object, then follow changes."""
        self._store.observe(self._on_event)
        for resource in self._store.resources():
            for entry in self._store.entries(resource):
                self._dependents.update(entry)
                self._consider(entry)
        self._tasks = [asyncio.create_task(self._work(), name=f"collector-{n}") for n in range(4)]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_event(self, event: Event) -> None:
        entry = event.entry
        if event.type == DELETED:
            self._dependents.forget(entry.key)
            for key in self._dependents.of(entry.metadata.uid):
                self._add(key)
            if event.previous is not None:
                self._wake_foreground_owners(event.previous)
            if entry.key.namespace:
                # The namespace may be waiting for this object, or want its service account back.
                namespace = Key("/namespaces", "", entry.key.namespace)
                self._add_if_ending(namespace)
                if (entry.key.resource, entry.key.name) == (service_accounts.RESOURCE, service_accounts.DEFAULT):
                    self._add(namespace)
            self._wake_definition(entry.key)
            return
        self._dependents.update(entry)
        self._consider(entry)

    def _consider(self, entry: Entry) -> None:
        described = entry.metadata
        ending = described.deletion_timestamp is not None
        special = ending and (entry.key.resource in ("/namespaces", crd.RESOURCE) or bool(described.finalizers))
        if described.owner_references or special or entry.key.resource == "/namespaces":
            self._add(entry.key)

    def _add_if_ending(self, key: Key) -> None:
        entry = self._store.get(key)
        if entry is not None and entry.metadata.deletion_timestamp:
            self._add(key)

    def _wake_definition(self, key: Key) -> None:
        group, _, plural = key.resource.partition("/")
        self._add_if_ending(Key(crd.RESOURCE, "", f"{plural}.{group}"))

    def _wake_foreground_owners(self, entry: Entry) -> None:
        for reference in entry.metadata.owner_references or ():
            key = self._owner_key(reference, entry.key.namespace)
            if key is not None:
                self._add_if_ending(key)

    def _add(self, key: Key) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._queue.put_nowait(key)

    # -- work

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._queued.discard(key)
            try:
                await self._collect(key)
            except StatusError as error:
                if error.code != 404:
                    log.warning("collecting failed, trying again", extra={"object": "/".join(key), "why": str(error)})
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self._add, key)
            except Exception:
                log.exception("collecting failed, trying again", extra={"object": "/".join(key)})
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._add, key)

    async def _collect(self, key: Key) -> None:
        entry = self._store.get(key)
        kind = stored_kind(self._resources, key.resource)
        if entry is None or kind is None:
            return
        described = entry.metadata
        if described.deletion_timestamp is None:
            if key.resource == "/namespaces":
                await self._default_service_account(key.name)
            await self._check_owners(entry, kind)
            return
        finalizers = described.finalizers or []
        if _ORPHAN in finalizers:
            await self._orphan(entry, kind)
        elif _FOREGROUND in finalizers:
            await self._foreground(entry, kind)
        if key.resource == "/namespaces":
            await end_namespace(self._resources, entry, kind)
        elif key.resource == crd.RESOURCE and crd.CLEANUP in finalizers:
            await end_definition(self._resources, entry, kind)

    def _owner_key(self, reference: OwnerReference, namespace: str) -> Key | None:
        kind = self._resources.registry.of_object(reference.api_version, reference.kind)
        # What has no namespace can't be owned by something in one: nothing says in which.
        if kind is None or (kind.namespaced and not namespace):
            return None
        return Key(kind.resource, namespace if kind.namespaced else "", reference.name)

    async def _check_owners(self, entry: Entry, kind: Kind) -> None:
        """Delete a dependent none of whose owners is left; drop references to those that are gone."""
        references = entry.metadata.owner_references or []
        if not references:
            return
        gone, waiting = [], []
        for reference in references:
            key = self._owner_key(reference, entry.key.namespace)
            if key is None:
                return  # an owner that can't be looked for, as its kind isn't served (yet): nothing can be said
            owner = await self._store.settled(key)
            if owner is None or owner.metadata.uid != reference.uid:
                gone.append(reference.uid)
            elif owner.metadata.deletion_timestamp and _FOREGROUND in (owner.metadata.finalizers or ()):
                waiting.append(reference.uid)
        if len(gone) + len(waiting) == len(references):
            has_dependents = bool(self._dependents.of(entry.metadata.uid))
            propagation = "Foreground" if waiting and has_dependents else "Background"
            await delete_entry(self._resources, entry, kind, propagation)
        elif gone:
            await self._drop_references(entry, kind, set(gone))

    async def _drop_references(self, entry: Entry, kind: Kind, uids: set[str]) -> None:
        def is_kept(reference: Any) -> bool:
            return reference.get("uid") not in uids

        await filter_metadata(self._resources, entry.key, kind, "ownerReferences", is_kept)

    async def _orphan(self, entry: Entry, kind: Kind) -> None:
        for key in self._dependents.of(entry.metadata.uid):
            dependent, of = self._store.get(key), stored_kind(self._resources, key.resource)
            if dependent is not None and of is not None:
                await self._drop_references(dependent, of, {entry.metadata.uid})
        await drop_finalizer(self._resources, entry, kind, _ORPHAN)

    async def _foreground(self, entry: Entry, kind: Kind) -> None:
        blocking = False
        for key in self._dependents.of(entry.metadata.uid):
            dependent, of = self._store.get(key), stored_kind(self._resources, key.resource)
            if dependent is None or of is None:
                continue
            references = dependent.metadata.owner_references or ()
            if any(one.uid == entry.metadata.uid and one.block_owner_deletion for one in references):
                blocking = True
            self._add(key)
        if not blocking:
            await drop_finalizer(self._resources, entry, kind, _FOREGROUND)

    async def _default_service_account(self, namespace: str) -> None:
        kind = kind_of(self._resources, service_accounts.RESOURCE)
        context = Context(kind, INTERNAL, namespace, service_accounts.DEFAULT)
        if self._store.get(context.key) is None:
            try:
                await create(self._resources, context, {"metadata": {"name": service_accounts.DEFAULT}})
            except StatusError as error:
                # It came from elsewhere, or the namespace is ending.
                if error.code not in (403, 404, 409):
                    raise
