# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTPS server with a thread for each connection, for the few clients of a component."""

import io
import logging
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

log = logging.getLogger(__name__)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of a connection, whose client may take :attr:`timeout` seconds for the head of each."""

    timeout: ClassVar[float] = 10

    def setup(self) -> None:
        """Prepare to read from the connection."""
        super().setup()
        self._source = _Patient(self.connection, self.timeout)
        self.rfile = io.BufferedReader(self._source)

    def handle_one_request(self) -> None:
        """Answer a request."""
        self._source.begin()
        super().handle_one_request()


class _Patient(io.RawIOBase):
    """Reads from a connection until a time is over; a byte now and then is not enough."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self.begin()

    def begin(self) -> None:
        self._until = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request was not there in time")
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._seconds)


class TlsServer(ThreadingHTTPServer):
    """Speaks TLS; a handshake is made by the connection's own thread, where it blocks no other."""

    def __init__(
        self, listener: socket.socket, handler: type[Handler], context: ssl.SSLContext, connections: int = 100
    ) -> None:
        """Serve at a listening socket.

        :param handler: its ``timeout`` counts for the handshake as well.
        :param connections: how many there may be; others are ended at once.
        """
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self._context = listener, context
        self._free = threading.BoundedSemaphore(connections)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().get_request()
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or end it."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over who doesn't speak TLS, or leaves in the middle."""
        log.debug("a client failed", exc_info=True, extra={"client": str(client_address)})
