# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes requests about the guests of this node from virt-api, and from nobody else.

What is spoken is in :mod:`turtles.api.node_server`: HTTP/1.1 over TLS, one request a connection. Both sides show a
certificate. This one's lives as long as the process; virt-api finds it in the node's annotation. virt-api's is issued
by its own authority, which the API server's APIService names.
"""

import asyncio
import contextlib
import json
import logging
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
from cryptography import x509
from cryptography.x509.oid import NameOID

from turtles import endpoint, pki
from turtles.api import node_server
from turtles.handler.consoles import Consoles
from turtles.handler.errors import OperationFailed
from turtles.handler.operations import Operations, options_of
from turtles.handler.vsock import Vsock
from turtles.places import Places

log = logging.getLogger(__name__)

#: Seconds that a client may take for its handshake, and for its request.
_PATIENCE = 10.0
#: Longest head and body of a request.
_HEAD, _BODY = 16 * 1024, 64 * 1024
_UPGRADED = h11.InformationalResponse(
    status_code=101, headers=[("Connection", "Upgrade"), ("Upgrade", node_server.PROTOCOL)]
)
#: Operations at once, and those of one namespace: each waits for a libvirtd, some for an agent, which may be silent.
_THREADS, _OF_NAMESPACE = 32, 8


@dataclass(frozen=True)
class _Request:
    connection: h11.Connection
    head: h11.Request
    body: bytes

    @property
    def target(self) -> str:
        return self.head.target.decode("ascii")


class NodeServer:
    """Serves on a thread of its own."""

    def __init__(self, operations: Operations, consoles: Consoles, host: str, port: int, bind: str = "") -> None:
        """Listen.

        :param host: the address at which virt-api reaches this process.
        :param port: 0 takes a free one.
        :param bind: the address to listen on, see :func:`turtles.endpoint.listen`.
        :raises OSError: the address can't be listened on.
        """
        self._operations, self._consoles = operations, consoles
        self._authorities: tuple[x509.Certificate, ...] = ()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")
        self._places = Places(_OF_NAMESPACE)
        self._context = endpoint.server_context()
        self._context.verify_mode = ssl.CERT_REQUIRED
        certificate, key = endpoint.own_certificate(host)
        endpoint.load(self._context, certificate, key)
        self._vsock = Vsock(certificate, key)
        self._listener = endpoint.listen(bind, port)
        #: Where this is, for the node's annotation.
        self.endpoint = node_server.Endpoint(host, int(self._listener.getsockname()[1]), certificate)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(
            lambda loop, context: log.debug("a client failed: %s", context.get("exception") or context["message"])
        )
        threading.Thread(target=self._run, name="node-server", daemon=True).start()
        log.info("requests are served", extra={"host": host, "port": self.endpoint.port})

    def trust(self, bundle: str) -> None:
        """Set the authorities of virt-api, PEM texts; from any thread."""
        try:
            authorities = tuple(x509.load_pem_x509_certificates(bundle.encode())) if bundle.strip() else ()
        except ValueError:
            log.error("virt-api's authority in the APIService can't be read")
            return
        if authorities and authorities != self._authorities:
            self._context.load_verify_locations(cadata=bundle)
        # Which authorities the TLS layer knows only grows: whose certificate it was is checked again
        self._authorities = authorities

    def close(self) -> None:
        """Stop, and disconnect all clients."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(
            asyncio.start_server(
                self._serve, sock=self._listener, ssl=self._context, ssl_handshake_timeout=_PATIENCE, limit=_HEAD
            )
        )
        self._loop.run_forever()
        self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._knows(writer.get_extra_info("ssl_object")):
                return
            async with asyncio.timeout(_PATIENCE):
                request = await _read(reader)
            try:
                await self._answer(request, reader, writer)
            except OperationFailed as error:
                await _send(writer, request, error.code, {"message": str(error)})
            except Exception:
                log.exception("request failed", extra={"path": request.target})
                await _send(writer, request, 500, {"message": "internal error in virt-handler; see its log"})
        except (
            OSError,
            TimeoutError,
            h11.ProtocolError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as error:
            log.debug("a request failed: %r", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _PATIENCE)

    def _knows(self, connection: ssl.SSLObject | None) -> bool:
        der = connection.getpeercert(binary_form=True) if connection is not None else None
        if der is None:
            return False
        certificate = x509.load_der_x509_certificate(der)
        names = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return names == [node_server.CLIENT] and any(
            pki.is_issued_by(certificate, authority) for authority in self._authorities
        )

    async def _answer(self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = urlsplit(request.target)
        query = {key: values[-1] for key, values in parse_qs(target.query).items()}
        parts = node_server.split(target.path)
        if parts is None:
            raise OperationFailed(404, f"unknown path {target.path!r}")
        namespace, name, what = parts
        key, uid = (namespace, name), query.get("uid", "")
        if what in node_server.STREAMS:
            if (b"upgrade", node_server.PROTOCOL.encode()) not in request.head.headers:
                raise OperationFailed(400, f"{what} is a stream: ask for an upgrade to {node_server.PROTOCOL}")
            guest = self._operations.guest(key, uid)
            if what == node_server.VSOCK:
                ends = await self._vsock.connect(self._operations.vmi(guest), query)
                writer.write(request.connection.send(_UPGRADED) or b"")
                await self._vsock.run(ends, reader, writer)
                return
            preserve = query.get("preserveSession") == "true"
            async with self._consoles.connect(guest, what, preserve=preserve) as (session, device):
                writer.write(request.connection.send(_UPGRADED) or b"")
                await session.run(device, reader, writer)
            return
        options = options_of(request.body)
        async with self._places.take(namespace):
            result = await self._loop.run_in_executor(self._threads, self._operations.run, key, uid, what, options)
        await _send(writer, request, 200, result)


async def _read(reader: asyncio.StreamReader) -> _Request:
    """Read a request, and nothing of a stream that may follow.

    :raises h11.ProtocolError: it isn't one, or too long.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
    connection.receive_data(await reader.readuntil(b"\r\n\r\n"))
    head = connection.next_event()
    if not isinstance(head, h11.Request):
        raise h11.RemoteProtocolError("not a request")
    if int(dict(head.headers).get(b"content-length", b"0")) > _BODY:
        raise h11.RemoteProtocolError(f"a body of more than {_BODY} bytes")
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_BODY))
        elif isinstance(event, h11.Data) and len(body) <= _BODY:
            body += event.data
        else:
            raise h11.RemoteProtocolError("a body that is too long, or isn't whole")
    return _Request(connection, head, body)


async def _send(writer: asyncio.StreamWriter, request: _Request, code: int, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    for event in (h11.Response(status_code=code, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
        writer.write(request.connection.send(event) or b"")
    await writer.drain()
