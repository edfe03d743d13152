# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers those who have the token: disks, files, objects that make a machine again (as KubeVirt's export server)."""

from __future__ import annotations

import hmac
import html
import json
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from turtles.api import exports
from turtles.exporter.content import File, Unreadable, Volume, gzipped
from turtles.metrics import COUNTER, Description, Sample, Source
from turtles.tls_server import Handler, TlsServer

log = logging.getLogger(__name__)

#: Seconds that a client may take for its handshake and its request, and may not read what it is sent.
_PATIENCE = 60
#: Connections, and downloads, at one time.
CONNECTIONS, DOWNLOADS = 64, 16
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.A)
_BYTES = "application/octet-stream"
METRIC = "kubevirt_export_sent_bytes_total"


class _Failure(Exception):
    """An answer that isn't what was asked for."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Exports:
    """What is served.

    :param name: of the export. :param volumes: by name. :param token: the file with the token.
    :param manifests: the folder with those that there are.
    """

    name: str
    volumes: Mapping[str, Volume]
    token: Path
    manifests: Path
    sent: int = 0
    downloads: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(DOWNLOADS))

    def source(self) -> Source:
        """Return the metric: how much has been sent."""
        description = Description(METRIC, "Bytes sent to downloading clients.", COUNTER)
        return Source((description,), lambda: [Sample(METRIC, {"export": self.name}, float(self.sent))])

    def may(self, tokens: Iterable[str]) -> bool:
        """Say whether one of these is the token, which may change.

        :raises _Failure: there is none.
        """
        try:
            token = self.token.read_text().strip().encode()
        except (OSError, UnicodeDecodeError) as error:
            log.error("the token can't be read: %s", error)
            raise _Failure(500, "the token can't be read") from error
        # One that is empty would be everybody's
        return bool(token) and any(hmac.compare_digest(token, each.encode()) for each in tokens)


class Server(TlsServer):
    """Serves a bounded number of clients."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, served: Exports) -> None:
        """Serve at a listening socket, once it is run."""
        super().__init__(listener, type("Handler", (_Handler,), {"served": served}), context, CONNECTIONS)


