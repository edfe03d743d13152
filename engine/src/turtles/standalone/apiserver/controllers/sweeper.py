# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes by age: Events, and the history of objects that watches start from."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta

from turtles.standalone.apiserver.controllers.internal import delete_entry, kind_of
from turtles.standalone.apiserver.resource.resources import Resources
from turtles.standalone.apiserver.wire.errors import StatusError

log = logging.getLogger(__name__)
#: As kube-apiserver's default of --event-ttl.
EVENT_TTL = timedelta(hours=1)
SWEEP_SECONDS = 60.0


class Sweeper:
    """Looks once a minute."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._work(), name="sweeper")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            try:
                await self._expire_events(datetime.now(UTC) - EVENT_TTL)
                self._resources.store.compact()
            except Exception:
                log.exception("sweeping failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _expire_events(self, before: datetime) -> None:
        """Delete Events last seen before a time, and those that don't say when."""
        kind = kind_of(self._resources, "/events")
        for entry in list(self._resources.store.entries("/events")):
            obj = entry.object()
            seen = obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"]["creationTimestamp"]
            try:
                is_old = datetime.fromisoformat(seen) < before
            except (ValueError, TypeError):
                is_old = True
            if is_old:
                with contextlib.suppress(StatusError):
                    await delete_entry(self._resources, entry, kind)
