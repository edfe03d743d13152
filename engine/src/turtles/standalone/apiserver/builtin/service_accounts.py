# SPDX-License-Identifier: GPL-3.0-or-later
"""ServiceAccounts."""

import asyncio
from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.storage.entries import DELETED, Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import Object

RESOURCE = "/serviceaccounts"
#: The account of Pods that name none. Every namespace gets it soon after it was made.
DEFAULT = "default"
#: Seconds that a Pod's creation waits for it.
DEFAULT_SECONDS = 2.0


async def find(store: Store, namespace: str, name: str) -> Object | None:
    """Return a service account, None where there is none; wait a little for the one that is made with a namespace."""
    key = Key(RESOURCE, namespace, name)
    entry = await store.settled(key)
    if entry is None and name == DEFAULT:
        made = asyncio.Event()

        def listen(event: Event) -> None:
            if event.entry.key == key and event.type != DELETED:
                made.set()

        listeners = store.table(RESOURCE).listeners
        listeners.add(listen)
        try:
            async with asyncio.timeout(DEFAULT_SECONDS):
                await made.wait()
        except TimeoutError:
            pass
        finally:
            listeners.discard(listen)
        entry = store.get(key)
    return entry.object() if entry is not None else None


class ServiceAccounts(Strategy):
    """ServiceAccounts."""

    returns_deleted = True
    subresources = (("token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"),)
    columns = (NAME, AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), created(obj)]
