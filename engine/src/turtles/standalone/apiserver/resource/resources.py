# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs work with."""

from collections.abc import Awaitable, Callable

from turtles.standalone.apiserver.access.context import Admission, Context
from turtles.standalone.apiserver.access.rbac import Authorizer
from turtles.standalone.apiserver.admission.quota import Quotas
from turtles.standalone.apiserver.builtin.registry import Registry
from turtles.standalone.apiserver.builtin.service_addresses import Allocator
from turtles.standalone.apiserver.builtin.strategies import STRATEGIES
from turtles.standalone.apiserver.builtin.strategy import Cluster, Strategy
from turtles.standalone.apiserver.custom.conversion import Converter
from turtles.standalone.apiserver.custom.scales import SCALE
from turtles.standalone.apiserver.custom.strategy import CustomResources
from turtles.standalone.apiserver.schema.kinds import Kind
from turtles.standalone.apiserver.storage.entries import Entry
from turtles.standalone.apiserver.storage.store import Store

#: Attempts at a write that others get in the way of.
ATTEMPTS = 20


class Resources(Cluster):
    """The cluster, with what each of its objects goes through. Every verb takes it, and none keeps it."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        admission: Admission,
        authorizer: Authorizer,
        allocator: Allocator,
        converter: Converter,
    ) -> None:
        super().__init__(store, registry, authorizer, allocator)
        self.admission, self.quotas = admission, Quotas(store)
        self._custom = CustomResources(converter)
        self._strategies = {**STRATEGIES, SCALE.resource: Strategy()}
        #: Takes an eviction from the Pod's budget; raises where there is nothing left.
        self.admit_eviction: Callable[[Context, Entry], Awaitable[None]] = _admit

    def strategy(self, kind: Kind) -> Strategy:
        """Return the strategy of a kind."""
        return self._strategies.get(kind.resource, self._custom)

    async def close(self) -> None:
        """End the process that evaluates rules."""
        await self._custom.close()


async def _admit(context: Context, entry: Entry) -> None:
    """Let everything pass."""
