# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategy of custom resources: their schema says what built-in kinds' types and rules say."""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import msgspec

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.builtin import crd
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.custom import networks, scales
from turtles.standalone.apiserver.custom.conversion import Converter
from turtles.standalone.apiserver.schema import quick, validation
from turtles.standalone.apiserver.schema.cel import rules
from turtles.standalone.apiserver.schema.cel.judge import Judge
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.wire.errors import Cause, Object, StatusError


class CustomResources(Strategy):
    """The strategy of all custom resources."""

    needs_version = True
    is_merged_by_type = False
    has_schema = True

    def __init__(self, converter: Converter) -> None:
        self._converter = converter
        self._judge = Judge()

    async def close(self) -> None:
        """End the process that evaluates rules."""
        await self._judge.close()

    def served(self, entry: Entry, kind: Kind) -> bytes:
        """Return an object's JSON in the version of ``kind``; see :meth:`convert_entries`."""
        return self._converter.served(entry, kind)

    async def load(self, entry: Entry, kind: Kind) -> Object:
        """Return an object, the caller's own, in the version of ``kind``."""
        await self._converter.prepare([entry], kind, again=True)
        return self.loaded(entry, kind)

    def loaded(self, entry: Entry, kind: Kind) -> Object:
        """Return another copy of what :meth:`load` has returned."""
        return cast(Object, msgspec.json.decode(self._converter.served(entry, kind)))

    def viewed(self, kind: Kind) -> Callable[[Entry], Object]:
        """Return what gives an object as field selectors of a version see it; see :meth:`convert_entries`."""
        return lambda entry: cast(Object, msgspec.json.decode(self._converter.served(entry, kind)))

    def unconverted(self, entries: Iterable[Entry], kind: Kind) -> list[Entry]:
        """Return the objects that have to be converted before they can be served in the version of ``kind``."""
        return self._converter.waiting(entries, kind)

    async def convert_entries(self, entries: Sequence[Entry], kind: Kind, again: bool = False) -> None:
        """Convert what has to be before it can be served in the version of ``kind``."""
        await self._converter.prepare(entries, kind, again)

    async def to_storage(self, obj: Object, kind: Kind) -> Object:
        """Return an object as it is stored."""
        return await self._converter.to_storage(obj, kind)

    def complete(self, obj: Object, kind: Kind) -> list[str] | None:
        """Prune and default an object; return the fields that its schema doesn't have, None where no schema says."""
        if kind.schema is None:
            return None
        schema, dropped = quick.compiled(kind.schema), None
        if not kind.preserve:
            clean = schema.clean(without(obj, "apiVersion", "kind", "metadata"))
            dropped = [] if clean else validation.prune(obj, kind.schema)
        if not schema.complete(obj):
            validation.default(obj, kind.schema)
        return dropped

    async def validate(self, context: Context, obj: Object, old: Object | None) -> list[Cause]:
        """Return what the schema says of an object: first of its shape, then, by its rules, of its meaning."""
        kind = context.kind
        if kind.schema is None:
            return []
        before, new = without(old, "metadata") if old is not None else None, without(obj, "metadata")
        is_valid = before is None and quick.compiled(kind.schema).valid(new)
        causes = [] if is_valid else validation.validate(new, kind.schema, old=before)
        if kind.scale is not None:
            causes += scales.validate(obj, kind.scale, context.subresource)
        causes += networks.validate(kind, obj, old)
        if causes or kind.rules is None:
            return causes
        return await self._judge.evaluate(kind.rules, obj, old if old is not None else rules.ABSENT)

    def check_create(self, cluster: Cluster, context: Context) -> None:
        """Check that the definition isn't being deleted.

        :raises StatusError: 405 if it is.
        """
        kind = context.kind
        definition = cluster.store.get(Key(crd.RESOURCE, "", f"{kind.plural}.{kind.group}"))
        if definition is not None and definition.metadata.deletion_timestamp:
            text = "create not allowed while custom resource definition is terminating"
            raise StatusError(405, "MethodNotAllowed", text, {"group": kind.group, "kind": kind.plural})

    def prepare_create(self, obj: Object, kind: Kind) -> None:
        """Drop a status, which has a subresource of its own."""
        if kind.status:
            obj.pop("status", None)

    def status_metadata(self, new: Object, old: Object) -> Object:
        """Return the metadata of an object whose status is updated: that of before."""
        return cast(Object, old["metadata"])


def without(obj: Object, *names: str) -> Object:
    """Return an object without some of its fields."""
    return {name: value for name, value in obj.items() if name not in names}
