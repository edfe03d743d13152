# SPDX-License-Identifier: GPL-3.0-or-later
"""Reaches the virt-handlers of nodes, which do what users ask for about a guest (`turtles.api.node_server`)."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import h11
from cryptography import x509

from turtles import endpoint, pki
from turtles.api import labels, node_server
from turtles.api.configuration import Rotation
from turtles.api.kinds.vmi import VMI as VMI_KIND
from turtles.api.node_server import Endpoint
from turtles.api.objects import Object, annotations_of
from turtles.api.phases import RUNNING, SCHEDULED, phase_of
from turtles.kube.client import Client, NotFound
from turtles.kube.resources import NODE
from turtles.virt_api.certificates import Certificates
from turtles.virt_api.status import Failure

#: Seconds to connect, and for an answer. An agent may take a minute to freeze file systems.
_CONNECT, _ANSWER = 10.0, 90.0
#: Longest head of an answer, and longest answer.
_HEAD, _BODY = 16 * 1024, 8 * 2**20
#: What a connection ends with whose other side is gone, or speaks another language.
_GARBLED = (
    OSError,
    h11.ProtocolError,
    http.client.HTTPException,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
)


class Nodes:
    """The virt-handlers that the nodes' objects name."""

    def __init__(self, client: Client) -> None:
        self._client = client
        #: Certificate and key that identify this process, PEM texts.
        self._identity: tuple[str, str] | None = None

    def identify(self, certificates: Certificates) -> None:
        """Issue a certificate for this process with virt-api's authority, which virt-handlers trust."""
        authority = pki.Pair(
            x509.load_pem_x509_certificates(certificates.bundle.encode())[0],
            pki.load_key(certificates.authority_key.encode()),
        )
        pair = pki.issue(authority, node_server.CLIENT, [], datetime.now(UTC), Rotation().serving, client=True)
        self._identity = pair.certificate_pem, pair.key_pem

    def call(self, vmi: Object, operation: str, options: Mapping[str, Any] | None = None) -> Any:
        """Have an operation executed on a VMI's guest; return what it returns.

        :raises Failure: it wasn't.
        """
        server = self._locate(vmi)
        connection = http.client.HTTPSConnection(
            server.host, server.port, timeout=_CONNECT, context=self._context(server)
        )
        try:
            connection.connect()
            connection.sock.settimeout(_ANSWER)
            connection.request("PUT", _target(vmi, operation), json.dumps(options or {}).encode())
            answer = connection.getresponse()
            return _decode(vmi, answer.status, answer.read(_BODY))
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(vmi, error) from error
        finally:
            connection.close()

    async def open(
        self, vmi: Object, stream: str, *, preserve: bool = False, **query: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a device of a VMI's guest.

        :param preserve: fail rather than end another session at that device.
        :param query: further words about what to connect to, such as the port.
        :raises Failure: it isn't possible.
        """
        server = await asyncio.to_thread(self._locate, vmi)
        try:
            async with asyncio.timeout(_CONNECT):
                reader, writer = await asyncio.open_connection(
                    server.host, server.port, ssl=self._context(server), limit=_HEAD
                )
        except OSError as error:
            raise _unreachable(vmi, error) from error
        try:
            async with asyncio.timeout(_CONNECT):
                words = {"preserveSession": str(preserve).lower(), **query}
                await _upgrade(vmi, reader, writer, server, _target(vmi, stream, **words))
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, _GARBLED):
                raise _unreachable(vmi, error) from error
            raise
        return reader, writer

    def _locate(self, vmi: Object) -> Endpoint:
        """Return where the virt-handler of a VMI's node is."""
        if phase_of(vmi) not in (RUNNING, SCHEDULED):
            message = (
                "Unable to connect to VirtualMachineInstance because phase is "
                f"{phase_of(vmi)} instead of {RUNNING} or {SCHEDULED}"
            )
            raise Failure(400, message, VMI_KIND, vmi["metadata"]["name"])
        name = vmi["status"].get("nodeName") or ""
        try:
            node = self._client.get(NODE, None, name)
            return Endpoint.from_annotation(annotations_of(node)[labels.NODE_SERVER])
        except (NotFound, KeyError, ValueError):
            message = f"node {name!r} has no virt-handler that accepts requests (annotation {labels.NODE_SERVER})"
            raise Failure(503, message, VMI_KIND, vmi["metadata"]["name"]) from None

    def _context(self, server: Endpoint) -> ssl.SSLContext:
        try:
            return self.client_context(server.certificate)
        except ssl.SSLError as error:
            raise Failure(503, f"the virt-handler at {server.host} has an unreadable certificate") from error

    def client_context(self, certificate: str) -> ssl.SSLContext:
        """Return a TLS context that identifies virt-api to a server of the engine's.

        :param certificate: the one that the server shows, in PEM.
        :raises Failure: virt-api has no certificate so far.
        :raises ssl.SSLError: the server's can't be read.
        """
        if self._identity is None:
            raise Failure(503, "virt-api is not registered with the API server yet")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # That very certificate: it is for a node, or a Pod, whatever its address
        context.check_hostname = False
        context.load_verify_locations(cadata=certificate)
        endpoint.load(context, *self._identity)
        return context


def _target(vmi: Object, name: str, **query: str) -> str:
    return f"{node_server.path(vmi, name)}?{urlencode({'uid': vmi['metadata']['uid'], **query})}"


async def _upgrade(
    vmi: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Endpoint, target: str
) -> None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
    headers = [
        ("Host", f"{server.host}:{server.port}"),
        ("Connection", "Upgrade"),
        ("Upgrade", node_server.PROTOCOL),
    ]
    for event in (h11.Request(method="GET", target=target, headers=headers), h11.EndOfMessage()):
        writer.write(connection.send(event) or b"")
    # Not a byte more: what follows is the device's.
    connection.receive_data(await reader.readuntil(b"\r\n\r\n"))
    answer = connection.next_event()
    if not isinstance(answer, h11.Response | h11.InformationalResponse):
        raise h11.RemoteProtocolError("not an answer")
    if answer.status_code != http.client.SWITCHING_PROTOCOLS:
        _decode(vmi, answer.status_code, await _body(connection, reader))
        raise h11.RemoteProtocolError(f"an unexpected answer ({answer.status_code})")


async def _body(connection: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_BODY))
        elif isinstance(event, h11.Data) and len(body) <= _BODY:
            body += event.data
        else:
            raise h11.RemoteProtocolError(f"an answer of more than {_BODY} bytes, or none")
    return body


def _decode(vmi: Object, code: int, body: bytes) -> Any:
    """Return what virt-handler answered.

    :raises Failure: that is a failure.
    :raises http.client.HTTPException: it isn't virt-handler's language.
    """
    try:
        value = json.loads(body)
        message = "" if code == http.client.OK else str(value["message"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise http.client.HTTPException(f"an unexpected answer ({code})") from error
    if message:
        text = f"Internal error occurred: {message}" if code == http.client.INTERNAL_SERVER_ERROR else message
        raise Failure(code, text, VMI_KIND, vmi["metadata"]["name"])
    return value


def _unreachable(vmi: Object, error: BaseException) -> Failure:
    node = (vmi.get("status") or {}).get("nodeName")
    message = f"virt-handler on node {node!r} does not answer: {str(error) or type(error).__name__}"
    return Failure(503, message, VMI_KIND, vmi["metadata"]["name"])
