# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers of the server itself: what Kubernetes' own controllers keep up to date beside it.

Each says which objects an event concerns and brings one of them in order; keys wait in a queue, once each. A restart
looks at everything once, so nothing that happened meanwhile is lost.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from turtles.standalone.apiserver.storage.entries import Event, Key
from turtles.standalone.apiserver.storage.store import Store
from turtles.standalone.apiserver.wire.errors import StatusError

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0


class Controller(Protocol):
    """Keeps objects of some kind in order."""

    #: Resources whose events matter; None for all.
    resources: frozenset[str] | None

    def concerned(self, event: Event) -> Iterable[Key]:
        """Return the keys to look at after an event."""

    def initial(self) -> Iterable[Key]:
        """Return the keys to look at after a start."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring what a key names in order.

        :returns: after how many seconds to look again, None for not before an event.
        """


class Controllers:
    """Runs controllers on the server's loop."""

    def __init__(self, store: Store, controllers: Iterable[Controller]) -> None:
        self._store = store
        self._runners = [_Runner(one) for one in controllers]

    def start(self) -> None:
        """Look at everything, then follow events."""
        self._store.observe(self._on_event)
        for runner in self._runners:
            runner.start()

    async def stop(self) -> None:
        """End."""
        await asyncio.gather(*(runner.stop() for runner in self._runners))

    def _on_event(self, event: Event) -> None:
        resource = event.entry.key.resource
        for runner in self._runners:
            if runner.controller.resources is None or resource in runner.controller.resources:
                runner.follow(event)


class _Runner:
    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        for key in self.controller.initial():
            self._add(key)
        self._task = asyncio.create_task(self._work(), name=type(self.controller).__name__)

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follow(self, event: Event) -> None:
        for key in self.controller.concerned(event):
            self._add(key)

    def _add(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key not in self._queued:
            self._queued.add(key)
            self._queue.put_nowait(key)

    def _later(self, key: Key, seconds: float) -> None:
        if key not in self._queued:
            self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._add, key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._queued.discard(key)
            try:
                again = await self.controller.reconcile(key)
            except StatusError as error:
                self._retry(key, error.message)
            except Exception as error:
                log.exception("controller failed", extra={"controller": type(self.controller).__name__, "key": key})
                self._retry(key, str(error))
            else:
                self._failures.pop(key, None)
                if again is not None:
                    self._later(key, again)

    def _retry(self, key: Key, why: str) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        if count > 1:
            log.warning("will try again", extra={"key": "/".join(key), "reason": why})
        self._later(key, min(RETRY_SECONDS * 2 ** (count - 1), MAX_RETRY_SECONDS))
