# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket of the forking process: requests as JSON, with descriptors, one per connection."""

import array
import contextlib
import errno
import json
import logging
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 1024


class Listener:
    """Listens at a socket of type SOCK_SEQPACKET, in place of an earlier process that did.

    :param handle: gets connection, request and descriptors, which are closed afterwards; it is to :func:`reply`.
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        handle: Callable[[socket.socket, dict[str, Any], list[int]], None],
    ) -> None:
        self._path, self._selector, self._handle = path, selector, handle
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.unlink(missing_ok=True)
        self._listener.bind(str(temporary))
        temporary.chmod(0o600)
        self._listener.listen(64)
        status = temporary.stat()
        self._socket = status.st_dev, status.st_ino
        temporary.rename(path)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        #: Given up for a moment where no more files can be opened.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop listening."""
        self._remove_socket()
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, _: Any) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return
        self._selector.register(client, selectors.EVENT_READ, self._serve)

    def _turn_away(self) -> None:
        """Close a connection that can't be served: the podrunner tries again. Left waiting it would wake us forever."""
        log.error("a request is refused: too many files are open (raise the limit, LimitNOFILE in systemd)")
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        fds = array.array("i")
        message = b""
        try:
            message, ancillary, _flags, _address = client.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(8 * fds.itemsize))
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if message:
                self._handle(client, json.loads(message), list(fds))
                return
        except Exception as error:
            log.exception("request failed")
            reply(client, {"error": f"{type(error).__name__}: {error}"})
        finally:
            for fd in fds:
                os.close(fd)
        client.close()

    def _remove_socket(self) -> None:
        """Remove the socket, unless a successor that got no answer in time has put its own in its place.

        To be called before it is closed, which frees its inode for the next one.
        """
        with contextlib.suppress(FileNotFoundError):
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._socket:
                self._path.unlink(missing_ok=True)


def reply(client: socket.socket, answer: dict[str, Any]) -> None:
    """Answer a request, and close its connection."""
    # A podrunner that is gone reads state.json instead.
    with contextlib.suppress(OSError):
        client.send(json.dumps(answer).encode())
    client.close()
