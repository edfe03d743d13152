# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs leave to a kind.

Kubernetes has the same as RESTCreateStrategy, RESTUpdateStrategy and RESTDeleteStrategy in pkg/registry, and as
admission plugins. A strategy keeps no state: one object serves all requests.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from turtles.standalone.apiserver.access.context import Context
from turtles.standalone.apiserver.access.rbac import Authorizer
from turtles.standalone.apiserver.builtin import columns
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.builtin.service_addresses import Allocator
from turtles.standalone.apiserver.schema.decode import undecodable
from turtles.standalone.apiserver.schema.kinds import Column, Kind
from turtles.standalone.apiserver.schema.types import of_kind, zero_value
from turtles.standalone.apiserver.storage.entries import Entry, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Cause, Object
from turtles.standalone.apiserver.wire.options import DeleteOptions

#: What reading a field of a wrong type raises, should a rule trip over what the decoder let through.
_MALFORMED = (AttributeError, TypeError, KeyError, IndexError, ValueError)
#: A subresource: name, verbs, kind, group and version of what it speaks.
Subresource = tuple[str, tuple[str, ...], str, str, str]


@dataclass
class Cluster:
    """What a strategy may look at beside the object."""

    store: Store
    registry: Registry
    authorizer: Authorizer
    allocator: Allocator


