# SPDX-License-Identifier: GPL-3.0-or-later
"""From a client that sends a disk image to the disk on a claim: an HTTPS server for one upload.

It serves virt-api alone, which has verified the client's token (`turtles.api.uploads`). One image at a time is taken.
An upload that breaks off, or whose image can't be used, leaves nothing behind, and the next one may come. The process
ends when there is a disk. h11 speaks HTTP; connections have threads, and the main thread imports, so that a signal
ends it.
"""

import contextlib
import logging
import queue
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h11
from cryptography import x509
from cryptography.x509.oid import NameOID

from turtles import endpoint, pki
from turtles.api import node_server, uploads
from turtles.importer import http
from turtles.importer.errors import ImportFailed, ImportRefused, SourceChanged
from turtles.importer.folder import Folder
from turtles.importer.progress import Progress
from turtles.importer.request import Request
from turtles.importer.target import Target
from turtles.importer.transfer import Version

log = logging.getLogger(__name__)

#: What the content is called in messages.
_NAME = "the upload"
_HEAD, _CHUNK = 16 << 10, 256 << 10
#: Seconds that a client may take for its handshake and its request, and may be silent within an upload.
_PATIENCE, _SILENCE = 10.0, 60.0
#: Seconds for which a client that has been refused may go on sending, until it reads why.
_LINGER = 10.0
#: What h11 gives.
_Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]
_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]


@dataclass(frozen=True)
class Job:
    """What to import.

    :param identity: folder with tls.crt and tls.key, which the server shows, and ca.crt, by which it knows virt-api.
    :param scratch: a folder for scratch data.
    :param timeout: seconds that an upload may take.
    :param port: to listen on; 0 takes a free one.
    :param folder: where the files of an archive go, if archives are taken and not images.
    """

    target: Callable[[], Target]
    identity: Path
    scratch: Path
    timeout: int
    port: int = uploads.PORT
    folder: Folder | None = None


class Broken(SourceChanged):
    """The client is gone, or silent."""


def run(job: Job, progress: Progress, ready: Callable[[int], None]) -> None:
    """Serve until there is a disk.

    :param ready: called with the port when images are taken.
    :raises ImportFailed: the image that a client has sent can't be used, and the client isn't there to be told.
    """
    with endpoint.listen("", job.port) as listener:
        server = _Server(listener, job.identity, is_for_archives=job.folder is not None)
        ready(listener.getsockname()[1])
        while (refusal := _take(job, progress, upload := server.next())) is not None:
            # Who is refused may come again at once.
            server.free()
            upload.answer(*refusal)


def _take(job: Job, progress: Progress, upload: "_Upload") -> tuple[int, str] | None:
    """Import what a client sends; return None if there is a disk now, else what is to be answered."""
    signal.alarm(job.timeout)
    progress.restart()
    try:
        transfer = http.Job(Request(_NAME), job.target(), scratch=job.scratch, folder=job.folder)
        http.run(transfer, progress, lambda request, limit: upload.begin(limit))
    except ImportFailed as error:
        log.error("%s", error)
        if upload.is_answered:
            raise
        return 400 if isinstance(error, ImportRefused) else 500, str(error)
    finally:
        signal.alarm(0)
    upload.answer(200, "")
    return None


