# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries bytes between a socket of this node and a TLS connection to another one.

A thread carries both directions of one connection, without ever blocking in either: what a guest's downtime consists of
passes here, and OpenSSL works outside Python's lock.
"""

import contextlib
import select
import socket
import ssl

#: Bytes that are read at once, and at most on their way in each direction.
CHUNK = 256 * 1024
#: Seconds that the other side has to take what it was sent.
_FAREWELL = 10.0
#: What there is nothing to read, or no room to write, is told by.
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Direction:
    """Bytes on their way from one socket to another."""

    def __init__(self, source: socket.socket, target: socket.socket, first: bytes = b"") -> None:
        self.source, self.target = source, target
        self._buffer = memoryview(bytearray(CHUNK))
        self._pending = memoryview(first)
        self._ended = False

    def move(self) -> bool:
        """Carry what can be carried now; say whether that was anything."""
        moved = not self._pending and not self._ended and self._read()
        return self._write() or moved

    @property
    def done(self) -> bool:
        """Whether the source has ended, and all that it sent was delivered."""
        return self._ended and not self._pending

    @property
    def is_full(self) -> bool:
        """Whether the target has to take something before anything else is read."""
        return bool(self._pending)

    def _read(self) -> bool:
        count = 0
        # A TLS connection gives one record at a time
        with contextlib.suppress(*_NOT_NOW):
            while count < CHUNK:
                received = self.source.recv_into(self._buffer[count:])
                if not received:
                    self._ended = True
                    break
                count += received
        self._pending = self._buffer[:count]
        return count > 0 or self._ended

    def _write(self) -> bool:
        moved = False
        with contextlib.suppress(*_NOT_NOW):
            while self._pending:
                self._pending = self._pending[self.target.send(self._pending) :]
                moved = True
        return moved


def carry(here: socket.socket, there: socket.socket, first: bytes = b"") -> None:
    """Carry bytes in both directions until either end has enough; what was sent until then still arrives.

    :param here: a socket of this node. :param there: a TLS connection. Both are left open.
    :param first: what was received from *there* already.
    :raises OSError: a connection broke.
    """
    here.setblocking(False)
    there.setblocking(False)
    outgoing, incoming = _Direction(here, there), _Direction(there, here, first)
    while not (outgoing.done or incoming.done):
        if outgoing.move() | incoming.move():
            continue
        poll = select.poll()
        poll.register(here, _events(outgoing, incoming))
        # TLS may have to write in order to read, but neither renegotiates
        poll.register(there, _events(incoming, outgoing))
        poll.poll()
    if outgoing.done:
        _say_farewell(there)


def _say_farewell(there: socket.socket) -> None:
    """Let the other side have what was sent: a socket that is closed with something unread takes that back."""
    with contextlib.suppress(OSError):
        # Below TLS: the other side takes the end of the connection for the end
        socket.socket.shutdown(there, socket.SHUT_WR)
        there.settimeout(_FAREWELL)
        while there.recv(CHUNK):
            pass


def _events(reads: _Direction, writes: _Direction) -> int:
    """Return what to wait for at a socket: *reads* comes from it, *writes* goes to it."""
    return (0 if reads.is_full else select.POLLIN) | (select.POLLOUT if writes.is_full else 0)
