# SPDX-License-Identifier: GPL-3.0-or-later
"""Connects users to programs of a guest that listen on its VSOCK device (KubeVirt user guide, "VSOCK"; vsock(7))."""

import asyncio
import socket
import ssl
from collections.abc import Mapping

from turtles import endpoint
from turtles.api.objects import Object, get
from turtles.api.texts import to_number
from turtles.handler.consoles import carry
from turtles.handler.errors import OperationFailed

#: Seconds to connect, and for the TLS handshake.
_PATIENCE = 10.0
#: Addresses up to this one are the hypervisor's, the node's own and the like (vsock(7)).
_LAST_RESERVED = 2
_LARGEST = 2**32 - 1

_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Vsock:
    """The guests' VSOCK devices, as the node's kernel reaches them."""

    def __init__(self, certificate: str, key: str) -> None:
        """Create it.

        :param certificate: shown to programs that ask for one; with its key, PEM texts.
        """
        self._identity = certificate, key

    async def connect(self, vmi: Object | None, query: Mapping[str, str]) -> _Ends:
        """Connect to a port of a guest.

        :param query: ``port``, and ``tls``: whether TLS 1.3 is spoken. What the guest shows isn't verified: its
            address is not one that another machine could have.
        :raises OperationFailed: it isn't possible.
        """
        address = get(vmi or {}, "status", "VSOCKCID")
        if not isinstance(address, int) or address <= _LAST_RESERVED:
            raise OperationFailed(400, "the guest has no VSOCK address (status.VSOCKCID)")
        port = query.get("port", "")
        if (number := to_number(port, _LARGEST)) is None:
            raise OperationFailed(400, f"port must be a number from 0 to {_LARGEST}, not {port!r}")
        connection = await _dial(address, number)
        if query.get("tls") != "true":
            return await asyncio.open_connection(sock=connection)
        try:
            return await asyncio.open_connection(
                sock=connection, ssl=self._context(), server_hostname="", ssl_handshake_timeout=_PATIENCE
            )
        except (OSError, ssl.SSLError) as error:
            raise OperationFailed(500, f"TLS handshake with {address}:{port} failed: {error}") from error

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        endpoint.load(context, *self._identity)
        return context

    @staticmethod
    async def run(device: _Ends, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between a guest and a user until either has enough."""
        await carry(*device, reader, writer, asyncio.Event())


async def _dial(address: int, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(_PATIENCE):
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except OSError as error:
        connection.close()
        reason = error.strerror or str(error) or f"no answer within {_PATIENCE:g} seconds"
        raise OperationFailed(500, f"dial vsock {address}:{port}: {reason}") from error
    return connection
