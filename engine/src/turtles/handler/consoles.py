# SPDX-License-Identifier: GPL-3.0-or-later
"""Connects users to a guest's serial console and screen: sockets of QEMU in the guest's Pod.

Each of the two has one session. A new one ends the one before, unless its user asks to leave that alone.
"""

import asyncio
import contextlib
import logging
import socket
from pathlib import PurePosixPath

from turtles.api import node_server
from turtles.domain import paths
from turtles.handler.errors import OperationFailed
from turtles.handler.guest import Guest

log = logging.getLogger(__name__)

#: How many bytes are read at once.
_CHUNK = 65536
_NAMES = {node_server.CONSOLE: "serial console", node_server.VNC: "VNC"}


class _Session:
    """One user at one device."""

    def __init__(self) -> None:
        self._stop, self._ended = asyncio.Event(), asyncio.Event()

    async def end(self) -> None:
        """End it; return when the device is free."""
        self._stop.set()
        await self._ended.wait()

    async def run(self, device: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between the device and the user until either has enough, or it is ended."""
        try:
            device_reader, device_writer = await asyncio.open_unix_connection(sock=device)
            tasks = [
                asyncio.ensure_future(_copy(device_reader, writer)),
                asyncio.ensure_future(_copy(reader, device_writer)),
                asyncio.ensure_future(self._stop.wait()),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                device_writer.transport.abort()
        finally:
            self._ended.set()


class Consoles:
    """The sessions of a node's guests. Everything happens on one event loop."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}

    async def connect(self, guest: Guest, stream: str, *, preserve: bool) -> socket.socket:
        """Connect to a guest's device, after ending the session that there may be.

        :param preserve: leave that session alone.
        :raises OperationFailed: it isn't possible.
        """
        session = self._sessions.get((guest.uid, stream))
        if session is not None:
            if preserve:
                raise OperationFailed(409, f"Active {_NAMES[stream]} connection. Request denied.")
            await session.end()
        launcher = guest.launcher
        try:
            if launcher is None:
                raise FileNotFoundError("the guest has no launcher")
            return await asyncio.to_thread(launcher.connect, _socket(guest.uid, stream))
        except OSError as error:
            message = f"the guest's {_socket(guest.uid, stream).name} can't be reached: {error}"
            raise OperationFailed(503, message) from error

    async def run(
        self,
        guest: Guest,
        stream: str,
        device: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Run a session over a connected device."""
        key, session = (guest.uid, stream), _Session()
        try:
            if stream in _NAMES:
                # Somebody else may have connected at the same moment
                other, self._sessions[key] = self._sessions.get(key), session
                if other is not None:
                    await other.end()
            await session.run(device, reader, writer)
        finally:
            if self._sessions.get(key) is session:
                del self._sessions[key]


def _socket(uid: str, stream: str) -> PurePosixPath:
    return paths.serial_socket(uid) if stream == node_server.CONSOLE else paths.vnc_socket(uid)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