class _Handler(Handler):
    served: Exports
    timeout = _PATIENCE
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "virt-exportserver", ""

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def _respond(self) -> None:
        try:
            self._route()
        except _Failure as error:
            self._text(error.status, str(error))
        except Unreadable as error:
            self._text(404, str(error))

    def _route(self) -> None:
        parts = urlsplit(self.path)
        tokens = [*parse_qs(parts.query).get(exports.TOKEN_HEADER, ()), *self.headers.get_all(exports.TOKEN_HEADER, ())]
        if not self.served.may(tokens):
            raise _Failure(401, f"send the token of the export in the header {exports.TOKEN_HEADER}")
        # Names of files may be any bytes
        names = [os.fsdecode(unquote_to_bytes(name)) for name in parts.path.split("/")[1:]]
        match names:
            case ["volumes", name, *rest] if name in self.served.volumes:
                self._volume(self.served.volumes[name], rest)
            case [exports.INTERNAL | exports.EXTERNAL as link, "manifests", "all"]:
                self._manifest(link)
            case [exports.INTERNAL | exports.EXTERNAL, "manifests", "secret"]:
                self._objects([self._header_secret()])
            case _:
                raise _Failure(404, f"nothing at {parts.path}")

    def _volume(self, volume: Volume, names: list[str]) -> None:
        match names:
            case ["disk.img"] if volume.is_disk:
                with volume.disk() as file:
                    self._file(file)
            case ["disk.img.gz"] if volume.is_disk:
                with volume.disk() as file:
                    self._stream(gzipped(file.read(0, file.size)), "application/gzip")
            case ["disk.tar.gz"] if not volume.is_disk:
                self._stream(gzipped(volume.archive()), "application/gzip")
            case ["dir", *rest] if not volume.is_disk:
                self._found(volume, rest)
            case _:
                raise _Failure(404, "the volume isn't available in this format")

    def _found(self, volume: Volume, names: list[str]) -> None:
        with volume.find(name for name in names if name) as file:
            if not file.is_folder:
                self._file(file)
            elif names and names[-1]:
                self.send_response(301)
                self.send_header("Location", f"{quote(os.fsencode(names[-1]))}/")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                entries = [name + "/" * is_folder for name, is_folder in file.names()]
                lines = [f'<a href="{quote(os.fsencode(entry))}">{html.escape(entry)}</a>' for entry in entries]
                self._send(200, os.fsencode("\n".join(["<pre>", *lines, "</pre>", ""])), "text/html; charset=utf-8")

    def _file(self, file: File) -> None:
        """Send a file, or the part of it that is asked for (RFC 9110, section 14)."""
        if file.is_folder:
            raise _Failure(404, "it is a folder")
        start, end, status = 0, file.size, 200
        wanted = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if wanted and any(wanted.groups()) and self.headers.get("If-Range", file.tag) == file.tag:
            first, last = wanted.groups()
            if first:
                start, end = int(first), min(file.size, int(last) + 1) if last else file.size
            else:
                start = max(0, file.size - int(last))
            status = 206
        headers = {"Accept-Ranges": "bytes", "ETag": file.tag, "Content-Type": _BYTES}
        if status == 206 and not start < end:
            self._send(416, b"", _BYTES, {"Content-Range": f"bytes */{file.size}"})
            return
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        self._download(status, {**headers, "Content-Length": str(end - start)}, file.read(start, end))

    def _stream(self, pieces: Iterator[bytes], content_type: str) -> None:
        """Send what nobody knows the length of."""
        is_old = self.request_version == "HTTP/1.0"
        framing = {"Connection": "close"} if is_old else {"Transfer-Encoding": "chunked"}
        headers = {"Accept-Ranges": "none", "Content-Type": content_type, **framing}
        self._download(200, headers, pieces if is_old else _chunks(pieces))

    def _download(self, status: int, headers: Mapping[str, str], pieces: Iterator[bytes]) -> None:
        if not self.served.downloads.acquire(blocking=False):
            raise _Failure(503, f"too many downloads ({DOWNLOADS}); try again later")
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            for piece in pieces:
                self.wfile.write(piece)
                self.served.sent += len(piece)
        except (OSError, Unreadable) as error:
            # A client takes what ends too early for what it is only if the connection ends with it
            self.close_connection = True
            log.warning("a download was interrupted: %s", error, extra={"path": urlsplit(self.path).path})
        finally:
            self.served.downloads.release()

    def _manifest(self, link: str) -> None:
        try:
            objects = json.loads((self.served.manifests / link).read_text())
        except FileNotFoundError:
            raise _Failure(404, f"the export has no {link} manifests") from None
        self._objects(objects["items"])

    def _header_secret(self) -> Mapping[str, Any]:
        token = self.served.token.read_text().strip()
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": exports.header_secret(self.served.name)},
            "stringData": {"token": f"{exports.TOKEN_HEADER}:{token}"},
        }

    def _objects(self, objects: Iterable[Mapping[str, Any]]) -> None:
        if self.headers.get("Accept") == "application/yaml":
            # YAML contains JSON; kubectl takes for a stream of that what begins like it
            text = "".join(f"---\n{json.dumps(obj, indent=2)}\n" for obj in objects)
            self._send(200, text.encode(), "application/yaml")
            return
        body = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)}
        self._send(200, json.dumps(body, indent=4).encode(), "application/json")

    def _text(self, status: int, message: str) -> None:
        self._send(status, f"{message}\n".encode(errors="backslashreplace"), "text/plain; charset=utf-8")

    def _send(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log a request without its query, which may have the token."""
        status = getattr(code, "value", code)
        log.info("request", extra={"method": self.command, "path": urlsplit(self.path).path, "status": status})

    def log_message(self, format: str, *args: Any) -> None:
        """Log what else the server has to say."""
        log.debug(format, *args)


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Frame pieces (RFC 9112, section 7.1)."""
    for piece in pieces:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
