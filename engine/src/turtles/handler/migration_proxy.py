# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries what passes between the launchers of a migrating guest from one node's virt-handler to another's, over TLS.

Each virt-handler listens on one port. Where that is, and the certificate by which the other side recognises it, as a
server and as a client, are in an annotation of its node's object, which only virt-handler and administrators write. A
guest is expected from one node, and only that one's certificate is accepted for it:

    source's launcher → Unix socket → its virt-handler → TLS → target's virt-handler → Unix socket → target's launcher

The first line on a connection is JSON: the migration's uid, and which of its channels this is.
"""

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from turtles import endpoint, pki
from turtles.api.node_server import Endpoint

log = logging.getLogger(__name__)

#: Channels: to the target's libvirtd, and to its QEMU for memory and for disks.
LIBVIRTD, MEMORY, DISKS = "libvirtd", "memory", "disks"
CHANNELS = (LIBVIRTD, MEMORY, DISKS)

#: Lifetime of the process's certificate, which exists only in its memory: longer than any process lives.
_LIFETIME = timedelta(days=3650)
#: Seconds that a connection and its first line may take.
_PATIENCE = 10.0
_LONGEST_LINE = 1024
_CHUNK = 256 * 1024

#: Connects to where a channel leads in the target's launcher; raises OSError.
Connect = Callable[[str], socket.socket]


@dataclass(frozen=True)
class _Expected:
    """A guest that may come.

    :param certificate: of the node that it comes from, in DER.
    """

    certificate: bytes
    connect: Connect


class MigrationProxy:
    """One node's end, on a thread of its own."""

    def __init__(self, host: str, port: int, bind: str = "") -> None:
        """Listen.

        :param host: the address at which other nodes reach this one.
        :param port: 0 takes a free one.
        :param bind: the address to listen on, see :func:`turtles.endpoint.listen`.
        :raises OSError: the address can't be listened on.
        """
        pair = pki.issue(None, host, [host], datetime.now(UTC), _LIFETIME, client=True, server=True)
        self._identity = pair.certificate_pem, pair.key_pem
        self._context = endpoint.server_context()
        self._context.verify_mode = ssl.CERT_REQUIRED
        endpoint.load(self._context, *self._identity)
        self._listener = endpoint.listen(bind, port)
        #: Where this is, for the node's annotation.
        self.endpoint = Endpoint(host, int(self._listener.getsockname()[1]), pair.certificate_pem)
        self._expected: dict[str, _Expected] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(
            lambda loop, context: log.debug("a peer failed: %s", context.get("exception") or context["message"])
        )
        threading.Thread(target=self._run, name="migration-proxy", daemon=True).start()

    def expect(self, uid: str, source: Endpoint, connect: Connect) -> None:
        """Let a guest come. From any thread.

        :param uid: the migration's.
        :param source: the virt-handler that it comes from.
        :param connect: connects to where a channel leads.
        :raises ValueError: the source's certificate can't be read.
        """
        certificate = x509.load_pem_x509_certificate(source.certificate.encode())
        self._context.load_verify_locations(cadata=source.certificate)
        # Which certificates the TLS layer knows only grows: whose it is is checked again
        self._expected[uid] = _Expected(certificate.public_bytes(Encoding.DER), connect)

    def is_expected(self, uid: str) -> bool:
        """Say whether a guest may come."""
        return uid in self._expected

    def forget(self, uid: str) -> None:
        """Let a guest come no more. Connections that there are stay."""
        self._expected.pop(uid, None)

    def lead(self, uid: str, target: Endpoint, listeners: Mapping[str, socket.socket]) -> "Lead":
        """Lead what connects to listening sockets to a target. From any thread.

        :param uid: the migration's.
        :param listeners: sockets by the channels that they stand for; they are closed in the end.
        :raises ValueError: the target's certificate can't be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The certificate that the node's object names, and no other, is enough
        context.check_hostname = False
        try:
            context.load_verify_locations(cadata=target.certificate)
        except ssl.SSLError as error:
            raise ValueError(f"the certificate of the virt-handler at {target.host} can't be read: {error}") from error
        endpoint.load(context, *self._identity)
        lead = Lead(self._loop, uid, target, context)
        asyncio.run_coroutine_threadsafe(lead.start(listeners), self._loop).result(_PATIENCE)
        return lead

    def close(self) -> None:
        """Stop; whoever is connected is disconnected."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(
            asyncio.start_server(
                self._serve, sock=self._listener, ssl=self._context, ssl_handshake_timeout=_PATIENCE, limit=_CHUNK
            )
        )
        self._loop.run_forever()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
                if len(line) > _LONGEST_LINE:
                    raise ValueError("the first line is too long")
                asked = json.loads(line)
                expected = self._expected.get(str(asked["migration"]))
                connection = writer.get_extra_info("ssl_object")
                shown = connection.getpeercert(binary_form=True) if connection is not None else None
                if expected is None or shown != expected.certificate or asked["channel"] not in CHANNELS:
                    raise ValueError("nothing is expected from there")
                there = await asyncio.to_thread(expected.connect, asked["channel"])
            there.setblocking(False)
            inner_reader, inner_writer = await asyncio.open_unix_connection(sock=there, limit=_CHUNK)
            await _carry((reader, writer), (inner_reader, inner_writer))
        except (OSError, ValueError, KeyError, TypeError, TimeoutError) as error:
            log.warning("a connection of a migration is refused: %s", error)
        finally:
            writer.close()


class Lead:
    """The way of one guest to its target."""

    def __init__(self, loop: asyncio.AbstractEventLoop, uid: str, target: Endpoint, context: ssl.SSLContext) -> None:
        self._loop, self._uid, self._target, self._context = loop, uid, target, context
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.StreamWriter] = set()
        #: Why a connection to the target failed, if one did.
        self.error = ""

    async def start(self, listeners: Mapping[str, socket.socket]) -> None:
        """Serve the listening sockets. On the proxy's thread."""
        for channel, listener in listeners.items():
            listener.setblocking(False)

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, channel: str = channel) -> None:
                await self._serve(channel, reader, writer)

            self._servers.append(await asyncio.start_unix_server(serve, sock=listener, limit=_CHUNK))

    def close(self) -> None:
        """Listen no more and end all connections. From any thread."""
        self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in self._connections:
            writer.transport.abort()

    async def _serve(self, channel: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            async with asyncio.timeout(_PATIENCE):
                outer = await asyncio.open_connection(
                    self._target.host, self._target.port, ssl=self._context, limit=_CHUNK
                )
            outer[1].write(json.dumps({"migration": self._uid, "channel": channel}).encode() + b"\n")
            await _carry((reader, writer), outer)
        except (OSError, TimeoutError) as error:
            where = f"{self._target.host}:{self._target.port}"
            self.error = f"the target's virt-handler at {where} can't be reached: {error or type(error).__name__}"
            log.warning("%s", self.error, extra={"migration": self._uid, "channel": channel})
        finally:
            self._connections.discard(writer)
            writer.close()


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _carry(one: _Stream, other: _Stream) -> None:
    """Carry bytes in both directions until either end has enough; what was sent until then still arrives."""
    tasks = [asyncio.ensure_future(_copy(one[0], other[1])), asyncio.ensure_future(_copy(other[0], one[1]))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        one[1].close()
        other[1].close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
