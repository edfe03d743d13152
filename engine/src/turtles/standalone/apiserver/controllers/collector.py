# SPDX-License-Identifier: GPL-3.0-or-later
"""What must go: dependents whose owners are gone, the content of ended namespaces, of deleted definitions, old events.

Owner references: the Kubernetes documentation "Garbage Collection". Works by events, from a queue of keys, so that a
restart, which looks at everything once, loses nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from turtles.standalone.apiserver.access.auth import INTERNAL
from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import crd, service_accounts
from turtles.standalone.apiserver.controllers.internal import kind_of
from turtles.standalone.apiserver.resource.create import create
from turtles.standalone.apiserver.resource.delete import delete, is_finished
from turtles.standalone.apiserver.resource.resources import ATTEMPTS, Resources
from turtles.standalone.apiserver.resource.update import modify
from turtles.standalone.apiserver.resource.write import is_same, remove
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.schema.status import is_true, set_condition
from turtles.standalone.apiserver.storage.store import DELETED, Entry, Event, Key, OwnerReference, Stale
from turtles.standalone.apiserver.wire.errors import Object, StatusError, conflict
from turtles.standalone.apiserver.wire.options import DeleteOptions

log = logging.getLogger(__name__)
EVENT_TTL = timedelta(hours=1)
SWEEP_SECONDS = 60.0
RETRY_SECONDS = 1.0
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"


def namespace_conditions(counts: dict[str, int], waits: dict[str, int], failures: Sequence[str] = ()) -> list[Object]:
    """Return the conditions of a namespace that ends.

    :param counts: how many objects of which resource (``plural.group``) are left.
    :param waits: how many of them have which finalizer.
    :param failures: why objects could not be deleted.
    """
    failed = f"Failed to delete all resource types, {len(failures)} remaining: {', '.join(sorted(failures))}"
    left = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(counts.items()))
    held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(waits.items()))
    rows = [
        ("DeletionDiscoveryFailure", "", "ResourcesDiscovered", "All resources successfully discovered"),
        ("DeletionGroupVersionParsingFailure", "", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "DeletionContentFailure",
            failures,
            "ContentDeletionFailed" if failures else "ContentDeleted",
            failed if failures else "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "ContentRemaining",
            left,
            "SomeResourcesRemain" if left else "ContentRemoved",
            f"Some resources are remaining: {left}" if left else "All content successfully removed",
        ),
        (
            "FinalizersRemaining",
            held,
            "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            f"Some content in the namespace has finalizers remaining: {held}"
            if held
            else "All content-preserving finalizers finished",
        ),
    ]
    return [
        {"type": f"Namespace{name}", "status": "True" if is_so else "False", "reason": reason, "message": message}
        for name, is_so, reason, message in rows
    ]


def _set(meta: Object, field: str, values: list[Any]) -> None:
    """Set a list of an object's metadata, which isn't there where it is empty."""
    if values:
        meta[field] = values
    else:
        meta.pop(field, None)


class Collector:
    """Runs beside the server."""

    def __init__(self, resources: Resources) -> None:
        self._resources, self._store = resources, resources.store
        #: uid of an owner -> keys of its dependents.
        self._dependents: dict[str, set[Key]] = {}
        self._owners: dict[Key, tuple[str, ...]] = {}
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Look at every object, then follow changes."""
        self._store.observe(self._on_event)
        for resource in self._store.resources():
            for entry in self._store.entries(resource):
                self._index(entry)
                self._consider(entry)
        self._tasks = [asyncio.create_task(self._work(), name=f"collector-{n}") for n in range(4)]
        self._tasks.append(asyncio.create_task(self._sweep(), name="sweeper"))

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_event(self, event: Event) -> None:
        entry = event.entry
        if event.type == DELETED:
            self._forget(entry.key)
            for key in self._dependents.pop(entry.metadata.uid, ()):
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
        self._index(entry)
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

    def _index(self, entry: Entry) -> None:
        owners = tuple(reference.uid for reference in entry.metadata.owner_references or ())
        if owners == self._owners.get(entry.key, ()):
            return
        self._forget(entry.key)
        if owners:
            self._owners[entry.key] = owners
            for uid in owners:
                self._dependents.setdefault(uid, set()).add(entry.key)

    def _forget(self, key: Key) -> None:
        for uid in self._owners.pop(key, ()):
            keys = self._dependents.get(uid)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._dependents[uid]

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

    def _kind(self, resource: str) -> Kind | None:
        """Return the kind whose objects are stored under ``resource``, whether or not it is served."""
        kind = self._resources.registry.stored(resource)
        if kind is None:
            group, _, plural = resource.partition("/")
            definition = self._store.get(Key(crd.RESOURCE, "", f"{plural}.{group}"))
            kind = crd.unserved_kind(definition.object()) if definition is not None else None
        return kind

    async def _collect(self, key: Key) -> None:
        entry = self._store.get(key)
        kind = self._kind(key.resource)
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
            await self._end_namespace(entry, kind)
        elif key.resource == crd.RESOURCE and crd.CLEANUP in finalizers:
            await self._end_definition(entry, kind)

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
            await self._delete(entry, kind, "Foreground" if waiting else "Background")
        elif gone:
            await self._drop_references(entry, kind, set(gone))

    async def _delete(self, entry: Entry, kind: Kind, propagation: str = "Background") -> None:
        if entry.metadata.deletion_timestamp:
            return
        if propagation == "Foreground" and not self._dependents.get(entry.metadata.uid):
            propagation = "Background"
        context = Context(kind, INTERNAL, entry.key.namespace, entry.key.name)
        await delete(self._resources, context, DeleteOptions(propagation=propagation, uid=entry.metadata.uid))

    async def _drop_references(self, entry: Entry, kind: Kind, uids: set[str]) -> None:
        def dropped(meta: Object) -> None:
            left = [one for one in meta.get("ownerReferences") or () if one.get("uid") not in uids]
            _set(meta, "ownerReferences", left)

        await self._modify_metadata(entry.key, kind, dropped)

    async def _modify_metadata(self, key: Key, kind: Kind, change: Callable[[Object], None]) -> None:
        """Change an object's metadata, and delete the object if that is all it has waited for.

        In the version that it is stored in, and without validation: neither a conversion webhook that is gone nor a
        schema that it doesn't fit any more may keep it from going.
        """
        strategy, context = self._resources.strategy(kind), Context(kind, INTERNAL, key.namespace, key.name)
        for _ in range(ATTEMPTS):
            entry = await self._store.settled(key)
            if entry is None:
                return
            obj = entry.object()
            change(obj["metadata"])
            try:
                if is_finished(strategy, obj):
                    await remove(self._resources, context, entry, obj)
                elif not is_same(obj, entry.object()):
                    await self._store.put(key, obj, entry.version)
                return
            except Stale:
                continue
        raise conflict(kind.group, kind.plural, key.name)

    async def _orphan(self, entry: Entry, kind: Kind) -> None:
        for key in list(self._dependents.get(entry.metadata.uid, ())):
            dependent, of = self._store.get(key), self._kind(key.resource)
            if dependent is not None and of is not None:
                await self._drop_references(dependent, of, {entry.metadata.uid})
        await self._drop_finalizer(entry, kind, _ORPHAN)

    async def _foreground(self, entry: Entry, kind: Kind) -> None:
        blocking = False
        for key in list(self._dependents.get(entry.metadata.uid, ())):
            dependent, of = self._store.get(key), self._kind(key.resource)
            if dependent is None or of is None:
                continue
            references = dependent.metadata.owner_references or ()
            if any(one.uid == entry.metadata.uid and one.block_owner_deletion for one in references):
                blocking = True
            self._add(key)
        if not blocking:
            await self._drop_finalizer(entry, kind, _FOREGROUND)

    async def _drop_finalizer(self, entry: Entry, kind: Kind, name: str) -> None:
        def dropped(meta: Object) -> None:
            _set(meta, "finalizers", [one for one in meta.get("finalizers") or () if one != name])

        await self._modify_metadata(entry.key, kind, dropped)

    # -- namespaces and definitions

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

    async def _end_namespace(self, entry: Entry, kind: Kind) -> None:
        name = entry.key.name
        left = False
        failures: list[str] = []
        for resource in self._store.resources():
            of = self._kind(resource)
            if of is None or not of.namespaced:
                continue
            for inner in list(self._store.entries(resource, name)):
                left = True
                # A Pod's node ends it; everything else goes at once or waits for its finalizers.
                try:
                    await self._delete(inner, of)
                except StatusError as error:
                    if error.code != 404:
                        failures.append(error.message)
        if left and any(
            next(iter(self._store.entries(resource, name)), None) is not None
            for resource in self._store.resources()
            if not resource.startswith("/namespaces")
        ):
            await self._tell_what_remains(entry, kind, failures)
            if failures:
                raise StatusError(500, "InternalError", failures[0])  # has it tried again
            return  # the deletion of what is left wakes us

        async def emptied(obj: Object) -> Object:
            obj["spec"]["finalizers"] = []
            return obj

        context = Context(kind, INTERNAL, "", name, "finalize")
        await modify(self._resources, context, emptied)

    async def _tell_what_remains(self, entry: Entry, kind: Kind, failures: list[str]) -> None:
        """Say in the status of a namespace that ends what it waits for, as Kubernetes' namespace controller does."""
        counts: dict[str, int] = {}
        waits: dict[str, int] = {}
        for resource in self._store.resources():
            group, _, plural = resource.partition("/")
            for inner in self._store.entries(resource, entry.key.name):
                counts[f"{plural}.{group}"] = counts.get(f"{plural}.{group}", 0) + 1
                for finalizer in inner.metadata.finalizers or ():
                    waits[finalizer] = waits.get(finalizer, 0) + 1
        conditions = namespace_conditions(counts, waits, failures)

        async def changed(obj: Object) -> Object:
            for one in conditions:
                set_condition(obj, one["type"], one["status"], one["reason"], one["message"])
            return obj

        context = Context(kind, INTERNAL, "", entry.key.name, "status")
        await modify(self._resources, context, changed)

    async def _end_definition(self, entry: Entry, kind: Kind) -> None:
        spec = entry.object()["spec"]
        resource = f"{spec['group']}/{spec['names']['plural']}"
        of = self._kind(resource)
        if of is not None:
            left = list(self._store.entries(resource))
            if left and not is_true(entry.object(), "Terminating"):
                text = "CustomResource deletion is in progress"

                async def terminating(obj: Object) -> Object:
                    set_condition(obj, "Terminating", "True", "InstanceDeletionInProgress", text)
                    return obj

                await modify(self._resources, Context(kind, INTERNAL, "", entry.key.name, "status"), terminating)
            failure: StatusError | None = None
            for inner in left:
                try:
                    await self._delete(inner, of)
                except StatusError as error:
                    failure = failure if error.code == 404 else error
            if failure is not None:
                raise failure  # has it tried again
            if next(iter(self._store.entries(resource)), None) is not None:
                return
        await self._drop_finalizer(entry, kind, crd.CLEANUP)

    # -- time

    async def _sweep(self) -> None:
        while True:
            try:
                await self.expire_events(datetime.now(UTC) - EVENT_TTL)
                self._store.compact()
            except Exception:
                log.exception("sweeping failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def expire_events(self, before: datetime) -> None:
        """Delete Events last seen before a time."""
        kind = kind_of(self._resources, "/events")
        for entry in list(self._store.entries("/events")):
            obj = entry.object()
            seen = obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"]["creationTimestamp"]
            try:
                old = datetime.fromisoformat(seen) < before
            except (ValueError, TypeError):
                old = True
            if old:
                with contextlib.suppress(StatusError):
                    await self._delete(entry, kind)
