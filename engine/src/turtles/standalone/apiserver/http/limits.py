# SPDX-License-Identifier: GPL-3.0-or-later
"""How much clients may ask for at once: requests in flight, requests a second, connections.

Limits on requests in flight are those of kube-apiserver (``--max-requests-inflight``,
``--max-mutating-requests-inflight``); a client may hold no more than half of them, so that its flood leaves room for
the others. Watches and other long-running requests don't count, as there.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from turtles.standalone.apiserver.access.auth import User
from turtles.standalone.apiserver.access.rbac import Attributes
from turtles.standalone.apiserver.wire.errors import StatusError

#: Seconds that a TLS handshake may take.
HANDSHAKE_SECONDS = 10.0
#: Seconds that a client may leave sent bytes unread before its connection is ended: a watcher that is stuck must not
#: keep what it doesn't read in the server's memory.
UNREAD_SECONDS = 30
#: Users whose rate is remembered.
_REMEMBERED = 10_000
_READING = ("get", "list", "head", "watch", "options")
_LONG = ("attach", "exec", "log", "portforward", "proxy")
_HEALTH = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True)
class LimitSettings:
    """The limits; 0 for none.

    :param rate: requests a second that a user may send in the long run, …
    :param burst: … and how many at once.
    """

    reading: int = 400
    mutating: int = 200
    rate: float = 0.0
    burst: int = 0
    connections: int = 4000


def is_long(wanted: Attributes) -> bool:
    """Say whether a request goes on for as long as its client wants."""
    return wanted.verb == "watch" or wanted.subresource.split("/")[0] in _LONG


class Limits:
    """Counts requests in flight."""

    def __init__(self, settings: LimitSettings | None = None) -> None:
        self._settings = settings or LimitSettings()
        #: By kind of request: '' for reading ones, 'mutating'.
        self.inflight: Counter[str] = Counter()
        self.long_running = 0
        self._of_user: Counter[tuple[str, str]] = Counter()
        #: User → (requests that may be sent now, when that was computed).
        self._buckets: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def seat(self, user: User, wanted: Attributes, long: bool) -> Iterator[None]:
        """Hold a place while a request is answered.

        :param long: whether it goes on for as long as its client wants, which needs none.
        :raises StatusError: 429 when there is none; it says when to try again.
        """
        if wanted.path.startswith(_HEALTH):
            yield
            return
        self._spend(user)
        if long:
            self.long_running += 1
            try:
                yield
            finally:
                self.long_running -= 1
            return
        kind = "" if wanted.verb in _READING else "mutating"
        limit = self._settings.mutating if kind else self._settings.reading
        mine = (kind, user.name)
        if limit and (self.inflight[kind] >= limit or self._of_user[mine] >= max(1, limit // 2)):
            raise _too_many()
        self.inflight[kind] += 1
        self._of_user[mine] += 1
        try:
            yield
        finally:
            self.inflight[kind] -= 1
            self._of_user[mine] -= 1
            if not self._of_user[mine]:
                del self._of_user[mine]

    def _spend(self, user: User) -> None:
        rate, burst = self._settings.rate, max(1, self._settings.burst or int(2 * self._settings.rate))
        if not rate:
            return
        now = time.monotonic()
        left, then = self._buckets.get(user.name, (float(burst), now))
        left = min(float(burst), left + (now - then) * rate)
        if left < 1:
            raise _too_many()
        if len(self._buckets) >= _REMEMBERED:
            self._buckets.clear()
        self._buckets[user.name] = (left - 1, now)


def _too_many() -> StatusError:
    text = "Too many requests, please try again later."
    return StatusError(429, "TooManyRequests", text, {"retryAfterSeconds": 1})


class LimitedServer(web.Server):
    """An HTTP server with so many connections at most."""

    def __init__(self, *arguments: Any, connections: int, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._most = connections

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """End a connection too many at once."""
        super().connection_made(handler, transport)
        if self._most and len(self._connections) > self._most:
            transport.abort()


class LimitedSite(web.BaseSite):
    """Listens with TLS, and without patience for clients that don't go on."""

    def __init__(self, runner: web.ServerRunner, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(runner, ssl_context=context, backlog=1024)
        self._host, self._port = host, port

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"https://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        :raises RuntimeError: the runner isn't set up.
        :raises OSError: the address can't be listened on.
        """
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner isn't set up")
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            reuse_address=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
        for one in self._server.sockets:
            # Connections inherit it.
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
