# SPDX-License-Identifier: GPL-3.0-or-later
"""Create, read, update, patch and delete: what the API does with objects of any kind."""

import asyncio
import base64
import binascii
import copy
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec

from turtles.standalone.apiserver.access import escalation
from turtles.standalone.apiserver.access.rbac import Authorizer
from turtles.standalone.apiserver.admission import quota
from turtles.standalone.apiserver.admission.context import Admission, Context
from turtles.standalone.apiserver.apply import managed, strategic
from turtles.standalone.apiserver.builtin import defaults, limit_ranges, services, strategies
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.custom import crd
from turtles.standalone.apiserver.custom.conversion import Converter
from turtles.standalone.apiserver.resource import scales
from turtles.standalone.apiserver.schema import decode, metadata, quick
from turtles.standalone.apiserver.schema import validation as schema
from turtles.standalone.apiserver.schema.cel import rules
from turtles.standalone.apiserver.schema.cel.judge import Judge
from turtles.standalone.apiserver.schema.kinds import RBAC, Kind, Scale
from turtles.standalone.apiserver.schema.types import ANY, Type, of_kind
from turtles.standalone.apiserver.storage.store import ADDED, Entry, Key, Stale, Store
from turtles.standalone.apiserver.views.watch import Selection
from turtles.standalone.apiserver.wire import bodies, patch
from turtles.standalone.apiserver.wire.encoding import encode
from turtles.standalone.apiserver.wire.errors import (
    Cause,
    Object,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    expired,
    forbidden,
    internal,
    invalid,
    invalid_value,
    not_found,
    not_supported,
    path_not_found,
    required,
)
from turtles.standalone.apiserver.wire.options import MAX_GRACE, DeleteOptions

#: Attempts at an update that others get in the way of.
ATTEMPTS = 20
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_EVICTION = Kind("policy", "v1", "Eviction", "evictions")
_WHAT_HAPPENED = {"UID": "deleted and then recreated", "ResourceVersion": "modified"}
_sorted_encode = msgspec.json.Encoder(order="deterministic").encode
#: Resources whose objects may come to use more by an update.
_GROWING = ("/persistentvolumeclaims", "/services")
#: Finalizers that what is used gets when it is made; who serves storage takes them away.
_PROTECTIONS = {
    "/persistentvolumeclaims": "kubernetes.io/pvc-protection", "/persistentvolumes": "kubernetes.io/pv-protection",
}  # fmt: skip
#: Namespaces that can't be deleted.
IMMORTAL = ("default", "kube-system", "kube-public")


def present(raw: bytes, stored: str, served: str) -> bytes:
    """Return an object's JSON in another version of its kind, which differs in apiVersion only."""
    if stored == served:
        return raw
    prefix = b'{"apiVersion":"' + stored.encode() + b'"'
    return b'{"apiVersion":"' + served.encode() + b'"' + raw[len(prefix) :] if raw.startswith(prefix) else raw


def _same(one: Object, other: Object) -> bool:
    # Python holds 1 == 1.0 == True for the same, JSON doesn't.
    return one == other and _sorted_encode(one) == _sorted_encode(other)


def _without(obj: Object, *names: str) -> Object:
    return {name: value for name, value in obj.items() if name not in names}