class Strategy:
    """The strategy of a kind without anything particular; those of others override what differs."""

    #: Columns of tables.
    columns: tuple[Column, ...] = columns.GENERIC
    #: Subresources beside status and scale.
    subresources: tuple[Subresource, ...] = ()
    #: Finalizer that new objects get.
    finalizer = ""
    #: Whether clients may give the status of what they create.
    takes_status = False
    #: Whether an update may use more of what quotas and LimitRanges count.
    may_grow = False
    #: Whether an update has to name the resourceVersion that it is based on: not AllowUnconditionalUpdate.
    needs_version = False
    #: Whether there are strategic merge patches.
    is_merged_by_type = True
    #: Whether a schema says which fields there are, once the object is pruned; a type does when it is decoded.
    has_schema = False
    #: Whether objects learn when they will be gone, even if that is at once.
    ends_gracefully = False
    #: Whether a deletion is answered with the object instead of a Status.
    returns_deleted = False

    # -- what is shown

    def cells(self, obj: Object) -> list[Any]:
        """Return the cells of a row, one for each column."""
        return [columns.name_of(obj), obj["metadata"].get("creationTimestamp")]

    def row_conditions(self, obj: Object) -> list[Object]:
        """Return what a row says of its object's state."""
        return []

    # -- versions: what is stored and what is served

    def served(self, entry: Entry, kind: Kind) -> bytes:
        """Return an object's JSON in the version of ``kind``; see :meth:`convert_entries`."""
        stored, served = kind.storage_api_version, kind.api_version
        if stored == served:
            return entry.raw
        prefix = b'{"apiVersion":"' + stored.encode() + b'"'
        if not entry.raw.startswith(prefix):
            return entry.raw
        return b'{"apiVersion":"' + served.encode() + b'"' + entry.raw[len(prefix) :]

    async def load(self, entry: Entry, kind: Kind) -> Object:
        """Return an object, the caller's own, in the version of ``kind``."""
        return self.loaded(entry, kind)

    def loaded(self, entry: Entry, kind: Kind) -> Object:
        """Return another copy of what :meth:`load` has returned."""
        return {**entry.object(), "apiVersion": kind.api_version}

    def viewed(self, kind: Kind) -> Callable[[Entry], Object]:
        """Return what gives an object as field selectors of a version see it; see :meth:`convert_entries`."""
        return Entry.object

    def unconverted(self, entries: Iterable[Entry], kind: Kind) -> list[Entry]:
        """Return the objects that have to be converted before they can be served in the version of ``kind``."""
        return []

    async def convert_entries(self, entries: Sequence[Entry], kind: Kind, again: bool = False) -> None:
        """Convert what has to be before it can be served in the version of ``kind``.

        :param again: whether what was converted before is converted again.
        """

    async def to_storage(self, obj: Object, kind: Kind) -> Object:
        """Return an object as it is stored."""
        return {**obj, "apiVersion": kind.storage_api_version}

    # -- every write

    def default(self, obj: Object) -> None:
        """Set defaults."""

    def complete(self, obj: Object, kind: Kind) -> list[str] | None:
        """Prune and default an object; return the fields that its schema doesn't have, None where no schema says."""
        self.default(obj)
        return None

    def causes(self, obj: Object, old: Object | None) -> list[Cause]:
        """Return what is wrong with an object.

        :param old: the object before an update, None on creation.
        """
        return []

    async def validate(self, context: Context, obj: Object, old: Object | None) -> list[Cause]:
        """Return what is wrong with an object beside its metadata.

        :raises StatusError: 400 for a field of a wrong type.
        """
        try:
            return self.causes(obj, old)
        except _MALFORMED as error:
            raise undecodable(context.kind, f"a field has the wrong type: {error}") from None

    def authorize(self, cluster: Cluster, context: Context, obj: Object, old: Object | None) -> None:
        """Check that the author of an object may write what is in it.

        :raises StatusError: 403 if not.
        """

    def check_limits(self, cluster: Cluster, context: Context, obj: Object) -> None:
        """Check that an object is within its namespace's LimitRanges.

        :raises StatusError: 403 if not.
        """

    def allocated(self, cluster: Cluster, key: Key, obj: Object) -> AbstractContextManager[None]:
        """Reserve what an object takes for itself while its write is on its way."""
        return nullcontext()

    # -- creating

    def check_create(self, cluster: Cluster, context: Context) -> None:
        """Check that there may be new objects.

        :raises StatusError: if not.
        """

    def prepare_create(self, obj: Object, kind: Kind) -> None:
        """Do to a new object what clients can't, before it has its defaults."""
        if kind.status and not self.takes_status:
            obj["status"] = zero_value(of_kind(kind).fields["status"])

    async def admit_create(self, cluster: Cluster, context: Context, obj: Object) -> None:
        """Complete a new object as the admission plugins do that come before webhooks."""

    def finish_create(self, obj: Object) -> None:
        """Set what depends on all that admission did."""

    def settle_create(self, cluster: Cluster, obj: Object) -> None:
        """Do what is left once the object has been admitted.

        :raises StatusError: 422 where it is in the way of something else.
        """

    # -- updating

    def prepare_update(self, new: Object, old: Object, subresource: str) -> None:
        """Keep what an update can't change, before it has its defaults."""

    def status_metadata(self, new: Object, old: Object) -> Object:
        """Return the metadata of an object whose status is updated: all but its owners may change too."""
        result = {name: value for name, value in new["metadata"].items() if name != "ownerReferences"}
        if "ownerReferences" in old["metadata"]:
            result["ownerReferences"] = old["metadata"]["ownerReferences"]
        return result

    def admit_update(self, obj: Object) -> None:
        """Complete an updated object as the admission plugins do that come before webhooks."""

    def settle_update(self, cluster: Cluster, obj: Object) -> None:
        """Do what is left once the update has been admitted."""

    # -- deleting

    def check_delete(self, context: Context) -> None:
        """Check that an object can be deleted.

        :raises StatusError: 403 if not.
        """

    def grace_period(self, obj: Object, options: DeleteOptions) -> int | None:
        """Return how many seconds an object may take to end, None where that has no limit."""
        return 0

    def mark_deleted(self, obj: Object, again: bool) -> None:
        """Write down that an object is to go.

        :param again: whether that was asked for before.
        """

    def is_held(self, obj: Object) -> bool:
        """Whether something beside finalizers in its metadata keeps an object."""
        return False
