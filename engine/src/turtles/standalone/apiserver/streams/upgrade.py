# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that stop being HTTP: SPDY over TLS, and SPDY within WebSocket messages (KEP-4006)."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from turtles.standalone.apiserver.streams.spdy import Connection, SpdyError
from turtles.standalone.apiserver.wire.errors import StatusError, bad_request

log = logging.getLogger(__name__)

TUNNEL = "SPDY/3.1+"
#: Longest WebSocket message of a client; kubectl's have 32 KiB.
MAX_MESSAGE = 4 << 20


def is_spdy(request: web.BaseRequest) -> bool:
    """Say whether the client asks for SPDY."""
    return request.headers.get("Upgrade", "").lower().startswith("spdy/3.1")


def offered(request: web.BaseRequest, header: str) -> list[str]:
    """Return the protocols that a client offers in a header, the best first."""
    return [one.strip() for text in request.headers.getall(header, []) for one in text.split(",") if one.strip()]


async def open_websocket(request: web.BaseRequest, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """Upgrade to a WebSocket that speaks the first of our protocols that the client offers.

    :raises StatusError: 400, it offers none of them.
    """
    wanted = offered(request, "Sec-WebSocket-Protocol")
    chosen = next((one for one in protocols if one in wanted), None)
    if chosen is None:
        raise bad_request(f"unable to upgrade: none of the subprotocols {wanted} is served: {', '.join(protocols)}")
    socket = web.WebSocketResponse(protocols=(chosen,), max_msg_size=MAX_MESSAGE, autoping=True, compress=False)
    await socket.prepare(request)
    return socket


class _Parser:
    """What aiohttp feeds with bytes once a request's connection isn't HTTP any more."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes; the connection ends where they are no SPDY."""
        try:
            self._connection.feed(data)
        except SpdyError as error:
            log.info("a SPDY connection was closed", extra={"error": str(error)})
            self._connection.ended()
            return True, b""
        return False, b""

    def feed_eof(self) -> None:
        """The client is gone."""
        self._connection.ended()


@asynccontextmanager
async def spdy(
    request: web.BaseRequest, protocols: tuple[str, ...], header: str = "X-Stream-Protocol-Version"
) -> AsyncIterator[tuple[Connection, str, web.StreamResponse]]:
    """Upgrade to SPDY; give the connection, the stream protocol and the response to return from the handler.

    :raises StatusError: 403, the client offers none of the protocols.
    """
    wanted = offered(request, header)
    chosen = next((one for one in protocols if one in wanted), None)
    if chosen is None:
        text = f"unable to negotiate protocol: client supports {wanted}, server accepts {list(protocols)}"
        raise StatusError(403, "Forbidden", text)
    protocol: Any = request.protocol
    transport = request.transport

    async def send(data: bytes) -> None:
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
        await protocol._drain_helper()

    def pause(wait: bool) -> None:
        if isinstance(transport, asyncio.Transport) and not transport.is_closing():
            (transport.pause_reading if wait else transport.resume_reading)()

    connection = Connection(send, pause)
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", header: chosen}
    response = web.StreamResponse(status=101, headers=headers)
    await response.prepare(request)
    protocol.set_parser(_Parser(connection))
    protocol.keep_alive(False)
    try:
        yield connection, chosen, response
    finally:
        await _goodbye(connection)
        protocol.keep_alive(False)


@asynccontextmanager
async def tunnel(request: web.BaseRequest, protocol: str) -> AsyncIterator[tuple[Connection, web.WebSocketResponse]]:
    """Upgrade to a WebSocket whose messages carry SPDY; give the connection and the response to return."""
    socket = await open_websocket(request, (TUNNEL + protocol,))
    going = asyncio.Event()
    going.set()
    connection = Connection(socket.send_bytes, lambda wait: going.clear() if wait else going.set())

    async def receive() -> None:
        try:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    connection.feed(message.data)
                    await going.wait()
        except (SpdyError, ConnectionError) as error:
            log.info("a tunnel was closed", extra={"error": str(error)})
        finally:
            connection.ended()

    task = asyncio.ensure_future(receive())
    try:
        yield connection, socket
    finally:
        await _goodbye(connection)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await socket.close()


async def _goodbye(connection: Connection) -> None:
    try:
        await connection.close()
    except ConnectionError:
        connection.ended()
