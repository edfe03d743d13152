# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts the users who are connected to guests: consoles, screens, ports, USB devices."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from turtles.metrics import Description, Sample, Source

#: Metrics by the subresource that users connect to.
_ACTIVE = {
    "console": "kubevirt_console_active_connections",
    "vnc": "kubevirt_vnc_active_connections",
    "portforward": "kubevirt_portforward_active_tunnels",
    "usbredir": "kubevirt_usbredir_active_connections",
}
_LAST = "kubevirt_vmi_last_api_connection_timestamp_seconds"
#: Guests whose last connection is remembered.
_REMEMBERED = 10_000

_DESCRIPTIONS = (
    *(Description(name, f"Number of active connections to {stream} of a guest.") for stream, name in _ACTIVE.items()),
    Description(_LAST, "Time of the last connection to a guest."),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connections:
    """The connections that are open. All of it runs in the event loop, but for `source`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._active: Counter[tuple[str, str, str]] = Counter()
        self._last: dict[tuple[str, str], float] = {}

    @property
    def source(self) -> Source:
        """Their metrics."""
        return Source(_DESCRIPTIONS, self._samples)

    @property
    def middleware(self) -> Middleware:
        """What counts requests as long as they last."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            info = request.match_info
            metric = _ACTIVE.get(info.get("sub", "").partition("/")[0])
            if metric is None or request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
                return await handler(request)
            guest = info["namespace"], info["name"]
            self._remember(guest)
            self._active[metric, *guest] += 1
            try:
                return await handler(request)
            finally:
                self._active[metric, *guest] -= 1
                if not self._active[metric, *guest]:
                    del self._active[metric, *guest]

        return count

    def _remember(self, guest: tuple[str, str]) -> None:
        self._last.pop(guest, None)
        self._last[guest] = self._clock()
        if len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]

    def _samples(self) -> Iterator[Sample]:
        for (metric, namespace, name), count in sorted(dict(self._active).items()):
            yield Sample(metric, {"namespace": namespace, "vmi": name}, float(count))
        for (namespace, name), moment in sorted(dict(self._last).items()):
            yield Sample(_LAST, {"namespace": namespace, "vmi": name}, moment)
