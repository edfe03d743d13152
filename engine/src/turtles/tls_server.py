# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTPS server with a thread for each connection, for the few clients of a component."""

import logging
import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

log = logging.getLogger(__name__)


class TlsServer(ThreadingHTTPServer):
    """Speaks TLS; a handshake is made by the connection's own thread, where it blocks no other."""

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext) -> None:
        """Serve at a listening socket.

        :param handler: its ``timeout`` counts for the handshake as well.
        """
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self._context = listener, context

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().get_request()
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over who doesn't speak TLS, or leaves in the middle."""
        log.debug("a client failed", exc_info=True, extra={"client": str(client_address)})
