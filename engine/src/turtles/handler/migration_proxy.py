# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries what passes between the launchers of a migrating guest from one node's virt-handler to another's, over TLS.

Each virt-handler listens on one port. Where that is, and the certificate by which the other side recognises it, as a
server and as a client, are in an annotation of its node's object, which only virt-handler and administrators write. A
guest is expected from one node, and only that one's certificate is accepted for it:

    source's launcher → Unix socket → its virt-handler → TLS → target's virt-handler → Unix socket → target's launcher

The first line on a connection is JSON: the migration's uid, and which of its channels this is. Where it asks for that,
an empty line comes back once the connection to the launcher is there.
"""

import contextlib
import errno
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from turtles import endpoint, pki
from turtles.api.node_server import Endpoint
from turtles.api.texts import from_json
from turtles.handler.tunnel import carry

log = logging.getLogger(__name__)

#: Channels: to the target's libvirtd, and to its QEMU for memory and for disks.
LIBVIRTD, MEMORY, DISKS = "libvirtd", "memory", "disks"
CHANNELS = (LIBVIRTD, MEMORY, DISKS)

#: Lifetime of the process's certificate, which exists only in its memory: longer than any process lives.
_LIFETIME = timedelta(days=3650)
#: Seconds that a connection and its first line may take.
_PATIENCE = 10.0
_LONGEST_LINE = 1024
#: Connections that have not said yet which migration they are of.
_MOST_UNKNOWN = 64
#: Connections of one guest: to libvirtd, for memory (QEMU's threads of a migration are at most 255) and for each disk.
#: Its Pod makes them, and each takes a thread of this process and of the other node's.
_MOST_OF_ONE = 320
#: What accept(2) says of a socket that was shut down or closed, and seconds until the next try for all else.
_SHUT_DOWN, _PAUSE = (errno.EINVAL, errno.EBADF), 0.5

#: Connects to where a channel leads in the target's launcher; raises OSError.
Connect = Callable[[str], socket.socket]


@dataclass(frozen=True)
class _Expected:
    """A guest that may come.

    :param certificate: of the node that it comes from, in DER.
    :param places: for its connections.
    """

    certificate: bytes
    connect: Connect
    places: threading.BoundedSemaphore


class MigrationProxy:
    """One node's end. Each connection has a thread."""

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
        self._unknown = threading.BoundedSemaphore(_MOST_UNKNOWN)
        threading.Thread(target=self._listen, name="migration-proxy", daemon=True).start()

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
        before = self._expected.get(uid)
        places = threading.BoundedSemaphore(_MOST_OF_ONE) if before is None else before.places
        self._expected[uid] = _Expected(certificate.public_bytes(Encoding.DER), connect, places)

    def is_expected(self, uid: str) -> bool:
        """Say whether a guest may come."""
        return uid in self._expected

    def forget(self, uid: str) -> None:
        """Let a guest come no more. Connections that there are stay."""
        self._expected.pop(uid, None)

    def lead(
        self, uid: str, target: Endpoint, listeners: Mapping[str, socket.socket], *, in_order: bool = False
    ) -> "Lead":
        """Lead what connects to listening sockets to a target. From any thread.

        :param uid: the migration's.
        :param listeners: sockets by the channels that they stand for; they are closed in the end.
        :param in_order: connections of a channel arrive in the order of those here: QEMU before 8.0 tells the one that
            has all but memory from others by that.
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
        return Lead(uid, target, context, listeners, in_order=in_order)

    def close(self) -> None:
        """Take no more connections; those that there are stay."""
        _shut(self._listener)

    def _listen(self) -> None:
        for connection in _accepted(self._listener):
            if not self._unknown.acquire(blocking=False):
                log.warning("a connection of a migration is refused: %d others are being checked", _MOST_UNKNOWN)
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="migration-target", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            try:
                try:
                    there, here, first = self._admit(connection, stack)
                finally:
                    self._unknown.release()
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("a connection of a migration is refused: %s", error)
                return
            try:
                carry(here, there, first)
            except OSError as error:
                log.info("a connection of a migration broke: %s", error)

    def _admit(
        self, connection: socket.socket, stack: contextlib.ExitStack
    ) -> tuple[ssl.SSLSocket, socket.socket, bytes]:
        """Return a connection's TLS, where it leads, and what was received of it already.

        :raises OSError: it broke, or took too long. :raises ValueError, KeyError, TypeError: nobody expects it.
        """
        connection.settimeout(_PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there = stack.enter_context(self._context.wrap_socket(connection, server_side=True))
        line, first = _read_line(there)
        asked = from_json(line)
        expected = self._expected.get(str(asked["migration"]))
        shown = there.getpeercert(binary_form=True)
        if expected is None or shown != expected.certificate or asked["channel"] not in CHANNELS:
            raise ValueError("no connection is expected from this address")
        if not expected.places.acquire(blocking=False):
            raise ValueError(f"the guest has {_MOST_OF_ONE} connections already")
        stack.callback(expected.places.release)
        here = stack.enter_context(expected.connect(asked["channel"]))
        if asked.get("answer"):
            there.sendall(b"\n")
        return there, here, first


class Lead:
    """The way of one guest to its target. It is open until it is closed."""

    def __init__(
        self,
        uid: str,
        target: Endpoint,
        context: ssl.SSLContext,
        listeners: Mapping[str, socket.socket],
        *,
        in_order: bool,
    ) -> None:
        self._uid, self._target, self._context, self._listeners = uid, target, context, listeners
        self._in_order = in_order
        self._connections: set[socket.socket] = set()
        self._closed, self._lock = False, threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_OF_ONE)
        #: Why a connection to the target failed, if one did.
        self.error = ""
        for channel, listener in listeners.items():
            threading.Thread(target=self._listen, args=(channel, listener), name="migration-way", daemon=True).start()

    def close(self) -> None:
        """Listen no more and end all connections. From any thread."""
        with self._lock:
            self._closed = True
            _shut(*self._listeners.values(), *self._connections)

    def _listen(self, channel: str, listener: socket.socket) -> None:
        for here in _accepted(listener):
            if not self._places.acquire(blocking=False):
                here.close()
                continue
            there = self._connected(channel, here) if self._in_order else None
            if there is None and self._in_order:
                self._places.release()
                continue
            threading.Thread(
                target=self._serve, args=(channel, here, there), name="migration-source", daemon=True
            ).start()

    def _connected(self, channel: str, here: socket.socket) -> ssl.SSLSocket | None:
        """Return a connection to the target; None if there is none, and then *here* is closed."""
        try:
            return self._connect(channel)
        except OSError as error:
            where = f"{self._target.host}:{self._target.port}"
            self.error = f"the target's virt-handler at {where} can't be reached: {error or type(error).__name__}"
            here.close()  # after that: whoever sees the end may ask why
            log.warning("%s", self.error, extra={"migration": self._uid, "channel": channel})
            return None

    def _serve(self, channel: str, here: socket.socket, there: ssl.SSLSocket | None) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._places.release)
            stack.enter_context(here)
            there = there or self._connected(channel, here)
            if there is None:
                return
            with there, self._tracked(here, there), contextlib.suppress(OSError):  # libvirt says what that means
                carry(here, there)

    @contextlib.contextmanager
    def _tracked(self, *connections: socket.socket) -> Iterator[None]:
        """End connections when this is closed."""
        with self._lock:
            self._connections.update(connections)
            if self._closed:
                _shut(*connections)
        try:
            yield
        finally:
            with self._lock:
                self._connections.difference_update(connections)

    def _connect(self, channel: str) -> ssl.SSLSocket:
        connection = socket.create_connection((self._target.host, self._target.port), _PATIENCE)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            there = self._context.wrap_socket(connection)
            first = {"migration": self._uid, "channel": channel, "answer": self._in_order}
            there.sendall(json.dumps(first).encode() + b"\n")
            if self._in_order and there.recv(1) != b"\n":
                raise OSError("it doesn't answer")
        except BaseException:
            connection.close()
            raise
        return there


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield who connects, until the listening socket is shut down."""
    listener.setblocking(True)
    with listener:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno in _SHUT_DOWN:
                    return
                log.warning("a connection of a migration can't be accepted: %s", error)
                time.sleep(_PAUSE)  # no descriptor is free, say
                continue
            yield connection


def _shut(*sockets: socket.socket) -> None:
    """Have those who wait for sockets go on, from another thread.

    Below TLS, of which nothing may be touched while somebody else uses it.
    """
    for each in sockets:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(each, socket.SHUT_RDWR)


def _read_line(connection: ssl.SSLSocket) -> tuple[bytes, bytes]:
    """Return the first line on a connection, and what came after it.

    :raises OSError: it broke, or took too long. :raises ValueError: it is too long.
    """
    received = b""
    while b"\n" not in received:
        if len(received) > _LONGEST_LINE:
            raise ValueError("the first line is too long")
        data = connection.recv(_LONGEST_LINE)
        if not data:
            raise ValueError("the first line is missing")
        received += data
    line, _, rest = received.partition(b"\n")
    return line, rest
