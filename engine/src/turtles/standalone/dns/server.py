# SPDX-License-Identifier: GPL-3.0-or-later
"""Listens for questions by UDP and TCP (RFC 1035, RFC 7766) at one address, and answers those of its own clients."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import cast

from dns.message import Message

from turtles.errors import ConfigurationError
from turtles.standalone.dns.answers import Answers

log = logging.getLogger(__name__)

#: Bytes of a datagram without EDNS, and the most that one has here.
_PLAIN, _DATAGRAM = 512, 1232
#: Connections at a time, and seconds that a silent one is kept.
_CONNECTIONS, _IDLE = 64, 10.0
#: Questions at a time that came as datagrams.
_QUESTIONS = 1024
_MAX_TCP = 65535
#: Linux' number, which Python's module doesn't have (ip(7)).
_IP_FREEBIND = 15

#: For datagrams, and for connections.
Sockets = tuple[socket.socket, socket.socket]


def bind(address: str, port: int) -> Sockets:
    """Return sockets for UDP and TCP at an address that need not exist yet: the Pods' bridge comes with the first Pod.

    :raises ConfigurationError: something else listens there.
    """
    sockets: list[socket.socket] = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        sock = socket.socket(socket.AF_INET, kind)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(_CONNECTIONS)
        except OSError as error:
            sock.close()
            for other in sockets:
                other.close()
            remedy = "another program listens there: stop it, or choose another port"
            reason = remedy if error.errno == errno.EADDRINUSE else str(error)
            raise ConfigurationError(f"can't serve DNS at {address}:{port}: {reason}") from error
        sockets.append(sock)
    return sockets[0], sockets[1]


class Server:
    """Serves one address.

    :param clients: networks whose questions are answered, besides those of this machine's own addresses.
    """

    def __init__(self, answers: Answers, clients: Iterable[IPv4Network]) -> None:
        self._answers, self._clients = answers, tuple(clients)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def serve(self, sockets: Sockets, stopped: threading.Event) -> None:
        """Serve until stopped."""
        datagrams, connections = sockets
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        server = await asyncio.start_server(self._connected, sock=connections, limit=_MAX_TCP + 2)
        try:
            await asyncio.to_thread(stopped.wait)
        finally:
            transport.close()
            server.close()
            for task in self._tasks:
                task.cancel()

    def is_client(self, address: str) -> bool:
        """Say whether an address is one of a Pod, or of this machine."""
        client = ipaddress.IPv4Address(address)
        return client.is_loopback or any(client in network for network in self._clients) or _is_local(address)

    def received(self, transport: asyncio.DatagramTransport, data: bytes, source: tuple[str, int]) -> None:
        """Answer a datagram, unless there are too many of them or it comes from elsewhere."""
        if len(self._tasks) >= _QUESTIONS or not self.is_client(source[0]):
            return
        task = asyncio.get_running_loop().create_task(self._answer_datagram(transport, data, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(
        self, transport: asyncio.DatagramTransport, data: bytes, source: tuple[str, int]
    ) -> None:
        reply = await self._answer(data)
        if reply is not None and not transport.is_closing():
            # What the client takes is in its message, which the reply's was made from.
            wanted = reply.request_payload or _PLAIN
            size = min(max(wanted, _PLAIN), _DATAGRAM)
            transport.sendto(reply.to_wire(max_size=size, prefer_truncation=True), source)

    async def _answer(self, data: bytes) -> Message | None:
        try:
            return await self._answers.answer(data)
        except Exception:  # one client's question must not end the others'
            log.exception("a question has no answer")
            return None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self._connections >= _CONNECTIONS or peer is None or not self.is_client(peer[0]):
            writer.close()
            return
        self._connections += 1
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                reply = await self._answer(data)
                if reply is None:
                    return
                wire = reply.to_wire(max_size=_MAX_TCP, prefer_truncation=True)
                async with asyncio.timeout(_IDLE):
                    writer.write(len(wire).to_bytes(2, "big") + wire)
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.received(self._transport, data, addr)


def _is_local(address: str) -> bool:
    """Say whether an address is this machine's: no other can be bound to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True