class Resources:
    """The verbs on objects."""

    def __init__(
        self, store: Store, registry: Registry, admission: Admission, authorizer: Authorizer,
        allocator: services.Allocator, converter: Converter,
    ) -> None:  # fmt: skip
        self.store, self.registry, self.admission, self.authorizer = store, registry, admission, authorizer
        self.allocator, self.converter = allocator, converter
        self.quotas = quota.Quotas(store)
        self.judge = Judge()
        #: Takes an eviction from the Pod's budget; raises where there is nothing left.
        self.admit_eviction: Callable[[Context, Entry], Awaitable[None]] = _admitted

    # -- reading

    def served(self, entry: Entry, kind: Kind) -> bytes:
        """Return an object's JSON in the version of ``kind``; see :meth:`Converter.prepare` for custom resources."""
        if kind.custom:
            return self.converter.served(entry, kind)
        if kind.convert is not None:
            return msgspec.json.encode(kind.convert(entry.object(), kind.api_version))
        return present(entry.raw, kind.storage_api_version, kind.api_version)

    async def load(self, entry: Entry, kind: Kind) -> Object:
        """Return an object, the caller's own, in the version of ``kind``."""
        if kind.custom:
            await self.converter.prepare([entry], kind)
            return cast(Object, msgspec.json.decode(self.converter.served(entry, kind)))
        obj = entry.object()
        if kind.convert is not None:
            return kind.convert(obj, kind.api_version)
        obj["apiVersion"] = kind.api_version
        return obj

    def viewed(self, kind: Kind) -> Callable[[Entry], Object]:
        """Return what gives an object as field selectors of a version of a kind see it; see :meth:`ready`."""
        if not kind.custom and kind.convert is None:
            return Entry.object
        return lambda entry: cast(Object, msgspec.json.decode(self.served(entry, kind)))

    async def ready(self, kind: Kind, selection: Selection, token: str = "", version: int = 0) -> None:
        """Have converted what a selection looks into: afterwards, before anything is awaited, it can be asked.

        :param token: see :meth:`page`, as for ``version``.
        """
        if not selection.looks_inside:
            return
        if token:
            version, _ = _parse_token(token, kind.resource)
        version = max(version, self.store.compacted)
        every = Selection(selection.namespace)
        while waiting := self.converter.waiting(self._selected(kind, every, None, version), kind):
            await self.converter.prepare(waiting, kind)

    def get(self, context: Context) -> Entry:
        """Return the named object.

        :raises StatusError: 404.
        """
        entry = self.store.get(context.key)
        if entry is None:
            raise not_found(context.kind.group, context.kind.plural, context.name)
        return entry

    def page(
        self, kind: Kind, selection: Selection, limit: int, token: str, version: int = 0
    ) -> tuple[list[Entry], int, str, int | None]:
        """Return a page of a list.

        :param limit: entries at most, 0 for all.
        :param token: ``continue`` of the page before.
        :param version: exact version of the list wanted, 0 for the newest.
        :returns: entries, the list's version, the next page's token, how many remain (None where unknown).
        """
        after: Key | None = None
        if token:
            version, after = _parse_token(token, kind.resource)
        if version and version < self.store.compacted:
            if not token:
                raise expired(version, self.store.compacted)
            text = (
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter, or use the continue token in this response to retrieve the "
                "remainder of the results."
            )
            raise StatusError(410, "Expired", text)
        entries = self._selected(kind, selection, after, version)
        found: list[Entry] = []
        for entry in entries:
            if limit and len(found) == limit:
                remaining = 1 + sum(1 for _ in entries) if not (selection.labels or selection.fields) else None
                listed = version or self.store.version
                return found, listed, _make_token(listed, found[-1].key), remaining
            found.append(entry)
        return found, version or self.store.version, "", None

    def _selected(self, kind: Kind, selection: Selection, after: Key | None, version: int) -> Iterable[Entry]:
        if version and version < self.store.version:
            entries: Iterable[Entry] = self._at(kind.resource, version, after)
        elif selection.name and after is None:
            entries = self._named(kind, selection)
        else:
            entries = self.store.entries(kind.resource, selection.namespace, after)
        return (entry for entry in entries if selection(entry))

    def _named(self, kind: Kind, selection: Selection) -> Iterable[Entry]:
        if kind.namespaced and not selection.namespace:
            return [one for one in self.store.entries(kind.resource) if one.key.name == selection.name]
        entry = self.store.get(Key(kind.resource, selection.namespace, selection.name))
        return [entry] if entry else []

    def _at(self, resource: str, version: int, after: Key | None) -> Iterable[Entry]:
        """Yield a resource's objects as they were at an earlier version."""
        state = dict(self.store.table(resource).entries)
        for event in reversed(self.store.since(resource, version)):
            if event.previous is None or event.type == ADDED:
                state.pop(event.entry.key, None)
            else:
                state[event.entry.key] = event.previous
        for key in sorted(state):
            if after is None or key > after:
                yield state[key]

    # -- creating

    async def create(self, context: Context, obj: Any) -> Entry:
        """Create an object; return it as stored (or, on a dry run, as it would be)."""
        kind = context.kind
        obj = self._decoded(context, obj, report=True)
        meta = obj["metadata"]
        if kind.namespaced and meta.get("namespace", context.namespace) != context.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if context.name and meta.setdefault("name", context.name) != context.name:
            text = f"the name of the object ({meta['name']}) does not match the name on the URL ({context.name})"
            raise bad_request(text)
        generated = not meta.get("name") and bool(meta.get("generateName"))
        if kind.custom:
            definition = self.store.get(Key(crd.RESOURCE, "", f"{kind.plural}.{kind.group}"))
            if definition is not None and definition.metadata.deletion_timestamp:
                text = "create not allowed while custom resource definition is terminating"
                raise StatusError(405, "MethodNotAllowed", text, {"group": kind.group, "kind": kind.plural})
        if kind.namespaced:
            self._check_namespace(context, meta.get("name", ""))
        for attempt in range(8):
            candidate = copy.deepcopy(obj) if generated and attempt < 7 else obj
            try:
                return await self._create(context, candidate)
            except StatusError as error:
                if not (generated and error.reason == "AlreadyExists" and attempt < 7):
                    raise
        raise internal("no free name found")

    async def _create(self, context: Context, obj: Object) -> Entry:
        kind = context.kind
        metadata.for_create(obj, context.namespace if kind.namespaced else "")
        if kind.custom and kind.status:
            obj.pop("status", None)
        elif not kind.custom:
            defaults.prepare(obj, kind)
        if kind.generation:
            obj["metadata"]["generation"] = 1
        given = managed.carried_over(obj, None, "")
        self._complete(context, obj, report=True)
        self._own(context, obj, None, given)
        self._admit(context, obj)
        context.name = context.name or obj["metadata"].get("name", "")
        causes = metadata.validate(obj, kind)
        if causes:
            raise invalid(kind.group, kind.kind, obj["metadata"].get("name", ""), causes)
        uid = obj["metadata"]["uid"]
        mutated = await self.admission.mutate(context, "CREATE", obj, None)
        if mutated is not None and mutated is not obj:
            obj = self._decoded(context, mutated)
            obj["metadata"]["uid"] = uid
            self._complete(context, obj)
        if kind.resource == "/pods":
            defaults.classify(obj)
        name = obj["metadata"].get("name", "")
        key = Key(kind.resource, context.namespace if kind.namespaced else "", name)
        # Kubernetes names a taken name only after validation, so that both answers don't depend on each other's order.
        await self._validate(context, obj, None)
        await self.admission.validate(context, "CREATE", obj, None)
        if kind.resource == crd.RESOURCE:
            self._check_names(obj)
            crd.set_status(obj, self.definitions(obj))
        there = await self.store.settled(key)
        if there is not None:
            error = already_exists(kind.group, kind.plural, name)
            if there.metadata.deletion_timestamp:
                error.message = f"object is being deleted: {error.message}"
            raise error
        if kind.namespaced:
            # Its deletion may be on its way to disk: nothing may be made behind the back of who empties it.
            await self.store.settled(Key("/namespaces", "", context.namespace))
            self._check_namespace(context, name)
        self._check_limits(context, obj)
        try:
            async with self.quotas.guard(kind, context.namespace, obj):
                return await self._write(context, key, obj, 0)
        except Stale:
            raise already_exists(kind.group, kind.plural, name) from None

    def _own(self, context: Context, new: Object, old: Object | None, entries: list[Object]) -> None:
        """Write down who owns what of a changed object, before admission adds what nobody asked for."""
        if context.managed is not None:
            entries = context.managed
        elif context.manager:
            entries = managed.update(entries, old, new, context.kind, context.manager, context.subresource)
        if entries:
            new["metadata"]["managedFields"] = entries
        else:
            new["metadata"].pop("managedFields", None)

    def _check_limits(self, context: Context, obj: Object) -> None:
        """Hold an object against its namespace's LimitRanges."""
        kind = context.kind
        if kind.resource not in ("/pods", "/persistentvolumeclaims"):
            return
        ranges = [entry.object() for entry in self.store.entries(limit_ranges.RESOURCE, context.namespace)]
        found = limit_ranges.violations(kind.plural, obj, ranges) if ranges else []
        if found:
            why = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
            raise forbidden(kind.group, kind.plural, obj["metadata"].get("name", ""), why)

    def _admit(self, context: Context, obj: Object) -> None:
        """Complete a new object as the admission plugins do that come before webhooks."""
        protection = _PROTECTIONS.get(context.kind.resource)
        if protection is not None:
            finalizers = obj["metadata"].get("finalizers") or []
            if protection not in finalizers:
                obj["metadata"]["finalizers"] = [*finalizers, protection]
        if context.kind.resource == "/pods":
            table = "scheduling.k8s.io/priorityclasses"
            try:
                defaults.admit_pod(obj, lambda: (entry.object() for entry in self.store.entries(table)))
            except LookupError as error:
                raise forbidden("", "pods", obj["metadata"].get("name", ""), str(error)) from None
            ranges = [entry.object() for entry in self.store.entries(limit_ranges.RESOURCE, context.namespace)]
            if ranges:
                limit_ranges.set_defaults(obj, ranges)

    def definitions(self, crd_object: Object) -> list[Object]:
        """Return the other CustomResourceDefinitions of a definition's group."""
        group, name = crd_object["spec"]["group"], crd_object["metadata"]["name"]
        others = (entry.object() for entry in self.store.entries(crd.RESOURCE) if entry.key.name != name)
        return [one for one in others if one["spec"]["group"] == group]

    def _check_names(self, obj: Object) -> None:
        spec = obj["spec"]
        for kind in self.registry.all():
            if kind.group == spec["group"] and not kind.custom:
                cause = invalid_value("spec.group", kind.group, "is served by the API server itself")
                raise invalid("apiextensions.k8s.io", "CustomResourceDefinition", obj["metadata"]["name"], [cause])

    def _check_namespace(self, context: Context, name: str) -> None:
        entry = self.store.get(Key("/namespaces", "", context.namespace))
        if entry is None:
            raise not_found("", "namespaces", context.namespace)
        if entry.metadata.deletion_timestamp:
            why = f"unable to create new content in namespace {context.namespace} because it is being terminated"
            error = forbidden(context.kind.group, context.kind.plural, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {context.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = {**(error.details or {}), "causes": [cause]}
            raise error

    # -- what every write goes through

    def _decoded(self, context: Context, obj: Any, old: Object | None = None, report: bool = False) -> Object:
        """Return a body as an object of the kind; tell the client of unknown fields when ``report``."""
        metadata.check_envelope(obj, context.kind)
        context.reset = managed.is_reset(obj)
        result, unknown = decode.decode(obj, context.kind, old)
        if report and not context.kind.custom:
            self._report(context, unknown)
        elif report:
            context.unknown = unknown
        return result

    def _complete(self, context: Context, obj: Object, report: bool = False) -> None:
        """Prune and default an object in place; tell the client of unknown fields when ``report``."""
        kind = context.kind
        if not kind.custom:
            defaults.default(obj, kind)
            return
        if kind.schema is None:
            return
        if not kind.preserve:
            clean = quick.compiled(kind.schema).clean(_without(obj, "apiVersion", "kind", "metadata"))
            dropped = [] if clean else schema.prune(obj, kind.schema)
            if report:
                self._report(context, [*context.unknown, *dropped])
        if not quick.compiled(kind.schema).complete(obj):
            schema.default(obj, kind.schema)

    def _report(self, context: Context, unknown: list[str]) -> None:
        texts = [f'duplicate field "{path}"' for path in context.duplicates]
        texts += [f'unknown field "{path}"' for path in unknown]
        if texts and context.field_validation == "Strict":
            raise decode.undecodable(context.kind, f"strict decoding error: {', '.join(texts)}")
        if context.field_validation == "Warn":
            context.warnings += [text for text in texts if text not in context.warnings]

    async def _validate(self, context: Context, obj: Object, old: Object | None) -> None:
        kind = context.kind
        causes = metadata.validate(obj, kind)
        if old is not None:
            causes += metadata.validate_update(obj, old)
        if kind.custom and kind.schema is not None:
            causes += await self._validate_custom(context, obj, old)
        elif not kind.custom:
            causes += strategies.validate(obj, old, kind)
        if causes:
            group = kind.group if kind.stored_group is None else kind.stored_group
            raise invalid(group, kind.kind, obj["metadata"].get("name", ""), causes)
        if kind.group == RBAC:
            escalation.check(self.authorizer, context.user, kind.plural, context.namespace, obj, old)

    async def _validate_custom(self, context: Context, obj: Object, old: Object | None) -> list[Cause]:
        """Return what a custom resource's schema says of it: first of its shape, then, by its rules, of its meaning."""
        kind, before = context.kind, _without(old, "metadata") if old is not None else None
        new, wanted = _without(obj, "metadata"), kind.schema or {}
        valid = before is None and quick.compiled(wanted).valid(new)
        causes = [] if valid else schema.validate(new, wanted, old=before)
        if kind.scale is not None:
            causes += scales.validate(obj, kind.scale, context.subresource)
        if causes or kind.rules is None:
            return causes
        return await self.judge.evaluate(kind.rules, obj, old if old is not None else rules.ABSENT)

    async def _write(self, context: Context, key: Key, obj: Object, expected: int) -> Entry:
        if context.kind.resource == services.RESOURCE:
            with self.allocator.allocated(key, obj):
                return await self._store(context, key, obj, expected)
        return await self._store(context, key, obj, expected)

    async def _store(self, context: Context, key: Key, obj: Object, expected: int) -> Entry:
        stored = await self._to_storage(obj, context.kind)
        if context.dry_run:
            version = str(expected) if expected else ""
            if version:
                stored["metadata"]["resourceVersion"] = version
            return Entry(key, expected, msgspec.json.encode({"apiVersion": stored["apiVersion"], **stored}))
        return await self.store.put(key, stored, expected)

    async def _to_storage(self, obj: Object, kind: Kind) -> Object:
        if kind.custom:
            return await self.converter.to_storage(obj, kind)
        if kind.convert is not None:
            return kind.convert(obj, kind.storage_api_version)
        return {**obj, "apiVersion": kind.storage_api_version}

    # -- updating

    async def update(self, context: Context, obj: Any) -> Entry:
        """Replace an object by ``obj``."""
        kind = context.kind
        obj = self._decoded(context, obj, report=True)
        meta = obj["metadata"]
        self._check_place(context, meta)
        if not metadata.version_of(obj) and kind.custom and self.store.get(context.key) is not None:
            cause = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(kind.group, kind.plural, context.name, [cause])

        async def replaced(old: Object) -> Object:
            return copy.deepcopy(obj)

        # What the body has too much is reported already, but for what a custom resource's schema doesn't know.
        return await self.modify(context, replaced, based=bool(metadata.version_of(obj)), replaces=True)

    @staticmethod
    def _check_place(context: Context, meta: Object) -> None:
        """Raise 400 when an update's object isn't the one that its path names."""
        name, namespace = meta.get("name"), meta.get("namespace", context.namespace)
        if not name:
            text = f"the name of the object ({context.name} based on URL) was undeterminable: name must be provided"
            raise bad_request(text)
        if name != context.name:
            raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({context.name})")
        if context.kind.namespaced and namespace != context.namespace:
            text = (
                f"the namespace of the object ({namespace}) does not match the namespace on the request "
                f"({context.namespace})"
            )
            raise bad_request(text)
        meta["name"] = name
        if context.kind.namespaced:
            meta["namespace"] = namespace

    async def patch(self, context: Context, content_type: str, body: Any) -> Entry:
        """Apply a patch to an object."""
        if content_type == patch.STRATEGIC and context.kind.custom:
            raise bodies.unknown_format(patch.types(True))
        if body is None and content_type != patch.MERGE:
            # Go's decoder makes the empty patch of it.
            body = [] if content_type == patch.JSON else {}
        if content_type == patch.STRATEGIC and not isinstance(body, dict):
            text = f"json: cannot unmarshal {bodies.json_type(body)} into Go value of type map[string]interface {{}}"
            raise bad_request(text)

        async def patched(old: Object) -> Object:
            return self.apply_patch(content_type, old, body, of_kind(context.kind))

        wanted = body.get("metadata") if isinstance(body, dict) else None
        based = isinstance(wanted, dict) and bool(wanted.get("resourceVersion"))
        return await self.modify(context, patched, based, from_patch=True)

    def _decoded_patch(self, context: Context, new: Object, old: Object) -> Object:
        """Return what a patch left as an object; a fault in it is the patch's: 422."""
        try:
            bodies.check_type_meta(new)
            result = self._decoded(context, new, old, report=True)
        except bodies.Unreadable as error:
            raise _fault_of_patch(new, bad_request(str(error))) from None
        except StatusError as error:
            if error.code != 400 or "strict decoding error" in error.message:
                raise
            raise _fault_of_patch(new, error) from None
        self._check_place(context, result["metadata"])
        return result

    async def apply(self, context: Context, config: Any) -> tuple[Entry, bool]:
        """Apply a configuration (server-side apply); return the object and whether it was created."""
        kind = context.kind
        managed.check(config, kind, context.manager)
        meta = self._decoded(context, copy.deepcopy(config))["metadata"]
        self._check_place(context, {"name": context.name, **meta})
        if await self.store.settled(context.key) is None:
            if context.subresource or (config.get("metadata") or {}).get("resourceVersion"):
                raise not_found(kind.group, kind.plural, context.name)
            obj, context.managed = managed.apply(None, config, kind, context.manager, context.force)
            return await self.create(context, obj), True

        async def applied(old: Object) -> Object:
            new, context.managed = managed.apply(
                old, config, kind, context.manager, context.force, context.subresource
            )
            version = (config.get("metadata") or {}).get("resourceVersion")
            new["metadata"]["resourceVersion"] = version or old["metadata"]["resourceVersion"]
            return new

        return await self.modify(context, applied), False

    def apply_patch(self, content_type: str, document: Object, body: Any, of: Type = ANY) -> Object:
        """Return a document with a patch of one of the three types applied."""
        if content_type == patch.JSON:
            result = patch.json_patch(document, body)
        elif content_type == patch.MERGE:
            result = patch.merge_patch(document, body)
        else:
            envelope = {name: document[name] for name in ("apiVersion", "kind")}
            result = strategic.merge(document, copy.deepcopy(body), of)
            if all(isinstance(result.get(name), str) for name in envelope):
                # The type that is merged into is known, and stays.
                result.update(envelope)
        try:
            bodies.check_type_meta(result)
        except bodies.Unreadable as error:
            cause = invalid_value("patch", json.dumps(result, separators=(",", ":")), str(error))
            raise invalid("", "", "", [cause]) from None
        return result or {}

    async def modify(
        self,
        context: Context,
        change: Callable[[Object], Awaitable[Object]],
        based: bool = False,
        replaces: bool = False,
        from_patch: bool = False,
    ) -> Entry:
        """Change an object: the way of every update, patch and subresource.

        :param change: gets the current object, its own copy; gives the new one.
        :param based: whether the client named the version it changes, so that a conflict is its own to solve.
        :param from_patch: whether it is a patch's result that ``change`` gives, and so its fault what is wrong in it.
        :param replaces: whether the client sent the object as a whole: then its uid is a precondition.
        """
        kind = context.kind
        for _ in range(ATTEMPTS):
            entry = await self.store.settled(context.key)
            if entry is None:
                raise not_found(kind.group, kind.plural, context.name)
            old = await self.load(entry, kind)
            new = await change(await self.load(entry, kind))
            if from_patch:
                new = self._decoded_patch(context, new, old)
            else:
                new = self._decoded(context, new, old, report=True)
            wanted = metadata.version_of(new)
            if wanted and wanted != old["metadata"]["resourceVersion"]:
                raise conflict(kind.group, kind.plural, context.name)
            uid = new["metadata"].get("uid")
            if replaces and uid and uid != old["metadata"]["uid"]:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
                raise conflict(kind.group, kind.plural, context.name, why)
            reset = context.reset and not context.subresource
            entries = [] if reset else managed.carried_over(new, old, context.subresource)
            new = self._prepare_update(context, new, old, report=True)
            self._own(context, new, old, entries)
            if kind.resource == "/pods" and context.subresource == "":
                defaults.admit_tolerations(new["spec"])
            mutated = await self._mutated(context, new, old)
            if mutated is not new:
                context.managed = new["metadata"].get("managedFields") or []
                new = self._prepare_update(context, self._decoded(context, mutated, old), old)
                self._own(context, new, old, [])
            await self._validate(context, new, old)
            await self.admission.validate(context, "UPDATE", *_reviewed(context, new, old))
            if kind.resource == crd.RESOURCE and context.subresource == "":
                crd.set_status(new, self.definitions(new))
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if _same(new, old):
                return entry
            if context.dry_run:
                return await self._write(context, context.key, new, entry.version)
            try:
                if _finished(new):
                    deleted = await self.store.delete(context.key, entry.object(), entry.version)
                    stored = await self._to_storage(new, kind)
                    stored["metadata"]["resourceVersion"] = str(deleted.version)
                    return Entry(context.key, deleted.version, encode(stored))
                if kind.resource in _GROWING and not context.subresource:
                    if kind.resource == "/persistentvolumeclaims":
                        self._check_limits(context, new)
                    async with self.quotas.guard(kind, context.namespace, new, old):
                        return await self._write(context, context.key, new, entry.version)
                return await self._write(context, context.key, new, entry.version)
            except Stale:
                if based:
                    raise conflict(kind.group, kind.plural, context.name) from None
        raise conflict(kind.group, kind.plural, context.name)

    async def _mutated(self, context: Context, new: Object, old: Object) -> Object:
        """Return a changed object as webhooks want it: the same one where they leave it alone."""
        shown, before = _reviewed(context, new, old)
        wanted = await self.admission.mutate(context, "UPDATE", shown, before)
        if wanted is None or wanted is shown:
            return new
        if shown is new:
            return wanted
        scaled = copy.deepcopy(new)
        scales.put(scaled, self._decoded(replace(context, kind=scales.kind_of(context.kind)), wanted),
                   _scale_paths(context.kind))  # fmt: skip
        return scaled

    def _prepare_update(self, context: Context, new: Object, old: Object, report: bool = False) -> Object:
        kind = context.kind
        metadata.for_update(new, old)
        if context.subresource == "status":
            status = {"status": new["status"]} if "status" in new else {}
            meta = old["metadata"] if kind.custom else {**new["metadata"]}
            if not kind.custom:
                meta.pop("ownerReferences", None)
                if "ownerReferences" in old["metadata"]:
                    meta["ownerReferences"] = old["metadata"]["ownerReferences"]
            # Owners' entries are large and never changed in place; labels and annotations are.
            meta = {name: dict(value) if isinstance(value, dict) else value for name, value in meta.items()}
            new = {**_without(old, "status", "metadata"), "metadata": meta, **status}
        elif kind.status and context.subresource == "":
            new = _without(new, "status")
            if "status" in old:
                new["status"] = copy.deepcopy(old["status"])
        if kind.resource == "/namespaces" and context.subresource != "finalize":
            new["spec"] = copy.deepcopy(old.get("spec", {}))
        if kind.resource == services.RESOURCE:
            services.carry_over(new, old)
        self._complete(context, new, report)
        if kind.generation:
            ignored = ("metadata", "status", "apiVersion") if kind.status else ("metadata", "apiVersion")
            generation = int(old["metadata"].get("generation", 1))
            if not _same(_without(new, *ignored), _without(old, *ignored)):
                generation += 1
            new["metadata"]["generation"] = generation
        return new

    # -- deleting

    async def delete(self, context: Context, options: DeleteOptions) -> tuple[Entry, bool]:
        """Delete an object, or mark it for deletion.

        :returns: its last state, and whether it is gone already.
        """
        kind = context.kind
        if kind.resource == "/namespaces" and context.name in IMMORTAL:
            raise forbidden("", "namespaces", context.name, "this namespace may not be deleted")
        asked = False
        for _ in range(ATTEMPTS):
            entry = await self.store.settled(context.key)
            if entry is None:
                raise not_found(kind.group, kind.plural, context.name)
            old = await self.load(entry, kind)
            self._check_preconditions(context, options, old)
            if not asked:
                await self.admission.mutate(context, "DELETE", None, old, options.raw)
                await self.admission.validate(context, "DELETE", None, old, options.raw)
                asked = True
                if self.store.get(context.key) is not entry:
                    continue
            new = copy.deepcopy(old)
            gone = _mark_deleted(new, kind, options)
            if gone and kind.resource != "/pods":
                # Only Pods end gracefully: nothing else is told when, unless it has to wait for finalizers.
                new = old
            if context.dry_run:
                return Entry(context.key, entry.version, msgspec.json.encode(await self._to_storage(new, kind))), gone
            stored = await self._to_storage(new, kind)
            try:
                if gone:
                    # Watchers are shown the state before: what marks a deletion is never stored for what goes at once.
                    deleted = await self.store.delete(context.key, entry.object(), entry.version)
                    stored["metadata"]["resourceVersion"] = str(deleted.version)
                    return Entry(context.key, deleted.version, encode(stored)), True
                if _same(new, old):
                    return entry, False
                return await self.store.put(context.key, stored, entry.version), False
            except Stale:
                continue
        raise conflict(kind.group, kind.plural, context.name)

    def _check_preconditions(self, context: Context, options: DeleteOptions, old: Object) -> None:
        meta = old["metadata"]
        for field_name, wanted, found in (
            ("UID", options.uid, meta["uid"]),
            ("ResourceVersion", options.resource_version, meta["resourceVersion"]),
        ):
            if wanted and wanted != found:
                why = (
                    f"the {field_name} in the precondition ({wanted}) does not match the {field_name} in record "
                    f"({found}). The object might have been {_WHAT_HAPPENED[field_name]}"
                )
                raise conflict(context.kind.group, context.kind.kind, context.name, why)

    async def delete_collection(self, context: Context, selection: Selection, options: DeleteOptions) -> list[Entry]:
        """Delete every selected object; return them as they were."""
        await self.ready(context.kind, selection)
        entries = [
            entry for entry in self.store.entries(context.kind.resource, selection.namespace) if selection(entry)
        ]

        async def one(entry: Entry) -> Entry | None:
            single = Context(
                context.kind, context.user, entry.key.namespace, entry.key.name, dry_run=context.dry_run,
                warnings=context.warnings,
            )  # fmt: skip
            try:
                await self.delete(single, options)
                return entry
            except StatusError as error:
                if error.code == 404:
                    return None
                raise

        results = await asyncio.gather(*(one(entry) for entry in entries), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Entry)]

    # -- subresources

    async def bind(self, context: Context, body: Any) -> None:
        """Bind a Pod to the node that a Binding names."""
        target = body.get("target") if isinstance(body, dict) else None
        node = target.get("name") if isinstance(target, dict) else None
        if not isinstance(target, dict) or not isinstance(node, str) or not node:
            raise invalid("", "Binding", context.name, [required("target.name")])
        if target.get("kind") not in (None, "", "Node"):
            cause = not_supported("target.kind", target["kind"], ["Node", "<empty>"])
            raise invalid("", "Binding", context.name, [cause])
        meta = body.get("metadata")
        annotations = meta.get("annotations") if isinstance(meta, dict) else None
        if isinstance(annotations, dict) and not all(isinstance(one, str) for one in annotations.values()):
            raise bad_request("Binding.metadata.annotations must be texts")
        if isinstance(meta, dict) and meta.get("name") not in (None, "", context.name):
            raise bad_request("name in URL does not match name in Binding object")
        uid = meta.get("uid") if isinstance(meta, dict) else None

        async def bound(pod: Object) -> Object:
            if uid and uid != pod["metadata"]["uid"]:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}"
                raise conflict("", "pods/binding", context.name, why)
            assigned = pod["spec"].get("nodeName")
            if pod["metadata"].get("deletionTimestamp"):
                raise conflict(
                    "",
                    "pods/binding",
                    context.name,
                    f"pod {context.name} is being deleted, cannot be assigned to a host",
                )
            if assigned:
                why = f'pod {context.name} is already assigned to node "{assigned}"'
                raise conflict("", "pods/binding", context.name, why)
            pod["spec"]["nodeName"] = node
            conditions = pod["status"].setdefault("conditions", [])
            conditions[:] = [one for one in conditions if one.get("type") != "PodScheduled"]
            condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
            conditions.append({**condition, "lastTransitionTime": metadata.now()})
            if isinstance(annotations, dict):
                pod["metadata"].setdefault("annotations", {}).update(annotations)
            return pod

        kind = context.kind
        for _ in range(ATTEMPTS):
            entry = await self.store.settled(context.key)
            if entry is None:
                raise not_found(kind.group, kind.plural, context.name)
            pod = await bound(entry.object())
            if context.dry_run:
                return
            try:
                await self.store.put(context.key, pod, entry.version)
                return
            except Stale:
                continue
        raise conflict("", "pods/binding", context.name)

    async def evict(self, context: Context, body: Any) -> None:
        """Evict a Pod: delete it, unless a webhook or a PodDisruptionBudget objects."""
        entry = self.get(context)
        if not isinstance(body, dict):
            raise bad_request("an Eviction must be an object")
        if body.get("kind") not in (None, "", "Eviction"):
            metadata.check_envelope(body, _EVICTION)
        review = {**body, "metadata": body.get("metadata") or {"name": context.name, "namespace": context.namespace}}
        await self.admission.mutate(context, "CREATE", review, None)
        await self.admission.validate(context, "CREATE", review, None)
        await self.admit_eviction(context, entry)
        single = Context(context.kind, context.user, context.namespace, context.name, dry_run=context.dry_run)
        await self.delete(single, DeleteOptions.parse(body.get("deleteOptions") or {}))

    async def scale(self, context: Context, entry: Entry) -> Object:
        """Return an object's autoscaling/v1 Scale."""
        return scales.of(await self.load(entry, context.kind), _scale_paths(context.kind))

    async def set_scale(self, context: Context, change: Callable[[Object], Object], from_patch: bool = False) -> Entry:
        """Set an object's replicas to what ``change`` makes of its Scale; see :meth:`modify` for the rest."""
        paths, of_scale = _scale_paths(context.kind), replace(context, kind=scales.kind_of(context.kind))

        async def scaled(obj: Object) -> Object:
            # A Scale that is sent as a whole may be the first to give replicas; a patch needs what it changes.
            old = scales.of(obj, paths) if from_patch else {}
            wanted = change(copy.deepcopy(old))
            if from_patch:
                wanted = self._decoded_patch(of_scale, wanted, old)
            else:
                wanted = self._decoded(of_scale, wanted, report=True)
                self._check_place(of_scale, wanted["metadata"])
                obj["metadata"]["uid"] = wanted["metadata"].get("uid") or obj["metadata"]["uid"]
            version = metadata.version_of(wanted)
            obj["metadata"]["resourceVersion"] = version or obj["metadata"]["resourceVersion"]
            scales.put(obj, wanted, paths)
            return obj

        return await self.modify(context, scaled, replaces=not from_patch)

    async def apply_scale(self, context: Context, config: Any) -> Entry:
        """Apply a configuration of an object's Scale (server-side apply)."""
        paths, of_scale = _scale_paths(context.kind), replace(context, kind=scales.kind_of(context.kind))
        managed.check(config, of_scale.kind, context.manager)
        meta = self._decoded(of_scale, copy.deepcopy(config), report=True)["metadata"]
        self._check_place(of_scale, {"name": context.name, **meta})
        versions = {one.api_version: one.scale for one in self.registry.versions(context.kind) if one.scale}

        async def applied(obj: Object) -> Object:
            live = scales.of(obj, paths)
            before = managed.entries_of(obj)
            live["metadata"]["managedFields"] = scales.entries(before, versions)
            new, entries = managed.apply(live, config, of_scale.kind, context.manager, context.force, "scale")
            context.managed = scales.to_parent(before, entries, versions, context.kind.api_version)
            version = metadata.version_of({"metadata": meta})
            obj["metadata"]["resourceVersion"] = version or obj["metadata"]["resourceVersion"]
            scales.put(obj, new, paths)
            return obj

        return await self.modify(context, applied)


