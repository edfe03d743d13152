# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the node: logs and sessions of Pods as file descriptors, which the Pod runner hands over.

The protocol is described in :mod:`turtles.standalone.podrunner.streams`, at the other end of the socket.
"""

import asyncio
import errno
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turtles.standalone.apiserver.wire.errors import Object, StatusError, internal

_MAX_MESSAGE = 64 << 10
_SECONDS = 60.0
CHUNK = 32 << 10


class Descriptor:
    """A pipe, socket or terminal that coroutines read and write. The owner closes it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)

    async def read(self, size: int = CHUNK) -> bytes:
        """Return what is there, at least a byte; nothing at the end.

        :raises OSError: it can't be read.
        """
        while True:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                await self.ready(True)
            except OSError as error:
                # A terminal's end and a connection that was reset.
                if error.errno in (errno.EIO, errno.ECONNRESET):
                    return b""
                raise

    async def write(self, data: bytes) -> bool:
        """Write all of ``data``; False when no one reads it any longer."""
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                await self.ready(False)
            except OSError:
                return False
        return True

    async def ready(self, reading: bool) -> None:
        """Wait until something can be read, or written."""
        loop = asyncio.get_running_loop()
        happened: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not happened.done():
                happened.set_result(None)

        add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
        # Reading and writing may wait at the same time, each on a descriptor of its own.
        own = os.dup(self.fd)
        add(own, wake)
        try:
            await happened
        finally:
            remove(own)
            os.close(own)

    def resize(self, width: int, height: int) -> None:
        """Set a terminal's size in characters (TIOCSWINSZ, ioctl_tty(2))."""
        if 0 <= width < 65536 and 0 <= height < 65536:
            fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def end_writing(self) -> None:
        """Tell a socket's other end that nothing more comes."""
        with socket.socket(fileno=os.dup(self.fd)) as sock:
            try:
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def close(self) -> None:
        """Close it; nothing to do the second time."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Control:
    """The connection on which the forking process tells of a command's start and end."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._sock = socket.socket(fileno=os.dup(descriptor.fd))
        self._sock.setblocking(False)

    async def message(self) -> tuple[Object, list[Descriptor]]:
        """Return the next message, and descriptors that come with it; an empty message at the end."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, _MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                await self._descriptor.ready(True)
                continue
            except OSError:
                return {}, []
            return (json.loads(data) if data else {}), [Descriptor(fd) for fd in fds]

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
        self._descriptor.close()


class Node:
    """Asks the nodes.

    :param paths: the nodes' sockets by their names; that of "" is every other node's.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    async def ask(self, operation: str, pod: Object, **request: Any) -> list[Descriptor]:
        """Return the descriptors that the node hands over for an operation on a Pod.

        :raises StatusError: what the node says is wrong; 500 when it doesn't answer, 503 when there is none.
        """
        _, descriptors = await self._request(operation, pod, request)
        return descriptors

    async def ask_named(self, operation: str, pod: Object, **request: Any) -> dict[str, Descriptor]:
        """Return the descriptors that the node hands over by the names that it gives them; as :meth:`ask`."""
        answer, descriptors = await self._request(operation, pod, request)
        return dict(zip(answer["streams"], descriptors, strict=True))

    async def _request(self, operation: str, pod: Object, request: Object) -> tuple[Object, list[Descriptor]]:
        name = (pod.get("spec") or {}).get("nodeName") or ""
        path = self._paths.get(name) or self._paths.get("")
        if path is None:
            raise StatusError(503, "ServiceUnavailable", "this API server was started without --node-socket")
        body = {"op": operation, "uid": pod["metadata"]["uid"], **request}
        try:
            answer, fds = await asyncio.to_thread(_ask, path, json.dumps(body).encode())
        except (OSError, ValueError) as error:
            raise internal(f"the Pod runner of node {name} does not answer: {error}") from None
        if "error" in answer:
            why = answer["error"]
            raise StatusError(why["code"], why["reason"], why["message"])
        return answer, [Descriptor(fd) for fd in fds]


def _ask(path: Path, request: bytes) -> tuple[Object, list[int]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_SECONDS)
        sock.connect(str(path))
        sock.send(request)
        data, fds, _, _ = socket.recv_fds(sock, _MAX_MESSAGE, 8, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionError("it hung up")
        return dict(json.loads(data)), fds
