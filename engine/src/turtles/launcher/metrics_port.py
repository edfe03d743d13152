# SPDX-License-Identifier: GPL-3.0-or-later
"""A port on which guests ask for metrics of the node and of the machine (vm-dump-metrics --virtio).

Protocol: vhostmd's on its virtio channel. The guest writes ``GET /metrics/XML`` and an empty line, and gets the XML
document and an empty line. QEMU listens on the socket; one program of the guest can have the port open.
"""

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.launcher import loop, metrics

log = logging.getLogger(__name__)

_REQUEST = b"GET /metrics/XML"
_INVALID = b"INVALID REQUEST\n\n"
#: Longest request, with its empty line.
_LONGEST = 1024
#: Seconds after an answer until the next request is read: guests aren't trusted to ask seldom.
_PAUSE = 1.0


class MetricsPort:
    """The port of one machine.

    :param path: of QEMU's socket. :param vmi: whose metrics are asked for.
    """

    def __init__(self, path: Path, vmi: Mapping[str, Any]) -> None:
        self._path, self._vmi = path, vmi
        self._connection: socket.socket | None = None
        self._received = b""

    def open(self) -> None:
        """Connect, unless that is done; to be called when QEMU may have started."""
        if self._connection is not None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return
        self._connection, self._received = connection, b""
        self._wait()

    def _wait(self) -> None:
        """Answer what was received, or wait for more."""
        if self._connection is None:
            return
        reply = self._reply()
        if reply is None:
            self._stop_waiting = loop.on_readable(self._connection.fileno(), self._on_readable)
        elif self._is_taken(reply):
            loop.after(_PAUSE, self._wait)
        else:
            log.warning("the guest doesn't read its metrics")
            self._close()
            loop.after(_PAUSE, self.open)

    def _on_readable(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._stop_waiting()
        if data:
            self._received += data
            self._wait()
        else:
            self._close()

    def _reply(self) -> bytes | None:
        """Return the answer to what was received; None if the request isn't whole."""
        request, complete, rest = self._received.replace(b"\r\n", b"\n").partition(b"\n")
        if complete and rest.startswith(b"\n"):
            self._received = rest[1:]
            return self._document() if request == _REQUEST else _INVALID
        if (complete and rest) or len(self._received) > _LONGEST:
            # What is left of a request that is none must not spoil the next one
            self._received = b""
            return _INVALID
        return None

    def _document(self) -> bytes:
        return metrics.document(self._vmi, time.time()) + b"\n\n"

    def _is_taken(self, reply: bytes) -> bool:
        assert self._connection is not None
        try:
            return self._connection.send(reply) == len(reply)
        except OSError:
            return False

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