def _reviewed(context: Context, new: Object, old: Object) -> tuple[Object, Object]:
    """Return what webhooks see of a changed object, and of it before."""
    if context.subresource != "scale":
        return new, old
    paths = _scale_paths(context.kind)
    return scales.of(new, paths), scales.of(old, paths, required=False)


def _scale_paths(kind: Kind) -> Scale:
    if kind.scale is None:
        raise path_not_found()
    return kind.scale


def _fault_of_patch(new: Object, error: StatusError) -> StatusError:
    """422 for a patch that left what can't be decoded."""
    return invalid("", "", "", [invalid_value("patch", json.dumps(new, separators=(",", ":")), error.message)])


async def _admitted(context: Context, entry: Entry) -> None:
    """Let everything pass."""


def _finished(obj: Object) -> bool:
    """Whether an object that waits for its deletion has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if obj["kind"] == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def _pod_grace(pod: Object, options: DeleteOptions) -> int:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace_period is not None:
        return options.grace_period
    grace = spec.get("terminationGracePeriodSeconds", 30)
    return max(0, min(grace, MAX_GRACE)) if isinstance(grace, int) else 30


def _mark_deleted(obj: Object, kind: Kind, options: DeleteOptions) -> bool:
    """Do to ``obj`` what a deletion does; return whether it can go at once."""
    meta = obj["metadata"]
    finalizers = list(meta.get("finalizers") or ())
    wanted = {"Foreground": _FOREGROUND, "Orphan": _ORPHAN}.get(options.propagation)
    if options.propagation or not meta.get("deletionTimestamp"):
        if options.propagation:
            finalizers = [one for one in finalizers if one not in (_FOREGROUND, _ORPHAN)]
        if wanted:
            finalizers.append(wanted)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    grace = _pod_grace(obj, options) if kind.resource == "/pods" else 0
    if meta.get("deletionTimestamp"):
        before = meta.get("deletionGracePeriodSeconds", 0)
        if grace < before:
            # A shorter grace period counts from when the deletion was asked for.
            asked = datetime.fromisoformat(meta["deletionTimestamp"]) - timedelta(seconds=before)
            meta["deletionTimestamp"] = _stamp(asked + timedelta(seconds=grace))
            meta["deletionGracePeriodSeconds"] = grace
    else:
        meta["deletionTimestamp"] = _stamp(datetime.now(UTC) + timedelta(seconds=grace))
        # A namespace's end has no time limit.
        if kind.resource != "/namespaces":
            meta["deletionGracePeriodSeconds"] = grace
        if "generation" in meta:
            meta["generation"] += 1
        if kind.resource == crd.RESOURCE:
            crd.mark_deleted(obj)
    if kind.resource == "/namespaces":
        obj.setdefault("status", {})["phase"] = "Terminating"
    return _finished(obj)


def _stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _make_token(version: int, key: Key) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "ns": key.namespace, "name": key.name})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_token(token: str, resource: str) -> tuple[int, Key]:
    try:
        data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, key = data["rv"], Key(resource, data["ns"], data["name"])
        if not isinstance(version, int) or not all(isinstance(part, str) for part in key):
            raise TypeError
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid") from None
    return version, key
