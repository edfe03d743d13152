# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of CustomResourceDefinitions: a definition that waits for a name gets it when it is free."""

from collections.abc import Iterable

from turtles.standalone.apiserver.builtin import crd
from turtles.standalone.apiserver.builtin.custom_resource_definitions import siblings
from turtles.standalone.apiserver.controllers.internal import modify_if_exists
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.schema.status import is_true
from turtles.standalone.apiserver.storage.entries import Event, Key
from turtles.standalone.apiserver.wire.errors import Object


class Definitions:
    """Accepts names of definitions that were refused, once no other definition of the group has them."""

    resources: frozenset[str] | None = frozenset({crd.RESOURCE})

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def initial(self) -> Iterable[Key]:
        """Return every definition whose names aren't accepted."""
        for entry in self._resources.store.entries(crd.RESOURCE):
            if not is_true(entry.object(), "NamesAccepted"):
                yield entry.key

    def concerned(self, event: Event) -> Iterable[Key]:
        """Return the definitions that may wait for what an event freed."""
        name = event.entry.key.name
        return [key for key in self.initial() if key.name != name]

    async def reconcile(self, key: Key) -> None:
        """Judge a definition's names again."""
        if self._resources.store.get(key) is None:
            return

        async def judged(old: Object) -> Object:
            crd.set_status(old, siblings(self._resources.store, old))
            return old

        await modify_if_exists(self._resources, key, judged, "status")
