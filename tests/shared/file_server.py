# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server of files that misbehaves on request."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = 64 << 10


class FileServer:
    """Serves bytes by path.

    :param context: TLS, or none.
    :param address: where it listens.
    """

    def __init__(self, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.etag: str | None = '"one"'
        self.ranges = True
        #: After so many bytes of a response the connection is closed; one entry for each response.
        self.breaks: list[int] = []
        #: Called before each piece of a response, with the position.
        self.before: Callable[[int], None] = lambda position: None
        self.status: list[int] = []
        self.length = True
        self.endless = False
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                with contextlib.suppress(OSError):
                    outer._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://{address}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _answer(self, request: Any) -> None:
        if self.status:
            request.send_error(self.status.pop(0))
            return
        if request.path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[request.path])
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        data = self.files.get(request.path)
        if data is None:
            request.send_error(404)
            return
        start, total = 0, len(data)
        match = re.fullmatch(r"bytes=([0-9]+)-", request.headers.get("Range", ""))
        if match and self.ranges and request.headers.get("If-Range") in (None, self.etag):
            start = int(match.group(1))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            request.send_response(200)
        if self.etag:
            request.send_header("ETag", self.etag)
        if self.length and not self.endless:
            request.send_header("Content-Length", str(total - start))
        else:
            request.send_header("Connection", "close")
        request.end_headers()
        end = start + self.breaks.pop(0) if self.breaks else total
        position = start
        while self.endless or position < end:
            piece = data[:CHUNK] if self.endless else data[position : min(end, position + CHUNK)]
            self.before(position)
            request.wfile.write(piece)
            position += len(piece)
        request.close_connection = True

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[FileServer]:
    server = FileServer(context, address)
    try:
        yield server
    finally:
        server.close()