class _Server:
    """Accepts connections, and gives the main thread the one with an image."""

    def __init__(self, listener: socket.socket, identity: Path, *, is_for_archives: bool) -> None:
        bundle = (identity / "ca.crt").read_text()
        self._authorities = x509.load_pem_x509_certificates(bundle.encode())
        self._context = endpoint.server_context()
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(cadata=bundle)
        endpoint.load(self._context, (identity / "tls.crt").read_text(), (identity / "tls.key").read_text())
        self._listener = listener
        self._paths = (uploads.ARCHIVE_PATH,) if is_for_archives else (uploads.PATH, uploads.ASYNC_PATH)
        self._busy = threading.Lock()
        self._uploads: queue.SimpleQueue[_Upload] = queue.SimpleQueue()
        threading.Thread(target=self._accept, name="uploads", daemon=True).start()

    def next(self) -> "_Upload":
        """Wait for a client that sends an image. No other may until :meth:`free`."""
        return self._uploads.get()

    def free(self) -> None:
        """Let the next one come."""
        self._busy.release()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        stream = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        try:
            stream.do_handshake()
            upload = _Upload(stream)
            if not self._knows(stream.getpeercert(binary_form=True)):
                upload.answer(403, "only virt-api may upload")
            elif upload.path not in uploads.PATHS:
                upload.answer(404, f"unknown path {upload.path}")
            elif upload.path not in self._paths:
                upload.answer(400, _wrong_content(upload.path))
            elif upload.method != "POST":
                upload.answer(405, "use POST to send an image")
            elif not self._busy.acquire(blocking=False):
                upload.answer(503, "another upload into this claim is in progress")
            else:
                self._uploads.put(upload)
        except (OSError, h11.ProtocolError) as error:
            log.debug("a client failed: %r", error)
            stream.close()

    def _knows(self, der: bytes | None) -> bool:
        if der is None:
            return False
        certificate = x509.load_der_x509_certificate(der)
        names = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return names == [node_server.CLIENT] and any(
            pki.is_issued_by(certificate, authority) for authority in self._authorities
        )


def _wrong_content(path: str) -> str:
    if path == uploads.ARCHIVE_PATH:
        return "this claim takes a disk image, and no archive: its contentType is kubevirt"
    return f"this claim takes an archive, sent to {uploads.ARCHIVE_PATH}, and no disk image: its contentType is archive"


class _Upload:
    """A client's request: its body is the image, in pieces.

    :raises h11.ProtocolError: it isn't a request. :raises OSError: the client is gone.
    """

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream, self._limit = stream, 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
        head = self._event()
        if not isinstance(head, h11.Request):
            raise h11.RemoteProtocolError("not a request")
        self.method, self.path = head.method.decode(), head.target.decode("ascii", "replace").partition("?")[0]
        length = dict(head.headers).get(b"content-length")
        #: How many bytes are there; how many there are in all, if the client says so.
        self.position = 0
        self.version: Version | None = Version(total=int(length) if length is not None else None)
        self.is_answered = False

    def begin(self, limit: int) -> "_Upload":
        """Set how many bytes there may be.

        :raises ImportRefused: there are more, and the client says so.
        """
        self._limit = limit
        self._stream.settimeout(_SILENCE)
        self._check(self.version.total or 0 if self.version else 0)
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Give the body. After the last piece a client is answered that doesn't want to wait for the disk.

        :raises Broken: the client is gone, or silent. :raises ImportRefused: it sends too much.
        """
        while not isinstance(event := self._next(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise Broken("the client ended the upload")
            self.position += len(event.data)
            self._check(self.position)
            yield bytes(event.data)
        if self.path == uploads.ASYNC_PATH:
            self.answer(200, "")

    def answer(self, status: int, text: str) -> None:
        """Answer once, and end the connection. A client that is gone isn't told."""
        if self.is_answered:
            return
        self.is_answered = True
        body = text.encode()
        headers = [*_TEXT, ("Content-Length", str(len(body)))]
        with contextlib.suppress(OSError, h11.LocalProtocolError):
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self._stream.sendall(self._http.send(event) or b"")
        threading.Thread(target=self._linger, daemon=True).start()

    def _check(self, count: int) -> None:
        if count > self._limit:
            raise ImportRefused(
                f"{_NAME} has {'at least ' if count == self.position else ''}{count} bytes, more than the "
                f"{self._limit} that a disk of this size can come from; a larger PVC is required"
            )

    def _next(self) -> _Event:
        try:
            return self._event()
        except (OSError, h11.RemoteProtocolError) as error:
            raise Broken(f"{_NAME} was interrupted after {self.position} bytes") from error

    def _event(self) -> _Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                ready = h11.InformationalResponse(status_code=100, headers=[])
                self._stream.sendall(self._http.send(ready) or b"")
            self._http.receive_data(self._stream.recv(_CHUNK))
        return event

    def _linger(self) -> None:
        """Let a client read the answer: a connection that is closed while it sends would be reset."""
        deadline = time.monotonic() + _LINGER
        with contextlib.suppress(OSError):
            self._stream.settimeout(_LINGER)
            self._stream.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and self._stream.recv(_CHUNK):
                pass
        with contextlib.suppress(OSError):
            self._stream.close()
