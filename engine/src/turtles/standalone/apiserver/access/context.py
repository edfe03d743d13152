# SPDX-License-Identifier: GPL-3.0-or-later
"""What a write knows of its request, and what it asks before it changes anything."""

from dataclasses import dataclass, field
from typing import Protocol

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import Key
from turtles.standalone.apiserver.wire.errors import Object


@dataclass
class Context:
    """A request on a resource, as far as storing is concerned."""

    kind: Kind
    user: User
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = ""
    force: bool = False
    warnings: list[str] = field(default_factory=list)
    #: What webhooks want in the audit log.
    annotations: dict[str, str] = field(default_factory=dict)
    #: Fields that the body has twice, each with its place in the order of all fields, and that the kind doesn't have.
    duplicates: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    #: Keys that YAML has twice in one map, and what operations of a JSON patch have too much, as clients are told.
    repeated: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    #: What a patch left, whose fault it is when fields are unknown.
    patched: Object | None = None
    unknown: list[str] = field(default_factory=list)
    #: Whether the body takes all ownership away.
    reset: bool = False
    #: managedFields that the write sets; None to keep what is there.
    managed: list[Object] | None = None

    @property
    def key(self) -> Key:
        """Key of the named object."""
        return Key(self.kind.resource, self.namespace, self.name)


class Admission(Protocol):
    """What asks webhooks."""

    def is_asked(self, context: Context, operation: str) -> bool:
        """Whether any webhook may be asked about an operation."""

    async def mutate(
        self, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None = None
    ) -> Object | None:
        """Return the object as webhooks want it.

        :param operation: CREATE, UPDATE, DELETE or CONNECT.
        :param obj: the object as it is to become; None if it is deleted.
        :param old: the object as it is; None if it is created.
        :param options: those of a deletion.
        :raises StatusError: a webhook refuses, or fails and must not be ignored.
        """

    async def validate(
        self, context: Context, operation: str, obj: Object | None, old: Object | None, options: Object | None = None
    ) -> None:
        """Ask the webhooks that only judge; parameters are those of :meth:`mutate`.

        :raises StatusError: a webhook refuses, or fails and must not be ignored.
        """
